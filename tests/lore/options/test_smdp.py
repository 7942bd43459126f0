"""Options on a chain whose values are known exactly: what one is worth, what an end on the way does to it, and how
far away its steps put what comes after it."""

import numpy as np
import pytest
import torch

from lore.dreamer.actor_critic import ActorCritic
from lore.dreamer.imagination import imagine, judge
from lore.dreamer.returns import lambda_return
from lore.options.heads import OptionPolicy
from tests.lore.options.chain import (
    BACK,
    CALLS,
    GAMMA,
    GOAL,
    HORIZON,
    ON,
    PAYS,
    SIZE,
    STATES,
    A,
    Chain,
    Known,
    actor,
    at,
    noise,
    step,
)  # fmt: skip


def exact(hurts: int | None) -> tuple[np.ndarray, np.ndarray]:
    """(V [STATES] where the actor decides, U [STATES] where the option goes on), by solving all equations at once."""
    to, pays = np.zeros((2 * STATES, 2 * STATES)), np.zeros(2 * STATES)
    for state in range(STATES):
        for under_way in (False, True):
            option = under_way or state in CALLS
            after = step(state, ON if option else BACK)
            goes_on = option and after not in (GOAL, hurts)
            to[state + STATES * under_way, after + STATES * goes_on] = 1.0
            pays[state + STATES * under_way] = PAYS[after]
    values = np.linalg.solve(np.eye(2 * STATES) - GAMMA * to, pays)
    return values[:STATES], values[STATES:]


def learned(hurts: int | None, skills: int) -> tuple[np.ndarray, np.ndarray]:
    """(V, U) of the learner's own critic after many updates; ``skills`` 0 = it is not told who is in charge."""
    generator = torch.Generator().manual_seed(0)
    critic = ActorCritic(STATES, A + 1, SIZE, skills=skills, generator=generator)
    policy = OptionPolicy(actor, Known(hurts), torch.tensor([0]))
    optimiser = torch.optim.Adam(critic.critic.parameters(), 3e-3)
    starts = at(torch.arange(16) % STATES)
    for _ in range(400):
        judged = judge(Chain(), critic, imagine(Chain(), policy, starts, noise(16, HORIZON, generator)))
        optimiser.zero_grad()
        judged.value_error.mean().backward()
        optimiser.step()
        critic.update_slow(0.2)
    features, none = at(torch.arange(STATES)).features(), torch.full((STATES,), -1)
    with torch.no_grad():
        return critic.value(features, none).numpy(), critic.value(features, none + 1).numpy()


@pytest.mark.parametrize("hurts", [None, 3], ids=["to its goal", "interrupted"])
def test_the_critic_learns_what_states_are_worth_with_and_without_an_option_in_charge(hurts):
    own, option = exact(hurts)
    v, u = learned(hurts, 1)
    np.testing.assert_allclose(v[:6], own[:6], atol=0.06)
    seen = [s for s in (1, 2, 3, 4) if hurts is None or s < hurts]  # where the option goes on
    np.testing.assert_allclose(u[seen], option[seen], atol=0.06)
    assert abs(own[2] - option[2]) > 0.2  # the same state, worth something else


def test_a_critic_that_is_not_told_mixes_both_values():
    own, option = exact(None)
    v, u = learned(None, 0)
    assert np.array_equal(v, u)
    assert max(abs(v[2] - own[2]), abs(u[2] - option[2])) > 0.1


def test_with_the_right_values_an_option_is_worth_the_discounted_sum_of_its_steps_and_what_comes_after():
    # Called at 0, the option walks 1, 2, 3, 4 and ends at 5, five steps later.
    own, option = exact(None)
    walk = [0, 1, 2, 3, 4, 5]
    value = torch.tensor([[own[0], *option[1:5], own[5]]], dtype=torch.float32)
    reward, cont = PAYS[walk][None], torch.full((1, 6), GAMMA)
    smdp = sum(GAMMA**i * float(PAYS[s]) for i, s in enumerate(walk[1:])) + GAMMA**5 * own[5]
    assert own[0] == pytest.approx(smdp)
    for lam in (0.0, 0.5, 0.95, 1.0):  # so bootstrapping on the way changes nothing
        assert lambda_return(reward, cont, value, lam)[0, 0].item() == pytest.approx(smdp, abs=1e-5)


def test_an_option_ends_in_imagination_at_its_own_limit_and_where_the_world_model_shows_an_interruption():
    generator = torch.Generator().manual_seed(0)
    for hurts, limit, walked in ((None, 50, 5), (3, 50, 3), (None, 2, 2)):
        policy = OptionPolicy(actor, Known(hurts, limit), torch.tensor([0]))
        imagined = imagine(Chain(), policy, at([0]), noise(1, HORIZON, generator))
        state = imagined.features[0, :, :STATES].argmax(-1)
        under_way = imagined.charge[0] == 0
        assert state[: walked + 1].tolist() == list(range(walked + 1))
        assert under_way[: walked + 1].tolist() == [False, *[True] * (walked - 1), False]
