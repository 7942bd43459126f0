import pytest
import torch

from lore.dreamer.returns import CONTINUE_SCALE, PercentileNorm, imagination_weights, lambda_return

REWARD = torch.tensor([[9.0, 1.0, 0.0, 2.0]])
VALUE = torch.tensor([[7.0, 3.0, 5.0, 10.0]])


@pytest.mark.parametrize(
    ("terminal", "last", "expected"),
    [
        ([0, 0, 0, 0], [0, 0, 0, 0], [5.59, 7.2, 11.0]),
        ([0, 0, 1, 0], [0, 0, 1, 0], [2.35, 0.0, 11.0]),
        ([0, 0, 0, 0], [0, 0, 1, 0], [4.375, 4.5, 11.0]),
    ],
    ids=["no end", "terminal and last at 2", "last but not terminal at 2"],
)
def test_lambda_return_closed_form(terminal, last, expected):
    cont = 0.9 * (1 - torch.tensor([terminal]).float())
    lam = 0.5 * (1 - torch.tensor([last]).float())
    out = lambda_return(REWARD, cont, VALUE, lam)
    torch.testing.assert_close(out, torch.tensor([expected]))


def test_the_first_reward_continue_and_lambda_do_not_matter():
    cont, lam = torch.full((1, 4), 0.9), torch.full((1, 4), 0.5)
    plain = lambda_return(REWARD, cont, VALUE, lam)
    reward, other, trace = REWARD.clone(), cont.clone(), lam.clone()
    reward[0, 0], other[0, 0], trace[0, 0] = 1e6, 0.0, 1.0
    assert torch.equal(lambda_return(reward, other, VALUE, trace), plain)


def test_lambda_one_inside_an_option_gives_the_smdp_return():
    # An option decided at 0 runs through 1 and 2 and ends at 3, the next decision: sum of gamma^i r + gamma^3 v.
    gamma, cont = 0.9, torch.full((1, 4), 0.9)
    out = lambda_return(REWARD, cont, VALUE, torch.tensor([[0.0, 1.0, 1.0, 0.0]]))
    assert out[0, 0].item() == pytest.approx(1.0 + gamma * 0.0 + gamma**2 * 2.0 + gamma**3 * 10.0)


def test_lambda_zero_is_one_step_and_lambda_one_is_monte_carlo():
    cont = torch.full((1, 4), 0.9)
    one_step = lambda_return(REWARD, cont, VALUE, 0.0)
    torch.testing.assert_close(one_step, REWARD[:, 1:] + 0.9 * VALUE[:, 1:])
    monte_carlo = lambda_return(REWARD, cont, VALUE, 1.0)
    assert monte_carlo[0, 0].item() == pytest.approx(1.0 + 0.0 + 0.81 * 2.0 + 0.729 * 10.0)


def test_weights_are_the_running_product_and_include_the_starts_own_continue():
    torch.testing.assert_close(imagination_weights(torch.tensor([[0.5, 1.0, 0.8]])), torch.tensor([[0.5, 0.5, 0.4]]))


def test_horizon_of_333_steps_is_the_discount():
    assert pytest.approx(0.996997, abs=1e-6) == CONTINUE_SCALE


def test_percentile_norm_starts_at_zero_and_is_not_debiased():
    norm, values = PercentileNorm(), torch.linspace(0.0, 100.0, 101)
    norm.update(values)
    assert (norm.high - norm.low).item() == pytest.approx(0.9, abs=1e-5)
    assert norm.scale() == 1.0
    for _ in range(99):
        scale = norm.update(values)
    assert scale.item() == pytest.approx(57.06, abs=1e-2)


def test_percentile_norm_stays_at_one_for_small_returns_and_ignores_non_finite_ones():
    norm = PercentileNorm()
    for _ in range(300):
        norm.update(torch.linspace(0.0, 0.9, 50))
    assert norm.scale() == 1.0
    before = (norm.low.clone(), norm.high.clone())
    norm.update(torch.full((50,), float("nan")))
    assert (norm.low, norm.high) == before
