import pytest
import torch

from lore.dreamer.optim import LaProp
from lore_datasets.errors import SchemeMismatch


def scalar(**options) -> tuple[torch.nn.Parameter, LaProp]:
    theta = torch.nn.Parameter(torch.tensor([1.0]))
    return theta, LaProp([("theta", theta)], **{"lr": 0.1, "warmup": 0, "agc": 1e9} | options)


def step(theta: torch.nn.Parameter, optim: LaProp, grad: list[float]) -> None:
    theta.grad = torch.tensor(grad)
    optim.step()


def test_laprop_closed_form_differs_from_adam_after_a_jump():
    theta, optim = scalar()
    seen = []
    for grad in (1.0, 1.0, 100.0, 1.0):
        step(theta, optim, [grad])
        seen.append(theta.item())
    assert seen == pytest.approx([0.9, 0.8, 0.673025, 0.582391], abs=1e-5)


def test_agc_cuts_the_gradient_to_three_tenths_of_the_parameter_norm():
    # One update shows AGC only through the second moment: nu = 0.001 * g^2.
    theta = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    optim = LaProp([("theta", theta)])
    step(theta, optim, [30.0, 40.0])
    torch.testing.assert_close((optim.square[0] / 0.001).sqrt(), torch.tensor([0.9, 1.2]))
    assert optim.grad_norm.item() == pytest.approx(50.0)


def test_agc_of_a_zero_tensor_caps_at_3e_4_and_small_gradients_pass():
    theta = torch.nn.Parameter(torch.zeros(2))
    optim = LaProp([("theta", theta)])
    step(theta, optim, [30.0, 40.0])
    assert (optim.square[0] / 0.001).sqrt().norm().item() == pytest.approx(3e-4, rel=1e-4)
    fresh = LaProp([("theta", theta)])
    step(theta, fresh, [3e-5, 4e-5])
    torch.testing.assert_close((fresh.square[0] / 0.001).sqrt(), torch.tensor([3e-5, 4e-5]))


def test_agc_looks_at_each_tensor_alone():
    one, other = torch.nn.Parameter(torch.ones(4)), torch.nn.Parameter(torch.ones(4))
    optim = LaProp([("one", one), ("other", other)])
    one.grad, other.grad = torch.full((4,), 100.0), torch.full((4,), 0.01)
    optim.step()
    grads = [(square / 0.001).sqrt() for square in optim.square]
    assert grads[0].norm().item() == pytest.approx(0.6, rel=1e-4)
    torch.testing.assert_close(grads[1], torch.full((4,), 0.01))


@pytest.mark.parametrize(("update", "rate"), [(1, 0.0), (2, 4e-8), (501, 2e-5), (1001, 4e-5), (5000, 4e-5)])
def test_warm_up_rises_linearly_from_zero_over_1000_updates(update, rate):
    _, optim = scalar(lr=4e-5, warmup=1000)
    optim.count.fill_(update - 1)
    assert optim.rate().item() == pytest.approx(rate, rel=1e-9)


def test_the_first_update_of_a_warm_up_moves_nothing_but_takes_the_gradient_in():
    theta, optim = scalar(warmup=10)
    step(theta, optim, [2.0])
    assert theta.item() == 1.0 and optim.square[0].item() > 0 and optim.count == 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_non_finite_gradient_changes_nothing_and_raises_the_flag(bad):
    theta, optim = scalar()
    step(theta, optim, [1.0])
    before = {name: value.clone() for name, value in optim.state_dict().items() if name != "bad"}
    kept = theta.item()
    step(theta, optim, [bad])
    step(theta, optim, [bad])
    assert theta.item() == kept and not optim.finite and optim.bad == 2
    assert all(torch.equal(optim.state_dict()[name], value) for name, value in before.items())
    step(theta, optim, [1.0])
    assert optim.finite and optim.bad == 0 and theta.item() == pytest.approx(0.8)


def test_a_parameter_without_gradient_counts_as_zero_gradient():
    used, unused = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    optim = LaProp([("used", used), ("unused", unused)], lr=0.1, warmup=0)
    used.grad = torch.ones(2)
    optim.step()
    assert torch.equal(unused, torch.ones(2)) and not torch.equal(used, torch.ones(2))


def test_zero_gradients_and_zero_second_moment_do_not_divide_by_zero():
    theta, optim = scalar()
    step(theta, optim, [0.0])
    assert theta.item() == 1.0 and torch.isfinite(optim.momentum[0]).all()


def test_a_restored_optimiser_continues_bit_for_bit():
    grads = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))

    def run(parts: list[torch.Tensor], restart: bool) -> torch.Tensor:
        theta = torch.nn.Parameter(torch.ones(3))
        optim = LaProp([("theta", theta)], lr=0.01, warmup=4)
        for i, grad in enumerate(parts):
            if restart and i == 4:
                state = {name: value.clone() for name, value in optim.state_dict().items()}
                optim = LaProp([("theta", theta)], lr=0.01, warmup=4)
                optim.load_state_dict(state)
            theta.grad = grad.clone()
            optim.step()
        return theta.detach()

    assert torch.equal(run(list(grads), False), run(list(grads), True))


def test_a_state_of_another_network_is_refused_and_leaves_the_optimiser_alone():
    theta, optim = scalar()
    step(theta, optim, [1.0])
    state = {name: value.clone() for name, value in optim.state_dict().items()}
    state["square.theta"] = torch.zeros(7)
    with pytest.raises(SchemeMismatch, match=r"square\.theta"):
        optim.load_state_dict(state)
    assert optim.count == 1


def test_frozen_parameters_are_left_out():
    frozen = torch.nn.Parameter(torch.ones(2), requires_grad=False)
    optim = LaProp([("frozen", frozen), ("theta", torch.nn.Parameter(torch.ones(2)))])
    assert optim.names == ["theta"]
