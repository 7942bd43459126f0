"""Limits of trust in open-loop predictions, pooled over batches."""

import pytest
import torch

from lore.synthetic.calibration import DEPTH, LEAST, MISSES, POOL, Calibration, OpenLoop, trusted_limit


def batch(n: int, generator: torch.Generator, depth: int = DEPTH) -> OpenLoop:
    """Predictions that err the more often, the more the heads disagree."""
    doubt = torch.rand(depth, n, generator=generator)
    error = 0.1 + 0.8 * (torch.rand(depth, n, generator=generator) < doubt**3)
    error[0] = 0.1 + 0.1 * torch.rand(n, generator=generator)
    return OpenLoop(doubt, error, torch.ones(depth, n, dtype=torch.bool))


def test_eight_predictions_of_which_the_most_agreed_one_missed_say_nothing_yet():
    doubt = torch.linspace(0.1, 0.8, 8)
    missed = torch.tensor([True] + [False] * 7)
    assert trusted_limit(doubt, missed) == 0.0  # of one batch alone: every roll-out would stop for good
    calibration, generator = Calibration(), torch.Generator().manual_seed(0)
    for _ in range(LEAST // 8 - 1):
        calibration.add(batch(8, generator))
        assert (calibration.limits == 0).all()
    for _ in range(60):
        calibration.add(batch(8, generator))
    assert (calibration.limits[1:] > 0.2).all()
    assert calibration.limit(DEPTH + 3) == calibration.limits[-1]


def test_under_the_pooled_limit_fresh_predictions_miss_about_as_often_as_allowed():
    calibration, generator = Calibration(), torch.Generator().manual_seed(1)
    for _ in range(POOL // 8):
        calibration.add(batch(8, generator))
    fresh = batch(4000, generator)
    kept = fresh.doubt[5] <= calibration.limits[5]
    assert abs(float((fresh.error[5][kept] > 0.5).float().mean()) - MISSES) < 0.04
    assert kept.float().mean() > 0.3


def test_only_predictions_of_episodes_that_went_on_count_and_none_means_no_figure():
    calibration, generator = Calibration(), torch.Generator().manual_seed(2)
    found = batch(8, generator)
    assert torch.tensor(calibration.add(found._replace(alive=torch.zeros_like(found.alive)))).isnan()
    assert calibration.count == [0] * DEPTH
    assert torch.tensor(calibration.add(found._replace(error=found.error * float("nan")))).isnan()
    assert calibration.count == [0] * DEPTH and calibration.error.isfinite().all()
    half = found.alive.clone()
    half[:, 4:] = False
    assert calibration.add(found._replace(alive=half)) == pytest.approx(float(found.error[:, :4].mean()))
    assert calibration.count == [4] * DEPTH


def test_a_calibration_goes_on_from_a_checkpoint():
    one, two, generator = Calibration(), Calibration(), torch.Generator().manual_seed(3)
    for _ in range(POOL // 16 + 3):  # around the ring once
        one.add(batch(16, generator))
    two.load({name: value.clone() for name, value in one.tensors().items()}, one.count)
    more = batch(16, generator)
    assert one.add(more) == two.add(more) and torch.equal(one.limits, two.limits)
