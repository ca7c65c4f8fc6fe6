#!/usr/bin/env python3
"""run.py CRATE…: runs the tests of these crates at every instruction set that this machine has.

The test programs are those that `cargo test --workspace` builds. Selecting the crates alone would unify
features anew, and rebuild what they depend on.
"""

import json
import os
import pathlib
import subprocess
import sys

FLAGS = {"avx2": "avx2", "avx512": "avx512f", "avx512vnni": "avx512_vnni"}


def levels() -> list[str]:
    """Names that REFRAIN_SIMD takes, slowest first."""
    try:
        cpu = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        cpu = ""
    words = set(cpu.split())
    return ["scalar"] + [level for level, flag in FLAGS.items() if flag in words]


def programs(crates: set[str]) -> list[tuple[str, str]]:
    """Test programs of the crates, each with the directory it runs in."""
    command = ["cargo", "test", "--workspace", "--locked", "--no-run", "--message-format", "json"]
    built = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = []
    for line in built.stdout.splitlines():
        message = json.loads(line) if line.startswith("{") else {}
        if message.get("reason") != "compiler-artifact" or not message.get("executable"):
            continue
        home = pathlib.Path(message["manifest_path"]).parent
        if message["profile"]["test"] and home.parent.name == "crates" and home.name in crates:
            found.append((message["executable"], str(home)))
    missing = crates - {pathlib.Path(home).name for _, home in found}
    if missing:
        sys.exit(f"no test program of {', '.join(sorted(missing))}")
    return found


def main() -> None:
    tests = programs(set(sys.argv[1:]))
    for level in levels():
        for program, home in tests:
            print(f"{level}: {pathlib.Path(program).name} of {pathlib.Path(home).name}", flush=True)
            env = os.environ | {"REFRAIN_SIMD": level}
            subprocess.run([program, "--quiet"], cwd=home, env=env, check=True)


if __name__ == "__main__":
    main()
