"""The published JSON Schema takes every configuration of the documentation, and refuses what is misspelt."""

import copy
import json
import re
import tomllib

import pytest
from jsonschema import Draft202012Validator

from conftest import ROOT, refrain

PAGES = ["docs/experiments.md", "docs/variants.md", "README.md"]


@pytest.fixture(scope="module")
def validator():
    schema = json.loads(refrain("config", "--schema"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def is_of_a_server(table):
    return bool(set(table) & {"server", "assignment", "variant", "layer", "surface", "experiment", "exposures"})


def examples():
    yield "refrain config", tomllib.loads(refrain("config"))
    for path in sorted((ROOT / "clients" / "golden").glob("*.toml")):
        yield path.name, tomllib.loads(path.read_text(encoding="utf-8"))
    for page in PAGES:
        blocks = re.findall(r"```toml\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
        for at, block in enumerate(blocks):
            table = tomllib.loads(block)
            if is_of_a_server(table):
                yield f"{page}[{at}]", table


def test_every_example_is_valid(validator):
    seen = 0
    for name, table in examples():
        errors = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(table)]
        assert not errors, (name, errors)
        seen += 1
    assert seen >= 8, seen


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["server", "listem"], "127.0.0.1:7700"),
        (["server", "labels"], []),
        (["limits", "max_in_flight"], 0),
        (["variant", "plain", "mmr_lambda"], 1.5),
        (["variant", "plain", "exploration"], {"pool": 10}),
        (["layer", "a|b"], {"epoch": 1}),
        (["layer", "ranking", "buckets"], 1000),
        (["surface", "home", "layer"], []),
        (["experiment", "balanced-ranking", "kind"], "shadow"),
        (["experiment", "balanced-ranking", "kind"], "rollout"),
        (["experiment", "balanced-ranking", "allocation_bp"], 10001),
        (["experiment", "balanced-ranking", "arm"], [{"name": "alone", "variant": "plain"}]),
        (["experiment", "balanced-ranking", "metric", 0, "role"], "goal"),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, list) else None,
)
def test_what_a_server_refuses_the_schema_refuses(validator, path, value):
    config = tomllib.loads(refrain("config"))
    assert validator.is_valid(config)
    wrong = copy.deepcopy(config)
    place = wrong
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    # An "ab" with two arms that name variants is a sound shadow; it is not one without.
    if value == "shadow":
        del wrong["experiment"]["balanced-ranking"]["arm"][0]["variant"]
    assert not validator.is_valid(wrong)
