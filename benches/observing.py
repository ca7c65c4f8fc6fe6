#!/usr/bin/env python3
"""What logging exposures and computing in the dark cost the requests: ratios in one run.

    observing.py --bundle DIR --users query.npy [--connections 8] [--rounds 15] [--seconds 2] [--out FILE.json]

Serves one bundle four times, with different configurations: `plain` logs nothing, `again` is the same once more and
shows what the machine's own noise makes of a ratio, `exposures` writes every answer to the log, `shadow` computes
another variant for a tenth of the requests. Two processes of one program differ by some hundredths in how fast they are, as long
as they live, and a shared machine drifts within seconds: so the four are started anew again and again, and visited in turn for a
moment each, every round in another order. A ratio is that to `plain` in the same round, the median over all rounds, with the
interval that holds it 95 times in 100 (bootstrap over starts). `cpu_us` is what the server computed for a request. Driver
(`LOADGEN`) and needs as for `serve.py`.
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

# What a server still computes after its turn is not to be felt by the next.
PAUSE = 0.1
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
    parser.add_argument("--starts", type=int, default=10, help="how often the servers are started anew")
    parser.add_argument("--rounds", type=int, default=16, help="visits to each between two starts")
    parser.add_argument("--seconds", type=float, default=0.3)
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
        for name, text in CONFIGURATIONS.items():
            (home / name).mkdir()
            (home / name / "refrain.toml").write_text(text)
        order = random.Random(1)
        visits = [visit(args, home, messages, order) for _ in range(args.starts)]
        report = compare(visits, order)
        report["exposure_bytes"] = sum(file.stat().st_size for file in (home / "exposures").rglob("*.parquet"))
    report |= {"connections": args.connections, "starts": args.starts, "rounds": args.rounds, "date": time.strftime("%Y-%m-%d")}
    text = json.dumps(report, indent=1)
    print(text)
    if args.out:
        pathlib.Path(args.out).write_text(text + "\n")


def visit(args, home, messages, order):
    """Starts the servers, and drives each of them in every round: the figures of the rounds, by configuration."""
    servers, addresses = {}, {}
    seen = {name: [] for name in CONFIGURATIONS}
    try:
        for name in CONFIGURATIONS:
            server = subprocess.Popen(
                [serve.REFRAIN, "serve", "--config", home / name / "refrain.toml", "--store", home / "store", "--profiles", home / name / "profiles.redb",
                 "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--json"],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=home / name,
            )  # fmt: skip
            servers[name] = server
            addresses[name] = "http://" + json.loads(server.stdout.readline())["listen"]
        for address in addresses.values():
            serve.drive(address, METHOD, messages, args.connections, 0.5)
        for _ in range(args.rounds):
            for name in order.sample(list(servers), len(servers)):
                time.sleep(PAUSE)
                before = computed(servers[name].pid)
                one = serve.drive(addresses[name], METHOD, messages, args.connections, args.seconds)
                one["cpu_us"] = (computed(servers[name].pid) - before) / 1_000 / one["requests"]
                assert one["errors"] == 0
                seen[name].append(one)
    finally:
        for server in servers.values():
            server.terminate()
        for server in servers.values():
            server.wait(30)
    return seen


def computed(pid):
    """Nanoseconds that the threads of a process have run."""
    threads = pathlib.Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads)


def compare(visits, order):
    report = {}
    for name in CONFIGURATIONS:
        report[name] = figures = {}
        for key in ("qps", "p50_us", "p99_us", "cpu_us"):
            of_all = [one[key] for visit in visits for one in visit[name]]
            figures[key] = round(statistics.median(of_all), 1 if key == "cpu_us" else None)
            ratios = [[one[key] / plain[key] for one, plain in zip(visit[name], visit["plain"])] for visit in visits]
            over = lambda starts: statistics.median(ratio for start in starts for ratio in start)
            resampled = sorted(over(order.choices(ratios, k=len(ratios))) for _ in range(2_000))
            ratio = [over(ratios), resampled[50], resampled[1_949]]
            figures[key.removesuffix("_us") + "_ratio"] = [round(value, 3) for value in ratio]
    return report


if __name__ == "__main__":
    main()
