"""For all tests: one thread, loopback only, and no dataset folder but the test's own."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")
os.environ.setdefault("ICECHUNK_LOG", "error")
os.environ["DO_NOT_TRACK"] = "1"

import socket
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
if not os.environ.get("LORE_EXPLORE"):  # `make test-all` looks for new examples, `make test` repeats the same ones
    settings.load_profile("repeatable")

_connect = socket.socket.connect


def _loopback_only(self, address):
    host = address[0] if isinstance(address, tuple) else ""
    if host not in ("", "localhost", "::1") and not str(host).startswith("127."):
        raise AssertionError(f"a test tried to reach {host}")
    return _connect(self, address)


socket.socket.connect = _loopback_only


@pytest.fixture(autouse=True)
def own_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A datasets folder of the test's own, for everything that reads LORE_DATASETS."""
    monkeypatch.setenv("LORE_DATASETS", str(tmp_path / "datasets"))
    return tmp_path / "datasets"
