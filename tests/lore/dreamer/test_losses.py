import math

import pytest
import torch

from lore.dreamer.actor_critic import ActorCritic, actor_critic_losses
from lore.dreamer.dists import policy_entropy, policy_log_probs
from lore.dreamer.imagination import Imagination
from lore.dreamer.losses import SCALES, Paths, as_starts, loss, replay_returns, replay_value_loss
from lore.dreamer.optim import total_loss
from lore.dreamer.returns import imagination_weights, lambda_return
from lore.dreamer.types import Noise, Starts, Trajectories
from lore.dreamer.world_model import WorldModel
from lore.sizes import Size
from lore_datasets.environments import get_environment

ALL = torch.ones(2, 3, dtype=torch.bool)
SMALL = Size(deter=64, hidden=16, classes=4, depth=4, units=32, stoch=8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trajectories(logits, decision, advantage, weight, is_decision=ALL) -> Trajectories:
    """Imagined steps [2, 3] whose advantage is ``advantage`` at scale 1."""
    log_probs = policy_log_probs(logits)
    chosen = log_probs.gather(-1, decision.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    zeros = torch.zeros(advantage.shape)
    two = torch.zeros(len(zeros), zeros.shape[1] + 1)
    return Trajectories(
        chosen, policy_entropy(log_probs), zeros, is_decision, two, two, two, zeros, advantage, weight
    )  # fmt: skip


def policy_loss(logits, decision, advantage, weight, is_decision, entropy):
    made = trajectories(logits, decision, advantage, weight, is_decision)
    return actor_critic_losses(made, torch.ones(()), entropy)["policy"]


def test_scales_are_those_of_the_code_not_of_the_first_paper():
    assert (SCALES["dyn"], SCALES["rep"], SCALES["repval"]) == (1.0, 0.1, 0.3)
    assert {SCALES[name] for name in ("rew", "con", "policy", "value")} == {1.0}


def test_total_is_the_scaled_sum_of_means():
    losses = {"rew": torch.tensor([1.0, 3.0]), "rep": torch.full((2, 2), 5.0)}
    assert total_loss(losses, SCALES).item() == pytest.approx(2.5)


def case(observation: str = "symbolic"):
    """World model, actor-critic, a batch [2, 4] of random records and its start."""
    model = WorldModel("symbolic", get_environment("crafter"), SMALL, generator=seeded())
    critic = ActorCritic(model.features, 17, SMALL, generator=seeded(1))
    lead, none = (2, 5), torch.zeros(2, 5, dtype=torch.bool)
    records = {
        "state": torch.randint(4, (*lead, 104), generator=seeded(2), dtype=torch.uint8),
        "action": torch.randint(17, lead, generator=seeded(3)), "reward": torch.rand(lead, generator=seeded(4)),
        "is_first": none, "is_last": none, "is_terminal": none,
        "deter": torch.zeros(*lead, 64).half(), "stoch": torch.zeros(*lead, 8, dtype=torch.uint8),
    }  # fmt: skip
    return model, critic, *model.split_context(records)


def noise(rows: int, seed: int) -> Noise:
    """Of three imagined steps."""
    return Noise(torch.rand(4, 1, rows, generator=seeded(seed)), torch.rand(3, rows, 8, generator=seeded(seed)))


def whole(paths=None, seed=0):
    model, critic, batch, start = case()
    paths = paths(model) if paths else Paths.none(critic, noise(8, seed))
    imagination = Imagination()
    return critic, loss(
        model, critic, imagination, batch, start, torch.rand(4, 2, 8, generator=seeded(seed)),
        paths=paths._replace(policy=critic.policy_step), entropy=3e-4,
    )  # fmt: skip


def test_the_whole_loss_has_every_name_of_the_scales_and_trains_everything_but_the_slow_critic():
    critic, found = whole()
    assert set(found.losses) == set(found.scales) == {*SCALES, "state"}
    assert found.losses["policy"].shape == (8, 3) and found.losses["repval"].shape == (2, 3)
    total_loss(found.losses, found.scales).backward()
    assert all(p.grad is not None for p in critic.parameters() if p.requires_grad)
    assert all(p.grad is None for p in critic.slow_critic.parameters())


def test_a_path_adds_terms_and_starts_and_must_name_what_it_adds():
    seen_returns = []

    def paths(scales):
        def starts(_batch, seen, losses):
            assert set(losses) == {"dyn", "rep", "rew", "con", "state"}
            real = as_starts(seen)
            more = type(real)(*(torch.cat([x, x[:2]]) for x in real))
            return Starts(more, noise(10, 0), torch.cat([torch.ones(8), torch.zeros(2)]))

        def terms(batch, seen, returns):
            seen_returns.append(returns)
            return {"extra": seen.latent.deter.square().mean(-1)}

        return lambda model: Paths(None, starts, terms, scales)

    _, found = whole(paths({"extra": 0.5}))
    assert found.scales["extra"] == 0.5 and found.losses["extra"].requires_grad
    assert seen_returns[0].shape == (10, 3)
    assert (found.losses["policy"][8:] == 0).all() and (found.losses["value"][8:] == 0).all()
    with pytest.raises(AssertionError, match="extra"):
        whole(paths({}))


def test_policy_loss_closed_form():
    logits = torch.randn(2, 3, 4, generator=seeded())
    decision = torch.tensor([[0, 1, 2], [3, 0, 1]])
    advantage, weight = torch.randn(2, 3, generator=seeded(1)), torch.rand(2, 3, generator=seeded(2))
    found = policy_loss(logits, decision, advantage, weight, ALL, 0.1)
    for n in range(2):
        for i in range(3):
            p = logits[n, i].softmax(-1)
            entropy = -(p * p.log()).sum()
            expected = -weight[n, i] * (p[decision[n, i]].log() * advantage[n, i] + 0.1 * entropy)
            assert found[n, i].item() == pytest.approx(expected.item(), abs=1e-6)


def test_without_entropy_the_policy_still_gets_a_gradient_that_raises_good_decisions():
    logits = torch.zeros(1, 1, 3, requires_grad=True)
    found = policy_loss(logits, torch.tensor([[1]]), torch.tensor([[2.0]]), torch.ones(1, 1), ALL[:1, :1], 0.0)
    (grad,) = torch.autograd.grad(found.sum(), logits)
    torch.testing.assert_close(-grad[0, 0], 2.0 * torch.tensor([-1 / 3, 2 / 3, -1 / 3]))


def test_the_policy_term_is_zero_where_the_actor_did_not_decide():
    logits = torch.randn(2, 3, 4, generator=seeded(), requires_grad=True)
    decides = torch.tensor([[True, False, False], [True, True, False]])
    decision = torch.tensor([[0, -1, -1], [3, 0, -1]])
    found = policy_loss(logits, decision, torch.ones(2, 3), torch.ones(2, 3), decides, 1.0)
    assert (found[~decides] == 0).all()
    (grad,) = torch.autograd.grad(found.sum(), logits)
    assert (grad[~decides] == 0).all() and (grad[decides].abs().sum(-1) > 0).all()


def test_advantage_and_weight_carry_no_gradient():
    advantage, weight = torch.ones(2, 3, requires_grad=True), torch.ones(2, 3, requires_grad=True)
    logits, decision = torch.zeros(2, 3, 4, requires_grad=True), torch.zeros(2, 3, dtype=torch.long)
    found = policy_loss(logits, decision, advantage, weight, ALL, 0.1)
    assert torch.autograd.grad(found.sum(), [advantage, weight], allow_unused=True) == (None, None)


def imagined_returns(reward, cont, value, is_decision):
    return lambda_return(reward, cont, value, torch.where(is_decision, 0.95, 1.0))


def test_imagined_returns_bootstrap_only_at_decisions():
    reward = torch.tensor([[0.0, 1.0, 2.0, 4.0]])
    cont, value = torch.full((1, 4), 0.9), torch.tensor([[50.0, 60.0, 70.0, 80.0]])
    inside = torch.tensor([[True, False, False, True]])
    smdp = 1 + 0.9 * 2 + 0.81 * 4 + 0.729 * 80
    # The last state's value ends the return either way.
    assert imagined_returns(reward, cont, value, inside)[0, 0].item() == pytest.approx(smdp)
    plain = imagined_returns(reward, cont, value, torch.ones(1, 4, dtype=torch.bool))
    one = 1 + 0.9 * (0.05 * 60 + 0.95 * (2 + 0.9 * (0.05 * 70 + 0.95 * (4 + 0.9 * 80))))
    assert plain[0, 0].item() == pytest.approx(one)
    torch.testing.assert_close(imagination_weights(cont), torch.tensor([[0.9, 0.81, 0.729, 0.6561]]))


def test_a_start_in_a_terminal_state_weighs_almost_nothing():
    assert imagination_weights(torch.tensor([[1e-4, 0.99, 0.99]])).max() <= 1e-4


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


def test_replay_value_loss_is_two_cross_entropies_and_skips_last_steps_and_the_final_one():
    reward, boot, none = replay_case()
    last = none.clone()
    last[0, 1] = True
    critic = ActorCritic(40, 4, SMALL, generator=seeded())  # its logits are all 0: the cross-entropy is ln 255
    features = torch.randn(1, 4, 40, generator=seeded(1), requires_grad=True)
    torch.nn.init.normal_(critic.critic.out.weight, std=1e-4, generator=seeded(2))
    batch = {"reward": reward, "is_last": last, "is_terminal": none}
    found = replay_value_loss(critic, features, boot.requires_grad_(), batch)
    assert found.shape == (1, 3) and found[0, 1] == 0
    torch.testing.assert_close(found[0, [0, 2]], torch.full((2,), 2 * math.log(255)), rtol=1e-3, atol=0)
    slope, untouched = torch.autograd.grad(found.sum(), [features, boot], allow_unused=True)
    assert slope[0, [1, 3]].abs().max() == 0 and slope[0, [0, 2]].abs().sum() > 0 and untouched is None
