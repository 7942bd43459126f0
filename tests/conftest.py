"""For all tests: one thread, loopback only, folders in memory, and no dataset folder but the test's own."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")
os.environ.setdefault("ICECHUNK_LOG", "error")
os.environ["DO_NOT_TRACK"] = "1"

import hashlib
import importlib.util
import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

if Path("/dev/shm").is_dir() and shutil.disk_usage("/dev/shm").free > 4 * 2**30:  # in memory a sync costs nothing
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", "/dev/shm")

settings.register_profile("repeatable", derandomize=True, deadline=None)
if not os.environ.get("LORE_EXPLORE"):  # `make test-all` looks for new examples, `make test` repeats the same ones
    settings.load_profile("repeatable")

_spec = importlib.util.spec_from_file_location("server_count", Path(__file__).with_name("server_count.py"))
assert _spec is not None and _spec.loader is not None
server_count = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(server_count)
_MOST_SERVERS = 1
_SERVERS, _STARTED = pytest.StashKey(), pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Count servers from here on, in the one process that all tests are started by."""
    if not hasattr(config, "workerinput"):
        config.stash[_SERVERS] = server_count.ServerCount()


_LONG = ("test_end_to_end.py", "test_rounds.py", "test_rounds_program.py", "test_program_arms.py", "test_hdf5.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files go first (with ``--no-loadscope-reorder``), so that no worker begins one when the other has ended."""
    items.sort(key=lambda item: _LONG.index(item.path.name) if item.path.name in _LONG else len(_LONG))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """``make test`` fails when it started more than one Prefect server; slow tests may have their own."""
    count = session.config.stash.get(_SERVERS, None)
    if count is None:
        return
    session.config.stash[_STARTED] = started = count.stop()
    if len(started) > _MOST_SERVERS and session.config.option.markexpr == "not slow":
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say how many servers there were."""
    started = config.stash.get(_STARTED, [])
    if started:
        terminalreporter.write_line(f"Prefect servers started: {len(started)} (make test: at most {_MOST_SERVERS})")
    for line in started if len(started) > _MOST_SERVERS else []:
        terminalreporter.write_line(f"  {line}")


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


@pytest.fixture
def digest() -> Callable[[Path], str]:
    """What gives the SHA-256 over everything a run in a folder would continue from, times left out."""
    import torch

    from lore.training import checkpoint
    from lore.training.folder import CHECKPOINT

    def of(folder: Path) -> str:
        tensors, meta = checkpoint.load(folder / CHECKPOINT, has_replay=True)
        out = hashlib.sha256()
        for name in sorted(tensors):
            out.update(name.encode() + tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        for volatile in ("saved", "seconds", "config", "segments"):
            meta.pop(volatile)
        return out.hexdigest() + json.dumps(meta, sort_keys=True)

    return of
