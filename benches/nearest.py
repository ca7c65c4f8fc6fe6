#!/usr/bin/env python3
"""The nearest shut out, beside hnswlib and FAISS: the time of a query at equal recall, in one run on one thread.

    nearest.py --base base.npy --users query.npy [--sizes 0,10,100,1000,5000,10000,100000] [--out FILE.json]

Arrays as `serve.py` takes them, compared by inner product. For each size: what is nearest to a query may not come back
to it, another set for every query, made before the clock starts; and each library is measured at its narrowest width
that finds `--recall` of the ten best of the rest. hnswlib (M 16, ef_construction 200) has them marked as deleted, which
is its own compiled way (a Python filter would cost it much more); FAISS (HNSW of the same, and Flat) gets a bitmap
selector. We are measured by `examples/exclusions.rs`, which this runs. Needs numpy, hnswlib and faiss-cpu.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import time

import faiss
import hnswlib
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
QUERIES = 100
K = 10
WIDTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1_000, 1_500, 2_000, 3_000, 5_000, 7_500, 10_000, 15_000, 20_000)


class Hnswlib:
    def __init__(self, base):
        self.index = hnswlib.Index("ip", base.shape[1])
        self.index.init_index(len(base), M=16, ef_construction=200)
        self.index.add_items(base, num_threads=2)

    def within(self, ids):
        return Deleted(self.index, ids)

    def search(self, query, width, _):
        self.index.set_ef(max(width, K))
        # It refuses where it finds fewer than asked for.
        try:
            return self.index.knn_query(query, K, num_threads=1)[0][0]
        except RuntimeError:
            return ()


class Deleted:
    def __init__(self, index, ids):
        self.index, self.ids = index, ids.tolist()

    def __enter__(self):
        for one in self.ids:
            self.index.mark_deleted(one)

    def __exit__(self, *_):
        for one in self.ids:
            self.index.unmark_deleted(one)


class Faiss:
    def __init__(self, base):
        self.n = len(base)
        self.index = faiss.IndexHNSWFlat(base.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
        self.index.hnsw.efConstruction = 200
        self.index.add(base)

    def within(self, ids):
        return Selected(self.n, ids)

    def params(self, width, selector):
        return faiss.SearchParametersHNSW(efSearch=width, sel=selector)

    def search(self, query, width, selector):
        return self.index.search(query[None], K, params=self.params(width, selector))[1][0]


class Flat(Faiss):
    def __init__(self, base):
        self.n = len(base)
        self.index = faiss.IndexFlatIP(base.shape[1])
        self.index.add(base)

    def params(self, width, selector):
        return faiss.SearchParameters(sel=selector)


class Selected:
    def __init__(self, n, ids):
        allowed = np.ones(n, bool)
        allowed[ids] = False
        self.bits = np.packbits(allowed, bitorder="little")
        self.selector = faiss.IDSelectorBitmap(self.bits)

    def __enter__(self):
        return self.selector

    def __exit__(self, *_):
        pass


def answers(library, queries, sets, width):
    """What each query found, and the microseconds of one."""
    found, spent = [], 0.0
    for query, ids in zip(queries, sets):
        with library.within(ids) as selector:
            start = time.perf_counter()
            best = library.search(query, width, selector)
            spent += time.perf_counter() - start
        found.append(set(np.asarray(best).tolist()))
    return found, spent / len(queries) * 1e6


def measured(library, queries, sets, truth, aim, widths):
    """The narrowest width that reaches the recall, and the time of a query there: the best of three rounds."""
    for width in widths:
        found, _ = answers(library, queries, sets, width)
        recall = sum(len(a & b) for a, b in zip(found, truth)) / (K * len(queries))
        if recall >= aim:
            us = min(answers(library, queries, sets, width)[1] for _ in range(3))
            return {"width": width, "recall": recall, "us": round(us, 1)}
    return {"width": width, "recall": recall, "us": None}


def ours(args):
    command = ["cargo", "run", "--release", "--locked", "-q", "-p", "refrain-index", "--example", "exclusions", "--"]
    command = [args.example] if args.example else command
    out = subprocess.run([*command, "ip", args.base, args.users, str(args.recall)], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    found = {}
    for line in out.splitlines():
        if met := re.match(r"(?:the )?(\d+) (nearest|at random) +(\d+) +([\d.]+) +(?:([\d.]+)|not)", line):
            size, which, width, recall, us = met.groups()
            if which == "nearest" or size == "0":
                found[int(size)] = {"width": int(width), "recall": float(recall), "us": us and float(us)}
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True)
    parser.add_argument("--users", required=True)
    parser.add_argument("--sizes", default="0,10,100,1000,5000,10000,100000")
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--example", help="the compiled example, instead of building it")
    parser.add_argument("--out")
    args = parser.parse_args()
    base, queries = np.load(args.base), np.load(args.users)[:QUERIES]
    faiss.omp_set_num_threads(2)
    sizes = [size for size in map(int, args.sizes.split(",")) if size < len(base)]
    report = {"vectors": list(base.shape), "date": time.strftime("%Y-%m-%d"), "recall": args.recall, "refrain": ours(args)}
    order = [np.argsort(-(base @ query), kind="stable")[: sizes[-1] + K] for query in queries]
    for name, make in (("hnswlib", Hnswlib), ("faiss-flat", Flat), ("faiss-hnsw", Faiss)):
        faiss.omp_set_num_threads(2)
        library = make(base)
        faiss.omp_set_num_threads(1)
        report[name] = {}
        for size in sizes:
            sets = [near[:size] for near in order]
            truth = [set(near[size : size + K].tolist()) for near in order]
            widths = WIDTHS if make is not Flat else (1,)
            report[name][size] = measured(library, queries, sets, truth, args.recall, widths)
            print(name, size, report[name][size], file=sys.stderr, flush=True)
        del library
    text = json.dumps(report, indent=1)
    print(text)
    if args.out:
        pathlib.Path(args.out).write_text(text + "\n")


if __name__ == "__main__":
    main()
