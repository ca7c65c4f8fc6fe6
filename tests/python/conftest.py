"""A real server on a small generated catalogue, and stubs generated from proto/."""

import json
import os
import pathlib
import subprocess
import sys

import grpc
import pytest
from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parents[2]
REFRAIN = pathlib.Path(os.environ.get("REFRAIN_BIN", ROOT / "target" / "release" / "refrain"))


def refrain(*args):
    done = subprocess.run([REFRAIN, *map(str, args)], capture_output=True, text=True)
    assert done.returncode == 0, f"refrain {' '.join(map(str, args))}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def stubs(tmp_path_factory):
    """The package `refrain.v1` as Python sees it: generated here, from the same files anyone has."""
    out = tmp_path_factory.mktemp("stubs")
    protos = sorted((ROOT / "proto" / "refrain" / "v1").glob("*.proto"))
    import grpc_tools

    include = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    code = protoc.main(
        ["protoc", f"-I{ROOT / 'proto'}", f"-I{include}", f"--python_out={out}", f"--grpc_python_out={out}", *map(str, protos)]
    )
    assert code == 0
    sys.path.insert(0, str(out))
    from refrain.v1 import common_pb2, experiment_pb2, experiment_pb2_grpc, feedback_pb2, feedback_pb2_grpc
    from refrain.v1 import index_pb2, index_pb2_grpc
    from refrain.v1 import recommendation_pb2, recommendation_pb2_grpc, taste_profile_pb2, taste_profile_pb2_grpc

    class Stubs:
        common = common_pb2
        experiment, experiment_grpc = experiment_pb2, experiment_pb2_grpc
        feedback, feedback_grpc = feedback_pb2, feedback_pb2_grpc
        index, index_grpc = index_pb2, index_pb2_grpc
        recommendation, recommendation_grpc = recommendation_pb2, recommendation_pb2_grpc
        taste, taste_grpc = taste_profile_pb2, taste_profile_pb2_grpc

    return Stubs


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory):
    """A store with one published version of a small generated catalogue."""
    home = tmp_path_factory.mktemp("refrain")
    refrain("generate", "--preset", "small", "--out", home / "log")
    refrain("train", "--listens", home / "log" / "listens.csv", "--items", home / "log" / "items.csv", "--out", home / "model")
    refrain("build", "--model", home / "model", "--out", home / "bundle")
    refrain("publish", home / "bundle", "--store", home / "store", "--label", "stable")
    return home


@pytest.fixture(scope="session")
def server(catalogue):
    """Address of a real server process on it."""
    process = subprocess.Popen(
        [REFRAIN, "serve", "--store", catalogue / "store", "--profiles", catalogue / "profiles.redb",
         "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    ready = json.loads(process.stdout.readline())
    yield ready["listen"]
    process.terminate()
    assert process.wait(30) == 0, "a drained server exits with 0"


@pytest.fixture(scope="session")
def channel(server):
    with grpc.insecure_channel(server) as channel:
        grpc.channel_ready_future(channel).result(timeout=30)
        yield channel
