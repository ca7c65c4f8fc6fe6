#!/usr/bin/env python3
"""What exclusions cost over loopback gRPC: queries a second with ids in the request, and with rules in the profile.

    exclusions.py --base base.npy --users query.npy --truth gt.npy [--bundle DIR] [--out FILE.json]

Arrays as `serve.py` takes them: `base` are item factors, `users` user factors, both float32 [n, d], compared by
inner product. Makes a model of them, builds it (or takes --bundle, built so before) and serves it. The
exclusions are those that server_bench.py gives Qdrant as `must_not has_id`: half of each listener's hundred nearest
items, then random ones. Recall is against exact search under the same exclusions. Last comes the request of a
listener with 500 events and 1,000 exclusions. Driver (`LOADGEN`) and needs as for `serve.py`.

`--qdrant http://HOST:PORT` drives a Qdrant turn about with us: its gRPC address, the collection `b` with the same vectors
under their row numbers, width `--qdrant-ef`. It is given the ids in each request; that is all it knows of. Needs
qdrant-client.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

import serve

RECOMMEND = "/refrain.v1.RecommendationService/Recommend"
SIZES = (0, 10, 1_000, 10_000)
EF = (10, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 192, 224, 256, 320)
LISTENERS = 16
QUERIES = 64
BY_ARTIST = 100_000  # items of the one artist that a single rule excludes


def build(args, home):
    """A bundle with fold-in, and one artist who has a tenth of the catalogue."""
    if args.bundle:
        return pathlib.Path(args.bundle)
    n = len(np.load(args.base, mmap_mode="r"))
    (home / "ids.txt").write_text("\n".join(map(str, range(n))))
    # Not those who will ask: the graph is shaped by the users of its model.
    users = np.load(args.users)[QUERIES:]
    np.save(home / "users.npy", users)
    (home / "users.txt").write_text("\n".join(f"m{u}" for u in range(len(users))))
    many = set(of_one_artist(n).tolist())
    with open(home / "items.csv", "w") as f:
        f.write("item_id,artist\n")
        f.writelines(f"{i},{'everywhere' if i in many else i // 10}\n" for i in range(n))
    run = lambda *command: subprocess.run([serve.REFRAIN, *map(str, command)], check=True)
    run("import", "--item-factors", args.base, "--item-ids", home / "ids.txt", "--user-factors", home / "users.npy",
        "--user-ids", home / "users.txt", "--items", home / "items.csv", "--out", home / "model")
    bundle = pathlib.Path(args.keep or home / "bundle")
    run("build", "--model", home / "model", "--out", bundle)
    return bundle


def of_one_artist(n):
    return np.random.default_rng(7).permutation(n)[: min(BY_ARTIST, n // 2)]


def excluded(truth, n, size, at):
    """Half of what is nearest, then random ones: as a listening history is."""
    if size == 0:
        return np.empty(0, np.int64)
    bad = np.random.default_rng(size).permutation(n)[:size]
    near = truth[at, :100:2][: size // 2]
    return np.unique(np.r_[near, bad])[:size] if size > 10 else np.r_[truth[at, :5], bad[:5]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True)
    parser.add_argument("--users", required=True)
    parser.add_argument("--truth", required=True)
    parser.add_argument("--bundle", help="use this bundle instead of building one")
    parser.add_argument("--keep", help="build the bundle here and keep it")
    parser.add_argument("--recall", type=float, default=0.95, help="the first ef_search that reaches it under the exclusions is measured")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--parts", default="request,rules,profile")
    parser.add_argument("--qdrant", help="gRPC address of a Qdrant with the same vectors")
    parser.add_argument("--qdrant-ef", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each server, where there are two")
    parser.add_argument("--out")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="exclusions-") as home:
        home = pathlib.Path(home)
        pb = serve.stubs(home)
        bundle = build(args, home)
        subprocess.run([serve.REFRAIN, "publish", bundle, "--store", home / "store", "--label", "stable"], check=True, stdout=subprocess.DEVNULL)
        server = subprocess.Popen(
            [serve.REFRAIN, "serve", "--store", home / "store", "--profiles", home / "profiles.redb", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        try:
            bench = Bench(pb, home, "http://" + json.loads(server.stdout.readline())["listen"], args)
            report = {"vectors": list(bench.base.shape), "date": time.strftime("%Y-%m-%d")}
            for part in args.parts.split(","):
                report[part] = getattr(bench, part)()
        finally:
            server.terminate()
            server.wait(30)
    text = json.dumps(report, indent=1)
    print(text)
    if args.out:
        pathlib.Path(args.out).write_text(text + "\n")


class Bench:
    def __init__(self, pb, home, address, args):
        from refrain.v1 import taste_profile_pb2

        self.pb, self.taste, self.home, self.address, self.args = pb, taste_profile_pb2, home, address, args
        self.base, self.query = np.load(args.base, mmap_mode="r"), np.load(args.users)
        self.truth = np.load(args.truth)

    def drive(self, method, requests, connections, seconds, most=10**9, save=None):
        messages = serve.write_messages(self.home / "messages", requests)
        done = serve.drive(self.address, method, messages, connections, seconds, most, save)
        if done["errors"]:
            sys.exit(f"{method}: {done}")
        return done

    def answers(self, requests):
        save = str(self.home / "answers")
        self.drive(RECOMMEND, requests, 1, 60, len(requests), save)
        lists = {i: self.pb.RecommendResponse.FromString(a) for i, a in serve.answers(save)}
        return [[int(r.item_id) for r in lists[i].results] for i in range(len(requests))]

    def ask(self, at, ef, ids=(), **more):
        return self.pb.RecommendRequest(
            vector={"values": self.query[at]}, page_size=10, search={"ef_search": ef},
            filter={"exclude_item_ids": [str(i) for i in ids]}, ranking={"variant_override": "plain"}, **more)

    def ask_user(self, user, ef=None):
        return self.pb.RecommendRequest(
            user_id=user, page_size=10, search={"ef_search": ef} if ef else {"exact": True},
            ranking={"variant_override": "plain"})

    def reaching(self, ask):
        """The requests of the narrowest search that finds enough of the best: width, requests, recall. `ask` makes
        requests of a width, and says what share of the best their answers have."""
        for ef in EF:
            requests, recall_of = ask(ef)
            recall = float(recall_of(self.answers(requests)))
            if recall >= self.args.recall:
                break
        return ef, requests, recall

    def measured(self, ask, sets=None):
        """At 1 and 8 connections; beside the other server where it is given the same `sets` of ids."""
        ef, requests, recall = self.reaching(ask)
        found = {"ef_search": ef, "recall_at_10": round(recall, 4)}
        keys = ("qps", "p50_us", "p99_us")
        if not self.args.qdrant or sets is None:
            for run in [self.drive(RECOMMEND, requests, c, self.args.seconds) for c in (1, 8)]:
                found[f"{run['conns']}"] = {key: round(run[key], 1) for key in keys}
        else:
            theirs = [self.ask_qdrant(at, ids) for at, ids in enumerate(sets)]
            found["qdrant_recall_at_10"] = round(self.recall_of_qdrant(theirs, sets), 4)
            for c in (1, 8):
                rounds = []
                for _ in range(self.args.rounds):
                    us = self.drive(RECOMMEND, requests, c, self.args.seconds)
                    rounds.append((us, self.drive_qdrant(theirs, c, self.args.seconds)))
                ours, others = zip(*rounds)
                middle = lambda runs: {key: round(statistics.median(run[key] for run in runs), 1) for key in keys}
                ratio = statistics.median(us["qps"] / them["qps"] for us, them in rounds)
                found[f"{c}"] = {**middle(ours), "qdrant": middle(others), "ratio": round(ratio, 2)}
        print(json.dumps(found), file=sys.stderr, flush=True)
        return found

    def ask_qdrant(self, at, ids):
        from qdrant_client import grpc as g

        ids = [g.PointId(num=int(i)) for i in ids]
        without = g.Filter(must_not=[g.Condition(has_id=g.HasIdCondition(has_id=ids))]) if ids else None
        params = g.SearchParams(hnsw_ef=self.args.qdrant_ef)
        return g.SearchPoints(collection_name="b", vector=self.query[at].tolist(), limit=10, params=params, filter=without)

    def drive_qdrant(self, requests, connections, seconds, most=10**9, save=None):
        messages = serve.write_messages(self.home / "messages-qdrant", requests)
        done = serve.drive(self.args.qdrant, "/qdrant.Points/Search", messages, connections, seconds, most, save)
        if done["errors"]:
            sys.exit(f"Qdrant: {done}")
        return done

    def recall_of_qdrant(self, requests, sets):
        from qdrant_client import grpc as g

        save = str(self.home / "answers-qdrant")
        self.drive_qdrant(requests, 1, 60, len(requests), save)
        found = [(at, [p.id.num for p in g.SearchResponse.FromString(a).result]) for at, a in serve.answers(save)]
        return np.mean([len(self.best(at, sets[at]) & set(got)) / 10 for at, got in found])

    def best(self, at, ids):
        """The ten best of what is left."""
        scores = self.base @ self.query[at]
        scores[ids] = -np.inf
        return set(np.argpartition(-scores, 10)[:10].tolist())

    def request(self):
        """Ids in the request."""
        report = {}
        for size in SIZES:
            sets = [excluded(self.truth, len(self.base), size, at) for at in range(QUERIES)]
            best = [self.best(at, ids) for at, ids in enumerate(sets)]

            def recall(lists):
                for ids, got in zip(sets, lists):
                    assert len(got) == 10 and not set(got) & set(ids.tolist())
                return np.mean([len(best[at] & set(got)) / 10 for at, got in enumerate(lists)])

            ask = lambda ef: ([self.ask(at, ef, ids) for at, ids in enumerate(sets)], recall)
            report[str(size)] = self.measured(ask, sets)
        return report

    def listener(self, user, events, items=(), artist=None):
        """Messages that make a listener."""
        day = 1_700_000_000
        appends = [
            self.taste.AppendEventsRequest(user_id=user, events=[
                {"item_id": str(i), "kind": "EVENT_KIND_PLAY", "event_time": {"seconds": day + n}} for n, i in enumerate(events)])]
        scopes = [{"item_id": str(i)} for i in items] + ([{"artist": artist}] if artist else [])
        rules = [
            self.taste.CreateExclusionRequest(user_id=user, exclusion={
                "rule_id": f"r{n}", "scope": scope, "effect": "EXCLUSION_EFFECT_SERVE"}) for n, scope in enumerate(scopes)]
        return appends, rules

    def make(self, listeners):
        appends = [m for one in listeners for m in one[0]]
        # Turn about, so that one listener's rules do not wait for each other.
        rules = [one[1][n] for n in range(max(len(one[1]) for one in listeners)) for one in listeners if n < len(one[1])]
        service = "/refrain.v1.TasteProfileService/"
        self.drive(service + "AppendEvents", appends, 8, 600, len(appends))
        if rules:
            began = time.perf_counter()
            self.drive(service + "CreateExclusion", rules, 64, 900, len(rules))
            print(f"{len(rules)} rules made, {len(rules) / (time.perf_counter() - began):.0f}/s", file=sys.stderr, flush=True)

    def judged(self, users, sets=None):
        """Of listeners: measured, with the recall against exact search under the same rules."""
        exact = self.answers([self.ask_user(u) for u in users])
        recall = lambda lists: np.mean([len(set(a) & set(b)) / len(a) for a, b in zip(exact, lists)])
        return self.measured(lambda ef: ([self.ask_user(u, ef) for u in users], recall), sets)

    def rules(self):
        """The same ids as rules in profiles, of listeners who heard their twenty nearest."""
        report = {}
        for size in (*SIZES, BY_ARTIST):
            users = [f"rules-{size}-{at}" for at in range(LISTENERS)]
            by_artist = size == BY_ARTIST
            sets = [() if by_artist else excluded(self.truth, len(self.base), size, at) for at in range(LISTENERS)]
            self.make([
                self.listener(user, self.truth[at, :20], sets[at], "everywhere" if by_artist else None)
                for at, user in enumerate(users)])
            report[str(size)] = self.judged(users, None if by_artist else sets)
        return report

    def profile(self):
        """A listener of 500 events and 1,000 exclusions."""
        users = [f"profile-{at}" for at in range(LISTENERS)]
        rng = np.random.default_rng(3)
        heard = [np.unique(np.r_[self.truth[at], rng.permutation(len(self.base))[:400]]) for at in range(LISTENERS)]
        self.make([
            self.listener(user, heard[at], excluded(self.truth, len(self.base), 1_000, at)) for at, user in enumerate(users)])
        return self.judged(users)


if __name__ == "__main__":
    main()
