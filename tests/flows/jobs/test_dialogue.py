"""Skills and programs by dialogue: a person's editor, an adviser's answer, the try in worlds, the next version."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from flows.cli import main as cli
from flows.jobs import dialogue
from flows.jobs.program_trials import ProgramTrials
from flows.jobs.subjects import program_of, skill_of
from lore_datasets.advice import advice_from, load_advice
from lore_datasets.environments import get_environment
from lore_datasets.errors import BadInput, NotFound, SkillError, UsageError, Waiting
from lore_datasets.exchange.shipped import ShippedStore
from lore_datasets.language.programs import parse_program
from lore_datasets.store.store import Store
from lore_datasets.testing import small_advice
from pipeline.config import AskConfig
from pipeline.rounds.library import commit_written
from tests.llm_server import running

CRAFTER = get_environment("crafter")
NAMES = [skill.name for skill in CRAFTER.skills]
SLEEPER = {"rules": [{"when": {"op": "true"}, "goal": "noop"}, {"when": {"op": "true"}, "goal": "collect_drink"}]}
WORKER = {"rules": [{"when": {"op": "true"}, "goal": goal} for goal in ("collect_wood", "explore")]}
WISH = "make it stop when a zombie is near"
ZOMBIE = {"op": "near", "target": "zombie", "within": 2}


@pytest.fixture
def store(own_datasets, monkeypatch):
    """A dataset with four rows and a program, and no editor; lives are short and played in this process."""
    init = ProgramTrials.__init__
    monkeypatch.setattr(
        ProgramTrials, "__init__", lambda self, *a, **m: init(self, *a, **{**m, "length": 40, "workers": 1})
    )
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.delenv("EDITOR", raising=False)
    small_advice(own_datasets, CRAFTER, n=4, name="talk")
    made = ShippedStore()
    program = parse_program(SLEEPER, CRAFTER.vocab, NAMES)
    commit_written(made, advice_from(made.open("talk")), program=program, about={}, origin="test", message="m")
    return made


@pytest.fixture
def editor(tmp_path, monkeypatch):
    """Makes $EDITOR a program that saves ``text`` over what it is given."""

    def use(text):
        path = tmp_path / "as typed.json"
        path.write_text(text if isinstance(text, str) else json.dumps(text))
        monkeypatch.setenv("EDITOR", f"cp '{path}'")

    return use


def changed(**parts):
    body = json.loads(next(skill for skill in CRAFTER.skills if skill.name == "collect_drink").to_json())
    return body | {"abort": ZOMBIE} | parts


def edit(*words):
    return cli.main(["skills", "edit", *words, "--dataset", "talk", "--worlds", "2", "--yes"])


def drafts(store):
    return sorted(path.name for path in (store.root / "drafts").glob("*"))


def test_an_edited_skill_is_tried_shown_and_stored_with_its_provenance(store, editor, capsys):
    editor(changed())
    assert edit("collect_drink") == 0
    data, about = load_advice("talk"), Store().manifest("talk").provenance
    assert data.ref.version == 3 and len(data.rows) == 4 and json.loads(data.programs[-1])["rules"][1]["goal"]
    assert [s.name for s in data.skills] == NAMES
    assert next(s for s in data.skills if s.name == "collect_drink").abort == ZOMBIE
    [made] = about["edits"]
    assert made["by"] == "a person" and made["of"].startswith("talk@v2#") and made["before"] != made["after"]
    assert made["try"]["worlds"] == 2 and made["try"]["after"]["starts"] > 0 and made["try"]["before"]["starts"] > 0
    out = capsys.readouterr().out
    assert "before  " in out and "runs reached their end" in out and '| +  "abort"' in out and drafts(store) == []
    editor(changed(max_steps=77))
    assert edit("collect_drink") == 0
    assert len(Store().manifest("talk").provenance["edits"]) == 2


def test_what_does_not_hold_is_named_and_kept_and_the_same_command_goes_on(store, editor, capsys, monkeypatch):
    editor(changed(max_steps=0))
    assert edit("collect_drink") == SkillError.exit_code
    said = capsys.readouterr().err
    assert "lore: skill: " in said and "max_steps" in said and "talk.skill.collect_drink.json" in said
    assert load_advice("talk").ref.version == 2 and drafts(store) == ["talk.skill.collect_drink.json"]
    monkeypatch.setenv("EDITOR", 'sed -i \'s/"max_steps": 0/"max_steps": 50/\'')
    assert edit("collect_drink") == 0 and load_advice("talk").ref.version == 3 and drafts(store) == []


def test_an_editor_that_fails_or_is_not_there_and_an_unchanged_text_are_named_and_leave_nothing(
    store, monkeypatch, capsys
):
    assert edit("collect_drink") == UsageError.exit_code and "no editor is named" in capsys.readouterr().err
    for command, said in (
        ("false", "ended with exit code 1"),
        ("/no/such/editor", "does not start"),
        ("'", "EDITOR is"),
    ):
        monkeypatch.setenv("EDITOR", command)
        assert edit("collect_drink") == UsageError.exit_code and said in capsys.readouterr().err
    monkeypatch.setenv("EDITOR", "true")
    assert edit("collect_drink") == BadInput.exit_code and "is unchanged" in capsys.readouterr().err
    assert drafts(store) == [] and load_advice("talk").ref.version == 2


def test_an_editor_that_fails_after_it_saved_loses_nothing(store, editor, monkeypatch, capsys):
    editor(changed())
    saves = os.environ["EDITOR"]
    monkeypatch.setenv("EDITOR", f'sh -c "{saves} $0; exit 3"')
    assert edit("collect_drink") == UsageError.exit_code
    assert "exit code 3" in (said := capsys.readouterr().err) and "talk.skill.collect_drink.json" in said
    assert json.loads((store.root / "drafts" / "talk.skill.collect_drink.json").read_text()) == changed()


def test_ctrl_c_belongs_to_the_editor_while_it_is_open(store, editor, monkeypatch):
    editor(changed())
    monkeypatch.setenv("EDITOR", f'sh -c "kill -INT {os.getpid()}; {os.environ["EDITOR"]} $0"')
    assert edit("collect_drink") == 0 and load_advice("talk").ref.version == 3


def test_a_skill_that_is_named_by_the_program_and_by_other_versions_keeps_its_name(store, editor, capsys):
    editor(changed(name="drink_up"))
    assert edit("collect_drink") == SkillError.exit_code
    said = capsys.readouterr().err
    assert "named drink_up, not collect_drink" in said and "rules 1 of its program" in said and "other versions" in said
    assert drafts(store) == ["talk.skill.collect_drink.json"]


def test_only_the_current_version_can_be_changed(store, editor, capsys):
    editor(changed())
    words = ["skills", "edit", "collect_drink", "--dataset", "talk@v1", "--yes"]
    assert cli.main(words) == BadInput.exit_code and "rollback" in capsys.readouterr().err
    with pytest.raises(NotFound, match="did you mean collect_drink"):
        skill_of(dialogue.current_version(store, "talk"), "colect_drink")


def test_a_dataset_that_moved_on_meanwhile_is_not_overwritten(store, editor):
    editor(changed())
    subject = skill_of(dialogue.current_version(store, "talk"), "collect_drink")
    draft = dialogue.draft_of(store, subject)
    subject, after = dialogue.edit(draft, subject)
    small_advice(store.root, CRAFTER, n=4, name="talk")
    with pytest.raises(BadInput, match=r"moved on from talk@v2.* to talk@v3"):
        dialogue.store_draft(store, draft, subject, after, worlds=1, seed=0, accept=None)
    assert draft.exists() and load_advice("talk").ref.version == 3


def test_a_skill_that_raises_in_its_try_or_never_starts_is_not_stored_unseen(store, editor, capsys):
    def broken(*_, **__):
        def trial(skill):
            raise ZeroDivisionError("in a step")

        return trial

    editor(changed())
    subject = replace(skill_of(dialogue.current_version(store, "talk"), "collect_drink"), trials=broken)
    draft = dialogue.draft_of(store, subject)
    subject, after = dialogue.edit(draft, subject)
    with pytest.raises(SkillError, match=r"raised ZeroDivisionError .*: in a step") as raised:
        dialogue.store_draft(store, draft, subject, after, worlds=1, seed=0, accept=None)
    assert str(draft) in raised.value.kept and draft.exists()
    editor(changed(start={"op": "inventory", "item": "diamond", "cmp": ">", "value": 8}))
    assert edit("collect_drink") == BadInput.exit_code and "could start nowhere" in capsys.readouterr().err
    assert load_advice("talk").ref.version == 2 and draft.exists()


def test_a_person_decides_also_against_a_doubt_and_a_no_keeps_the_draft(store, editor):
    editor(changed(start={"op": "inventory", "item": "diamond", "cmp": ">", "value": 8}))
    subject = skill_of(dialogue.current_version(store, "talk"), "collect_drink")
    draft = dialogue.draft_of(store, subject)
    subject, after = dialogue.edit(draft, subject)
    more = {"worlds": 1, "seed": 0}
    assert dialogue.store_draft(store, draft, subject, after, **more, accept=lambda question: False) is None
    assert draft.exists() and load_advice("talk").ref.version == 2
    assert dialogue.store_draft(store, draft, subject, after, **more, accept=lambda question: True)
    assert load_advice("talk").ref.version == 3


def test_a_file_is_edited_where_it_lies_and_its_skill_enters_beside_the_others(
    store, editor, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    editor(changed())
    assert cli.main(["skills", "edit", "collect_drink", "--worlds", "1"]) == 0
    assert "lore skills edit collect_drink.json --dataset NAME" in capsys.readouterr().out
    assert json.loads((tmp_path / "collect_drink.json").read_text()) == changed()
    (tmp_path / "mine.json").write_text(json.dumps(changed(name="drink_up")))
    monkeypatch.setenv("EDITOR", "true")
    assert edit("mine.json") == 0 and (tmp_path / "mine.json").exists()
    assert [s.name for s in load_advice("talk").skills] == [*NAMES, "drink_up"]
    (tmp_path / "mine.json").write_text(json.dumps(changed(name="noop")))
    assert edit("mine.json") == SkillError.exit_code and "is taken" in capsys.readouterr().err


def test_an_edited_program_is_played_beside_the_one_before(store, editor, capsys):
    editor({"rules": [{"when": {"op": "true"}, "goal": "collect_wod"}]})
    words = ["programs", "edit", "talk", "--worlds", "4", "--yes"]
    assert cli.main(words) == BadInput.exit_code
    assert "rule 0" in (said := capsys.readouterr().err) and "collect_wood" in said and "talk.program.json" in said
    editor(WORKER)
    assert cli.main(words) == 0
    data, manifest = load_advice("talk"), Store().manifest("talk")
    assert data.ref.version == 3 and [r["goal"] for r in json.loads(data.programs[-1])["rules"]] == [
        "collect_wood",
        "explore",
    ]
    [made] = manifest.provenance["edits"]
    assert made["rules"] == 2 and made["try"]["worlds"] == 4 and manifest.cost["environment_steps_total"] > 0
    out = capsys.readouterr().out
    assert "difference +" in out and "| removed 0: noop" in out and drafts(store) == []
    editor(SLEEPER)
    assert cli.main(words) == BadInput.exit_code and "it plays worse" in capsys.readouterr().err


@pytest.fixture
def server():
    with running(answer=json.dumps({"skills": [changed(name="another")]}), usage={}) as made:
        yield made


@pytest.fixture
def asking(server):
    base = f"http://127.0.0.1:{server.server_port}/v1"
    ask = AskConfig(backend="openai", model="m", base_url=base, retries=1, allow_mixed_advisers=True)

    def use(store, subject, wish=WISH, accept=None, ask=ask):
        return dialogue.ask_for(store, subject, wish, ask, worlds=2, seed=0, accept=accept)

    return use


def test_an_asked_change_is_the_next_version_with_question_answer_and_try(store, server, asking):
    ref = asking(store, skill_of(dialogue.current_version(store, "talk"), "collect_drink"))
    data, about = load_advice("talk"), Store().manifest(ref).provenance
    assert ref.version == 3 and [s.name for s in data.skills] == NAMES and len(data.rows) == 4
    assert next(s for s in data.skills if s.name == "collect_drink").abort == ZOMBIE
    [made] = about["edits"]
    assert made["by"] == "openai:m" and made["asked"] == WISH and made["try"]["after"]["starts"] > 0
    assert about["templates"]["skills"]["name"] == "crafter-ask-skill" and "openai:m" in json.dumps(about["rounds"])
    arrays = Store().open(ref).arrays
    assert WISH in arrays["round-002/answers/prompt"][0] and "another" in arrays["round-002/answers/response"][0]
    question = server.seen[-1][2]["messages"][-1]["content"]
    assert WISH in question and '"name": "collect_drink"' in question and '"about"' not in question


def test_a_new_skill_is_asked_for_and_a_person_may_refuse_it(store, server, asking):
    subject = skill_of(dialogue.current_version(store, "talk"), "")
    assert asking(store, subject, accept=lambda question: False) is None and load_advice("talk").ref.version == 2
    assert asking(store, subject).version == 3 and load_advice("talk").skills[-1].name == "another"
    assert len(server.seen) == 1  # the refused answer was kept


def test_answers_that_cannot_be_used_are_asked_again_then_named_and_kept(store, server, asking, capsys):
    subject = skill_of(dialogue.current_version(store, "talk"), "collect_drink")
    same = json.loads(subject.told)
    for answer, said in (
        ("no JSON", "openai:m"), ({"skills": []}, "it gave no skill"),
        ({"skills": [changed(max_steps=0)]}, "max_steps"),
        ({"skills": [same]}, "is unchanged"),
    ):  # fmt: skip
        server.answer, before = json.dumps(answer) if isinstance(answer, dict) else answer, len(server.seen)
        with pytest.raises(BadInput, match=said) as raised:
            asking(store, subject, f"{WISH}: {said}")
        assert len(server.seen) == before + 2 and "journal.sqlite" in raised.value.kept
    assert load_advice("talk").ref.version == 2


def test_an_asked_program_is_stored_where_it_plays_no_worse(store, server, asking):
    server.answer = json.dumps(WORKER)
    subject = program_of(dialogue.current_version(store, "talk"))
    ref = asking(store, subject, "work")
    about = Store().manifest(ref).provenance
    assert about["edits"][0]["asked"] == "work" and about["templates"]["program"]["name"] == "crafter-ask-program"
    assert (
        about["environment_steps"] > 0
        and json.loads(load_advice("talk").programs[-1])["rules"][0]["goal"] == "collect_wood"
    )


def test_who_reads_no_wish_and_what_is_no_wish_are_refused(store, asking, tmp_path):
    subject = skill_of(dialogue.current_version(store, "talk"), "")
    for ask, wish in ((AskConfig(), WISH), (AskConfig(backend="openai", model="m"), " "), (AskConfig(), "x\x1b[2J")):
        with pytest.raises((BadInput, UsageError)):
            asking(store, subject, wish, ask=ask)
    by_file = AskConfig(backend="file", folder=str(tmp_path / "asked"), allow_mixed_advisers=True)
    with pytest.raises(Waiting, match="waiting"):
        asking(store, subject, ask=by_file)
    key = json.loads((tmp_path / "asked" / "questions.jsonl").read_text())["key"]
    (tmp_path / "asked" / "answers").mkdir(exist_ok=True)
    body = {"key": key, "text": json.dumps({"skills": [changed(name="by_hand")]})}
    (tmp_path / "asked" / "answers" / "a.jsonl").write_text(json.dumps(body) + "\n")
    assert asking(store, subject, ask=by_file).version == 3 and load_advice("talk").skills[-1].name == "by_hand"


def test_the_command_asks_the_person_and_refuses_where_nobody_is(store, server, capsys):
    base = f"http://127.0.0.1:{server.server_port}/v1"
    ask = ["--ask.backend", "openai", "--ask.model", "m", "--ask.base-url", base, "--ask.allow-mixed-advisers"]
    words = ["skills", "ask", WISH, "--dataset", "talk", "--skill", "collect_drink", "--worlds", "1", *ask]
    assert cli.main(words) == UsageError.exit_code and "--yes" in capsys.readouterr().err
    assert cli.main([*words, "--yes"]) == 0
    assert "advice   talk@v3#" in capsys.readouterr().out and len(server.seen) == 1
