"""Kills train, build, publish and freshen at random moments, again and again.

    python3 tests/kill/run.py [--binary target/release/refrain] [--times 100] [--seed 1]

After every kill: no output that is not whole, every label points at a version that verifies. Then the same command
again: it completes, and what it leaves is, byte for byte, what an undisturbed run leaves. Needs no package.
"""

import argparse
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
LISTENS = 20_000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/refrain")
    parser.add_argument("--times", type=int, default=100, help="kills of all commands together")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    # What a bundle is made of must not depend on when.
    os.environ["SOURCE_DATE_EPOCH"] = "1795376700"
    os.environ.pop("REFRAIN_STORE", None)
    with tempfile.TemporaryDirectory() as home:
        Harness(options.binary.resolve(), pathlib.Path(home), random.Random(options.seed)).run(options.times)


class Harness:
    def __init__(self, binary, home, draw):
        self.binary, self.home, self.draw = binary, home, draw
        self.work = home / "work"

    def run(self, times):
        self.make()
        jobs = [("train", self.train), ("build", self.build), ("publish", self.publish), ("freshen", self.freshen)]
        killed = {name: 0 for name, _ in jobs}
        for turn in range(times):
            name, job = jobs[turn % len(jobs)]
            shutil.rmtree(self.work)
            killed[name] += job()
        print(f"kill: {times} times, of them before the end: {json.dumps(killed)}; every rerun completed, same bytes")
        # A harness whose kills all come too late shows nothing.
        late = [name for name in killed if times >= 8 and not killed[name]]
        if late:
            sys.exit(f"no {', '.join(late)} was killed before its end")

    def make(self):
        """The undisturbed runs: what every other has to end in, and how long each takes."""
        self.call("generate", "--preset", "small", "--out", self.home / "log")
        whole = self.home / "log/listens.csv"
        self.log = self.home / "listens.csv"
        with open(whole) as lines, open(self.log, "w") as some:
            for _, line in zip(range(LISTENS + 1), lines):
                some.write(line)
        self.expected, self.seconds = {}, {}
        self.work.mkdir()
        self.undisturbed("train", self.train_words(), "model")
        shutil.copytree(self.work / "model", self.home / "model")
        self.undisturbed("build", self.build_words(), "bundle")
        shutil.copytree(self.work / "bundle", self.home / "bundle")
        self.undisturbed("publish", self.publish_words(), "store/versions")
        shutil.copytree(self.work / "store", self.home / "store", symlinks=True)
        manifest = json.loads((self.home / "bundle/manifest.json").read_text())
        self.version = manifest["version"]
        self.undisturbed("freshen", self.freshen_words(), "store/deltas")

    def undisturbed(self, name, words, output):
        start = time.monotonic()
        self.call(*words)
        self.seconds[name] = time.monotonic() - start
        self.expected[name] = tree(self.work / output)
        assert self.expected[name], f"{name} left nothing at {output}"

    def train_words(self):
        words = ["train", "--listens", self.log, "--rank", "16", "--iterations", "6", "--hold-out", "none"]
        words += ["--keep-listens", self.work / "listens"]
        return words + ["--checkpoints", self.work / "checkpoints", "--out", self.work / "model"]

    def build_words(self):
        words = ["build", "--model", self.home / "model", "--checkpoints", self.work / "checkpoints"]
        return words + ["--checkpoint-seconds", "0", "--out", self.work / "bundle"]

    def publish_words(self):
        return ["publish", self.home / "bundle", "--store", self.work / "store"]

    def freshen_words(self):
        with open(self.log) as lines:
            header = next(lines).strip().split(",")
            item = next(lines).strip().split(",")[header.index("track_id")]
        return ["freshen", "--remove-item", item, "--store", self.work / "store"]

    def train(self):
        self.work.mkdir()
        return self.output("train", self.train_words(), "model")

    def build(self):
        self.work.mkdir()
        return self.output("build", self.build_words(), "bundle")

    def output(self, name, words, output):
        """A job with one directory for its result, that is there whole or not at all."""
        killed = self.kill(name, words)
        if (self.work / output).exists():
            self.same(name, output)
        else:
            self.call(*words)
            self.same(name, output)
        return killed

    def publish(self):
        self.work.mkdir()
        killed = self.kill("publish", self.publish_words())
        self.store_is_whole()
        self.call(*self.publish_words())
        self.store_is_whole(labelled=True)
        self.same("publish", "store/versions")
        return killed

    def freshen(self):
        self.work.mkdir()
        shutil.copytree(self.home / "store", self.work / "store", symlinks=True)
        killed = self.kill("freshen", self.freshen_words())
        self.store_is_whole(labelled=True)
        self.call(*self.freshen_words())
        self.store_is_whole(labelled=True)
        self.same("freshen", "store/deltas")
        return killed

    def store_is_whole(self, labelled=False):
        store = self.work / "store"
        if not store.exists():
            assert not labelled
            return
        listed = self.call("versions", "--store", store)
        names = [version["version"] for version in listed["versions"]]
        for name in names:
            self.call("verify", name, "--store", store)
        labels = [label for version in listed["versions"] for label in version.get("labels", [])]
        if labelled:
            assert names == [self.version] and labels, listed

    def same(self, name, output):
        found = tree(self.work / output)
        if found != self.expected[name]:
            differ = sorted(k for k in found.keys() | self.expected[name].keys() if found.get(k) != self.expected[name].get(k))
            sys.exit(f"{name}: {', '.join(differ)} are not what an undisturbed run leaves")

    def kill(self, name, words):
        """Whether the command was killed before its end."""
        process = subprocess.Popen([self.binary, *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            code = process.wait(timeout=self.draw.uniform(0.0, self.seconds[name]))
            assert code == 0, f"{name} failed with exit {code}"
            return 0
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            return int(process.wait() == -signal.SIGKILL)

    def call(self, *words):
        done = subprocess.run([self.binary, *map(str, words), "--json"], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(map(str, words))}: exit {done.returncode}\n{done.stderr}")
        return json.loads(done.stdout)


def tree(root):
    """Digests of all files below, without what is staged beside them."""
    digests = {}
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if path.is_file() and not any(part.startswith(".") for part in relative.parts):
            digests[str(relative)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests


if __name__ == "__main__":
    main()
