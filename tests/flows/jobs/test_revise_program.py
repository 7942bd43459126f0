"""A better program by play: asked with the report, compared in fresh worlds, kept or recorded, by every backend."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest

from flows.cli import main as cli
from flows.config import AdviceJob
from flows.jobs.advise import advise_states
from flows.jobs.distil import needs_model
from flows.jobs.program_trials import ProgramTrials
from flows.terminal import PlainTerminal, use
from lore_datasets.advice import load_advice
from lore_datasets.environments import get_environment
from lore_datasets.errors import BadInput, Waiting
from lore_datasets.language.programs import parse_program
from lore_datasets.store.store import Store
from lore_datasets.testing import small_advice
from pipeline.config import AdviseConfig, AskConfig
from tests.llm_server import running

CRAFTER = get_environment("crafter")
SLEEPER = {"rules": [{"when": {"op": "true"}, "goal": "noop", "why": "a secret reason"}]}
WORKER = {"rules": [{"when": {"op": "true"}, "goal": goal, "why": ""} for goal in ("collect_wood", "explore")]}


@pytest.fixture(autouse=True)
def short_lives(monkeypatch):
    """Lives of 40 steps, one world for a report, played in this process."""
    init = ProgramTrials.__init__

    def short(self, *args, **more):
        init(self, *args, **{**more, "length": 40, "worlds": 1, "workers": 1})

    monkeypatch.setattr(ProgramTrials, "__init__", short)


def program(body):
    return parse_program(body, CRAFTER.vocab, [skill.name for skill in CRAFTER.skills])


@pytest.fixture
def server():
    with running(answer=json.dumps(SLEEPER), usage={}) as made:
        yield made


@pytest.fixture
def job(server):
    """A dataset whose program stands still, made by the loopback server that is asked for a better one."""
    ask = AskConfig(backend="openai", model="m", base_url=f"http://127.0.0.1:{server.server_port}/v1", retries=0)
    made = AdviceJob(dataset="talk", ask=ask, advise=AdviseConfig(kinds="program"), revise_worlds=4)
    advise_states(made)
    return replace(made, revise=True)


def test_a_program_that_plays_better_is_the_next_version(job, server):
    server.answer = json.dumps(WORKER)
    ref = advise_states(job)
    data, about = load_advice("talk"), Store().manifest(ref).provenance
    assert ref.version == 2 and data.programs == (program(SLEEPER).text, program(WORKER).text)
    verdict = about["program_revisions"][-1]
    assert verdict["kept"] and verdict["return"][1] > 0 and verdict["worlds"] == 4
    assert about["environment_steps"] > verdict["steps"] > 0
    assert Store().manifest(ref).cost["environment_steps_total"] == about["environment_steps"]
    question = server.seen[-1][2]["messages"][-1]["content"]
    assert '0: {"when": {"op": "true"}, "goal": "noop"}' in question and "advice: how goals ended" in question
    assert "secret" not in question


def test_a_program_that_plays_no_better_is_recorded_and_another_draft_is_asked_for_next(job, server, capsys):
    server.answer = json.dumps(WORKER)
    advise_states(job)
    server.answer = json.dumps(SLEEPER)
    with use(PlainTerminal(sys.stdout)):
        ref = advise_states(job)
    assert ref.version == 3 and load_advice("talk").programs[-1] == program(WORKER).text
    spent = [Store().manifest(f"talk@v{version}").cost["environment_steps_total"] for version in (2, 3)]
    assert spent[1] == spent[0] + Store().manifest(ref).provenance["environment_steps"]
    assert "no gain" in capsys.readouterr().out and not needs_model(ref)
    arrays = Store().open(ref).arrays
    assert arrays["round-002/rejects/reason"].tolist() == ["program_not_better"]
    asked = len(server.seen)
    assert advise_states(job).version == 4 and len(server.seen) == asked + 1


def test_the_same_program_again_is_no_gain_and_commits_nothing(job, capsys):
    with use(PlainTerminal(sys.stdout)):
        ref = advise_states(job)
    assert ref.version == 1 and "no gain" in capsys.readouterr().out


def test_an_answer_of_no_use_is_no_gain_and_says_why_so_that_a_round_goes_on(job, server, capsys):
    server.answer = "I would rather not."
    with use(PlainTerminal(sys.stdout)):
        assert advise_states(job).version == 1
    out = capsys.readouterr().out
    assert "no gain" in out and "could be used" in out and "rather not" in out


def test_a_better_program_by_file_waits_and_is_read_back(job, tmp_path):
    folder = tmp_path / "asked"
    by_file = replace(job, ask=AskConfig(backend="file", folder=str(folder), allow_mixed_advisers=True))
    with pytest.raises(Waiting, match="waiting"):
        advise_states(by_file)
    key = json.loads((folder / "questions.jsonl").read_text())["key"]
    (folder / "answers").mkdir(exist_ok=True)
    (folder / "answers" / "a.jsonl").write_text(json.dumps({"key": key, "text": json.dumps(WORKER)}) + "\n")
    assert advise_states(by_file).version == 2 and load_advice("talk").programs[-1] == program(WORKER).text


def test_the_command_says_what_it_would_ask_and_needs_a_program(own_datasets, capsys):
    small_advice(own_datasets, CRAFTER, n=4, name="rows")
    with pytest.raises(BadInput, match="holds no program to revise"):
        advise_states(AdviceJob(dataset="rows", revise=True))
    assert cli.main(["advise", "--revise", "--dataset", "crafter-rules", "--dry-run"]) == 0
    assert "rules: 1 questions" in capsys.readouterr().out


def test_worlds_of_drafts_of_reports_and_of_comparisons_are_apart(monkeypatch):
    seeds = []
    monkeypatch.setattr(ProgramTrials, "_lives", lambda self, p, s, seed, worlds: seeds.append(seed) or 1 / 0)
    for number in range(2):
        trials = ProgramTrials(CRAFTER, round=number)
        for call in (lambda t: t([], ()), lambda t: t.report(None, (), ""), lambda t: t.compare(None, None, ())):
            with pytest.raises(ZeroDivisionError):
                call(trials)
    assert len(set(seeds)) == 4 and 40_000 not in seeds
