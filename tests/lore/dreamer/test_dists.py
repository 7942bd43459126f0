import math

import pytest
import torch

from lore.dreamer.dists import (
    categorical_entropy,
    categorical_kl,
    policy_entropy,
    policy_log_probs,
    sample_index,
    straight_through,
    symexp,
    symlog,
    twohot_bins,
    twohot_loss,
    twohot_mean,
    twohot_std,
    twohot_weights,
    unimix_probs,
)

BINS = twohot_bins()


def dense_twohot(value: float) -> torch.Tensor:
    below, weight = twohot_weights(torch.tensor([value]), BINS)
    out = torch.zeros(255)
    out[below], out[below + 1] = 1 - weight, weight
    return out


def test_symexp_inverts_symlog_over_ten_orders_of_magnitude():
    x = torch.tensor([-1e5, -1.0, 0.0, 0.1, 1e5])
    torch.testing.assert_close(symexp(symlog(x)), x, rtol=1e-5, atol=0)


def test_bins_are_antisymmetric_with_zero_in_the_centre_and_symexp_of_20_at_the_ends():
    assert BINS.shape == (255,) and BINS[127] == 0
    assert torch.equal(BINS, -BINS.flip(0))
    assert BINS[128].item() == pytest.approx(0.170558, abs=1e-6)
    assert BINS[254].item() == pytest.approx(485_165_184, rel=1e-6)


def test_uniform_logits_decode_to_exactly_zero_where_a_naive_sum_does_not():
    logits = torch.zeros(3, 255)
    assert torch.equal(twohot_mean(logits, BINS), torch.zeros(3))
    assert (logits.softmax(-1) * BINS).sum(-1).abs().max() > 0.1


def test_zero_logits_cost_ln_255_for_any_target_in_range():
    loss = twohot_loss(torch.zeros(5, 255), BINS, torch.tensor([-1e6, -1.0, 0.0, 0.1, 12345.0]))
    torch.testing.assert_close(loss, torch.full((5,), 5.541264), rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("value", "below", "low", "high"),
    [
        (0.1, 127, 0.41369, 0.58631),
        (1.0, 131, 0.61733, 0.38267),
        (11.7, 143, 0.87008, 0.12992),
        (-3.3, 117, None, None),
    ],
)
def test_two_hot_weights_interpolate_linearly_in_raw_space(value, below, low, high):
    dense = dense_twohot(value)
    assert dense.nonzero().flatten().tolist() == [below, below + 1]
    if low is not None:
        assert dense[below].item() == pytest.approx(low, abs=1e-5)
        assert dense[below + 1].item() == pytest.approx(high, abs=1e-5)
    assert (dense * BINS).sum().item() == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize(("value", "end"), [(1e12, 254), (-1e12, 0)])
def test_values_outside_the_support_clip_to_the_end_bin_with_weight_one(value, end):
    assert dense_twohot(value)[end] == 1.0


@pytest.mark.parametrize(("value", "entropy"), [(0.0, 0.0), (1.0, 0.666), (-1.0, 0.666), (0.1, 0.678)])
def test_the_loss_floor_is_the_entropy_of_the_two_hot_target(value, entropy):
    target = dense_twohot(value)
    loss = twohot_loss((target + 1e-20).log().unsqueeze(0), BINS, torch.tensor([value]))
    assert loss.item() == pytest.approx(entropy, abs=1e-3)


def test_two_hot_loss_of_several_targets_is_the_sum_and_has_the_gradient_of_dense_cross_entropy():
    logits = torch.randn(4, 255, dtype=torch.float32, requires_grad=True)
    targets = [torch.tensor([0.0, 1.0, -3.3, 1e4]), torch.tensor([2.0, 0.1, 7.0, 0.0])]
    scale = torch.tensor([1.0, -2.0, 0.5, 3.0])
    loss = twohot_loss(logits, BINS, *targets)
    (grad,) = torch.autograd.grad((scale * loss).sum(), logits)
    dense = torch.stack([sum(dense_twohot(t[i].item()) for t in targets) for i in range(4)])
    other = -(dense * logits.log_softmax(-1)).sum(-1)
    torch.testing.assert_close(loss, other)
    torch.testing.assert_close(grad, torch.autograd.grad((scale * other).sum(), logits)[0], atol=1e-6, rtol=1e-4)


def test_two_hot_decodes_in_float32_even_under_bfloat16_autocast():
    logits = (dense_twohot(11.7) + 1e-20).log().unsqueeze(0)
    with torch.autocast("cpu", torch.bfloat16):
        assert twohot_mean(logits, BINS).item() == pytest.approx(11.7, rel=1e-5)


def test_spread_is_zero_for_a_certain_value_and_grows_with_doubt():
    certain, unsure = torch.full((255,), -100.0), torch.full((255,), -100.0)
    certain[131] = 100.0
    unsure[[100, 160]] = 100.0
    assert twohot_std(certain, BINS) < 1e-3
    assert twohot_std(unsure, BINS).item() == pytest.approx(
        (symlog(BINS[160]) - symlog(BINS[100])).item() / 2, rel=1e-3
    )


def test_unimix_bounds_the_probabilities_of_a_certain_categorical():
    probs = unimix_probs(torch.tensor([1000.0] + [0.0] * 15))
    assert probs.max().item() == pytest.approx(0.990625, abs=1e-6)
    assert probs.min().item() == pytest.approx(0.000625, abs=1e-7)


@pytest.mark.parametrize("classes", [2, 4, 8, 16])
def test_unimix_of_few_and_many_classes_is_the_same_function_with_the_same_gradient(classes):
    logits = torch.randn(5, 6, classes, generator=torch.Generator().manual_seed(0), requires_grad=True)
    weight = torch.randn(5, 6, classes, generator=torch.Generator().manual_seed(1))
    expected = 0.99 * logits.softmax(-1) + 0.01 / classes
    torch.testing.assert_close(unimix_probs(logits), expected)
    (ours,) = torch.autograd.grad((unimix_probs(logits) * weight).sum(), logits)
    (theirs,) = torch.autograd.grad((expected * weight).sum(), logits)
    torch.testing.assert_close(ours, theirs)


def test_kl_numbers_of_32_categoricals_of_16_classes_detect_a_missing_unimix():
    one, other = torch.zeros(32, 16), torch.zeros(32, 16)
    one[:, 0] = other[:, 1] = 20.0
    uniform = torch.zeros(32, 16)
    assert categorical_kl(unimix_probs(one), unimix_probs(uniform)).item() == pytest.approx(86.211, abs=1e-2)
    assert categorical_kl(unimix_probs(one), unimix_probs(other)).item() == pytest.approx(233.43, abs=1e-1)
    without = categorical_kl(unimix_probs(one, 0.0), unimix_probs(other, 0.0))
    assert without.item() == pytest.approx(640.0, rel=1e-3)


def test_entropy_of_uniform_categoricals_is_32_ln_c():
    assert categorical_entropy(unimix_probs(torch.zeros(2, 32, 4)))[0].item() == pytest.approx(
        32 * math.log(4), rel=1e-5
    )


def test_inverse_cdf_follows_the_probabilities_and_never_draws_an_impossible_entry():
    probs = torch.tensor([0.0, 0.2, 0.0, 0.5, 0.3, 0.0])
    uniform = torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    drawn = torch.bincount(sample_index(probs.expand(20_000, 6), uniform), minlength=6) / 20_000
    assert drawn[[0, 2, 5]].sum() == 0
    assert (drawn - probs).abs().max() < 0.015
    ends = torch.tensor([0.0, 1.0 - 2**-24])
    assert sample_index(probs.expand(2, 6), ends).tolist() == [1, 4]


def test_straight_through_is_exactly_one_hot_forward_and_the_probabilities_backward():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(64, 32, 16, generator=generator, requires_grad=True)
    probs, weight = unimix_probs(logits), torch.randn(64, 32, 16, generator=generator)
    sample = straight_through(probs, torch.rand(64, 32, generator=generator))
    assert set(sample.detach().unique().tolist()) == {0.0, 1.0}
    assert torch.equal(sample.detach().sum(-1), torch.ones(64, 32))
    (through,) = torch.autograd.grad((sample * weight).sum(), logits, retain_graph=True)
    (direct,) = torch.autograd.grad((probs * weight).sum(), logits)
    assert torch.equal(through, direct)


@pytest.mark.parametrize("unimix", [0.0, 0.01])
def test_masked_policy_gives_forbidden_entries_no_mass_no_entropy_and_no_gradient(unimix):
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), requires_grad=True)
    mask = torch.tensor([True, True, False, True, False, True, True]).expand(5, 7)
    log_probs = policy_log_probs(logits, mask, unimix)
    probs = log_probs.exp()
    assert probs[:, [2, 4]].max() < 1e-19
    torch.testing.assert_close(probs.sum(-1), torch.ones(5))
    entropy = policy_entropy(log_probs)
    (grad,) = torch.autograd.grad(entropy.sum() + log_probs[:, 0].sum(), logits)
    assert torch.isfinite(grad).all() and grad[:, [2, 4]].abs().max() < 1e-19 and grad[:, 0].abs().min() > 0
    assert entropy.max() <= math.log(5) + 1e-6


def test_policy_unimix_lifts_the_least_likely_entry_and_is_off_by_default():
    logits = torch.tensor([0.0, 0.0, -1000.0, 0.0])
    assert policy_log_probs(logits).exp()[2] == 0
    assert policy_log_probs(logits, None, 0.01).exp()[2].item() == pytest.approx(0.0025)
