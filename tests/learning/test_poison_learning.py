"""A learner that is told the worst, always and confidently, ends about where one without advice does; uncontained it
does not."""

import numpy as np
import pytest
from poisoned import CONTAINED, EXPOSED, KICKSTARTED, Poisoned, played

from lore.gate.kickstart import kickstart_weight


def returned(trainer: Poisoned) -> float:
    """Mean return of the last 40 episodes (a fifth is chance in 20 of them), of a run that made fewer the last 20."""
    return trainer.last(40 if len(trainer.episodes) >= 40 else 20)[0]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_poison_costs_a_learning_agent_at_most_a_tenth_of_its_return_and_nearly_all_where_nothing_contains_it():
    returns = []
    for seed in range(3):
        plain, contained, exposed = played(seed, None), played(seed, CONTAINED), played(seed, EXPOSED, blind=True)
        returns.append([returned(one) for one in (plain, contained, exposed)])
        print(seed, [round(one, 2) for one in returns[-1]], contained.gate.trust.value)
        assert returns[-1][0] > 1.2  # the plain learner walks to the goal
        assert contained.gate.trust.value < 0.1 and contained.gate.kl_mean <= contained.gate.delta_target
        assert returns[-1][2] < 0.5 * returns[-1][0]
    plain, contained, _ = np.mean(returns, axis=0)
    assert contained >= 0.9 * plain


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kickstarting_on_the_grid_copies_nothing_that_trust_has_found_out():
    plain, contained = played(0, None), played(0, KICKSTARTED)
    exposed = played(0, EXPOSED | KICKSTARTED, blind=True)
    returns = [returned(one) for one in (plain, contained, exposed)]
    print([round(one, 2) for one in returns], contained.gate.trust.value)
    assert returns[0] > 1.2
    assert returns[1] >= 0.9 * returns[0]
    assert kickstart_weight(contained.gate) < 0.1 and kickstart_weight(exposed.gate) > 0.9
    assert returns[2] < 0.5 * returns[0]
