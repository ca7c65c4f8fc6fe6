#!/usr/bin/env python3
"""Runs every command of a README as it stands there.

    run.py README.md [--skip 'COMMAND' ...]

Commands are the lines of ```console blocks that start with `$ `; a line that ends in a backslash goes
on in the next. All run in one shell, in order, from the folder of the README, and the first one that
fails ends the run. What a block shows as output is not compared: times and ids differ. A command that
ends in `&` keeps running and is ended when the run ends. The shell's `STORE`-like variables carry over.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile


def commands(text):
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", text, flags=re.M | re.S):
        lines = iter(block.splitlines())
        for line in lines:
            if not line.startswith("$ "):
                continue
            command = line[2:]
            while command.endswith("\\"):
                command = command[:-1] + next(lines).lstrip("> ")
            found.append(command)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("readme", type=pathlib.Path)
    parser.add_argument("--skip", action="append", default=[])
    args = parser.parse_args()

    wanted = commands(args.readme.read_text())
    if not wanted:
        sys.exit(f"{args.readme}: no commands found")
    script = ["set -euo pipefail", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"]
    ran = 0
    for command in wanted:
        if command in args.skip:
            continue
        ran += 1
        script += [f"echo {quote('$ ' + command)}", command]
    with tempfile.TemporaryDirectory(prefix="readme-") as scratch:
        env = dict(os.environ, TOUR=scratch)
        done = subprocess.run(["bash", "-c", "\n".join(script)], cwd=args.readme.resolve().parent, env=env, stdin=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(f"{args.readme}: a command failed with exit code {done.returncode}")
    print(f"{ran} commands of {args.readme} ran")


def quote(text):
    return "'" + text.replace("'", "'\\''") + "'"


if __name__ == "__main__":
    main()
