"""A clock that was set back stops nothing for longer than it must, and is named where the store insists on time."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from numcodecs.zstd import Zstd

from lore_datasets.errors import Busy
from lore_datasets.store.repository import open_repository
from lore_datasets.testing import random_advice, small_advice

_HEADER = 39  # of a snapshot file, before its zstd frame


@pytest.fixture
def date_commit(root):
    """Make the newest commit to ``small`` one of ``seconds`` in the future, as if the clock were set back now."""

    def change(seconds):
        tip = next(iter(open_repository(root, "small").ancestry(branch="main")))
        file = root / "small.icechunk" / "snapshots" / tip.id
        old, new = tip.written_at, datetime.now(UTC) + timedelta(seconds=seconds)
        stamps = [round(time.timestamp() * 1e6).to_bytes(8, "little") for time in (old, new)]
        head, body = file.read_bytes()[:_HEADER], Zstd().decode(file.read_bytes()[_HEADER:])
        assert body.count(stamps[0]) == 1
        file.write_bytes(head + Zstd().encode(body.replace(*stamps)))

    return change


def test_a_clock_set_back_by_a_second_is_waited_for(root, store, env, date_commit):
    date_commit(0.3)
    assert small_advice(root, env, 4, seed=5).version == 3 and store.verify("small").version == 3


def test_a_clock_set_back_by_an_hour_is_named_with_what_to_do_and_nothing_else_stops(root, store, env, date_commit):
    date_commit(3600)
    writer = store.writer("small", "advice", environment=env, skills=env.skills)
    writer.append("rows", **random_advice(env, 4, np.random.default_rng(0)))
    with pytest.raises(Busy, match=r"clock of this machine stands (3599|3600) s before the last commit") as error:
        writer.commit("late")
    assert "run again after that time" in error.value.hint
    assert store.verify("small").version == 2 and store.rollback("small@v1").version == 1
    assert store.tag("small@v2", "good").version == 2 and store.gc("small").keys() == {"small"}
    assert small_advice(root, env, 4, name="other").version == 1
    assert writer.commit("from v1, which is older").version == 3
