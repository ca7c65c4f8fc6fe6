#!/usr/bin/env python3
"""Measures a running server over loopback gRPC: queries a second and latency at 1, 8 and 64 connections.

    serve.py --base base.npy --query query.npy --truth gt.npy [--metric ip|cosine|l2] [--out FILE.json]

`base` and `query` are float32 [n, d], `truth` int32 [q, 100], best first. Builds a bundle of the vectors,
serves it with `refrain serve`, and drives it with a closed-loop driver that takes ready-made messages
(`LOADGEN`: ADDR METHOD MSGS CONNS SECONDS MAX_REQUESTS [SAVE], one JSON line out), so that another
server can be measured with the same driver, vectors and connections. Needs numpy, grpcio and
grpcio-tools; `REFRAIN_BIN` names the binary (default target/dist/refrain).
"""

import argparse
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import time

import grpc
import numpy as np
from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parents[1]
REFRAIN = os.environ.get("REFRAIN_BIN", str(ROOT / "target" / "dist" / "refrain"))
LOADGEN = os.environ.get("LOADGEN", "loadgen")
EF = (16, 24, 32, 48, 64, 80, 96, 128, 160, 192, 256, 320)


def stubs(out):
    import grpc_tools

    include = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    protos = sorted((ROOT / "proto" / "refrain" / "v1").glob("*.proto"))
    if protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"-I{include}", f"--python_out={out}", *map(str, protos)]):
        sys.exit("proto/ does not compile")
    sys.path.insert(0, str(out))
    from refrain.v1 import recommendation_pb2

    return recommendation_pb2


def drive(address, method, messages, connections, seconds, most=10**9, save=None):
    command = [LOADGEN, address, method, messages, str(connections), str(seconds), str(most)]
    done = subprocess.run(command + ([save] if save else []), capture_output=True, text=True, timeout=600)
    if done.returncode or done.stderr.strip():
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def write_messages(path, requests):
    with open(path, "wb") as f:
        for request in requests:
            message = request.SerializeToString()
            f.write(struct.pack("<I", len(message)) + message)
    return str(path)


def answers(path):
    data = pathlib.Path(path).read_bytes()
    at = 0
    while at < len(data):
        number, length = struct.unpack_from("<II", data, at)
        yield number, data[at + 8 : at + 8 + length]
        at += 8 + length


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True)
    parser.add_argument("--query", required=True)
    parser.add_argument("--truth", required=True)
    parser.add_argument("--metric", default="ip")
    parser.add_argument("--recall", type=float, default=0.967, help="first ef_search that reaches it is measured")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--out")
    args = parser.parse_args()
    query, truth = np.load(args.query)[:4000], np.load(args.truth)
    with tempfile.TemporaryDirectory(prefix="serve-") as home:
        home = pathlib.Path(home)
        pb = stubs(home)
        base = np.load(args.base, mmap_mode="r")
        (home / "ids.txt").write_text("\n".join(map(str, range(len(base)))))
        started = time.perf_counter()
        subprocess.run([REFRAIN, "build", "--vectors", args.base, "--ids", home / "ids.txt", "--metric", args.metric, "--out", home / "bundle"], check=True)
        build = time.perf_counter() - started
        subprocess.run([REFRAIN, "publish", home / "bundle", "--store", home / "store", "--label", "stable"], check=True, stdout=subprocess.DEVNULL)
        server = subprocess.Popen(
            [REFRAIN, "serve", "--store", home / "store", "--profiles", home / "profiles.redb", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        try:
            address = "http://" + json.loads(server.stdout.readline())["listen"]
            report = measure(pb, home, address, query, truth, args)
        finally:
            server.terminate()
            server.wait(30)
    report |= {"vectors": list(base.shape), "metric": args.metric, "build_and_verify_seconds": round(build, 1), "date": time.strftime("%Y-%m-%d")}
    text = json.dumps(report, indent=1)
    print(text)
    if args.out:
        pathlib.Path(args.out).write_text(text + "\n")


def measure(pb, home, address, query, truth, args):
    def similar(ef):
        return [
            pb.SimilarRequest(vector={"values": q}, page_size=10, search={"ef_search": ef}) for q in query
        ]

    def recommend(ef):
        return [pb.RecommendRequest(vector={"values": q}, page_size=10, search={"ef_search": ef}, ranking={"variant_override": "plain"}) for q in query]

    saved = str(home / "answers")
    for ef in EF:
        messages = write_messages(home / "messages", similar(ef))
        drive(address, "/refrain.v1.RecommendationService/Similar", messages, 8, 60, len(query), saved)
        hits = [
            len({int(r.item_id) for r in pb.SimilarResponse.FromString(a).results} & set(truth[i, :10].tolist()))
            for i, a in answers(saved)
        ]
        recall = float(np.mean(hits)) / 10
        if recall >= args.recall:
            break
    report = {"ef_search": ef, "recall_at_10": round(recall, 4)}
    for name, requests in (("Similar", similar(ef)), ("Recommend", recommend(ef))):
        messages = write_messages(home / "messages", requests)
        drive(address, f"/refrain.v1.RecommendationService/{name}", messages, 8, 1)
        report[name] = [drive(address, f"/refrain.v1.RecommendationService/{name}", messages, c, args.seconds) for c in (1, 8, 64)]
    return report


if __name__ == "__main__":
    main()
