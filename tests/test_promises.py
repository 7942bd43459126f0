"""What a run's world model promises of each action, beside what it paid."""

import json
import re

import pytest

from benchmarks import promises
from lore.config import load_config
from lore.dreamer.symbols import SymbolicDecoder
from lore.dreamer.types import Latent
from lore.training.loop import train
from lore.training.run import Training

LINE = re.compile(r"^  (\w+) +promised +(-?\d+\.\d+), over 0.5 in (\d\.\d\d) .* paid +(\S+) in ([\d,]+) steps$", re.M)


def replaced(monkeypatch):
    """Once the run has been read, let its world model promise of each action the action's number."""
    restore = Training.restore

    def then(run):
        restore(run)
        model = run.policy.agent.world_model
        model.rssm.imagine_step = lambda latent, action, _: Latent(latent.deter * 0 + action[:, None], latent.stoch)
        model.predict = lambda features: (features[:, 0], None)

    monkeypatch.setattr(Training, "restore", then)


@pytest.fixture
def run(tmp_path):
    train(load_config(
        size="tiny", observation="symbolic", batch_size=32, sequence_length=8, steps=300, threads=1, train_ratio=2.0,
        warmup=5, **{"env.length": 60},
    ), tmp_path, tensorboard=False)  # fmt: skip
    return tmp_path


def test_every_action_s_promise_stands_beside_what_was_paid_for_it(run, capsys, monkeypatch):
    replaced(monkeypatch)
    promises.main(run)
    out = capsys.readouterr().out
    lines = LINE.findall(out)
    assert len({name for name, *_ in lines}) == len(lines) == 17
    assert [float(promise) for _, promise, *_ in lines] == [float(action) for action in range(17)]
    assert [share for _, _, share, *_ in lines] == ["0.00"] + ["1.00"] * 16
    episodes = [json.loads(line) for line in (run / "episodes.jsonl").read_text().splitlines()]
    assert sum(int(n) for *_, n in lines) == sum(e["length"] for e in episodes) - 1  # nothing came after the last one
    paid = sum(float(mean) * int(n) for *_, mean, n in lines if mean != "–")
    assert abs(paid - sum(e["return"] for e in episodes)) < 0.3  # three digits, and the last step


def test_what_is_unlocked_is_told_wrong_as_often_as_the_reconstruction_says_otherwise(run, capsys, monkeypatch):
    found = []
    for said in (0.0, 1.0):
        with monkeypatch.context() as patch:
            replaced(patch)
            patch.setattr(
                SymbolicDecoder, "forward", lambda _, x, said=said: (None, None, x.new_full((len(x), 40), said))
            )
            promises.main(run)
        found.append(
            [float(x) for x in re.search(r"told wrong: (\S+); .* value: (\S+)", capsys.readouterr().out).groups()]
        )
    (never, common), (always, same) = found
    assert never + always == pytest.approx(1.0, abs=0.002) and common == same
    assert 0.0 < common <= never < always
