"""Models as scikit-learn and LightGBM train them and their converters write them: the server ranks by the same
numbers as they predict."""

import json
import subprocess

import grpc
import lightgbm
import numpy
import pytest
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType as LightGbmFloats
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from conftest import REFRAIN

FEATURES = ["similarity", "popularity", "novelty"]
MODELS = {
    "linear": LinearRegression(),
    "scaled": make_pipeline(StandardScaler(), LinearRegression()),
    "logistic": make_pipeline(StandardScaler(), LogisticRegression()),
    "boosted": GradientBoostingRegressor(n_estimators=40, random_state=1),
    "boosted_classes": GradientBoostingClassifier(n_estimators=40, random_state=1),
    "forest": RandomForestRegressor(n_estimators=20, max_depth=4, random_state=1),
    "forest_classes": RandomForestClassifier(n_estimators=20, max_depth=4, random_state=1),
    "ranker": lightgbm.LGBMRanker(n_estimators=30, min_child_samples=5, n_jobs=1, random_state=1, verbose=-1),
}


def classifies(name):
    return name == "logistic" or name.endswith("_classes")


def train(name, x):
    """A model of what a listener might like: a bend, a step and noise."""
    noise = numpy.random.default_rng(7).normal(0, 0.1, len(x))
    taste = x[:, 0] - 0.5 * x[:, 1] ** 2 + 0.3 * (x[:, 2] > numpy.median(x[:, 2])) + noise
    liked = (taste > numpy.median(taste)).astype(int)
    model = MODELS[name]
    if name == "ranker":
        return model.fit(x, liked, group=[len(x)])
    return model.fit(x, liked if classifies(name) else taste)


def convert(name, model):
    width = len(FEATURES)
    if name == "ranker":
        return convert_lightgbm(model, initial_types=[("input", LightGbmFloats([None, width]))], zipmap=False)
    return to_onnx(model, initial_types=[("input", FloatTensorType([None, width]))])


def predicted(name, model, x):
    return model.predict_proba(x)[:, 1] if classifies(name) else model.predict(x)


@pytest.fixture(scope="module")
def ranked(stubs, catalogue, tmp_path_factory):
    """The lists of one seed under every feature and model, as score by item; and the models."""
    home = tmp_path_factory.mktemp("models")
    random = numpy.random.default_rng(3)
    # As the features are spread here: inner products about 0, shares from 0 to 1.
    x = numpy.column_stack([random.normal(0.3, 0.4, 800), *random.uniform(0, 1, (2, 800))]).astype(numpy.float32)
    models = {name: train(name, x) for name in MODELS}
    features = ", ".join(f'"{feature}"' for feature in FEATURES)
    variants = [f'[variant.{feature}]\nscore = "{feature}"\n' for feature in FEATURES]
    for name, model in models.items():
        (home / f"{name}.onnx").write_bytes(convert(name, model).SerializeToString())
        variants.append(f'[variant.{name}]\nscore = "model"\nmodel = "{name}.onnx"\nmodel_features = [{features}]\n')
    (home / "refrain.toml").write_text("".join(variants))
    process = subprocess.Popen(
        [REFRAIN, "serve", "--config", home / "refrain.toml", "--store", catalogue / "store", "--json",
         "--profiles", home / "profiles.redb", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE, text=True,
    )
    ready = json.loads(process.stdout.readline())
    lists = {}
    with grpc.insecure_channel(ready["listen"]) as channel:
        service = stubs.recommendation_grpc.RecommendationServiceStub(channel)
        seed = (catalogue / "log" / "items.csv").read_text().splitlines()[5].split(",")[0]
        for name in [*FEATURES, *MODELS]:
            request = stubs.recommendation.RecommendRequest(
                request_id=name, page_size=500, ranking=stubs.recommendation.Ranking(variant_override=name),
                search=stubs.recommendation.SearchParams(exact=True),
                seeds=stubs.recommendation.Seeds(positive=[stubs.recommendation.Seed(item_id=seed)]),
            )
            answer = service.Recommend(request)
            assert not answer.degraded, (name, answer.degraded)
            lists[name] = {result.item_id: result.score for result in answer.results}
    process.terminate()
    assert process.wait(30) == 0
    return lists, models


@pytest.mark.parametrize("name", MODELS)
def test_the_server_ranks_by_what_the_model_predicts(ranked, name):
    lists, models = ranked
    assert len(lists[name]) == 500
    items = list(lists[name])
    x = numpy.array([[lists[feature][item] for feature in FEATURES] for item in items], dtype=numpy.float32)
    scores = numpy.array([lists[name][item] for item in items])
    expected = predicted(name, models[name], x)
    assert numpy.ptp(expected) > 0.01, "the candidates are told apart"
    numpy.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)
    assert (numpy.diff(scores) <= 0).all(), "best first"
