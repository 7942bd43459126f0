"""Datasets in an object store: addresses, and the whole store against a local S3-compatible server."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from lore_datasets.advice import load_advice
from lore_datasets.errors import BadInput, ConfigError, NotFound
from lore_datasets.store.bucket import Bucket
from lore_datasets.store.store import Store, default_root
from lore_datasets.testing import small_advice, small_model, small_states


@pytest.mark.parametrize(
    ("url", "bucket", "prefix"),
    [("s3://data/lore/v1", "data", "lore/v1"), ("s3://data", "data", ""), ("s3:/data/x/", "data", "x")],
)
def test_a_url_names_a_bucket_and_a_prefix(url, bucket, prefix, monkeypatch):
    monkeypatch.setenv("LORE_DATASETS", url)
    assert default_root() == Bucket(bucket, prefix) == Store().root == Store(Path(url)).root.resolve()
    assert Bucket.parse(str(Store().root)) == Store().root and Store().beside == Path("runs")


@pytest.mark.parametrize("url", ["s3://", "s3://UPPER/x", "s3://data/../x", "s3://data/a b", "s3://user:key@data/x"])
def test_a_malformed_url_is_refused(url):
    with pytest.raises(ConfigError, match="s3://bucket/prefix"):
        Store(url)


def test_plain_http_is_for_loopback_alone(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store.example")
    with pytest.raises(ConfigError, match="not encrypted"):
        Bucket("data", "").storage("small", ".icechunk")


@pytest.fixture(scope="module")
def bucket():
    """The URL of an empty bucket on a server that ends with the tests."""
    command = shutil.which("moto_server")
    if command is None:
        pytest.skip("needs moto_server on the PATH: pip install 'moto[s3,server]'")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [command, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(urllib.request.Request(f"{address}/lore", method="PUT"), timeout=10).close()
                break
            except OSError:
                assert process.poll() is None, "moto_server does not start"
                time.sleep(0.2)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {
                "AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
                "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
            }.items():  # fmt: skip
                patch.setenv(name, value)
            yield "s3://lore/data"
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_store_in_a_bucket_does_what_one_in_a_folder_does(bucket, env, tmp_path):
    store = Store(f"{bucket}/one")
    assert store.names() == []
    with pytest.raises(NotFound, match="no dataset 'small'"):
        store.versions("small")
    refs = [small_advice(root, env, 30) for root in (store.root, tmp_path)]
    assert refs[0] == refs[1]
    child = small_advice(store.root, env, 20, seed=1)
    small_model(store.root, env, child)
    small_states(store.root, env, 10)
    assert store.names() == ["small", "small-model", "states"] and store.versions("small") == [1, 2]
    assert store.verify("small@v2") == child and str(refs[0]) in store.manifest(child).parents
    data = load_advice("small", store.root)
    assert len(data.rows) == 50 and data.model is not None
    assert store.tag("small@v1", "good").version == 1 == store.resolve("small@good").version
    assert store.rollback("small@v1").version == store.current("small").version == 1
    store.gc()
    assert store.verify("small@v2") == child
    for name in ("../x", "Small", "a.icechunk"):
        with pytest.raises(BadInput):
            small_states(store.root, env, 4, name=name)
