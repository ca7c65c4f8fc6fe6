#!/usr/bin/env python3
"""What logging exposures and computing in the dark cost the requests: ratios in one run.

    observing.py --bundle DIR --users query.npy [--connections 8] [--rounds 15] [--seconds 2] [--out FILE.json]

Serves one bundle four times, with different configurations: `plain` logs nothing, `again` is the same once more and
shows what the machine's own noise makes of a ratio, `exposures` writes every answer to the log, `shadow` computes
another variant for a tenth of the requests. Rounds visit the servers in turn, each round in another order; a figure is the median
of the rounds' ratios to `plain`. Driver (`LOADGEN`) and needs as for `serve.py`.
"""

import argparse
import json
import pathlib
import random
import statistics
import subprocess
import tempfile
import time

import numpy as np

import serve

METHOD = "/refrain.v1.RecommendationService/Recommend"
CONFIGURATIONS = {
    "plain": "[shadow]\nshare_bp = 0\n",
    "again": "[shadow]\nshare_bp = 0\n",
    "exposures": '[shadow]\nshare_bp = 0\n[exposures]\npath = "exposures"\n',
    "shadow": '[shadow]\nvariant = "balanced"\nshare_bp = 1000\n',
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--users", required=True, help="vectors to ask with, float32 [n, d]")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--ef-search", type=int, default=96)
    parser.add_argument("--out")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="observing-") as home:
        home = pathlib.Path(home)
        pb = serve.stubs(home)
        subprocess.run([serve.REFRAIN, "publish", args.bundle, "--store", home / "store", "--label", "stable"], check=True, stdout=subprocess.DEVNULL)
        requests = [
            pb.RecommendRequest(
                vector={"values": vector}, page_size=10, search={"ef_search": args.ef_search},
                ranking={"variant_override": "plain"})
            for vector in np.load(args.users)[:2_000]
        ]  # fmt: skip
        messages = serve.write_messages(home / "messages", requests)
        servers, addresses = [], {}
        try:
            for name, text in CONFIGURATIONS.items():
                (home / name).mkdir()
                (home / name / "refrain.toml").write_text(text)
                server = subprocess.Popen(
                    [serve.REFRAIN, "serve", "--config", home / name / "refrain.toml", "--store", home / "store", "--profiles", home / name / "profiles.redb",
                     "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--json"],
                    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=home / name,
                )  # fmt: skip
                servers.append(server)
                addresses[name] = "http://" + json.loads(server.stdout.readline())["listen"]
            report = measure(args, addresses, messages)
            report["exposure_bytes"] = sum(file.stat().st_size for file in (home / "exposures").rglob("*") if file.is_file())
        finally:
            for server in servers:
                server.terminate()
            for server in servers:
                server.wait(30)
    report |= {"connections": args.connections, "rounds": args.rounds, "date": time.strftime("%Y-%m-%d")}
    text = json.dumps(report, indent=1)
    print(text)
    if args.out:
        pathlib.Path(args.out).write_text(text + "\n")


def measure(args, addresses, messages):
    for address in addresses.values():
        serve.drive(address, METHOD, messages, args.connections, 1)
    rounds = []
    order = random.Random(1)
    for _ in range(args.rounds):
        names = list(addresses)
        order.shuffle(names)
        rounds.append({name: serve.drive(addresses[name], METHOD, messages, args.connections, args.seconds) for name in names})
    report = {}
    for name in addresses:
        of = lambda key: [one[name][key] for one in rounds]
        against = lambda key: statistics.median(one[name][key] / one["plain"][key] for one in rounds)
        assert sum(of("errors")) == 0
        report[name] = {
            "qps": round(statistics.median(of("qps"))), "p50_us": round(statistics.median(of("p50_us"))), "p99_us": round(statistics.median(of("p99_us"))),
            "qps_ratio": round(against("qps"), 3), "p50_ratio": round(against("p50_us"), 3), "p99_ratio": round(against("p99_us"), 3),
        }  # fmt: skip
    return report


if __name__ == "__main__":
    main()
