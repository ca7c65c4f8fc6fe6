"""The assignment in Python agrees with the golden vectors, which the server's own tests write."""

import csv
import sys
from pathlib import Path

import pytest

CLIENTS = Path(__file__).resolve().parents[2] / "clients"
sys.path.insert(0, str(CLIENTS / "python"))

from refrain_assignment import Experiments, bucket, hash64  # noqa: E402


@pytest.mark.parametrize(
    ("unit", "layer", "million", "arm", "grid"),
    [
        ("u1", 13455888550578269404, 729445, 489857473915000697, 26555),
        ("u2", 3738333877770571106, 202655, 13001557281017147472, 704815),
        ("u3", 3082807806092128413, 167119, 465725212624018308, 25247),
        ("roug", 5806619127780210158, 314777, 7237049069613092177, 392321),
        ("élodie", 8362012400667207877, 453305, 114671187897740581, 6216),
    ],
)
def test_published_vectors(unit, layer, million, arm, grid):
    assert hash64(f"L:ranking:1|{unit}") == layer
    assert bucket(layer, 1_000_000) == million
    assert hash64(f"E:rank-blend:1|{unit}") == arm
    assert bucket(arm, 1_000_000) == grid


@pytest.mark.parametrize(
    ("config", "golden", "count"),
    [("experiments.toml", "assignments.csv", 10_000), ("drawn.toml", "drawn.csv", 2_000)],
    ids=["with a journal", "without"],
)
def test_golden_assignments(config, golden, count):
    experiments = Experiments.load(CLIENTS / "golden" / config)
    with open(CLIENTS / "golden" / golden, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == count
    for i, row in enumerate(rows):
        attributes = {"country": row["country"], "app_version": f"9.{i % 20}"}
        a = experiments.assign(row["surface"], row["unit"], attributes)
        dark = experiments.shadows(row["surface"], row["unit"], attributes)
        got = [a.bucket, a.reason, a.experiment or "", a.arm or "", a.grid, a.variant, a.holdout or ""]
        got.append("+".join(arm for _, arm in dark))
        keys = ["bucket", "reason", "experiment", "arm", "grid", "variant", "holdout", "dark"]
        assert [str(value) for value in got] == [row[key] for key in keys], row


def test_an_edited_journal_is_refused(tmp_path):
    for name in ["experiments.toml", "journal.jsonl"]:
        text = (CLIENTS / "golden" / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text.replace('"to_bp":4500', '"to_bp":4600'), encoding="utf-8")
    with pytest.raises(ValueError, match="line 3"):
        Experiments.load(tmp_path / "experiments.toml")


def test_a_surface_may_have_several_layers_and_arms_from_elsewhere():
    arms = [{"name": "low"}, {"name": "high", "params": {"alpha": 0.4}}]
    config = {
        "layer": {"first": {"epoch": 1}, "second": {"epoch": 1, "params": {"alpha": {"default": 0.1}}}},
        "surface": {"default": {"layer": ["first", "second"], "variant": "plain"}},
        "experiment": {
            "base": {
                "kind": "ab",
                "layer": "first",
                "epoch": 1,
                "allocation_bp": 10_000,
                "assigner": "external",
                "arm": [{"name": "old", "variant": "plain"}, {"name": "new", "variant": "bold"}],
            },
            "popular": {"kind": "ab", "layer": "second", "epoch": 1, "allocation_bp": 5_000, "arm": arms},
        },
    }
    experiments = Experiments(config)
    seen = set()
    for unit in (f"u{n}" for n in range(200)):
        first, second = experiments.assign_layers("home", unit, arms={"base": "new"})
        assert (first.reason, first.arm, first.variant, first.grid) == ("EXTERNAL", "new", "bold", 0)
        assert (second.layer, second.variant) == ("second", "plain")
        seen.add(second.arm)
        unknown = experiments.assign("home", unit, arms={"base": "newer"})
        assert (unknown.reason, unknown.arm, unknown.variant) == ("DEFAULT", None, "plain")
    assert seen == {None, "low", "high"}


def test_a_closed_intake_keeps_those_inside(tmp_path):
    text = (CLIENTS / "golden" / "drawn.toml").read_text(encoding="utf-8")
    open_to_all = Experiments.load(CLIENTS / "golden" / "drawn.toml")
    name = next(iter(open_to_all._experiments))
    units = [f"u{n}" for n in range(400)]
    inside = [u for u in units if open_to_all.assign("home", u, {}).experiment == name]
    assert len(inside) > 20
    admitted = f'[experiment.{name}]\nadmitted = "in.units"'
    assert f"[experiment.{name}]" in text
    (tmp_path / "drawn.toml").write_text(text.replace(f"[experiment.{name}]", admitted), encoding="utf-8")
    (tmp_path / "in.units").write_text("\r\n".join(inside[::2]), encoding="utf-8")
    closed = Experiments.load(tmp_path / "drawn.toml")
    for unit in units:
        was, now = open_to_all.assign("home", unit, {}), closed.assign("home", unit, {})
        if unit in inside[1::2]:
            assert (now.reason, now.experiment) == ("PAUSED", None)
        else:
            assert now == was
    with pytest.raises(ValueError, match="was not read"):
        Experiments({"experiment": {"a": {"admitted": "a.units", "layer": "l"}}})
