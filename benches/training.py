#!/usr/bin/env python3
"""Trains one log with `refrain train` and with `implicit`, interleaved: time, held-out quality, memory, scaling.

    training.py --train train.txt.gz --test test.txt.gz [--factors 64] [--iterations 10] [--rounds 3] [--out FILE.json]
    training.py --train train.txt.gz --scaling 4 --svg cost.svg
    training.py --train train.txt.gz --test test.txt.gz --warm 0.05
    training.py --train train.txt.gz --test test.txt.gz --hyper hyper.json --cuts 10,20,40

Files are `user item item ...` lines or `user,item[,count]` rows, plain or gzip. Both learn the same pairs with the
same factors, iterations, threads and objective: with frequency exponent 0 and unobserved weight w, a confidence of 1
and regularisation r are `alpha = 1 + 1/w` and `regularization = r/w` of implicit. `refrain` is run as a process of
its own and timed whole, reading the log and writing the model included, and also by the difference between two
numbers of iterations; of implicit only `fit` is timed, and likewise the difference. Rounds alternate; medians are
given. Both are judged here by the same code: all items ranked but those that the user has, Recall@20 and NDCG@20
with the ideal cut at min(|test|, 20). `--warm` extends a log from which that share of the pairs was left out, and
compares a training from the earlier model with one from nothing, and a build from the earlier graph with one
from nothing. `--hyper` trains `refrain` alone, with what `refrain tune --out` found, and judges it at several
lengths of the list. `REFRAIN_BIN` names the binary (default target/release/refrain). Needs numpy, scipy; implicit and
threadpoolctl for the comparison, and Linux's /proc for memory.
"""

import argparse
import gzip
import json
import os
import pathlib
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
import scipy.sparse as sp

ROOT = pathlib.Path(__file__).resolve().parents[1]
REFRAIN = os.environ.get("REFRAIN_BIN", str(ROOT / "target" / "release" / "refrain"))
K = 20


def lines(path):
    opener = gzip.open if open(path, "rb").read(2) == b"\x1f\x8b" else open
    with opener(path, "rt", encoding="utf-8") as file:
        yield from file


def read(path):
    """(user, item) pairs, distinct, in the order of their first mention."""
    pairs = {}
    for line in lines(path):
        if "," in line:
            fields = line.rstrip("\n").split(",")
            if fields[0].lstrip("-").isdigit():
                pairs[(int(fields[0]), int(fields[1]))] = None
        else:
            user, *items = line.split()
            for item in items:
                pairs[(int(user), int(item))] = None
    return np.array(list(pairs), dtype=np.int64).reshape(-1, 2)


def write(path, pairs):
    with open(path, "w", encoding="utf-8") as file:
        file.write("user,item\n")
        np.savetxt(file, pairs, fmt="%d", delimiter=",")
    return path


def sections(path):
    """The sections of a section file: docs/format.md, chapter 2."""
    data = memoryview(pathlib.Path(path).read_bytes())
    found = {}
    for at in range(struct.unpack_from("<Q", data, 48)[0]):
        name, _, _, offset, length, _ = struct.unpack_from("<32sIIQQQ", data, 4096 + 64 * at)
        found[name.rstrip(b"\0").decode()] = data[offset : offset + length]
    return found


def factors(model):
    """Factors of a model by the numbers that the log had as ids: rows of numbers not there are zero."""
    found = sections(model / "model.rfs")
    rank = json.loads((model / "model.json").read_text())["model"]["rank"]

    def side(ids, values):
        ends = np.frombuffer(found[f"{ids}.offsets"], dtype="<u8")
        text = bytes(found[f"{ids}.bytes"])
        numbers = [int(text[a:b]) for a, b in zip(ends, ends[1:])]
        rows = np.zeros((max(numbers) + 1, rank), dtype=np.float32)
        rows[numbers] = np.frombuffer(found[values], dtype="<f4").reshape(-1, rank)
        return rows

    return side("users", "user_factors"), side("items", "item_factors")


def run(*arguments):
    """Runs refrain; its document, seconds and peak of resident bytes."""
    started = time.perf_counter()
    child = subprocess.Popen([REFRAIN, "--json", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    peak = [0]
    watch = threading.Thread(target=watch_memory, args=(child.pid, peak))
    watch.start()
    out, err = child.stdout.read(), child.stderr.read()
    child.wait()
    seconds = time.perf_counter() - started
    watch.join()
    if child.returncode:
        sys.exit(err.decode() or out.decode())
    return json.loads(out), seconds, peak[0]


def watch_memory(pid, peak):
    """The most memory that a process had resident. Not by `getrusage`: to that a process begins with the memory of its parent."""
    while True:
        try:
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return
        most = [int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")]
        if not most:
            return
        peak[0] = max(peak[0], *most)
        time.sleep(0.005)


def train(log, out, args, *more, iterations=None):
    return run(
        "train", "--listens", log, "--out", out, "--hold-out", "none", "--rank", args.factors,
        "--iterations", iterations or args.iterations, "--threads", args.threads,
        "--unobserved-weight", args.unobserved_weight, "--regularization", args.regularization,
        "--frequency-exponent", args.frequency_exponent, *more,
    )  # fmt: skip


def judge(users, items, pairs, test, cut=K, least=5_000_000):
    """Mean recall and NDCG of the first `cut` over the users with test pairs."""
    width = min(users.shape[1], items.shape[1])
    users, items = users[:, :width], items[:, :width]
    known = sp.csr_matrix((np.ones(len(pairs), np.float32), (pairs[:, 0], pairs[:, 1])),
                          shape=(max(len(users), pairs[:, 0].max() + 1), max(len(items), pairs[:, 1].max() + 1)))  # fmt: skip
    truth = {}
    for user, item in test:
        truth.setdefault(user, set()).add(item)
    discount = 1.0 / np.log2(np.arange(2, cut + 2))
    order = sorted(user for user in truth if user < len(users))
    recalls, gains = [0.0] * (len(truth) - len(order)), [0.0] * (len(truth) - len(order))
    step = max(1, least // len(items))
    for start in range(0, len(order), step):
        block = order[start : start + step]
        scores = users[block] @ items.T
        for row, user in enumerate(block):
            have = known.indices[known.indptr[user] : known.indptr[user + 1]]
            scores[row, have[have < scores.shape[1]]] = -np.inf
        top = np.argpartition(-scores, cut, axis=1)[:, :cut]
        rows = np.arange(len(block))[:, None]
        top = top[rows, np.argsort(-scores[rows, top], axis=1)]
        for row, user in enumerate(block):
            wanted = truth[user]
            hits = np.fromiter((item in wanted for item in top[row]), dtype=bool, count=cut)
            recalls.append(hits.sum() / len(wanted))
            gains.append(discount[hits].sum() / discount[: min(len(wanted), cut)].sum())
    return float(np.mean(recalls)), float(np.mean(gains))


def memory(pairs, rank, peak):
    """The peak beside what is asked: factors and one and a half times the compressed matrix."""
    users, items = len(np.unique(pairs[:, 0])), len(np.unique(pairs[:, 1]))
    held = (users + items) * rank * 4
    matrix = len(pairs) * 8 + (users + 1) * 8
    return {"peak": peak, "factors": held, "matrix": matrix, "budget": held + 1.5 * matrix,
            "share_of_budget": peak / (held + 1.5 * matrix)}  # fmt: skip


def compare(args, pairs, test, dir):
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import implicit
    import threadpoolctl

    threadpoolctl.threadpool_limits(1, "blas")
    log = write(dir / "log.csv", pairs)
    matrix = sp.csr_matrix((np.ones(len(pairs), np.float32), (pairs[:, 0], pairs[:, 1])))
    short = max(1, args.iterations // 3)

    def theirs(iterations):
        model = implicit.als.AlternatingLeastSquares(
            factors=args.factors, iterations=iterations, regularization=args.regularization / args.unobserved_weight,
            alpha=1 + 1 / args.unobserved_weight, num_threads=args.threads, random_state=42, use_gpu=False,
        )  # fmt: skip
        started = time.perf_counter()
        model.fit(matrix, show_progress=False)
        return model, time.perf_counter() - started

    seconds = {"refrain": [], "refrain_short": [], "implicit": [], "implicit_short": []}
    for round in range(args.rounds):
        out = dir / f"model{round}"
        _, took, peak = train(log, out, args)
        seconds["refrain"].append(took)
        _, took, _ = train(log, dir / f"short{round}", args, iterations=short)
        seconds["refrain_short"].append(took)
        model, took = theirs(args.iterations)
        seconds["implicit"].append(took)
        seconds["implicit_short"].append(theirs(short)[1])
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    iteration = {
        name: (middle[name] - middle[f"{name}_short"]) / (args.iterations - short) for name in ("refrain", "implicit")
    }
    document = {
        "pairs": len(pairs), "factors": args.factors, "iterations": args.iterations, "threads": args.threads,
        "seconds": seconds, "median_seconds": middle, "seconds_an_iteration": iteration,
        "times_faster_whole_against_fit": middle["implicit"] / middle["refrain"],
        "times_faster_an_iteration": iteration["implicit"] / iteration["refrain"],
        "memory": memory(pairs, args.factors, peak), "implicit_version": implicit.__version__,
    }  # fmt: skip
    if test is not None:
        document["refrain"] = dict(zip(("recall@20", "ndcg@20"), judge(*factors(out), pairs, test)))
        document["implicit"] = dict(
            zip(("recall@20", "ndcg@20"), judge(model.user_factors, model.item_factors, pairs, test))
        )
    return document


def tuned(args, pairs, test, dir):
    log = write(dir / "log.csv", pairs)
    run("train", "--listens", log, "--out", dir / "model", "--hold-out", "none", "--hyper", args.hyper,
        "--threads", args.threads)  # fmt: skip
    learned = factors(dir / "model")
    cuts = [int(cut) for cut in args.cuts.split(",")]
    return {
        "pairs": len(pairs), "hyper": json.loads(pathlib.Path(args.hyper).read_text()),
        **{str(cut): dict(zip(("recall", "ndcg"), judge(*learned, pairs, test, cut))) for cut in cuts},
    }  # fmt: skip


def scaling(args, pairs, dir):
    """Seconds an iteration at growing numbers of listeners, all of whose pairs are taken."""
    rng = np.random.default_rng(1)
    users = rng.permutation(np.unique(pairs[:, 0]))
    points = []
    for size in range(args.scaling):
        share = users[: len(users) * (size + 1) // args.scaling]
        part = pairs[np.isin(pairs[:, 0], share)]
        log = write(dir / f"part{size}.csv", part)
        few, many = [], []
        for round in range(args.rounds):
            few.append(train(log, dir / f"few{size}-{round}", args, iterations=2)[1])
            _, took, peak = train(log, dir / f"many{size}-{round}", args, iterations=2 + args.iterations)
            many.append(took)
        took = (statistics.median(many) - statistics.median(few)) / args.iterations
        points.append({"pairs": len(part), "seconds_an_iteration": took, "memory": memory(part, args.factors, peak)})
    x = np.array([point["pairs"] for point in points], dtype=float)
    y = np.array([point["seconds_an_iteration"] for point in points])
    slope, at_zero = np.polyfit(x, y, 1)
    fitted = slope * x + at_zero
    fit = 1 - ((y - fitted) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    if args.svg:
        pathlib.Path(args.svg).write_text(plot(x, y, slope, at_zero), encoding="utf-8")
    return {"points": points, "seconds_a_million_pairs": slope * 1e6, "at_zero": at_zero, "r_squared": fit}


def plot(x, y, slope, at_zero):
    width, height, left, bottom = 560, 320, 60, 40
    across = lambda value: left + value / x.max() * (width - left - 20)
    up = lambda value: height - bottom - value / (y.max() * 1.1) * (height - bottom - 20)
    marks = "".join(f'<circle cx="{across(a):.1f}" cy="{up(b):.1f}" r="4" fill="#2a6f97"/>'
                    f'<text x="{across(a):.1f}" y="{height - bottom + 16}" text-anchor="middle">{a / 1e6:.2f}</text>'
                    f'<text x="{across(a) - 8:.1f}" y="{up(b) - 8:.1f}" text-anchor="end">{b:.3f}</text>'
                    for a, b in zip(x, y))  # fmt: skip
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">'
        f'<rect width="{width}" height="{height}" fill="#fff"/>'
        f'<line x1="{left}" y1="{height - bottom}" x2="{width - 20}" y2="{height - bottom}" stroke="#999"/>'
        f'<line x1="{left}" y1="20" x2="{left}" y2="{height - bottom}" stroke="#999"/>'
        f'<line x1="{across(0):.1f}" y1="{up(at_zero):.1f}" x2="{across(x.max()):.1f}" '
        f'y2="{up(at_zero + slope * x.max()):.1f}" stroke="#d1495b" stroke-dasharray="4 3"/>{marks}'
        f'<text x="{(width + left) / 2}" y="{height - 6}" text-anchor="middle">million pairs</text>'
        f'<text x="14" y="{height / 2}" transform="rotate(-90 14 {height / 2})" text-anchor="middle">'
        f"seconds an iteration</text></svg>\n"
    )


def warm(args, pairs, test, dir):
    """A log, then another file behind it: from the parent with what was kept, and from nothing, interleaved."""
    order = np.random.default_rng(7).permutation(len(pairs))
    split = int(len(pairs) / (1 + args.warm))
    before, added = (pairs[np.sort(part)] for part in (order[:split], order[split:]))
    old, more = write(dir / "before.csv", before), write(dir / "added.csv", added)
    parent, base, kept = dir / "parent", dir / "base", dir / "kept"
    train(old, parent, args, "--keep-listens", kept)
    # What is kept after the first night is what each of the second begins with.
    shutil.copytree(kept, dir / "first")
    run("build", "--model", parent, "--out", base, "--threads", args.threads)
    seconds = {"train_cold": [], "train_warm": [], "build_cold": [], "build_warm": []}
    for round in range(args.rounds):
        cold, hot = dir / f"cold{round}", dir / f"warm{round}"
        seconds["train_cold"].append(train(old, cold, args, "--listens", more)[1])
        shutil.rmtree(kept)
        shutil.copytree(dir / "first", kept)
        # The iterations are left to the command: what is enough from a parent is its business.
        document, took, _ = run(
            "train", "--listens", old, "--listens", more, "--keep-listens", kept, "--out", hot, "--hold-out", "none",
            "--rank", args.factors, "--threads", args.threads, "--unobserved-weight", args.unobserved_weight, "--regularization", args.regularization,
            "--frequency-exponent", args.frequency_exponent, "--parent", parent,
        )  # fmt: skip
        seconds["train_warm"].append(took)
        built, took, _ = run("build", "--model", cold, "--out", dir / f"index-cold{round}", "--threads", args.threads)
        seconds["build_cold"].append(took)
        reused, took, _ = run(
            "build", "--model", hot, "--reuse", base, "--out", dir / f"index-warm{round}", "--threads", args.threads
        )
        seconds["build_warm"].append(took)
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    total = {name: middle[f"train_{name}"] + middle[f"build_{name}"] for name in ("cold", "warm")}
    document = {
        "pairs": len(pairs), "new_pairs": len(pairs) - len(before), "seconds": seconds, "median_seconds": middle,
        "times_faster": {
            "train": middle["train_cold"] / middle["train_warm"], "build": middle["build_cold"] / middle["build_warm"],
            "both": total["cold"] / total["warm"],
        },
        "recall_at_10": {"cold": built["index"]["recall_at_10"], "warm": reused["index"]["recall_at_10"]},
        "linked": reused["manifest"]["report"]["index"].get("reuse"),
    }  # fmt: skip
    if test is not None:
        for name, model in (("cold", cold), ("warm", hot)):
            document[name] = dict(zip(("recall@20", "ndcg@20"), judge(*factors(model), pairs, test)))
    return document


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, action="append", help="log to learn from; repeat")
    parser.add_argument("--test", help="held-out pairs")
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--unobserved-weight", type=float, default=0.01)
    parser.add_argument("--regularization", type=float, default=0.15)
    parser.add_argument("--frequency-exponent", type=float, default=0.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scaling", type=int, help="measure an iteration at so many sizes")
    parser.add_argument("--warm", type=float, help="measure a log extended by this share")
    parser.add_argument("--hyper", help="judge the setting of this file")
    parser.add_argument("--cuts", default=str(K), help="lengths of the list to judge it at")
    parser.add_argument("--svg")
    parser.add_argument("--out")
    args = parser.parse_args()
    pairs = np.unique(np.concatenate([read(path) for path in args.train]), axis=0)
    test = read(args.test) if args.test else None
    with tempfile.TemporaryDirectory() as dir:
        dir = pathlib.Path(dir)
        if args.scaling:
            document = scaling(args, pairs, dir)
        elif args.hyper:
            document = tuned(args, pairs, test, dir)
        elif args.warm:
            document = warm(args, pairs, test, dir)
        else:
            document = compare(args, pairs, test, dir)
    text = json.dumps(document, indent=1)
    if args.out:
        pathlib.Path(args.out).write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
