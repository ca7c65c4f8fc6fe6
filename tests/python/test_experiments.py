"""An experiment from its declaration to its log, as its owner and their tools see it: the commands of
docs/experiments.md as they stand there, a stock OpenFeature client, and stock Parquet readers."""

import collections
import json
import os
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request

import duckdb
import grpc
import pyarrow.dataset
import pyarrow.parquet
import pytest
from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode

from conftest import REFRAIN, ROOT

DOCS = (ROOT / "docs" / "experiments.md").read_text()

KINDS = """
[layer.ranking.params.alpha]
default = 0.0
min = 0.0
max = 1.0
[layer.mixing]
epoch = 1
[layer.dark]
epoch = 1
[surface.mixed]
layer = "mixing"
variant = "plain"
[surface.dark]
layer = "dark"
variant = "plain"
[experiment.mix]
kind = "interleave"
layer = "mixing"
epoch = 1
allocation_bp = 10000
[[experiment.mix.arm]]
name = "plain"
variant = "plain"
[[experiment.mix.arm]]
name = "spread"
variant = "spread"
[experiment.shade]
kind = "shadow"
layer = "dark"
epoch = 1
allocation_bp = 10000
[[experiment.shade.arm]]
name = "spread"
variant = "spread"
[variant.plain]
score = "similarity"
[variant.balanced]
score = "similarity + 0.15 * popularity"
[variant.spread]
score = "similarity + 0.5 * popularity"
max_per_artist = 1
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def block(language):
    return re.search(rf"^```{language}\n(.*?)^```", DOCS, flags=re.M | re.S)[1]


def eventually(true, seconds=30):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


class Server:
    """`refrain serve` on a configuration of its own, beside its log."""

    def __init__(self, home, catalogue, text):
        self.home, self.config = home, home / "refrain.toml"
        self.listen, self.admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
        own = f"""
[server]
listen = "{self.listen}"
admin_listen = "{self.admin}"
[store]
url = "{catalogue / 'store'}"
[profiles]
path = "{home / 'profiles.redb'}"
"""
        text = text.replace("reload_interval_ms = 1000\n", "")
        text = text.replace("[assignment]\n", "[assignment]\nreload_interval_ms = 20\n", 1)
        self.config.write_text(text + own)
        self.process = None

    def start(self):
        command = [REFRAIN, "serve", "--config", self.config, "--json"]
        self.process = subprocess.Popen(command, cwd=self.home, stdout=subprocess.PIPE, text=True)
        json.loads(self.process.stdout.readline())
        return self

    def stop(self):
        self.process.terminate()
        assert self.process.wait(30) == 0, "a drained server exits with 0"


def shares(stubs, channel, n=1000):
    """Which of the units u0, u1 … the experiment has, and their arms."""
    service = stubs.experiment_grpc.ExperimentServiceStub(channel)
    found = {}
    for unit in (f"u{i}" for i in range(n)):
        assignment = service.Assign(stubs.experiment.AssignRequest(unit_id=unit, surface="home")).assignment
        if assignment.experiment:
            found[unit] = assignment.arm
    return found


def test_a_newcomers_walk_with_the_commands_of_the_docs(stubs, catalogue, tmp_path):
    server = Server(tmp_path, catalogue, block("toml"))
    # The page says `--store store`.
    (tmp_path / "store").symlink_to(catalogue / "store")
    env = dict(os.environ, REFRAIN_ADDR=server.listen, PATH=f"{REFRAIN.parent}:{os.environ['PATH']}")
    commands = [line for line in block("sh").splitlines() if line.strip()]
    ran, background, before = [], None, {}
    try:
        with grpc.insecure_channel(server.listen) as channel:
            for command in commands:
                line = command.split("#")[0].strip()
                verb = " ".join(word for word in line.split()[1:3] if not word.startswith("-"))
                if line.endswith("&"):
                    background = subprocess.Popen(["bash", "-c", f"exec {line[:-1]}"], cwd=tmp_path, env=env)
                    grpc.channel_ready_future(channel).result(timeout=30)
                    before = shares(stubs, channel)
                    assert 60 < len(before) < 140, "a tenth of the listeners"
                else:
                    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=env, capture_output=True, text=True)
                    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
                ran.append(verb)
                if verb == "experiment ramp":
                    eventually(lambda: len(shares(stubs, channel)) > len(before) + 50)
                    after = shares(stubs, channel)
                    assert before.items() <= after.items(), "a ramp takes nobody out and changes no arm"
                if verb == "experiment stop":
                    eventually(lambda: not shares(stubs, channel))
        needed = ["check", "allocate", "list", "assign", "ramp", "stop", "journal"]
        assert [verb.split()[1] for verb in ran if verb.startswith("experiment")] == needed
        assert any(verb.startswith("serve") for verb in ran) and any(verb.startswith("compare") for verb in ran)
        # The file says what the journal says, comments and all.
        assert "# who holds what, beside this file" in server.config.read_text()
        done = subprocess.run(
            [REFRAIN, "experiment", "journal", "refrain.toml", "--json"], cwd=tmp_path, capture_output=True, text=True
        )
        journal = json.loads(done.stdout)
        assert journal["verified"]
        assert [entry["action"] for entry in journal["entries"]] == ["allocate", "ramp", "stop"]
    finally:
        if background:
            background.terminate()
            assert background.wait(30) == 0


@pytest.fixture(scope="module")
def kinds(catalogue, tmp_path_factory):
    """A server with an experiment of every kind that needs no clock, and its log."""
    home = tmp_path_factory.mktemp("kinds")
    text = block("toml").replace('journal = "experiments.jsonl"', "").replace(
        'name = "balanced"\nweight = 0.5\n', 'name = "balanced"\nweight = 0.5\nparams = { alpha = 0.3 }\n'
    ).replace("allocation_bp = 1000 ", "allocation_bp = 5000 ")
    assert "params = { alpha" in text and "allocation_bp = 5000" in text
    server = Server(home, catalogue, text + KINDS).start()
    yield server
    if server.process.poll() is None:
        server.stop()


def post(server, path, body, headers=()):
    request = urllib.request.Request(
        f"http://{server.admin}{path}", json.dumps(body).encode(), {"content-type": "application/json", **dict(headers)}
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def test_a_stock_openfeature_client_reads_the_same_assignment(stubs, kinds):
    units = 10_000 if os.environ.get("REFRAIN_SLOW_TESTS") else 500
    api.set_provider(OFREPProvider(base_url=f"http://{kinds.admin}"))
    client = api.get_client()
    seen = collections.Counter()
    with grpc.insecure_channel(kinds.listen) as channel:
        service = stubs.experiment_grpc.ExperimentServiceStub(channel)
        for unit in (f"u{i}" for i in range(units)):
            flag = client.get_float_details("ranking.alpha", -1.0, EvaluationContext(targeting_key=unit))
            assignment = service.Assign(stubs.experiment.AssignRequest(unit_id=unit, surface="home")).assignment
            assert flag.variant == (assignment.arm or "default"), unit
            assert flag.value == (0.3 if assignment.arm == "balanced" else 0.0), unit
            assert flag.reason == ("SPLIT" if assignment.arm else "STATIC")
            seen[flag.variant] += 1
    assert min(seen[arm] for arm in ("control", "balanced", "default")) > units / 8
    missing = client.get_float_details("ranking.beta", -1.0, EvaluationContext(targeting_key="u1"))
    assert (missing.value, missing.error_code) == (-1.0, ErrorCode.FLAG_NOT_FOUND)
    nobody = client.get_float_details("ranking.alpha", -1.0, EvaluationContext())
    assert (nobody.value, nobody.error_code) == (-1.0, ErrorCode.TARGETING_KEY_MISSING)
    body = {"context": {"targetingKey": "u1"}}
    status, headers, _ = post(kinds, "/ofrep/v1/evaluate/flags", body)
    assert status == 200
    status, _, _ = post(kinds, "/ofrep/v1/evaluate/flags", body, [("if-none-match", headers["etag"])])
    assert status == 304, "an unchanged configuration"


def listeners(catalogue, n):
    """Users of the generated log with what they played."""
    lines = (catalogue / "log" / "listens.csv").read_text().splitlines()
    header = lines[0].split(",")
    user, item = header.index("user_id"), header.index("track_id")
    played = collections.defaultdict(list)
    for line in lines[1:20_000]:
        fields = line.split(",")
        played[fields[user]].append(fields[item])
    return sorted(played.items(), key=lambda entry: (-len(entry[1]), entry[0]))[:n]


def test_the_log_is_read_by_stock_readers(stubs, kinds, catalogue):
    answers, people = {}, listeners(catalogue, 40)
    with grpc.insecure_channel(kinds.listen) as channel:
        taste = stubs.taste_grpc.TasteProfileServiceStub(channel)
        service = stubs.recommendation_grpc.RecommendationServiceStub(channel)
        feedback = stubs.feedback_grpc.FeedbackServiceStub(channel)
        for user, items in people:
            events = []
            for second, item in enumerate(items[:50]):
                event = stubs.common.Event(item_id=item, kind=stubs.common.EVENT_KIND_PLAY)
                event.event_time.FromSeconds(1_700_000_000 + second)
                events.append(event)
            taste.AppendEvents(stubs.taste.AppendEventsRequest(user_id=user, events=events))
            for surface in ("home", "mixed", "dark"):
                request = stubs.recommendation.RecommendRequest(
                    request_id=f"{surface}-{user}", user_id=user, page_size=10,
                    ranking=stubs.recommendation.Ranking(surface=surface),
                    context={"bot": "true"} if user == people[0][0] else {},
                )
                answers[request.request_id] = service.Recommend(request)
        outcomes = [
            stubs.feedback.Outcome(unit_id=user, request_id=f"home-{user}", event="listen_minutes", value=2.5,
                                   exposure_id=answers[f"home-{user}"].exposure_id)
            for user, _ in people
        ]
        report = stubs.feedback.ReportOutcomesRequest(outcomes=outcomes)
        assert feedback.ReportOutcomes(report).accepted == len(people)
        assert feedback.ReportOutcomes(report).duplicates == len(people)
        compared = lambda: b'refrain_shadow_total{outcome="compared"} 40' in urllib.request.urlopen(
            f"http://{kinds.admin}/metrics"
        ).read()
        eventually(compared)
    kinds.stop()
    log = kinds.home / "exposures"

    # pyarrow: every column, and what was answered.
    files = sorted((log / "exposures").glob("*/*.parquet"))
    assert files and pyarrow.parquet.read_metadata(files[0]).metadata[b"refrain.schema"] == b"exposure/1"
    rows = pyarrow.dataset.dataset(files).to_table().to_pylist()
    assert {row["request_id"] for row in rows} == set(answers) and len(rows) == len(answers)
    teams = collections.Counter()
    for row in rows:
        answer = answers[row["request_id"]]
        assert row["exposure_id"].hex() == answer.exposure_id
        assert [item["item"] for item in row["items"]] == [result.item_id for result in answer.results]
        assert row["bot_flag"] == (row["unit_id"] == people[0][0])
        assert row["variant"] == answer.served_by.arm and row["index_version"] == answer.served_by.version
        assert row["config_digest"].hex() == answer.served_by.config_digest
        if row["surface"] == "mixed":
            assert (row["kind"], row["variant"]) == ("interleave", "interleaved")
            teams.update(item["team"] for item in row["items"])
        else:
            assert all(item["team"] is None for item in row["items"])
    assert teams[0] > 20 and teams[1] > 20, teams
    assert sorted(row["seq"] for row in rows) == list(range(len(rows))), "no gap: nothing was lost"

    # DuckDB: joins exposures with outcomes, and reads the dark.
    sql = duckdb.sql
    joined = sql(f"""
        SELECT count(*), sum(o.value) FROM '{log}/exposures/*/*.parquet' e
        JOIN '{log}/outcomes/*/*.parquet' o USING (exposure_id)""").fetchall()[0]
    assert joined == (len(people), 2.5 * len(people))
    dark = sql(f"""
        SELECT count(*), count(DISTINCT s.exposure_id), min(overlap), max(overlap), min(s.k), any_value(arm)
        FROM '{log}/shadow/*/*.parquet' s
        JOIN '{log}/exposures/*/*.parquet' e USING (exposure_id) WHERE e.surface = 'dark'""").fetchall()[0]
    assert dark[:2] == (len(people), len(people)) and dark[4:] == (10, "spread")
    assert 0 <= dark[2] < dark[3] <= 1, "another variant gives other lists"
    assert sql(f"SELECT count(error) FROM '{log}/shadow/*/*.parquet'").fetchall() == [(0,)]
    account = [json.loads(line) for line in (log / "loss.jsonl").read_text().splitlines()]
    assert {entry["log"]: entry["lost"] for entry in account} == {"exposures": 0, "outcomes": 0, "shadow": 0}
