#!/usr/bin/env python3
"""What opening a version costs and how its first answers come, with its files in memory and without.

    opening.py --bundle DIR [--times N] [--example target/release/examples/opening] [--out FILE.json]

Runs `cargo build --release --workspace --example opening` for each way of opening, each time a new process,
and prints medians. `cold` means that the system was asked to forget the files just before
(`posix_fadvise(POSIX_FADV_DONTNEED)`), which it does for pages that nobody else has mapped. Needs no package.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[1]


def forget(bundle):
    for path in sorted(bundle.iterdir()):
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def warm(bundle):
    for path in bundle.iterdir():
        path.read_bytes()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=pathlib.Path, required=True)
    parser.add_argument("--times", type=int, default=7)
    parser.add_argument("--example", type=pathlib.Path, default=ROOT / "target/release/examples/opening")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    rows = []
    for before in ("cold", "warm"):
        for mode in ("map", "populate", "copy"):
            runs = []
            for _ in range(args.times):
                (forget if before == "cold" else warm)(args.bundle)
                out = subprocess.run([args.example, args.bundle, mode], check=True, capture_output=True, text=True)
                runs.append(json.loads(out.stdout))
            of = lambda key: statistics.median(run[key] for run in runs)
            row = {"files": before, "mode": mode, "items": runs[0]["items"]}
            row |= {key: of(key) for key in ("index_open_us", "open_us", "first_us", "next_100_us_each", "rest_us_each")}
            row["rss_mb"] = [statistics.median(at) for at in zip(*(run["rss_mb"] for run in runs))]
            rows.append(row)
            start, opened, first, hundred, all_of_them = row["rss_mb"]
            print(f"{before:5} {mode:9} index {row['index_open_us'] / 1e3:7.2f} ms, version {row['open_us'] / 1e3:7.2f} ms, first answer {row['first_us'] / 1e3:7.2f} ms, "
                  f"next 100 {row['next_100_us_each']:7.0f} us each, then {row['rest_us_each']:5.0f}; resident MB "
                  f"+{opened - start:.1f} opened, +{first - start:.1f} first, +{hundred - start:.1f} 101, "
                  f"+{all_of_them - start:.1f} 10,000", flush=True)
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
