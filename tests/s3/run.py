"""Starts an S3-speaking server (moto) and takes the store through it: the crate's own tests over a network
that fails and stalls, then the real binary: publish, serve, freshen, roll back, collect.

    python tests/s3/run.py [--binary target/release/refrain]
"""

import argparse
import json
import logging
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import boto3
from moto.server import ThreadedMotoServer

BUCKET = "refrain-test"
ROOT = pathlib.Path(__file__).resolve().parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", default=str(ROOT / "target/release/refrain"))
    args = parser.parse_args()
    os.environ.update(
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",
        AWS_REGION="us-east-1",
        AWS_DEFAULT_REGION="us-east-1",
        AWS_ALLOW_HTTP="true",
    )
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=BUCKET)
        os.environ.update(REFRAIN_TEST_S3=f"{host}:{port}", AWS_ENDPOINT=endpoint)
        # All packages selected, so that nothing is compiled twice; only this crate has such tests.
        tests = ["cargo", "test", "--workspace", "--locked", "-q", "--test", "it", "s3::"]
        subprocess.run(tests, cwd=ROOT, check=True)
        with tempfile.TemporaryDirectory() as home:
            life(pathlib.Path(args.binary), pathlib.Path(home))
    finally:
        server.stop()


def life(binary: pathlib.Path, home: pathlib.Path) -> None:
    """The life of a version with the real binary on s3://."""
    store = f"s3://{BUCKET}/life"
    os.environ["REFRAIN_CACHE"] = str(home / "cache")

    def run(*words: str) -> dict:
        done = subprocess.run([binary, *words, "--json"], check=True, stdout=subprocess.PIPE)
        return json.loads(done.stdout)

    run("generate", "--preset", "small", "--out", str(home / "log"))
    run("train", "--listens", str(home / "log/listens.csv"), "--out", str(home / "model"))
    run("build", "--model", str(home / "model"), "--out", str(home / "bundle"))
    published = run("publish", str(home / "bundle"), "--store", store)
    assert published["new"] and published["label"]["name"] == "stable", published
    assert not run("publish", str(home / "bundle"), "--store", store)["new"]
    serve = [binary, "serve", "--store", store, "--profiles", str(home / "p.redb"), "--json"]
    serve += ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
    config = home / "refrain.toml"
    config.write_text(f'[exposures]\npath = "{home}/shown"\nupload = "s3://{BUCKET}/log"\n')
    serve += ["--config", str(config)]
    server = subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        ready = json.loads(server.stdout.readline())
        client = ("--addr", f"http://{ready['listen']}")
        first = run("recommend", "nobody", "-k", "3", *client)
        top = first["results"][0]["item_id"]
        report = run("freshen", "--remove-item", top, "--store", store)
        assert report["published"] and report["delta"] == 1, report
        within(5, lambda: run("recommend", "nobody", "-k", "3", *client)["results"][0]["item_id"] != top)
        assert not run("freshen", "--remove-item", top, "--store", store)["published"]
    finally:
        server.terminate()
        server.wait()
    # What was shown is in the bucket, byte for byte, when the server has ended.
    s3 = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT"])
    files = sorted((home / "shown").glob("*/*/*.parquet"))
    assert files, "nothing was logged"
    for file in files:
        key = f"log/{file.relative_to(home / 'shown')}"
        assert s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == file.read_bytes(), key
    assert run("versions", "--store", store)["versions"][0]["delta"] == 1
    run("verify", "stable", "--store", store)
    gone = run("gc", "--keep", "0", "--younger-than-minutes", "0", "--store", store)
    assert gone["versions"] == [] and len(gone["kept"]) == 1, gone
    print("s3: published, served, freshened, verified, collected")


def within(seconds: float, there) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        if time.monotonic() > deadline:
            sys.exit(f"not within {seconds} s")
        time.sleep(0.1)


if __name__ == "__main__":
    main()
