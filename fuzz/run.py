#!/usr/bin/env python3
"""Runs the fuzz targets with the stable toolchain.

    fuzz/run.py [--seconds N] [--runs N] [TARGET ...]

libFuzzer (in the crate libfuzzer-sys) needs a C++ compiler, and the code to be instrumented, which stable
compilers can do; only the sanitizers are for nightly ones, and nothing here needs them: what unsafe code there
is has tests of its own. What a target met before is in fuzz/corpus, what broke it in fuzz/artifacts; neither is
part of the repository.
"""

import argparse
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
TARGETS = sorted(path.stem for path in (HERE / "targets").glob("*.rs"))
INSTRUMENTED = " ".join(
    [
        "--cfg fuzzing -Cpasses=sancov-module",
        "-Cllvm-args=-sanitizer-coverage-level=4",
        "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
        "-Cllvm-args=-sanitizer-coverage-pc-table",
        "-Cllvm-args=-sanitizer-coverage-trace-compares",
    ]
)


def host() -> str:
    text = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    return next(line.split()[1] for line in text.splitlines() if line.startswith("host:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], help="all of them by default")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument("--runs", type=int, help="so many inputs for each target, drawn with one seed, instead")
    arguments = parser.parse_args()
    limits = [f"-max_total_time={arguments.seconds}"]
    if arguments.runs:
        limits = [f"-runs={arguments.runs}", "-seed=1"]
    target = host()
    build = ["cargo", "build", "--release", "--bins", "--target", target]
    subprocess.run(build, check=True, cwd=HERE, env={**os.environ, "RUSTFLAGS": INSTRUMENTED})
    failed = []
    for name in arguments.targets or TARGETS:
        corpus, artifacts = HERE / "corpus" / name, HERE / "artifacts" / name
        for folder in (corpus, artifacts):
            folder.mkdir(parents=True, exist_ok=True)
        command = [
            HERE / "target" / target / "release" / name,
            corpus,
            *([HERE / "seeds" / name] if (HERE / "seeds" / name).is_dir() else []),
            *limits,
            f"-artifact_prefix={artifacts}/",
            "-timeout=10",
            "-rss_limit_mb=2048",
            "-print_final_stats=1",
        ]
        print(f"== {name}", flush=True)
        if subprocess.run(command, cwd=HERE).returncode != 0:
            failed.append(name)
    if failed:
        sys.exit(f"broken: {', '.join(failed)}; the inputs are in {HERE / 'artifacts'}")


if __name__ == "__main__":
    main()
