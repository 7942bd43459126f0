"""Two writers, a killed writer, a full disk: what was acknowledged stays, the rest is all or nothing."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import namedtuple
from datetime import UTC, datetime, timedelta

import pytest

from lore_datasets.errors import Busy, NoSpace
from lore_datasets.store.repository import locked, open_repository
from lore_datasets.store.store import Store
from lore_datasets.testing import small_advice, small_states

PRELUDE = """
import sys
from lore_datasets.environments import get_environment
from lore_datasets.store.store import Store
from lore_datasets.testing import small_advice, small_states
env, root = get_environment("crafter"), sys.argv[1]
"""


def start(code, *arguments):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PRELUDE + code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def test_two_processes_that_commit_at_once_lose_nothing(tmp_path):
    code = """
for i in range(6):
    print(small_states(root, env, 5, seed=100 * int(sys.argv[2]) + i).digest, flush=True)
"""
    writers = [start(code, tmp_path, number) for number in (1, 2)]
    answers = [writer.communicate(timeout=60) for writer in writers]
    assert [w.returncode for w in writers] == [0, 0], answers
    acknowledged = {line for out, _ in answers for line in out.split()}
    store = Store(tmp_path)
    assert store.versions("states") == list(range(1, 13))
    assert {store.verify(f"states@v{n}").digest for n in range(1, 13)} == acknowledged
    assert len(acknowledged) == 12


def test_two_processes_that_add_rounds_to_one_dataset_keep_both(tmp_path):
    code = "print(small_advice(root, env, 5, seed=int(sys.argv[2]), name='shared'))"
    writers = [start(code, tmp_path, number) for number in (1, 2, 3)]
    for writer in writers:
        assert writer.communicate(timeout=60) and writer.returncode == 0
    assert Store(tmp_path).open("shared").manifest.counts["rows"] == 15


def kill_writers(root, kills, rng):
    code = """
for i in range(1000):
    print(small_advice(root, env, 40, seed=i, name="hit").digest, flush=True)
"""
    acknowledged = []
    for _ in range(kills):
        writer = start(code, root)
        acknowledged.append(writer.stdout.readline().strip())
        time.sleep(rng.random() * 0.3)
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged += writer.communicate(timeout=20)[0].split()
    return [digest for digest in acknowledged if len(digest) == 64]


@pytest.mark.parametrize("kills", [2, pytest.param(40, marks=pytest.mark.slow)])
def test_a_killed_writer_loses_nothing_it_acknowledged_and_leaves_no_half_version(tmp_path, env, kills):
    acknowledged = kill_writers(tmp_path, kills, random.Random(kills))
    store = Store(tmp_path, wait=5)
    held = [store.verify(f"hit@v{n}").digest for n in store.versions("hit")]
    assert len(acknowledged) >= kills and [d for d in held if d in acknowledged] == acknowledged
    assert len(held) <= len(acknowledged) + kills
    after = small_advice(tmp_path, env, 4, name="hit")
    assert after.version == len(held) + 1 and store.verify(after) == after


def test_a_commit_that_never_got_its_tag_is_invisible_and_gone_after_the_next_one(root, store, env):
    repository = open_repository(root, "states")
    session = repository.writable_session("main")
    import zarr

    zarr.open_group(session.store, mode="a").create_array("half", shape=(3,), dtype="u1")[...] = 1
    session.commit("killed before its tag")
    before = store.open("states")
    assert before.manifest.version == 1 and "half" not in before.arrays
    small_states(root, env, 7, seed=3)
    assert sorted(store.open("states").arrays) == sorted(before.arrays)


def test_garbage_collection_frees_what_no_version_needs_and_nothing_else(root, store, env):
    repository = open_repository(root, "small")
    session = repository.writable_session("main")
    import numpy as np
    import zarr

    noise = np.random.default_rng(0).integers(0, 256, 200_000, dtype=np.uint8)
    zarr.open_group(session.store, mode="a").create_array("orphan", data=noise)
    del session
    freed = store.gc("small")["small"]
    assert freed > 190_000 and store.gc() == {"small": 0, "small-model": 0, "states": 0}
    assert [store.verify(f"small@v{n}").version for n in (1, 2)] == [1, 2]
    assert datetime.now(UTC) - timedelta(days=1) < datetime.fromisoformat(store.manifest("small").created)


def test_a_held_lock_is_reported_with_its_holder_and_readers_go_on(root, env):
    with locked(root, "small", 1):
        with pytest.raises(Busy, match=f"small is being written by process {os.getpid()} since"):
            commit_with_wait(root, env, 0.1)
        assert Store(root).verify("small").version == 2
    assert small_advice(root, env, 4).version == 3


def commit_with_wait(root, env, wait):
    writer = Store(root, wait=wait).writer("small", "advice", environment=env, skills=env.skills)
    writer.append("rejects", reason=["x"], where=["y"], text=["z"])
    return writer.commit("waiting")


def test_the_lock_of_a_killed_process_is_free(root, env):
    code = """
from lore_datasets.store.repository import locked
from pathlib import Path
import time
with locked(Path(root), "small", 1):
    print("held", flush=True)
    time.sleep(60)
"""
    holder = start(code, root)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(Busy):
        commit_with_wait(root, env, 0.1)
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate(timeout=20)
    assert commit_with_wait(root, env, 5).version == 3


def test_too_little_free_space_is_noticed_before_anything_is_written(root, env, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**9, 10**9 - 2**19, 2**19)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    before = {p: p.stat().st_mtime_ns for p in (root / "small.icechunk").rglob("*")}
    with pytest.raises(NoSpace, match=r"0\.5 MiB free.*kept: every committed version of small") as caught:
        small_advice(root, env, 8)
    assert caught.value.exit_code == 7
    assert before == {p: p.stat().st_mtime_ns for p in (root / "small.icechunk").rglob("*")}


@pytest.mark.parametrize("existing", [True, False])
def test_a_disk_that_fills_during_a_commit_leaves_every_version_whole(tmp_path, env, existing):
    if existing:
        small_advice(tmp_path, env, 8, name="full")
    code = """
import os, resource, signal
from lore_datasets.errors import NoSpace
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    small_advice(root, env, 3000, name="full")
except NoSpace as error:
    print(error, flush=True)
    os._exit(0)  # icechunk's threads whose writes failed have been seen to abort while the interpreter ends
"""
    writer = start(code, tmp_path)
    out, err = writer.communicate(timeout=60)
    assert writer.returncode == 0 and "no space left while writing full" in out, (out, err)
    assert "kept: every committed version of full" in out
    store = Store(tmp_path)
    assert store.versions("full") == ([1] if existing else [])
    after = small_advice(tmp_path, env, 8, seed=1, name="full")
    assert store.verify(after).version == (2 if existing else 1)
    store.gc("full")
    assert store.verify("full") == after


def test_states_and_advice_are_committed_under_separate_locks(root, env):
    with locked(root, "small", 1):
        assert small_states(root, env, 4).version == 2
