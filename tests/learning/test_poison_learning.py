"""A learner that is told the worst, always and confidently, ends about where one without advice does; uncontained it
does not."""

import pytest
from poisoned import CONTAINED, EXPOSED, KICKSTARTED, played

from lore.gate.kickstart import kickstart_weight


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_poison_costs_a_learning_agent_at_most_a_tenth_of_its_return_and_nearly_all_where_nothing_contains_it(seed):
    plain, contained, exposed = played(seed, None), played(seed, CONTAINED), played(seed, EXPOSED, blind=True)
    print(seed, [round(one.last(20)[0], 2) for one in (plain, contained, exposed)], contained.gate.trust.value)
    assert plain.last(20)[0] > 1.2  # the plain learner walks to the goal
    assert contained.last(20)[0] >= 0.9 * plain.last(20)[0]
    assert contained.gate.trust.value < 0.1 and contained.gate.kl_mean <= contained.gate.delta_target
    assert exposed.last(20)[0] < 0.5 * plain.last(20)[0]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kickstarting_on_the_grid_copies_nothing_that_trust_has_found_out():
    plain, contained = played(0, None), played(0, KICKSTARTED)
    exposed = played(0, EXPOSED | KICKSTARTED, blind=True)
    print([round(one.last(20)[0], 2) for one in (plain, contained, exposed)], contained.gate.trust.value)
    assert plain.last(20)[0] > 1.2
    assert contained.last(20)[0] >= 0.9 * plain.last(20)[0]
    assert kickstart_weight(contained.gate) < 0.1 and kickstart_weight(exposed.gate) > 0.9
    assert exposed.last(20)[0] < 0.5 * plain.last(20)[0]
