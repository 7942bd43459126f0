"""Path A: the share cap, roll-outs, the buffer, what is cloned, and what the world model foretells."""

import numpy as np
import pytest
import torch

from lore.advice.plans import Plans
from lore.config import load_config
from lore.dreamer.types import Latent
from lore.synthetic.buffer import SyntheticBatch, SyntheticBuffer
from lore.synthetic.path import ROLL_EVERY, SyntheticPath
from lore.synthetic.plan_policy import PlanPolicy
from lore.synthetic.rollout import capped_share, foretells_unlock, roll_out


class Counter:
    """A world whose deter counts steps: reward 1 on reaching 3, death (continue 0) on reaching ``dies``."""

    def __init__(self, dies: float = 99.0, unlock_at: float = 3.0) -> None:
        self.rssm, self.dies, self.unlock_at = self, dies, unlock_at

    def imagine_step(self, latent, action, uniform):
        return Latent(latent.deter + action[:, None].float(), latent.stoch)

    def predict(self, features):
        at = features[:, 0]
        return (at == self.unlock_at).float(), (at < self.dies).float() * 0.9


def start(n: int) -> Latent:
    return Latent(torch.zeros(n, 1), torch.nn.functional.one_hot(torch.zeros(n, 2).long(), 3).float())


def value(features):
    return torch.full((len(features),), 10.0)


@pytest.mark.parametrize("maximum", [0.0, 0.1, 0.25, 0.5, 0.9])
def test_the_share_never_exceeds_its_cap_and_comes_close(maximum):
    for real in (1, 7, 100, 1024):
        n = capped_share(real, maximum)
        assert n / (real + n) <= maximum + 1e-12
        assert (n + 1) / (real + n + 1) > maximum


def acting(entries, lengths=None) -> PlanPolicy:
    """Plans of primitive actions alone."""
    entries = torch.as_tensor(entries)
    return PlanPolicy(entries, torch.full((len(entries),), entries.shape[1]) if lengths is None else lengths, 5, None)


def test_roll_out_returns_are_the_discounted_rest_of_the_plan():
    out = roll_out(Counter(), value, start(1), acting([[1, 1, 1, 1]]), None)
    assert out.latent.deter[:, 0].tolist() == [0, 1, 2, 3]
    tail = 0.9 * 10.0
    expected = [0.9**2 * (1 + 0.9 * tail), 0.9 * (1 + 0.9 * tail), 1 + 0.9 * tail, tail]
    np.testing.assert_allclose(out.plan_return.numpy(), expected, rtol=1e-6)


def test_roll_outs_stop_where_the_model_predicts_death_and_at_each_plans_own_length():
    plans = acting(torch.ones(2, 4, dtype=torch.int64), torch.tensor([4, 1]))
    out = roll_out(Counter(dies=2.0), value, start(2), plans, None)
    # plan 0 lives through states 0 and 1 (its second action leads to death), plan 1 is one action long
    assert sorted(out.latent.deter[:, 0].tolist()) == [0, 0, 1]
    assert out.plan_return.min() == 0.0  # dying pays nothing afterwards


def test_no_plan_gives_no_states():
    plans = acting(torch.ones(3, 2, dtype=torch.int64), torch.zeros(3, dtype=torch.int64))
    out = roll_out(Counter(), value, start(3), plans, None)
    assert len(out.action) == len(out.latent.deter) == len(out.plan_return) == 0


def test_the_model_foretells_an_unlock_only_where_it_predicts_one():
    assert foretells_unlock(Counter(), start(1), acting([[1, 1, 1, 1]]), None)
    assert not foretells_unlock(Counter(), start(1), acting([[1, 1]]), None)
    assert not foretells_unlock(Counter(dies=2.0), start(1), acting([[1, 1, 1, 1]]), None)  # dead before it


def test_buffer_overwrites_the_oldest_decays_and_survives_saving():
    buffer = SyntheticBuffer(4, 1, 2, 3)
    for k in range(3):
        n = 2
        stoch = torch.nn.functional.one_hot(torch.full((n, 2), k), 3).float()
        one = torch.ones(n)
        latent, action, skill = Latent(k * one[:, None], stoch), torch.full((n,), k), torch.full((n,), 7 + k)
        buffer.add(SyntheticBatch(latent, action, skill, action == 1, one, one))
    assert buffer.size == 4 and sorted(buffer.action.tolist()) == [1, 1, 2, 2]
    buffer.decay(0.5)
    generator = torch.Generator().manual_seed(0)
    batch = buffer.sample(50, generator)
    assert set(batch.action.tolist()) == {1, 2} and (batch.weight == 0.5).all()
    assert (batch.latent.stoch.argmax(-1)[:, 0] == batch.action).all()
    assert (batch.skill == 7 + batch.action).all() and (batch.begins == (batch.action == 1)).all()
    copy = SyntheticBuffer(4, 1, 2, 3)
    copy.load({k: v.clone() for k, v in buffer.tensors().items()}, buffer.state_dict())
    again = copy.sample(50, torch.Generator().manual_seed(0))
    assert torch.equal(again.action, batch.action) and torch.equal(again.weight, batch.weight)


def test_roll_outs_add_their_disagreement_up_and_stop_at_the_limit_of_their_depth():
    class Doubt:
        """Heads that disagree by 0.1 at every step, trusted up to 0.35."""

        def disagreement(self, features, action):
            return torch.full((len(features),), 0.1)

        def limit(self, depth):
            return torch.tensor(0.35)

    plans = acting(torch.ones(2, 6, dtype=torch.int64), torch.tensor([6, 2]))
    out = roll_out(Counter(unlock_at=99.0), value, start(2), plans, None, (Doubt(), Doubt()))
    assert sorted(out.latent.deter[:, 0].tolist()) == [0, 0, 1, 1, 2]


NO_SLOTS = torch.zeros(0, dtype=torch.int64)


class World:
    """An agent with a counting world and a critic that expects ``expected`` everywhere, enough for path A."""

    def __init__(self, expected: float = 0.0) -> None:
        from lore.dreamer.returns import PercentileNorm
        from lore.sizes import Size

        self.world_model = Counter()
        self.world_model.size = Size(deter=1, hidden=1, classes=3, depth=1, units=1, stoch=2)
        self.actor_critic, self.ensemble, self.clones, self.num_actions = self, None, None, 4
        self.norm, self.expected = PercentileNorm(), expected
        self.logits = torch.zeros(4, requires_grad=True)

    def value(self, features):
        return torch.full((len(features),), self.expected)

    def log_probs(self, features):
        return self.logits.log_softmax(-1).expand(len(features), -1)


def path(expected: float = 0.0, **settings) -> SyntheticPath:
    config = load_config(**{"synthetic.enabled": True, "dataset": "x", "execution_prob": 1.0} | settings)
    plans = Plans(np.array([[1, 1, 1, 1]]), np.array([4]))
    return SyntheticPath(World(expected), config, plans, torch.device("cpu"))


def test_nothing_is_rolled_out_in_the_warm_up_or_while_the_model_errs():
    rows, error = torch.zeros(40, dtype=torch.int64), torch.tensor(1.0)
    synthetic = path(**{"synthetic.warmup_updates": 10, "synthetic.max_model_error": 2.0})
    for updates, wanted in ((0, False), (8, False), (12, True)):
        _, weight = synthetic.extend(start(40), rows, error, updates, None)
        assert (weight is not None) == wanted, updates
    for _ in range(200):
        _, weight = synthetic.extend(start(40), rows, torch.tensor(5.0), 13, None)
    assert weight is None and synthetic.share == 0.0  # reconstruction five times as bad as it was
    synthetic.error, synthetic.open_loop = 1.0, 0.9
    assert not synthetic.ready(50)  # the model no longer knows where it is after some steps without seeing
    synthetic.open_loop = 0.1
    assert synthetic.ready(50)


@pytest.mark.parametrize("cap", [0.0, 0.1, 0.25])
def test_the_share_of_synthetic_rows_in_an_update_is_measured_and_stays_under_the_cap(cap):
    synthetic = path(**{"synthetic.warmup_updates": 0, "ratio_max": cap})
    generator = torch.Generator().manual_seed(0)
    for updates in range(30):
        real = int(torch.randint(1, 60, (), generator=generator))
        both, weight = synthetic.extend(
            start(real), torch.zeros(real, dtype=torch.int64), torch.tensor(1.0), updates, generator
        )
        sampled = len(both.deter) - real
        assert sampled / len(both.deter) <= cap
        assert synthetic.metrics()["synthetic/ratio"] == pytest.approx(sampled / len(both.deter))
        assert weight is None or (len(weight) == real + sampled and (weight[:real] == 1.0).all())
    assert (sampled > 0) == (cap > 0)


def test_stored_states_lose_weight_at_every_refresh_of_the_world_model():
    synthetic = path(**{"synthetic.warmup_updates": 0, "synthetic.refresh_updates": 5, "weight_decay": 0.5})
    rows, none = torch.zeros(40, dtype=torch.int64), torch.full((40,), -1)
    synthetic.extend(start(40), rows, torch.tensor(1.0), ROLL_EVERY, None)
    for updates in range(ROLL_EVERY + 1, 16):
        synthetic.extend(start(40), none, torch.tensor(1.0), updates, None)
    assert (synthetic.buffer.weight[: synthetic.buffer.size] == 0.5**3).all()
    assert synthetic.metrics()["synthetic/weight"] == 0.5**3


@pytest.mark.parametrize(("expected", "clones"), [(0.0, True), (50.0, False)])
def test_plan_actions_are_cloned_only_where_the_plan_beats_the_policys_value(expected, clones):
    synthetic = path(expected, **{"synthetic.warmup_updates": 0})
    assert synthetic.clone_loss(synthetic.agent, NO_SLOTS) is None
    synthetic.extend(start(40), torch.zeros(40, dtype=torch.int64), torch.tensor(1.0), 0, None)
    synthetic.batch = synthetic.batch._replace(plan_return=torch.linspace(0.0, 2.0, len(synthetic.batch.action)))
    loss = synthetic.clone_loss(synthetic.agent, NO_SLOTS)
    assert ((loss > 0) == (synthetic.batch.plan_return > expected)).all()
    loss.sum().backward()
    gradient = synthetic.agent.logits.grad
    assert (gradient[1] < 0) == clones and bool((gradient == 0).all()) == (not clones)


def test_a_plan_is_no_gain_where_the_policys_imagined_return_is_as_high_nor_where_its_action_is_likely_already():
    synthetic = path(0.0, **{"synthetic.warmup_updates": 0})
    synthetic.extend(start(40), torch.zeros(40, dtype=torch.int64), torch.tensor(1.0), 0, None)
    batch = synthetic.batch
    synthetic.batch = batch._replace(plan_return=torch.ones(len(batch.action)))
    assert (synthetic.clone_loss(synthetic.agent, NO_SLOTS, torch.full_like(batch.plan_return, 0.5)) > 0).all()
    assert (synthetic.clone_loss(synthetic.agent, NO_SLOTS, torch.ones_like(batch.plan_return)) == 0).all()
    with torch.no_grad():
        synthetic.agent.logits[1] = 9.0
    assert (synthetic.batch.action == 1).all()
    assert (synthetic.clone_loss(synthetic.agent, NO_SLOTS) == 0).all()


def test_a_goal_in_a_slot_is_cloned_as_its_call_and_any_other_as_the_actions_it_takes():
    synthetic = path(0.0, **{"synthetic.warmup_updates": 0})
    synthetic.extend(start(40), torch.zeros(40, dtype=torch.int64), torch.tensor(1.0), 0, None)
    skill, begins = torch.tensor([5, 5, 6, 6, -1]), torch.tensor([True, False, True, False, False])
    part = SyntheticBatch(*(x[:5] if torch.is_tensor(x) else Latent(*(y[:5] for y in x)) for x in synthetic.batch))
    synthetic.batch = part._replace(skill=skill, begins=begins, action=torch.tensor([0, 1, 2, 3, 3]))
    entry, chooses = synthetic._choices(torch.tensor([9, 5]))  # four actions, then skills 9 and 5 in slots
    assert entry.tolist() == [5, 5, 2, 3, 3] and chooses.tolist() == [True, False, True, True, True]
    assert synthetic._choices(NO_SLOTS)[0].tolist() == [0, 1, 2, 3, 3]


def test_few_states_are_not_sampled_more_often_than_there_are_of_them():
    synthetic = path(**{"synthetic.warmup_updates": 0, "execution_prob": 1.0})
    plans = torch.full((400,), -1)
    plans[0] = 0
    both, _ = synthetic.extend(start(400), plans, torch.tensor(1.0), 0, None)
    assert len(both.deter) == 404  # one plan of four steps
    assert synthetic.metrics()["synthetic/planned"] == pytest.approx(1 / 400)


def test_a_changed_version_leaves_nothing_of_the_plans_before():
    synthetic = path(**{"synthetic.warmup_updates": 0})
    plans = torch.zeros(40, dtype=torch.int64)
    assert synthetic.extend(start(40), plans, torch.tensor(1.0), 0, None)[1] is not None
    synthetic.forget()
    assert synthetic.extend(start(40), torch.full_like(plans, -1), torch.tensor(1.0), 1, None)[1] is None
