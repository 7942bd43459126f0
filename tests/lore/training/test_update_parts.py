"""What an update descends, part by part: which loss, how strongly, at which networks, from which replayed fields."""

import numpy as np
import pytest
import torch

from benchmarks.launches import SKILLS, make_learner, records_for
from lore.gate.kickstart import kickstart_weight
from lore.options.charge import ENDS
from lore.training.learner import Learner

TINY = {"size": "tiny", "observation": "symbolic", "batch_size": 16, "sequence_length": 4, "horizon": 3}
T = 5  # one more than the sequence: the step before the trained ones gives the latent
SLOTS = np.array([3, -1, 2, 0])


def learner_of(paths: str = "BC") -> Learner:
    """A fresh learner of four slots whose advice has been tested and harms nothing."""
    torch.manual_seed(0)
    learner = make_learner(paths, torch.device("cpu"), **TINY)
    learner.set_slots(SLOTS)
    # A critic begins with one value for all states.
    torch.nn.init.normal_(learner.agent.actor_critic.critic.out.weight, std=0.1)
    if learner.gate is not None:
        for mean in learner.gate.trust.means:
            mean.weight = 100.0
    return learner


def replayed(learner: Learner, **fields: np.ndarray) -> dict[str, np.ndarray]:
    """A batch in which every skill can act, rewards differ, and advice names skill 3 everywhere."""
    records, rng = records_for(learner), np.random.default_rng(0)
    records["reward"] = rng.normal(size=records["reward"].shape).astype(np.float32)
    records["action"] = rng.integers(0, learner.agent.num_actions, records["action"].shape)
    for name, value in {"proposals": 1, "confidence": 0.5, "skill": -1}.items():
        if name in records:
            records[name][:] = value
    if "advice" in records:
        records["advice"][..., learner.agent.num_actions + 3] = 1.0
    return records | {name: np.broadcast_to(value, records[name].shape).copy() for name, value in fields.items()}


def found(learner: Learner, **fields: np.ndarray):
    """Losses and their weights of one update on :func:`replayed`; every call draws the same numbers."""
    torch.manual_seed(1)
    out = learner.losses(learner.inputs(replayed(learner, **fields)))
    assert out.metrics.get("kickstart/weight") is out.scales.get("kickstart")
    return out.losses, out.scales


def reached(learner: Learner, loss: torch.Tensor) -> set[str]:
    """Networks at which the gradient of a loss arrives."""
    named = [(name, p) for name, p in learner.agent.named_parameters() if p.requires_grad]
    slopes = torch.autograd.grad(loss.mean(), [p for _, p in named], allow_unused=True, retain_graph=True)
    return {
        ".".join(name.split(".")[: 2 if name.startswith("actor_critic") else 1])
        for (name, _), slope in zip(named, slopes, strict=True)
        if slope is not None and slope.any()
    }


def test_kickstarting_moves_the_actor_alone_and_weighs_what_schedule_and_trust_say():
    learner = learner_of()
    assert learner.gate is not None
    for trust in (1.0, 0.25):
        learner.gate.trust.value = trust
        losses, scales = found(learner)
        assert reached(learner, losses["kickstart"]) == {"actor_critic.actor"}
        assert float(scales["kickstart"]) == pytest.approx(0.3 * trust) == kickstart_weight(learner.gate)
    learner.gate.trust.means[True].weight = 0.0  # nobody knows whether it harms
    assert float(found(learner)[1]["kickstart"]) == 0.0


def test_the_heads_of_skills_learn_at_full_weight_and_move_nothing_else():
    learner = learner_of()
    losses, scales = found(learner)
    assert reached(learner, losses["options"]) == {"heads"} and scales["options"] == 1.0


def test_an_update_pulls_the_advised_slot_up_as_strongly_as_the_advice_is_trusted():
    pull = []
    for trust in (1.0, 0.5, 0.0):
        learner = learner_of()
        assert learner.gate is not None
        learner.gate.trust.value = trust
        torch.manual_seed(1)
        learner.update(replayed(learner))
        slope = learner.agent.actor_critic.actor.out.bias.grad
        assert slope is not None
        pull.append(-float(slope[learner.agent.num_actions]))  # the slot of skill 3, which is advised
    assert pull[0] - pull[2] > 0.01 and pull[1] - pull[2] == pytest.approx((pull[0] - pull[2]) / 2, rel=1e-3)


def test_the_critic_is_told_of_a_skill_where_it_goes_on_and_not_at_the_step_that_calls_it():
    learner = learner_of()
    nobody = found(learner)[0]["repval"]
    called = found(learner, skill=np.int16(3), held=np.int16(0))[0]["repval"]
    steps = np.arange(T, dtype=np.int16)  # called at the first step, so it goes on in the trained ones
    goes_on = found(learner, skill=np.int16(3), held=steps)[0]["repval"]
    assert torch.equal(nobody, called) and not torch.equal(nobody, goes_on)


def test_how_recorded_uses_ended_is_read_by_the_heads_alone():
    learner = learner_of()
    quiet = found(learner, skill=np.int16(3), held=np.arange(T, dtype=np.int16))[0]
    steps, ends = np.array([0, 1, 2, 0, 1], np.int16), np.array([0, 0, 0, ENDS.index("interrupted"), 0], np.int8)
    cut = found(learner, skill=np.int16(3), held=steps, ended=ends)[0]
    assert (cut["options"] != quiet["options"]).any() and torch.equal(cut["kickstart"], quiet["kickstart"])


def test_who_acts_in_imagination_calls_the_skills_that_sit_in_slots_and_no_others():
    learner = learner_of("C")
    heads, actor = learner.agent.heads, learner.agent.actor_critic.actor
    assert heads is not None
    with torch.no_grad():  # every skill can start, and none ends; the actor calls the slots alike
        heads.signs.weight.zero_()
        heads.signs.bias.copy_(torch.tensor([[9.0, -9.0, -50.0]] * SKILLS).flatten())
        actor.out.bias[learner.agent.num_actions :] = 9.0
    features = torch.zeros(400, learner.agent.world_model.features)
    torch.manual_seed(0)
    choice = learner.policy()(features, None, torch.rand(3, 400))
    assert set(choice.carry.skill.tolist()) == {0, 2, 3}
    plain = make_learner("none", torch.device("cpu"), **TINY)
    assert plain.policy()(features, None, torch.rand(1, 400)).carry is None


def test_a_learner_tells_numbers_as_classes_and_imagines_among_skills_where_its_settings_say_so():
    plain, changed = (
        make_learner("C", torch.device("cpu"), **TINY, **more)
        for more in ({}, {"numbers_as_classes": 3.0, "imagine_only_skills": True})
    )
    assert (plain.agent.world_model.decoder.class_weight, changed.agent.world_model.decoder.class_weight) == (0.0, 3.0)
    for learner, open_to in ((plain, True), (changed, False)):
        learner.set_slots(SLOTS)
        with torch.no_grad():
            learner.agent.heads.signs.bias.view(SKILLS, -1)[:, 0] = 99.0  # every skill can start
        seen = learner.policy()(torch.zeros(2, learner.agent.world_model.features), None, torch.rand(3, 2))
        assert seen.mask[:, : learner.agent.num_actions].eq(open_to).all() and seen.mask[:, -1].all()
        losses = found(learner)[0]
        assert {"state", "policy"} <= set(losses) and all(value.isfinite().all() for value in losses.values())
        assert reached(learner, losses["state"]) == {"world_model"}
