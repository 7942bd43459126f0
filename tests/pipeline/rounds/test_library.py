"""Today's skills in the next version of a stored dataset: names keep their places, rows and programs stay."""

import json

import numpy as np
import pytest

from flows.cli import main as cli
from lore_datasets.advice import load_advice
from lore_datasets.errors import BadInput
from lore_datasets.language.skills import parse_skill
from lore_datasets.testing import small_advice, small_states
from pipeline.config import AskConfig, PipelineConfig
from pipeline.llm import get_backend
from pipeline.rounds.library import update_skills
from pipeline.rounds.prepare import prepare


@pytest.fixture
def older(env, store):
    """A version with an older ``shelter``, a skill of its own, and without the library's last two skills."""
    body = json.loads(next(skill for skill in env.skills if skill.name == "shelter").to_json())
    mine = parse_skill({**body, "name": "my_own"}, env.vocab)
    shelter = parse_skill({**body, "max_steps": 7}, env.vocab)
    kept = [shelter if skill.name == "shelter" else skill for skill in env.skills[:-2]]
    ref = small_advice(store.root, env, n=12, name="old", skills=(*kept[:5], mine, *kept[5:]))
    writer = store.writer("old", "advice", environment=env, skills=load_advice(ref, store.root).skills,
                          provenance={"adviser": "me"})  # fmt: skip
    writer.append("programs", json=[env.rules.text], origin=["me"])
    writer.spent(environment_steps_total=70)
    return writer.commit("with a program")


def test_the_next_version_plays_with_the_library_and_every_name_keeps_its_place(env, store, older):
    before, made = load_advice(older, store.root), update_skills(store, "old")
    after = load_advice(made.ref, store.root)
    assert made.ref.version == 3 and str(older) in after.manifest.parents
    assert made.replaced == ("shelter",) and made.added == tuple(skill.name for skill in env.skills[-2:])
    names = [skill.name for skill in after.skills]
    assert names == [skill.name for skill in before.skills] + list(made.added)
    library = {skill.name: skill for skill in env.skills}
    assert all(skill == library.get(skill.name, before.skills[5]) for skill in after.skills)
    np.testing.assert_array_equal(after.rows.logits[:, : before.rows.logits.shape[1]], before.rows.logits)
    assert not after.rows.mask[:, -2:].any() and after.programs == before.programs
    about, change = after.manifest.provenance, store.diff(str(older), str(made.ref))["skills"]
    assert change == {"added": list(made.added), "removed": [], "replaced": ["shelter"]}
    assert about["library"] == {"of": str(older), "replaced": ["shelter"], "added": list(made.added)}
    assert (
        after.manifest.cost["environment_steps_total"] == 70
        and about["adviser"] == "me"
        and load_advice(older, store.root).skills == before.skills
    )


def test_the_next_round_asks_about_the_skills_of_the_library(env, store, older, states):
    made = update_skills(store, "old")
    mixed = PipelineConfig(ask=AskConfig(allow_mixed_advisers=True))
    now = prepare(states[:2], env, get_backend("rules"), store, "old", mixed)
    assert now.skills == load_advice(made.ref, store.root).skills != load_advice(older, store.root).skills


def test_a_second_call_commits_nothing_and_states_are_refused(env, store, older):
    made = update_skills(store, "old")
    assert update_skills(store, "old") == type(made)(made.ref, (), ())
    small_states(store.root, env, n=4)
    with pytest.raises(BadInput, match="not advice"):
        update_skills(store, "states")


def test_the_verb_says_what_changed(older, store, monkeypatch, capsys):
    monkeypatch.setenv("LORE_DATASETS", str(store.root))
    assert cli.main(["skills", "update", "old"]) == 0
    said = capsys.readouterr().out
    assert "replaced shelter" in said and "old@v3" in said and "model" not in said
    assert cli.main(["skills", "update", "old"]) == 0 and "already" in capsys.readouterr().out
