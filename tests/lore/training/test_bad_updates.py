"""Updates that are not finite: skipped on the device at once, learned of by the host every tenth update, none lost."""

import numpy as np
import pytest

from lore.config import load_config
from lore.training import loop
from lore.training.loop import train
from lore.training.records import read_jsonl
from lore.training.run import Training
from lore_datasets.errors import Diverged

SMALL = {
    "size": "tiny", "observation": "symbolic", "batch_size": 16, "sequence_length": 4, "train_ratio": 16.0,
    "horizon": 2, "log_interval": 10, "threads": 1, "replay_capacity": 2000, "env.length": 60, "steps": 70,
}  # fmt: skip


@pytest.fixture
def poisoned(monkeypatch):
    """``poisoned(numbers)``: the rewards of these updates (counted from 0) are no numbers."""

    def poison(numbers) -> list[int]:
        made, update = [], loop._update

        def poisoned_update(run: Training) -> None:
            bad = run.learner.updates in numbers
            made.append(run.learner.updates)
            if bad:
                sample = run.replay.sample

                def sampled(*args, **more):
                    batch = sample(*args, **more)
                    return batch | {"reward": np.full_like(batch["reward"], np.nan)}

                run.replay.sample = sampled
            before = run.replay.arrays["deter"].copy()
            update(run)
            if bad:
                del run.replay.sample
                loop._settle(run)
                assert np.array_equal(run.replay.arrays["deter"], before), "a bad update reached replay"

        monkeypatch.setattr(loop, "_update", poisoned_update)
        return made

    return poison


def test_bad_updates_are_skipped_reported_by_share_and_end_a_run_only_when_ten_follow_each_other(tmp_path, poisoned):
    made = poisoned({12, 13, 14, 15, 16, 25})
    train(load_config(**SMALL), tmp_path, tensorboard=False)
    assert made == list(range(len(made))) and len(made) > 40
    rows = read_jsonl(tmp_path / "metrics.jsonl")
    shares = [row["opt/skipped"] for row in rows if "opt/skipped" in row]
    assert sum(shares) == pytest.approx(0.6, abs=1e-6) and max(shares) == pytest.approx(0.5)


def test_ten_bad_updates_in_a_row_end_the_run_with_the_batch_kept(tmp_path, poisoned):
    made = poisoned(set(range(13, 99)))
    with pytest.raises(Diverged, match=r"17 updates in a row"):  # 13 to 29, when the host looks again
        train(load_config(**SMALL), tmp_path, tensorboard=False)
    assert made[-1] == 29
    with np.load(tmp_path / "diverged_batch.npz") as batch:
        assert np.isnan(batch["reward"]).all() and batch["deter"].shape[:2] == (4, 5)
