"""Reading the advice off the latents of a run that was kickstarted."""

import re

import pytest

from benchmarks import latent
from lore.config import load_config
from lore.training.loop import train


@pytest.mark.slow
def test_the_view_the_latent_and_the_actor_each_have_a_share(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(latent, "EPOCHS", 3)
    train(load_config(
        size="tiny", observation="symbolic", dataset="crafter-claude", batch_size=32, sequence_length=8, steps=1200,
        threads=1, train_ratio=4.0, warmup=5, learning_rate=1e-3,
        **{"env.length": 60, "gate.enabled": True, "options.enabled": True, "options.max_options": 0},
    ), tmp_path, tensorboard=False)  # fmt: skip
    latent.main(tmp_path)
    out = capsys.readouterr().out
    shares = [float(share) for share in re.findall(r"\b[01]\.\d\d\b", out)]
    assert "records to learn from" in out and len(shares) == 10 and all(0.0 <= share <= 1.0 for share in shares)
    assert shares[2] > 0.3 and shares[7] > 0.15  # the view: chance is far below, some twenty skills and 17 actions
