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
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from hypothesis import settings

if Path("/dev/shm").is_dir() and shutil.disk_usage("/dev/shm").free > 4 * 2**30:  # in memory a sync costs nothing
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", "/dev/shm")

settings.register_profile("repeatable", derandomize=True, deadline=None)
if not {"LORE_EXPLORE", "LORE_FUZZ"} & os.environ.keys():  # `make test-all` and `make fuzz` look for new examples
    settings.load_profile("repeatable")


def _beside(name: str):
    """A module of this folder: tests need not run from the root of the repository."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    sys.modules[f"tests.{name}"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


loopback, server_count = _beside("loopback"), _beside("server_count")
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


loopback.guard()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test during which somebody tried to reach another machine fails, whatever became of the attempt."""
    report = yield
    if loopback.TRIED and report.passed:
        report.outcome, report.longrepr = "failed", f"{item.nodeid} tried to reach {', '.join(loopback.TRIED)}"
    loopback.TRIED.clear()
    return report


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
