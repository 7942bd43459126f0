"""Option slots and the heads that imitate skills inside imagination."""

import numpy as np
import pytest
import torch

from lore.options.charge import ENDS
from lore.options.heads import Charges, OptionHeads, OptionPolicy, Use, recorded_uses
from lore.options.interpreter import DONE
from lore.options.slots import MIN_USES, Slots

NAMES = ("a", "b", "c", "d")


def test_slots_take_the_best_fitting_skills_and_no_more_than_allowed():
    slots = Slots(2, NAMES, threshold=0.5)
    assert slots.fill(np.array([0.1, 0.9, 0.0, 0.5])) == [0, 1]
    assert slots.skill.tolist() == [1, 3]
    assert slots.fill(np.array([9.0, 9.0, 9.0, 9.0])) == []


def test_a_skill_that_nothing_speaks_for_gets_no_slot():
    slots = Slots(3, NAMES, threshold=0.5)
    slots.fill(np.array([0.0, 0.0, 0.2, 0.0]))
    assert slots.skill.tolist() == [2, -1, -1]


def test_a_failing_skill_is_retired_after_enough_uses_and_never_returns():
    slots = Slots(2, NAMES, threshold=0.5)
    fit = np.array([0.4, 0.3, 0.2, 0.1])
    slots.fill(fit)
    for i in range(MIN_USES):
        slots.statistics[0].record("timeout" if i % 3 else "done", 4, -0.1)
        slots.statistics[1].record("done", 2, 1.0)
        if i < MIN_USES - 1:
            assert slots.retire(fit) == []
    assert slots.retire(fit) == ["a"]
    slots.fill(fit)
    assert slots.skill.tolist() == [2, 1]
    assert slots.metrics()["options/b/success_rate"] == 1.0
    assert slots.metrics()["options/retired"] == 1.0


def test_with_a_slot_for_each_a_failing_skill_keeps_it_and_a_better_one_is_asked_for_once():
    slots = Slots(4, NAMES, threshold=0.5)
    slots.fill(np.ones(4))
    for _ in range(MIN_USES):
        slots.statistics[0].record("timeout", 4, -0.1)
    assert slots.retire(np.ones(4)) == ["a"] and slots.retire(np.ones(4)) == []
    assert slots.skill.tolist() == [0, 1, 2, 3] and slots.metrics()["options/retired"] == 1.0
    other = Slots(4, NAMES, threshold=0.5)
    other.load_state_dict(slots.state_dict())
    assert other.retire(np.ones(4)) == [] and other.skill.tolist() == [0, 1, 2, 3]
    other.skill[0] = -1  # as a run of before took it away
    assert other.fill(np.ones(4)) == [0] and other.skill.tolist() == [0, 1, 2, 3]


def test_a_skill_that_fails_leaves_its_slot_when_another_one_wants_it_and_not_before():
    slots = Slots(3, NAMES, threshold=0.5)
    three, four = np.array([0.4, 0.3, 0.2, 0.0]), np.array([0.4, 0.3, 0.2, 0.1])
    slots.fill(three)
    for k in (0, 1):
        for _ in range(MIN_USES):
            slots.statistics[k].record("done" if k else "timeout", 4, 0.0)
    assert slots.retire(three) == ["a"] and slots.skill.tolist() == [0, 1, 2]  # nothing speaks for "d"
    assert slots.retire(four) == [] and slots.skill.tolist() == [-1, 1, 2]  # marked before, wanted now
    slots.fill(four)
    assert slots.skill.tolist() == [3, 1, 2] and slots.retire(four) == []
    slots.skill[0] = -1
    assert slots.fill(three) == [0] and slots.skill.tolist() == [0, 1, 2]  # better than nobody


def test_a_new_generation_fills_empty_slots_before_it_takes_one_away():
    slots = Slots(4, NAMES, threshold=0.0)
    slots.fill(np.array([0.4, 0.3, 0.2, 0.0]))
    for _ in range(MIN_USES):
        slots.statistics[1].record("timeout", 4, 0.0)
    assert slots.release(np.array([0.4, 0.3, 0.2, 0.9])) == []
    slots.fill(np.array([0.4, 0.3, 0.2, 0.9]))
    assert slots.skill.tolist() == [0, 1, 2, 3]
    slots.skill[1] = -1
    assert slots.fill(np.ones(4)) == [1] and slots.skill[1] == 1  # no success, but the place is free


def test_a_new_generation_lets_a_skill_go_only_for_one_that_fits_far_better():
    slots = Slots(2, NAMES, threshold=0.5)
    slots.fill(np.array([0.4, 0.3, 0.0, 0.0]))
    assert slots.release(np.array([0.4, 0.3, 0.5, 0.0])) == []  # better, but not twice as well
    assert slots.release(np.array([0.4, 0.3, 0.7, 0.0])) == ["b"]
    slots.fill(np.array([0.4, 0.3, 0.7, 0.0]))
    assert slots.skill.tolist() == [0, 2]
    slots.statistics[1].retired = True
    assert slots.release(np.array([0.1, 9.0, 0.7, 0.1])) == []  # what was retired takes no place


def test_a_measured_success_rate_counts_against_a_skill_only_after_enough_uses():
    slots = Slots(1, NAMES, threshold=0.0)
    for _ in range(MIN_USES - 1):
        slots.statistics[0].record("timeout", 5, 0.0)
    assert slots.success().tolist() == [1.0] * 4
    slots.statistics[0].record("timeout", 5, 0.0, "0a0b", [1, 2])
    assert slots.success().tolist() == [0.0, 1.0, 1.0, 1.0]
    assert slots.statistics[0].failure == {"state": "0a0b", "actions": [1, 2], "outcome": "timeout"}


def test_a_use_that_a_new_decision_ended_says_nothing_about_the_skill():
    slots = Slots(1, NAMES, threshold=0.5)
    slots.fill(np.ones(4))
    used = slots.statistics[0]
    for _ in range(MIN_USES - 1):
        used.record("stuck", 5, 0.1, "0a0b", [1])
    for outcome in ("advised_away", "hold_over"):
        used.record(outcome, 3, 0.5, "0c0d", [2])
    assert (used.uses, used.judged, used.success_rate) == (MIN_USES + 1, MIN_USES - 1, 0.0)
    assert used.steps == 5 * (MIN_USES - 1) + 6 and used.failure["outcome"] == "stuck"
    assert slots.retire(np.ones(4)) == [] and slots.success().tolist() == [1.0] * 4
    used.record("stuck", 5, 0.0)
    assert slots.retire(np.ones(4)) == ["a"]


def test_each_skill_has_its_figures_and_the_primitives_theirs():
    slots = Slots(2, NAMES, 0.5)
    slots.statistics[1].record("done", 4, 1.0)
    slots.statistics[1].record("stuck", 8, 0.2)
    slots.primitive = [10, 0.5]
    figures = slots.metrics()
    assert figures["options/b/uses"] == 2.0 and figures["options/b/success_rate"] == 0.5
    assert figures["options/b/return_per_step"] == pytest.approx(0.1) and figures["options/b/steps_per_use"] == 6.0
    assert figures["options/primitive_return_per_step"] == 0.05
    assert slots.statistics[1].outcomes == {"done": 1, "stuck": 1}
    assert not any(tag.startswith("options/a/") for tag in figures)


def test_slots_state_round_trips():
    slots, other = Slots(2, NAMES, 0.5), Slots(2, NAMES, 0.5)
    slots.fill(np.ones(4))
    slots.primitive = [3, 0.25]
    slots.statistics[0].record("stuck", 3, 0.5, "ff", [4])
    other.load_state_dict(slots.state_dict())
    assert other.state_dict() == slots.state_dict()


def make_heads(features: int = 6, actions: int = 3, skills: int = 2) -> OptionHeads:
    return OptionHeads(features, actions, skills, 16, torch.Generator().manual_seed(0))


def test_heads_learn_what_the_interpreters_do_and_give_no_gradient_to_the_features():
    heads, generator = make_heads(), torch.Generator().manual_seed(1)
    features = torch.randn(256, 6, generator=generator, requires_grad=True)
    sign = features.detach()[:, 0] > 0
    proposals = torch.stack([torch.where(sign, 2, DONE), torch.where(sign, 0, 1)], -1)
    hurt, skill = features.detach()[:, 1] > 0.5, torch.arange(256) % 2
    ended = hurt | (~sign & (skill == 0))
    use = Use(torch.where(torch.arange(256) % 3 > 0, skill, -1), torch.full((256,), 3), ended)
    optimiser = torch.optim.Adam(heads.parameters(), lr=1e-2)
    for _ in range(250):
        loss, metrics = heads.loss(features, proposals, use)
        optimiser.zero_grad()
        loss.mean().backward()
        optimiser.step()
    assert features.grad is None
    assert metrics["options/clone_agreement"] > 0.97
    assert metrics["options/start_agreement"] > 0.95
    assert metrics["options/goal_agreement"] > 0.95
    assert metrics["options/ends_missed"] < 0.1 and metrics["options/ends_invented"] < 0.1


def test_a_skill_that_cannot_act_teaches_its_head_no_action():
    heads = make_heads()
    nobody = Use.none(4, torch.device("cpu"))
    loss, _ = heads.loss(torch.randn(4, 6), torch.tensor([[2, -1], [1, DONE], [0, -1], [2, DONE]]), nobody)
    loss.sum().backward()
    slope = heads.action.bias.grad.view(2, 3)
    assert slope[0].abs().sum() > 0 and not slope[1].any()


def test_heads_learn_after_how_many_steps_uses_end_where_the_states_do_not_tell():
    heads, elapsed = make_heads(), torch.arange(1, 17)
    features, skill = torch.zeros(16, 6), torch.zeros(16, dtype=torch.int64)
    use = Use(skill, elapsed, elapsed >= 5)
    optimiser = torch.optim.Adam(heads.parameters(), lr=3e-2)
    for _ in range(400):
        optimiser.zero_grad()
        loss, metrics = heads.loss(features, torch.full((16, 2), -1), use)
        loss.mean().backward()
        optimiser.step()
    chances = heads.ends(heads.read(heads(features)), skill, elapsed)
    assert chances[0] < 0.1 and chances[-1] > 0.9 and metrics["options/ends_missed"] < 0.2


def test_a_use_is_known_up_to_its_own_end_and_what_cut_it_says_nothing():
    own, cut, whole = ENDS.index("interrupted"), ENDS.index("hold_over"), ENDS.index("episode_end")
    batch = {
        "skill": torch.tensor([[2, 2, -1, 1, 0, 0, -1], [3, 3, 3, 1, 1, 1, -1]]),
        "held": torch.tensor([[0, 1, 0, 4, 0, 1, 0], [0, 1, 2, 0, 1, 2, 0]]),
        "ended": torch.tensor([[0, 0, own, 0, cut, 0, whole], [0, 0, 0, own, 0, 0, 0]]),
        "is_first": torch.tensor([[0, 0, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0, 0]]) > 0,
        "is_last": torch.tensor([[0, 0, 0, 0, 0, 0, 1], [0, 1, 0, 0, 0, 0, 1]]) > 0,
    }
    skill, elapsed, ended = (x.view(2, 7).tolist() for x in recorded_uses(batch))
    assert skill == [[-1, 2, 2, -1, -1, 0, -1], [-1, -1, -1, 3, 1, 1, -1]]
    assert ended == [[False, False, True, *[False] * 4], [*[False] * 3, True, *[False] * 3]]
    assert elapsed[0][1:3] == [1, 2] and elapsed[1][3:6] == [3, 1, 2]


class Fixed:
    """An actor with fixed logits."""

    def __init__(self, logits):
        self.logits = torch.tensor(logits)

    def __call__(self, features):
        return self.logits.expand(len(features), -1)


def force(heads: OptionHeads, ready: list[float], action: int, done: float = -9.0, stop: float = -50.0) -> None:
    with torch.no_grad():
        heads.signs.weight.zero_()
        heads.signs.bias.copy_(torch.tensor([[r, done, stop] for r in ready]).flatten())
        heads.action.weight.zero_()
        heads.action.bias.copy_(torch.nn.functional.one_hot(torch.tensor([action] * 2), 3).float().flatten() * 50)


def test_an_imagined_option_stays_in_charge_until_its_limit_its_goal_or_a_recorded_end():
    heads = make_heads()
    heads.set_limits([4, 7])
    force(heads, [9.0, -9.0], 2)
    policy = OptionPolicy(Fixed([0.0, 0.0, 0.0, 50.0, 50.0]), heads, torch.tensor([0, 1]))
    features, generator = torch.zeros(8, 6), torch.Generator().manual_seed(0)
    _, action, decision, charge, mask, first, _ = policy(features, None, torch.rand(3, 8, generator=generator))
    assert (charge == -1).all() and (decision == 3).all() and (action == 2).all()
    assert mask[0].tolist() == [True, True, True, True, False]  # skill 1 cannot start: its slot is masked
    force(heads, [-9.0, -9.0], 2)  # a use that is under way does not need the start
    carry = first
    for _ in range(3):
        _, action, _, charge, _, carry, _ = policy(features, carry, torch.rand(3, 8, generator=generator))
        assert (charge == 0).all() and (action == 2).all()
    _, _, decision, charge, _, _, _ = policy(features, carry, torch.rand(3, 8, generator=generator))
    assert (charge == -1).all() and (decision < 3).all()  # four steps are its limit: control comes back
    for done, stop, going in ((9.0, -50.0, 0.0), (-9.0, 50.0, 0.0), (-9.0, 0.0, 0.5)):
        force(heads, [9.0, 9.0], 2, done, stop)
        many = torch.zeros(4000, dtype=torch.int64)
        uniform = torch.rand(3, 4000, generator=generator)
        charge = policy(torch.zeros(4000, 6), Charges(many, many + 1, torch.zeros(4000, 0)), uniform).charge
        assert (charge == 0).float().mean().item() == pytest.approx(going, abs=0.03)


def test_imagination_among_skills_acts_by_itself_only_where_no_skill_can_start():
    heads = make_heads()
    actor, slots = Fixed([50.0, 0.0, 0.0, 0.0, 0.0]), torch.tensor([0, 1])  # it prefers a single action
    for ready, decided, open_to in (
        ([9.0, -9.0], 3, [False, False, False, True, False]),
        ([-9.0, -9.0], 0, [True, True, True, False, False]),
    ):
        force(heads, ready, 2)
        choice = OptionPolicy(actor, heads, slots, only_skills=True)(torch.zeros(64, 6), None, torch.rand(3, 64))
        assert (choice.decision == decided).all() and choice.mask[0].tolist() == open_to
        assert (choice.action == (2 if decided == 3 else 0)).all()
    force(heads, [9.0, -9.0], 2)
    assert (OptionPolicy(actor, heads, slots)(torch.zeros(64, 6), None, torch.rand(3, 64)).decision == 0).all()


def test_empty_slots_are_never_chosen():
    heads = make_heads()
    force(heads, [9.0, 9.0], 1)
    policy = OptionPolicy(Fixed([0.0, 0.0, 0.0, 50.0, 50.0]), heads, torch.tensor([-1, -1]))
    _, action, decision, _, mask, _, _ = policy(torch.zeros(64, 6), None, torch.rand(3, 64))
    assert (decision < 3).all() and (action == decision).all()
    assert not mask[:, 3:].any()


def test_without_gradient_the_heads_say_the_same_and_follow_their_weights():
    heads = OptionHeads(16, 5, 3, 8, torch.Generator().manual_seed(0))
    features = torch.randn(40, 16, generator=torch.Generator().manual_seed(1))
    for _ in range(2):
        with torch.no_grad():
            found = heads.actions(heads(features))
        torch.testing.assert_close(found, heads.actions(heads(features)), rtol=1e-4, atol=1e-5)
        with torch.no_grad():
            heads.signs.bias += 1.0
            heads.action.weight *= 2.0
