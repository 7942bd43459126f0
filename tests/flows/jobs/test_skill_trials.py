"""New skills in real worlds: figures that repeat, and refusals for what never starts or does nothing."""

from __future__ import annotations

import json

import pytest

from flows.config import AdviceJob, CollectJob
from flows.jobs.advise import advise_states
from flows.jobs.collect import play_states
from flows.jobs.skill_trials import SkillTrials
from lore_datasets.environments import get_environment
from lore_datasets.language.skills import parse_skill
from lore_datasets.store.store import Store
from pipeline.config import AdviseConfig, CollectConfig, SelectConfig

ENV = get_environment("crafter")


def body(name, **changes):
    return {"version": 1, "name": name, "start": {"op": "reachable", "target": "tree"},
            "steps": [{"do": "until", "cond": {"op": "facing", "target": "tree"}, "limit": 20,
                       "body": [{"do": "move_toward", "target": "tree", "limit": 10}]},
                      {"do": "act", "action": "do", "times": 3}],
            "done": {"op": "inventory", "item": "wood", "cmp": ">=", "value": 9},
            "max_steps": 30, **changes}  # fmt: skip


WORKS = body("fell", done={"op": "inventory", "item": "wood", "cmp": ">=", "value": 1})
WAITS = body("wait", start={"op": "true"}, steps=[{"do": "act", "action": "noop", "times": 5}])
NEVER = body("mine_far", start={"op": "inventory", "item": "diamond", "cmp": ">=", "value": 9})


@pytest.fixture(scope="module")
def trials():
    return SkillTrials(ENV, worlds=2, steps=300, every=10, starts=6)


def test_a_working_skill_starts_succeeds_and_repeats_to_the_same_figures(trials):
    skill = parse_skill(WORKS, ENV.vocab)
    found = trials(skill)
    assert 0 < found.starts <= 6 and found.successes > 0 and found.steps >= found.successes and not found.fault
    assert trials(skill) == found
    assert SkillTrials(ENV, worlds=2, steps=300, every=10, starts=6)(skill) == found


def test_waiting_and_never_starting_are_named(trials):
    assert trials(parse_skill(WAITS, ENV.vocab)).fault == "skill_does_nothing"
    assert trials(parse_skill(NEVER, ENV.vocab)).fault == "skill_never_started"


def test_a_list_of_actions_without_a_goal_succeeds_when_it_was_played(trials):
    steps = [{"do": "act", "action": "move_left", "times": 2}, {"do": "act", "action": "move_right", "times": 2}]
    found = trials(parse_skill(body("sway", start={"op": "true"}, steps=steps, done={"op": "false"}), ENV.vocab))
    assert found.successes > 0 and found.steps <= 4 * found.starts


def test_figures_of_a_new_skill_stand_in_the_provenance_and_refusals_in_the_rejects(tmp_path, monkeypatch):
    monkeypatch.setenv("LORE_DATASETS", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    answers = json.dumps({"skills": [WORKS, WAITS]})
    (tmp_path / "inventive.py").write_text(f"""
from pipeline.llm.base import Response
from pipeline.llm.backends.rules import RulesAdviser

class Inventive(RulesAdviser):
    name = "inventive"
    def complete(self, prompts):
        found = super().complete(prompts)
        return [Response({answers!r}, self.name) if p.kind == "skills" else r for p, r in zip(prompts, found)]
""")
    states = play_states(CollectJob("play", CollectConfig(budget=60, stride=2)))
    job = AdviceJob(str(states), "new", select=SelectConfig(budget=20), advise=AdviseConfig(plan_share=0.0))
    from dataclasses import replace

    ref = advise_states(replace(job, ask=replace(job.ask, backend="inventive:Inventive")))
    artifact = Store().open(ref)
    figures = artifact.manifest.provenance["skill_trials"]
    assert set(figures) == {"fell"} and figures["fell"]["success_rate"] > 0 and figures["fell"]["steps"] > 0
    assert "fell" in artifact.manifest.skills and "wait" not in artifact.manifest.skills
    assert "skill_does_nothing" in artifact.arrays["round-000/rejects/reason"].tolist()
