"""Readers beside two writers see whole versions, and no error that is not one."""

import itertools
import os
import subprocess
import sys

import pytest

from lore_datasets.advice import load_advice
from lore_datasets.store.store import Store

WRITE = """
import itertools, sys
from lore_datasets.environments import get_environment
from lore_datasets.testing import small_advice, small_states
env, root = get_environment("crafter"), sys.argv[1]
for i in itertools.count():
    if sys.argv[2] == "states":
        small_states(root, env, 3, seed=i, name=f"states-{i // 12}")
    else:
        small_advice(root, env, 3, seed=i, name=f"talk-{i // 6}")
"""


@pytest.mark.parametrize("reads", [40, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_no_read_beside_two_writers_fails_or_goes_back(tmp_path, reads):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITE, tmp_path, kind], env=environment, stderr=subprocess.PIPE, text=True
        )
        for kind in ("states", "talk")
    ]
    seen: dict[str, int] = {}
    done, store = 0, Store(tmp_path)
    try:
        for i in itertools.count():
            names = [name for name in store.names() if name.startswith("states" if i % 2 else "talk")]
            names.sort(key=lambda name: int(name.split("-")[1]))
            if not names or not store.versions(names[-1]):  # its first version is being made
                continue
            name = names[-1]
            if i % 8 < 2:
                survey = store.survey(name)
                assert survey.damage == [] and survey.current >= seen.get(name, 0)
            found = load_advice(name, tmp_path).ref if i % 4 == 2 else store.verify(name)
            assert found.version >= seen.get(name, 0)
            seen[name] = found.version
            done += 1
            if done >= reads and len(seen) > 2 and sum(seen.values()) > 12:
                break
        assert all(writer.poll() is None for writer in writers)
    finally:
        for writer in writers:
            writer.kill()
        errors = [writer.communicate(timeout=20)[1] for writer in writers]
    assert not any("Error" in text for text in errors), errors
