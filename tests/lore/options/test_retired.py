"""Skills that fail in a real run are retired, and the run asks once for better ones."""

import json

import pytest
import torch

from lore.config import load_config
from lore.options import slots
from lore.options.slots import Slots
from lore.training.agent import SLOT_BIAS
from lore.training.loop import train
from lore.training.run import Training
from lore_datasets.environments import get_environment
from lore_datasets.exchange.revisions import REVISIONS, read_revisions
from lore_datasets.language.skills import parse_skill
from lore_datasets.testing import small_advice

CRAFTER = get_environment("crafter")


def config(frames: int, advice: str, **more):
    small = {
        "size": "tiny", "observation": "symbolic", "batch_size": 32, "sequence_length": 8, "train_ratio": 4.0,
        "horizon": 5, "warmup": 5, "threads": 1, "replay_capacity": 2000, "env.length": 40, "device": "cpu",
        "options.enabled": True, "steps": frames, "log_interval": 20, "dataset": advice,
    }  # fmt: skip
    return load_config(**(small | more))


def test_a_failing_skill_leaves_its_figures_and_its_last_failure_for_the_next_round(
    tmp_path, own_datasets, monkeypatch
):
    monkeypatch.setattr(slots, "MIN_USES", 1)
    monkeypatch.setattr("lore.training.agent.SLOT_BIAS", 4.0)  # nearly every decision is an option
    ref = str(small_advice(own_datasets, CRAFTER, n=40))
    run = tmp_path / "run"
    train(config(160, ref, confidence_threshold=1.0), run, tensorboard=False)
    found = read_revisions(run)
    assert found and len({r.skill for r in found}) == len(found)
    for request in found:
        assert parse_skill(json.loads(request.skill_json), CRAFTER.vocab).name == request.skill
        assert request.uses >= 1 and request.success_rate < 1.0 and sum(request.outcomes.values()) == request.uses
        assert request.actions and set(request.actions) <= set(CRAFTER.vocab.actions)
        assert len(bytes.fromhex(request.state)) == CRAFTER.layout.size and request.outcome != "done"
        assert request.advice == ref and 0 < request.frame <= 160
    before = (run / REVISIONS).read_bytes()
    train(config(200, ref, confidence_threshold=1.0), run, tensorboard=False)
    later = read_revisions(run)
    assert {r.skill for r in found} <= {r.skill for r in later}  # nothing is forgotten by a resume
    assert len(later) > len(found) or (run / REVISIONS).read_bytes() == before


@pytest.mark.parametrize(("interval", "changes"), [(1, True), (1000, False)])
def test_a_new_generation_of_options_comes_every_so_many_episodes(
    tmp_path, own_datasets, monkeypatch, interval, changes
):
    from lore.training import loop

    ref = str(small_advice(own_datasets, CRAFTER, n=40))
    run = Training(config(100, ref, generation_interval=interval, confidence_threshold=0.0), tmp_path)
    run.fill_slots()
    assert (run.policy.slots.skill >= 0).all()
    before = run.policy.slots.skill.copy()
    strange = next(k for k in range(len(CRAFTER.skills)) if k not in before)
    run.policy.controller.accounts.mean_advice[:] = 0.01
    run.policy.controller.accounts.mean_advice[strange] = 0.9  # where the agent is now, advice speaks of another skill
    run.episodes = 1
    loop._review_skills(run, run.policy.slots, 1)
    assert (strange in run.policy.slots.skill) == changes
    assert (run.policy.slots.skill != before).sum() == int(changes)
    assert run.learner.slots.tolist() == run.policy.slots.skill.tolist()


@pytest.mark.parametrize(("interval", "stays_out"), [(1000, True), (1, False)])
def test_a_skill_whose_calls_are_worth_too_little_gives_its_slot_up_until_the_next_generation(
    tmp_path, own_datasets, interval, stays_out
):
    from lore.training import loop

    ref = str(small_advice(own_datasets, CRAFTER, n=40))
    run = Training(config(100, ref, generation_interval=interval, confidence_threshold=0.0), tmp_path)
    run.fill_slots()
    poor = int(run.policy.slots.skill[0])
    for skill, reward in ((poor, 0.0), (-1, 1.0)):
        for _ in range(200):
            run.policy.slots.worth.start(0, skill)
            run.policy.slots.worth.step(0, reward)
            run.policy.slots.worth.end(0)
    run.episodes = 1
    loop._review_skills(run, run.policy.slots, 1)
    assert (poor not in run.policy.slots.skill) == stays_out == run.policy.slots.statistics[poor].waits
    assert not run.policy.slots.statistics[poor].retired
    assert run.learner.slots.tolist() == run.policy.slots.skill.tolist()


def test_a_slot_whose_skill_changes_starts_afresh_and_one_whose_skill_comes_back_does_not(tmp_path, own_datasets):
    ref = str(small_advice(own_datasets, CRAFTER, n=40))
    run = Training(config(100, ref), tmp_path)
    run.fill_slots()
    slots, first = run.policy.slots, run.policy.agent.num_actions
    out, optimiser = run.policy.agent.actor_critic.actor.out, run.learner.optimiser
    at, bias = (optimiser.names.index(f"actor_critic.actor.out.{name}") for name in ("weight", "bias"))
    with torch.no_grad():
        out.weight.fill_(1.0)
        out.bias.fill_(1.0)
    for index in (at, bias):
        optimiser.momentum[index].fill_(0.5)
        optimiser.square[index].fill_(0.25)
        optimiser.square[index][first + 1] = 9.0
    same, other = int(slots.skill[0]), int(slots.skill[1])
    stranger = next(k for k in range(len(CRAFTER.skills)) if k not in slots.skill)
    slots.skill[:2] = -1
    run.learner.restart_slots(slots.take_over())  # an empty slot keeps what it learned
    slots.skill[:2] = [same, stranger]
    run.fill_slots()
    assert (out.weight[first] == 1.0).all() and (out.weight[first + 1] == 0.0).all()
    assert out.bias[first] == 1.0 and out.bias[first + 1] == SLOT_BIAS
    assert (optimiser.momentum[at][first] == 0.5).all() and (optimiser.momentum[at][first + 1] == 0.0).all()
    assert optimiser.momentum[bias][first] == 0.5 and optimiser.momentum[bias][first + 1] == 0.0
    for index in (at, bias):  # the skill that leaves had larger gradients: the next one begins with those of the others
        torch.testing.assert_close(optimiser.square[index], torch.full_like(optimiser.square[index], 0.25))
    slots.skill[1] = other
    assert slots.take_over() == [1] and slots.take_over() == []
    again = Slots(len(slots.skill), slots.names, 0.2)
    again.load_state_dict(slots.state_dict())
    assert again.taught.tolist() == slots.taught.tolist()
