"""Disagreement: heads that learn where they are shown data, a calibrated stop rule, and no trace where nobody asks."""

import torch

from lore.config import load_config
from lore.dreamer.disagreement import HEADS, Ensemble
from lore.dreamer.types import Latent, Observed
from lore.gate.signals import SIGNALS
from lore.sizes import Size
from lore.synthetic.calibration import MISSES, Calibration, open_loop, trusted_limit
from lore.synthetic.plan_policy import PlanPolicy
from lore.synthetic.rollout import roll_out
from lore.training.agent import Agent, needs_disagreement
from lore.training.policy import Policy
from lore_datasets.environments import get_environment

SIZE = Size(deter=6, hidden=8, classes=3, depth=4, units=32, stoch=2)
F, A = 6 + 2 * 3, 4


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sequence(rows: int, generator: torch.Generator) -> tuple[Observed, torch.Tensor, torch.Tensor]:
    """Steps whose next latent is the class named by the action: learnable from (features, action) alone."""
    deter = torch.rand(rows, 4, 6, generator=generator).requires_grad_()
    action = torch.randint(3, (rows, 4), generator=generator)
    before = torch.cat([torch.zeros(rows, 1, dtype=torch.int64), action[:, :-1]], 1)
    stoch = torch.nn.functional.one_hot(before[..., None].expand(-1, -1, 2), 3).float()
    seen = Observed(Latent(deter, stoch), stoch * 20.0, stoch)
    return seen, action, torch.zeros(rows, 4, dtype=torch.bool)


class Known:
    """An RSSM that dreams the truth of :func:`sequence`, except after action 3, whose outcome it invents."""

    def imagine_step(self, latent: Latent, action: torch.Tensor, uniform: torch.Tensor) -> Latent:
        stoch = torch.nn.functional.one_hot((action % 3)[:, None].expand(-1, 2), 3).float()
        return Latent(torch.cat([latent.deter[:, 1:], action[:, None] % 3.0], -1), stoch)

    def prior(self, deter: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(deter[:, -1:].long().expand(-1, 2), 3).float() * 20.0


def trained(updates: int = 150) -> Ensemble:
    ensemble, generator = Ensemble(F, A, SIZE, seeded()), seeded(1)
    optimiser = torch.optim.Adam(ensemble.parameters(), lr=1e-2)
    for _ in range(updates):
        loss, _ = ensemble.loss(*sequence(32, generator))
        optimiser.zero_grad()
        loss.mean().backward()
        optimiser.step()
    return ensemble


def calibrated(ensemble: Ensemble, batches: int = 30) -> Calibration:
    calibration, generator = Calibration(), seeded(1)
    for _ in range(batches):
        calibration.add(open_loop(ensemble, Known(), *sequence(32, generator), generator))
    return calibration


def test_heads_learn_the_next_latent_and_give_no_gradient_to_the_features():
    ensemble = trained()
    seen, action, first = sequence(64, seeded(7))
    loss, _ = ensemble.loss(seen, action, first)
    loss.mean().backward()
    assert seen.latent.deter.grad is None
    assert loss.mean() < 0.1 < float(torch.log(torch.tensor(3.0)))
    logits = ensemble(seen.latent.features()[:, 0].detach(), action[:, 0])
    assert logits.shape == (HEADS, 64, 2, 3)
    assert (logits.argmax(-1) == action[:, 0, None]).float().mean() > 0.98


def test_disagreement_is_higher_where_nothing_was_shown():
    ensemble = trained()
    seen, action, _ = sequence(200, seeded(8))
    known = seen.latent.features()[:, 0].detach()
    at_home = ensemble.disagreement(known, action[:, 0])
    other_action = ensemble.disagreement(known, torch.full((200,), 3))  # never taken
    far_away = ensemble.disagreement(known * -8.0, action[:, 0])
    assert other_action.mean() > 5 * at_home.mean()
    assert far_away.mean() > 5 * at_home.mean()
    limit = calibrated(ensemble).limit(0)
    assert (at_home <= limit).float().mean() > 0.85
    assert (other_action <= limit).float().mean() < 0.15


def test_expected_disagreement_is_the_policys_mean_over_actions():
    ensemble = trained(20)
    features, probs = torch.rand(5, F, generator=seeded(2)), torch.rand(5, A, generator=seeded(3)).softmax(-1)
    each = torch.stack([ensemble.disagreement(features, torch.full((5,), a)) for a in range(A)], -1)
    torch.testing.assert_close(ensemble.expected(features, probs), (each * probs).sum(-1))


def test_a_step_across_an_episode_start_is_neither_learned_nor_measured():
    ensemble, generator = Ensemble(F, A, SIZE, seeded()), seeded(1)
    seen, action, first = sequence(8, generator)
    loss, _ = ensemble.loss(seen, action, torch.ones_like(first))
    found = open_loop(ensemble, Known(), seen, action, torch.ones_like(first), generator)
    assert loss.abs().max() == 0 and not found.alive.any()
    found = open_loop(ensemble, Known(), seen, action, first, generator)
    assert found.alive.all() and found.doubt.shape == found.error.shape == (3, 8)


def test_the_limit_is_the_largest_disagreement_with_few_enough_misses_below_it():
    disagreement = torch.tensor([0.4, 0.1, 0.3, 0.2, 0.5])
    missed = torch.tensor([True, False, False, False, True])
    assert trusted_limit(disagreement, missed, 0.0) == torch.tensor(0.3)
    assert trusted_limit(disagreement, missed, 0.25) == torch.tensor(0.4)
    assert trusted_limit(disagreement, missed, 0.5) == torch.tensor(0.5)
    assert trusted_limit(disagreement, torch.ones(5, dtype=torch.bool)) == 0.0


def test_under_the_calibrated_limit_fresh_predictions_miss_no_more_often_than_allowed():
    generator = seeded(3)
    share_kept, share_missed = [], []
    for _ in range(20):
        risk = torch.rand(400, generator=generator)
        missed = torch.rand(400, generator=generator) < risk**2
        limit = trusted_limit(risk, missed)
        fresh = torch.rand(400, generator=generator)
        wrong = torch.rand(400, generator=generator) < fresh**2
        share_kept.append((fresh <= limit).float().mean())
        share_missed.append(wrong[fresh <= limit].float().mean())
    assert abs(torch.stack(share_missed).mean() - MISSES) < 0.03  # without a limit a third would miss
    assert torch.stack(share_kept).mean() > 0.4


def test_the_open_loop_error_tells_a_model_that_knows_from_one_that_dreams():
    ensemble, generator = trained(), seeded(4)
    seen, action, first = sequence(64, generator)
    known = open_loop(ensemble, Known(), seen, action, first, generator).error.mean()
    wrong = open_loop(ensemble, Known(), seen, (action + 1) % 3, first, generator).error.mean()
    assert known < 0.02 and wrong > 0.9


class Still:
    """A world where nothing changes."""

    def __init__(self) -> None:
        self.rssm = self

    def imagine_step(self, latent, action, uniform):
        return latent

    def predict(self, features):
        return torch.zeros(len(features)), torch.ones(len(features))


def test_plan_roll_outs_stop_before_a_step_that_the_heads_disagree_about():
    ensemble = trained()
    seen, _, _ = sequence(20, seeded(9))
    start = Latent(seen.latent.deter[:, 0].detach(), seen.latent.stoch[:, 0])
    known, strange = torch.tensor([[0, 1, 2]] * 20), torch.tensor([[0, 3, 2]] * 20)
    lengths = torch.full((20,), 3)
    value = lambda features: torch.zeros(len(features))  # noqa: E731
    trusted = (ensemble, calibrated(ensemble))
    free = roll_out(Still(), value, start, PlanPolicy(strange, lengths, A, None), None)
    bound = roll_out(Still(), value, start, PlanPolicy(strange, lengths, A, None), None, trusted)
    home = roll_out(Still(), value, start, PlanPolicy(known, lengths, A, None), None, trusted)
    assert len(free.action) == 60
    assert (bound.action == 3).sum() <= 3
    assert len(home.action) > 45


def test_only_the_gates_third_weight_and_path_a_call_for_the_heads():
    assert not needs_disagreement(load_config())
    assert not needs_disagreement(load_config(**{"gate.weights": (0.5, 0.0, 0.5)}))  # no gate without path B
    assert not needs_disagreement(load_config(**{"gate.enabled": True}, dataset="x"))
    assert needs_disagreement(load_config(**{"gate.enabled": True}, dataset="x", **{"gate.weights": (0.5, 0.0, 0.5)}))
    assert needs_disagreement(load_config(**{"synthetic.enabled": True}, dataset="x"))


def test_every_other_network_starts_the_same_with_the_heads_and_without_them():
    environment = get_environment("crafter")
    plain = Agent(load_config(size="tiny", observation="symbolic"), environment, 0, seeded())
    with_heads = load_config(size="tiny", observation="symbolic", **{"synthetic.enabled": True}, dataset="x")
    other = Agent(with_heads, environment, 0, seeded()).state_dict()
    assert plain.ensemble is None
    assert all(torch.equal(value, other[name]) for name, value in plain.state_dict().items())
    assert {name.split(".")[0] for name in set(other) - set(plain.state_dict())} == {"ensemble"}


def test_the_players_signals_carry_the_disagreement(own_datasets):
    from lore_datasets.testing import small_advice

    ref = str(small_advice(own_datasets, get_environment("crafter"), n=30))
    config = load_config(
        size="tiny", observation="symbolic", **{"gate.enabled": True}, dataset=ref, batch_size=32, sequence_length=8,
        **{"gate.weights": (0.4, 0.2, 0.4)},
    )  # fmt: skip
    policy, heard = Policy(config), []
    envs, act = policy.make_envs(), policy.controller.act

    def listen(env, state, reward, logits, signals, foretell):
        heard.append(float(signals[SIGNALS.index("disagreement")]))
        return act(env, state, reward, logits, signals, foretell)

    policy.controller.act = listen
    steps = envs.reset()
    for _ in range(5):
        actions, _ = policy.act(steps)
        steps = envs.step(actions)
    assert min(heard) > 0 and len(set(heard)) > 1
