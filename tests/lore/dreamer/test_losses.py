import math

import pytest
import torch

from lore.dreamer.dists import policy_log_probs, twohot_bins
from lore.dreamer.losses import (
    SCALES,
    imagined_returns,
    policy_loss,
    replay_returns,
    replay_value_loss,
    total_loss,
    value_loss,
)

BINS = twohot_bins()
ALL = torch.ones(2, 3, dtype=torch.bool)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_scales_are_those_of_the_code_not_of_the_first_paper():
    assert (SCALES["dyn"], SCALES["rep"], SCALES["repval"]) == (1.0, 0.1, 0.3)
    assert {SCALES[name] for name in ("image", "rew", "con", "policy", "value")} == {1.0}


def test_total_is_the_scaled_sum_of_means_and_refuses_an_unknown_loss():
    losses = {"rew": torch.tensor([1.0, 3.0]), "rep": torch.full((2, 2), 5.0)}
    assert total_loss(losses).item() == pytest.approx(2.5)
    with pytest.raises(AssertionError, match="clone"):
        total_loss(losses | {"clone": torch.zeros(1)})


def test_policy_loss_closed_form():
    logits = torch.randn(2, 3, 4, generator=seeded())
    log_probs = policy_log_probs(logits)
    decision = torch.tensor([[0, 1, 2], [3, 0, 1]])
    advantage, weight = torch.randn(2, 3, generator=seeded(1)), torch.rand(2, 3, generator=seeded(2))
    loss, entropy = policy_loss(log_probs, decision, advantage, weight, ALL, 0.1)
    for n in range(2):
        for i in range(3):
            p = logits[n, i].softmax(-1)
            spread = -(p * p.log()).sum()
            expected = -weight[n, i] * (p[decision[n, i]].log() * advantage[n, i] + 0.1 * spread)
            assert loss[n, i].item() == pytest.approx(expected.item(), abs=1e-6)
            assert entropy[n, i].item() == pytest.approx(spread.item(), abs=1e-6)


def test_without_entropy_the_policy_still_gets_a_gradient_that_raises_good_decisions():
    logits = torch.zeros(1, 1, 3, requires_grad=True)
    loss, _ = policy_loss(
        policy_log_probs(logits), torch.tensor([[1]]), torch.tensor([[2.0]]), torch.ones(1, 1), ALL[:1, :1], 0.0
    )
    (grad,) = torch.autograd.grad(loss.sum(), logits)
    torch.testing.assert_close(-grad[0, 0], 2.0 * torch.tensor([-1 / 3, 2 / 3, -1 / 3]))


def test_the_policy_term_is_zero_where_the_actor_did_not_decide():
    logits = torch.randn(2, 3, 4, generator=seeded(), requires_grad=True)
    decides = torch.tensor([[True, False, False], [True, True, False]])
    decision = torch.tensor([[0, -1, -1], [3, 0, -1]])
    loss, entropy = policy_loss(policy_log_probs(logits), decision, torch.ones(2, 3), torch.ones(2, 3), decides, 1.0)
    assert (loss[~decides] == 0).all() and (entropy[~decides] == 0).all()
    (grad,) = torch.autograd.grad(loss.sum(), logits)
    assert (grad[~decides] == 0).all() and (grad[decides].abs().sum(-1) > 0).all()


def test_advantage_and_weight_carry_no_gradient():
    advantage, weight = torch.ones(2, 3, requires_grad=True), torch.ones(2, 3, requires_grad=True)
    log_probs = policy_log_probs(torch.zeros(2, 3, 4, requires_grad=True))
    loss, _ = policy_loss(log_probs, torch.zeros(2, 3, dtype=torch.long), advantage, weight, ALL, 0.1)
    assert torch.autograd.grad(loss.sum(), [advantage, weight], allow_unused=True) == (None, None)


def test_imagined_returns_bootstrap_only_at_decisions():
    reward = torch.tensor([[0.0, 1.0, 2.0, 4.0]])
    cont, value = torch.full((1, 4), 0.9), torch.tensor([[50.0, 60.0, 70.0, 80.0]])
    inside = torch.tensor([[True, False, False, True]])
    returns, reach = imagined_returns(reward, cont, value, inside)
    smdp = 1 + 0.9 * 2 + 0.81 * 4 + 0.729 * 80
    assert returns[0, 0].item() == pytest.approx(smdp)
    plain, _ = imagined_returns(reward, cont, value, torch.ones(1, 4, dtype=torch.bool))
    one = 1 + 0.9 * (0.05 * 60 + 0.95 * (2 + 0.9 * (0.05 * 70 + 0.95 * (4 + 0.9 * 80))))
    assert plain[0, 0].item() == pytest.approx(one)
    torch.testing.assert_close(reach, torch.tensor([[0.9, 0.81, 0.729, 0.6561]]))


def test_a_start_in_a_terminal_state_weighs_almost_nothing():
    cont = torch.tensor([[1e-4, 0.99, 0.99]])
    _, reach = imagined_returns(torch.zeros(1, 3), cont, torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool))
    assert reach.max() <= 1e-4


def test_value_loss_is_two_cross_entropies_and_its_targets_get_no_gradient():
    logits = torch.zeros(2, 3, 255, requires_grad=True)
    returns, slow = torch.ones(2, 3, requires_grad=True), torch.zeros(2, 3, requires_grad=True)
    loss = value_loss(logits, BINS, returns, slow, torch.full((2, 3), 0.5))
    torch.testing.assert_close(loss, torch.full((2, 3), math.log(255)))
    grads = torch.autograd.grad(loss.sum(), [logits, returns, slow], allow_unused=True)
    assert grads[0].abs().sum() > 0 and grads[1] is None and grads[2] is None


def replay_case():
    reward = torch.tensor([[9.0, 1.0, 0.0, 2.0]])
    boot = torch.tensor([[7.0, 3.0, 5.0, 10.0]])
    return reward, boot, torch.zeros(1, 4, dtype=torch.bool)


def test_replay_returns_bootstrap_with_imagined_returns_and_cut_at_last():
    reward, boot, none = replay_case()
    scale, lam = 332 / 333, 0.95
    plain = replay_returns(boot, reward, none, none)
    two = 2 + scale * 10
    one = 0 + scale * (0.05 * 5 + lam * two)
    assert plain[0].tolist() == pytest.approx([1 + scale * (0.05 * 3 + lam * one), one, two])
    last = none.clone()
    last[0, 2] = True
    cut = replay_returns(boot, reward, last, none)
    assert cut[0, 1].item() == pytest.approx(scale * 5), "a time limit bootstraps and cuts the trace"
    dead = replay_returns(boot, reward, last, last)
    assert dead[0, 1].item() == 0.0, "a death bootstraps nothing"


def test_replay_value_loss_skips_last_steps_and_the_final_one():
    reward, boot, none = replay_case()
    last = none.clone()
    last[0, 1] = True
    logits = torch.zeros(1, 4, 255, requires_grad=True)
    loss = replay_value_loss(logits, BINS, torch.zeros(1, 4), boot, reward, last, none)
    assert loss.shape == (1, 3) and loss[0, 1] == 0 and (loss[0, [0, 2]] > 11).all()
    (grad,) = torch.autograd.grad(loss.sum(), logits)
    assert grad[0, [1, 3]].abs().max() == 0 and grad[0, [0, 2]].abs().sum() > 0
