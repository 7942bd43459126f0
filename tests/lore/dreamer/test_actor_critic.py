import math

import pytest
import torch

from lore.dreamer.actor_critic import ActorCritic, Choice, actor_critic_losses, trajectory_metrics
from lore.dreamer.dists import policy_log_probs, sample_index
from lore.dreamer.imagination import imagine, judge
from lore.dreamer.losses import replay_value_loss
from lore.dreamer.optim import LaProp
from lore.dreamer.types import Imagined, Latent, Noise, Trajectories
from lore.dreamer.world_model import WorldModel
from lore.sizes import Size
from lore_datasets.environments import Environment
from lore_datasets.environments.crafter import KEY_SCHEME, VOCAB

CRAFTER = Environment("crafter", VOCAB, KEY_SCHEME, ())
SMALL = Size(deter=64, hidden=16, classes=4, depth=4, units=32, stoch=8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(actions: int = 17) -> tuple[WorldModel, ActorCritic]:
    model = WorldModel("symbolic", CRAFTER, SMALL, generator=seeded())
    agent = ActorCritic(model.features, actions, SMALL, generator=seeded(1))
    for head in (model.reward, agent.critic, agent.slow_critic):  # zero outputs pass no gradient on
        torch.nn.init.normal_(head.out.weight, std=0.1, generator=seeded(2))
    return model, agent


def starts(rows: int = 12) -> Latent:
    stoch = torch.nn.functional.one_hot(torch.randint(4, (rows, 8), generator=seeded(3)), 4).float()
    return Latent(torch.rand(rows, 64, generator=seeded(4)), stoch)


def noise(rows: int = 12, horizon: int = 5, seed: int = 5) -> Noise:
    generator = seeded(seed)
    policy = torch.rand(horizon + 1, 1, rows, generator=generator)
    return Noise(policy, torch.rand(horizon, rows, 8, generator=generator))


def dream(model: WorldModel, agent: ActorCritic, rows: int = 12, horizon: int = 5, seed: int = 5) -> Imagined:
    return imagine(model, agent.policy_step, starts(rows), noise(rows, horizon, seed))


def learned(agent: ActorCritic, judged: Trajectories, entropy: float = 3e-4):
    """Losses and metrics, the scale taken in from these trajectories."""
    scale = agent.norm.update(judged.returns)
    return actor_critic_losses(judged, scale, entropy), trajectory_metrics(judged, scale, agent.actions)


def touched(*modules: torch.nn.Module) -> set[str]:
    return {
        name
        for module in modules
        for name, child in module.named_children()
        if any(p.grad is not None and p.grad.abs().sum() > 0 for p in child.parameters())
    }


def test_imagination_has_one_state_more_than_actions_and_starts_at_the_start():
    model, agent = make()
    imagined = dream(model, agent)
    judged = judge(model, agent, imagined)
    assert imagined.features.shape == (12, 6, model.features) and imagined.action.shape == (12, 5)
    assert imagined.charge.shape == (12, 6) and (imagined.charge == -1).all() and imagined.mask is None
    assert torch.equal(imagined.features[:, 0], starts().features())
    assert torch.equal(imagined.features[:, 5], imagined.last.features())
    assert judged.reward.shape == judged.cont.shape == judged.value.shape == (12, 6)
    assert judged.returns.shape == judged.log_prob.shape == (12, 5)


def test_imagination_builds_no_graph_and_depends_on_its_generator_alone():
    model, agent = make()
    one, same, other = (dream(model, agent, seed=s) for s in (5, 5, 6))
    assert not one.features.requires_grad
    assert torch.equal(one.action, same.action) and torch.equal(one.features, same.features)
    assert not torch.equal(one.action, other.action)


def test_imagined_dynamics_follow_the_actions_of_the_policy():
    model, agent = make()
    imagined = dream(model, agent, horizon=1)
    latent = starts()
    with torch.no_grad():
        deter = model.rssm.core(latent.deter, latent.stoch, model.rssm.project_action(imagined.action[:, 0]))
    torch.testing.assert_close(imagined.features[:, 1, :64], deter)


def test_an_injected_policy_carries_its_options_and_masks_through_imagination():
    model, agent = make(actions=20)
    mask = torch.ones(12, 20, dtype=torch.bool)
    mask[:, 17:19] = False

    def policy(features, carry, uniform):  # decides at every third step, else keeps to the action of the decision
        step, kept = (0, None) if carry is None else carry
        with torch.enable_grad():
            logits = agent.actor(features)
        decision = sample_index(policy_log_probs(logits.detach(), mask).exp(), uniform[0])
        decides = step % 3 == 0
        kept = decision % 17 if decides else kept
        return Choice(
            logits, kept, decision, torch.full((len(features),), -1 if decides else 0), mask, (step + 1, kept)
        )

    imagined = imagine(model, policy, starts(), noise())
    assert imagined.charge[0].tolist() == [-1, 0, 0, -1, 0, 0]
    assert torch.equal(imagined.action[:, 0], imagined.action[:, 2])
    assert not torch.isin(imagined.decision, torch.tensor([17, 18])).any()
    losses, metrics = learned(agent, judge(model, agent, imagined))
    assert (losses["policy"][:, [1, 2, 4]] == 0).all() and (losses["policy"][:, [0, 3]] != 0).any()
    assert (losses["value"] > 0).all()
    assert metrics["ent/action"].item() == pytest.approx(math.log(18), rel=0.02)


def test_first_policy_is_nearly_uniform_over_all_entries():
    _, agent = make()
    probs = agent.log_probs(torch.randn(50, SMALL.deter + 32, generator=seeded())).exp()
    assert (probs - 1 / 17).abs().max() < 0.01


def test_policy_loss_trains_the_actor_alone_and_value_loss_the_critic_alone():
    model, agent = make()
    losses, _ = learned(agent, judge(model, agent, dream(model, agent)))
    losses["policy"].mean().backward(retain_graph=True)
    assert touched(model, agent) == {"actor"}
    agent.zero_grad()
    losses["value"].mean().backward()
    assert touched(model, agent) == {"critic"}


def test_replay_value_loss_trains_critic_rssm_and_encoder_but_not_the_slow_critic():
    model, agent = make()
    states = torch.randint(4, (2, 6, 104), generator=seeded(), dtype=torch.uint8)
    action, none = torch.zeros(2, 6, dtype=torch.long), torch.zeros(2, 6, dtype=torch.bool)
    seen = model.rssm.observe(
        model.encode(states), action, none, model.rssm.initial(2), torch.rand(6, 2, 8, generator=seeded())
    )
    batch = {"reward": torch.ones(2, 6), "is_last": none, "is_terminal": none}
    loss = replay_value_loss(agent, seen.latent.features(), torch.rand(2, 6, generator=seeded()), batch)
    assert loss.shape == (2, 5)
    loss.mean().backward()
    assert touched(model, agent) == {"critic", "rssm", "encoder"}


def test_the_slow_critic_is_no_trainable_parameter_and_follows_by_two_percent():
    _, agent = make()
    assert not any("slow" in name for name in LaProp(agent.named_parameters()).names)
    with torch.no_grad():
        agent.critic.out.bias.fill_(1.0)
        agent.slow_critic.out.bias.fill_(0.0)
    agent.update_slow()
    torch.testing.assert_close(agent.slow_critic.out.bias, torch.full((255,), 0.02))
    agent.update_slow()
    torch.testing.assert_close(agent.slow_critic.out.bias, torch.full((255,), 0.0396))


def test_a_new_slow_critic_is_a_copy():
    agent = ActorCritic(40, 17, SMALL, generator=seeded())
    for ours, slow in zip(agent.critic.parameters(), agent.slow_critic.parameters(), strict=True):
        assert torch.equal(ours, slow) and ours is not slow and not slow.requires_grad


def test_advantage_is_divided_by_the_scale_taken_in_the_same_step():
    model, agent = make()
    torch.nn.init.zeros_(agent.critic.out.weight)
    judged = judge(model, agent, dream(model, agent))
    judged = judged._replace(returns=torch.randint(-500, 500, (12, 5), generator=seeded()).float())
    losses, metrics = learned(agent, judged, entropy=0.0)
    ends = torch.quantile(judged.returns, torch.tensor([0.05, 0.95]))
    scale = 0.01 * (ends[1] - ends[0])
    torch.testing.assert_close(agent.norm.scale(), scale)
    torch.testing.assert_close(metrics["adv"], judged.returns.mean() / scale)
    torch.testing.assert_close(losses["policy"], -judged.weight * judged.log_prob * judged.returns / scale)


def test_a_start_of_weight_zero_is_silent():
    model, agent = make()
    weight = torch.ones(12)
    weight[3] = 0.0
    losses, _ = learned(agent, judge(model, agent, dream(model, agent), weight=weight))
    for loss in losses.values():
        assert loss[3].abs().max() == 0 and loss[0].abs().min() > 0


def test_metrics_are_detached_scalars_of_the_documented_names():
    model, agent = make()
    _, metrics = learned(agent, judge(model, agent, dream(model, agent)))
    names = "adv adv_std adv_mag rew con ret val tar weight slowval ret_min ret_max ret_rate ent/action rand/action"
    assert set(metrics) == set(names.split())
    assert all(value.shape == () and not value.requires_grad for value in metrics.values())
    assert metrics["rand/action"].item() == pytest.approx(1.0, abs=0.01)


class Bandit:
    """Every state pays 1 for action 2 and nothing else; continue 0 ends it there."""

    def __init__(self, action: torch.Tensor) -> None:
        self.action = action

    def predict(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        reward = torch.stack([torch.zeros(len(features)), (self.action == 2).float()], 1)
        return reward, torch.tensor([[1.0, 0.0]]).expand(len(features), 2)


def test_reinforce_finds_the_rewarded_action_of_a_bandit_and_the_critic_its_value():
    agent = ActorCritic(SMALL.deter + 32, 4, SMALL, generator=seeded())
    optim = LaProp(agent.named_parameters(), lr=3e-3, warmup=10)
    features = torch.randn(64, SMALL.deter + 32, generator=seeded())
    generator = seeded(1)
    for _ in range(120):
        logits, action, decision, charge, mask, *_ = agent.policy_step(
            features, None, torch.rand(1, 64, generator=generator)
        )
        two = features.unsqueeze(1).expand(-1, 2, -1)
        flags = charge[:, None].expand(-1, 2)
        imagined = Imagined(two, logits[:, None], action[:, None], decision[:, None], flags, mask, starts())
        losses, _ = learned(agent, judge(Bandit(action), agent, imagined), entropy=1e-3)
        optim.zero_grad()
        (losses["policy"].mean() + losses["value"].mean()).backward()
        optim.step()
        agent.update_slow()
    assert agent.log_probs(features).exp()[:, 2].mean() > 0.9
    assert agent.value(features).mean().item() == pytest.approx(1.0, abs=0.25)
