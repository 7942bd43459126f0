"""Bad advice in a real run: another scheme, broken skills, endless options, versions that vanish. Named errors before
anything starts; afterwards no advice, a masked slot, a count, and the loop goes on."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch

from lore.advice.lookup import AdviceSource
from lore.config import load_config
from lore.gate.gate import Gate
from lore.options.controller import Controller
from lore.options.slots import Slots
from lore.training.folder import CHECKPOINT
from lore.training.loop import train
from lore.training.records import read_jsonl
from lore.training.run import Training
from lore_datasets.advice import load_advice
from lore_datasets.environments import get_environment
from lore_datasets.errors import ConfigError, CorruptArtifact, LoreError, NotFound, SchemeMismatch
from lore_datasets.language.skills import parse_skill
from lore_datasets.testing import random_states, small_advice, small_states

CRAFTER = get_environment("crafter")
A = len(CRAFTER.vocab.actions)
NAMES = [s.name for s in CRAFTER.skills]
UNSURE = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)


def config(frames: int, advice: str, **more):
    small = {
        "size": "tiny", "observation": "symbolic", "batch_size": 32, "sequence_length": 8, "train_ratio": 4.0,
        "horizon": 5, "warmup": 5, "threads": 1, "replay_capacity": 2000, "env.length": 40, "device": "cpu",
        "gate.enabled": True, "synthetic.enabled": True, "options.enabled": True, "steps": frames,
        "log_interval": 20, "synthetic.warmup_updates": 2, "dataset": advice,
    }  # fmt: skip
    return load_config(**(small | more))


def skill(name: str, steps: list, **more):
    body = {"version": 1, "name": name, "start": {"op": "true"}, "steps": steps, "done": {"op": "false"},
            "max_steps": 12} | more  # fmt: skip
    return parse_skill(body, CRAFTER.vocab)


def broken_skill():
    """A skill that the parser would refuse, come in by another door: its action does not exist."""
    whole = skill("cartwheel", [{"do": "act", "action": "noop"}])
    return dataclasses.replace(whole, steps=({"do": "act", "action": "cartwheel", "times": 1},))


@pytest.fixture
def ref(own_datasets) -> str:
    return str(small_advice(own_datasets, CRAFTER, n=40))


def with_skills(root, *skills) -> AdviceSource:
    """The small version with other skills in the last places."""
    data = load_advice(str(small_advice(root, CRAFTER, n=40)), root=root)
    return AdviceSource(dataclasses.replace(data, skills=(*data.skills[: -len(skills)], *skills)))


def controller(source, *, slots=None, **settings) -> Controller:
    overrides = {"gate.enabled": True, "dataset": "x"} | settings
    config = load_config(**overrides)
    return Controller(config, source, slots, Gate(config.gate), 1, A, np.random.default_rng(0))


def test_advice_of_another_environment_is_refused_before_anything_is_written(tmp_path, ref, monkeypatch):
    monkeypatch.setattr("lore.training.policy.shared_advice", lambda name: dataclasses.replace(
        load_advice(name), environment=dataclasses.replace(CRAFTER, name="minigrid")))  # fmt: skip
    with pytest.raises(SchemeMismatch, match="minigrid"):
        train(config(20, ref), tmp_path / "run", tensorboard=False)
    assert not (tmp_path / "run" / "config.json").exists()


def test_advice_with_another_action_set_is_refused_by_name(tmp_path, ref, monkeypatch):
    monkeypatch.setattr("lore.training.policy.shared_advice", lambda name: dataclasses.replace(
        load_advice(name), actions=CRAFTER.vocab.actions[:-1]))  # fmt: skip
    with pytest.raises(SchemeMismatch, match="actions"):
        train(config(20, ref), tmp_path / "run", tensorboard=False)


def test_advice_of_another_key_scheme_is_refused_by_both_names(ref, monkeypatch):
    changed = dataclasses.replace(CRAFTER, key_scheme="crafter/99")
    monkeypatch.setattr("lore_datasets.advice.get_environment", lambda name: changed)
    with pytest.raises(SchemeMismatch, match="crafter/99"):
        load_advice(ref)


def test_more_actions_than_replay_has_room_for_are_refused(tmp_path, ref):
    run = Training(config(20, ref), tmp_path / "run")
    run.policy.agent.num_actions = 129
    with pytest.raises(ConfigError, match="129 actions"):
        run._make_replay(0)


def test_a_dataset_that_is_no_advice_is_refused(tmp_path, own_datasets):
    states = small_states(own_datasets, CRAFTER)
    with pytest.raises(LoreError, match="not advice"):
        train(config(20, str(states)), tmp_path / "run", tensorboard=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [("ratio_max", 1.01), ("ratio_max", -0.1), ("execution_prob", 2.0),
     ("weight_decay", 1.5), ("confidence_threshold", 1.2), ("uncertainty_threshold", -0.2),
     ("uncertainty_threshold", float("nan")), ("beta_max", float("inf")), ("delta_target", -1e-3),
     ("min_agreement", 1.1), ("max_open_loop_error", 1.5), ("options.max_options", 65), ("options.max_options", -1),
     ("generation_interval", 0), ("gate.weights", (1.0, -1.0, 1.0)), ("temperature", 0.0), ("hold", 0)],
)  # fmt: skip
def test_a_share_or_threshold_out_of_range_is_refused_with_field_value_and_range(name, value):
    with pytest.raises(ConfigError) as caught:
        load_config(**{name: value})
    assert name.rpartition(".")[2] in caught.value.message and "out of range" in caught.value.message
    assert caught.value.hint.startswith("use ")


def test_a_stored_skill_that_no_longer_parses_is_named_when_the_version_is_opened(ref, monkeypatch):
    from lore_datasets import advice
    from lore_datasets.errors import SkillError

    def refuse(text, vocab):
        raise SkillError("unknown step 'cartwheel'")

    monkeypatch.setattr(advice, "parse_skill", refuse)
    with pytest.raises(CorruptArtifact, match=r"stored skill \w+: unknown step 'cartwheel'"):
        load_advice(ref)


def test_a_broken_skill_is_masked_and_counted_and_the_others_play_on(own_datasets, caplog):
    source = with_skills(own_datasets, broken_skill())
    slots = Slots(2, tuple(s.name for s in source.data.skills), 0.0)
    slots.skill[:] = [len(NAMES) - 1, NAMES.index("explore")]
    c = controller(source, slots=slots, **{"options.enabled": True, "options.max_options": 2})
    logits = np.full(A + 2, -30.0)
    logits[A] = 60.0  # the policy wants the broken skill
    logits[A + 1] = 30.0
    played = random_states(CRAFTER, 20, np.random.default_rng(0)).pack()
    for state in played:
        choice = c.act(0, state, 0.0, logits, UNSURE)
        assert choice.skill != len(NAMES) - 1 and choice.proposals[-1] == -1
    assert (c.guard.broken == [k == len(NAMES) - 1 for k in range(len(NAMES))]).all()
    figures = c.metrics()
    assert figures["options/broken"] == 1.0 and figures["options/explore/uses"] > 0
    assert sum("cartwheel is masked" in r.message for r in caplog.records) == 1  # said once
    again = controller(source, slots=slots, **{"options.enabled": True, "options.max_options": 2})
    again.load_state_dict(c.state_dict())
    assert again.guard.broken[-1]


def test_a_skill_that_breaks_while_it_runs_is_ended_and_masked(own_datasets):
    source = with_skills(own_datasets, skill("hop", [{"do": "act", "action": "move_left", "times": 9}]))
    slots = Slots(1, tuple(s.name for s in source.data.skills), 0.0)
    slots.skill[:] = [len(NAMES) - 1]
    c = controller(source, slots=slots, **{"options.enabled": True, "options.max_options": 1})
    logits = np.full(A + 1, -30.0)
    logits[A] = 30.0
    state = random_states(CRAFTER, 1, np.random.default_rng(0)).pack()[0]
    c.act(0, state, 0.0, logits, UNSURE)
    c.charges[0].run._stack = [[77, 0, 0]]  # its place points outside its steps
    c.act(0, state, 0.0, logits, UNSURE)
    assert c.guard.broken[-1] and slots.statistics[-1].outcomes == {"aborted": 1}
    for _ in range(5):
        c.act(0, state, 0.0, logits, UNSURE)
    assert slots.statistics[-1].uses == 1 and c.charges[0].skill == -1  # masked from then on


@pytest.mark.parametrize(("done", "outcome"), [({"op": "false"}, "done"), ({"op": "sleeping"}, "timeout")])
def test_an_option_that_never_ends_hands_control_back_after_its_most_steps(own_datasets, done, outcome):
    turn = [{"do": "act", "action": a, "times": 1} for a in ("move_left", "move_right")]
    body = [{"do": "repeat", "times": 50, "body": turn}]
    endless = skill("pace", body, done=done) if done["op"] == "false" else None
    if endless is None:
        never = {"op": "inventory", "item": "diamond", "cmp": ">=", "value": 9}
        endless = skill("pace", body, done=never)
    source = with_skills(own_datasets, endless)
    slots = Slots(1, tuple(s.name for s in source.data.skills), 0.0)
    slots.skill[:] = [len(NAMES) - 1]
    c = controller(source, slots=slots, **{"options.enabled": True, "options.max_options": 1})
    logits = np.full(A + 1, -30.0)
    logits[A] = 30.0
    states = random_states(CRAFTER, 2, np.random.default_rng(0)).pack()
    at = CRAFTER.layout.offsets()
    for state in states:  # alive, awake and well in both, so that nothing else ends the option
        state[at["vitals"]] = 9
        state[at["sleeping"]] = 0
        state[at["inventory"]] = 0
    for i in range(40):
        c.act(0, states[i % 2], 0.0, logits, UNSURE)
    used = slots.statistics[-1]
    assert used.uses == 3 and used.steps == 36 and used.outcomes == {outcome: 3}


def test_look_ups_that_fail_are_no_advice_and_are_counted(own_datasets, ref):
    source = AdviceSource(load_advice(ref))

    def gone(states):
        raise OSError("the file system is gone")

    c = controller(source, hold=1)
    state = random_states(CRAFTER, 1, np.random.default_rng(0)).pack()[0]
    source.lookup = gone
    choices = [c.act(0, state, 0.0, np.zeros(A), UNSURE) for _ in range(5)]
    assert all(choice.row == -1 and choice.skill == -1 for choice in choices)
    figures = c.metrics()
    assert figures["llm_adapter/failures"] == 5.0 and figures["uncertainty_gate/beta"] == 0.0
    assert c.metrics()["llm_adapter/failures"] == 0.0


def test_a_version_that_vanishes_mid_run_stops_nothing_and_its_resume_is_a_named_error(tmp_path, own_datasets, ref):
    def vanish(row):
        shutil.rmtree(own_datasets / "small.icechunk", ignore_errors=True)

    summary = train(config(80, ref), tmp_path / "run", vanish, tensorboard=False)
    assert summary["step"] == 80 and summary["advice"] == ref
    assert any("llm_adapter/coverage_none" in row for row in read_jsonl(tmp_path / "run" / "metrics.jsonl"))
    before = (tmp_path / "run" / CHECKPOINT).read_bytes()
    with pytest.raises(NotFound, match="small"):
        train(config(120, ref), tmp_path / "run", tensorboard=False)
    assert (tmp_path / "run" / CHECKPOINT).read_bytes() == before


def test_a_whole_run_with_a_broken_skill_and_a_failing_look_up_ends_and_says_so(tmp_path, ref, monkeypatch):
    whole = load_advice(ref)
    monkeypatch.setattr("lore.training.policy.shared_advice", lambda name: dataclasses.replace(
        whole, skills=(*whole.skills[:-1], broken_skill())))  # fmt: skip
    lookup = AdviceSource.lookup

    def sometimes(self, states):
        if self.lookups % 3 == 2:
            self.lookups += 1
            raise KeyError("no such chunk")
        return lookup(self, states)

    monkeypatch.setattr(AdviceSource, "lookup", sometimes)
    summary = train(config(80, ref), tmp_path / "run", tensorboard=False)
    assert summary["step"] == 80
    rows = read_jsonl(tmp_path / "run" / "metrics.jsonl")
    assert all(row["options/broken"] == 1.0 for row in rows if "options/broken" in row)
    assert sum(row.get("llm_adapter/failures", 0.0) for row in rows) > 10
    assert Training(config(80, ref), tmp_path / "run").restore()["frames"] == 80
