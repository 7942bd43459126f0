"""Refresh rounds of a run whose version holds a program: rows are added, the program is kept or revised by its play."""

from __future__ import annotations

import json
import re
import shutil
import sys

import pytest

from flows.config import AdviceJob, CollectJob, RefreshJob
from flows.jobs import program_trials
from flows.jobs.advise import advise_states
from flows.jobs.collect import play_states
from flows.jobs.program_trials import ProgramTrials
from flows.jobs.rounds import refresh
from flows.terminal import PlainTerminal, use
from lore.advice.lookup import AdviceSource
from lore.config import load_config
from lore.evaluation.play import play_life
from lore.training.advice_versions import versions
from lore.training.loop import train
from lore_datasets.advice import load_advice, program_alone
from lore_datasets.store.store import Store
from pipeline.config import AdviseConfig, AskConfig, CollectConfig, SelectConfig
from tests.flows.jobs.test_rounds import SELECT, SMALL, in_process
from tests.llm_server import running

SLEEPER = {"rules": [{"when": {"op": "true"}, "goal": "noop", "why": ""}]}
WORKER = {"rules": [{"when": {"op": "true"}, "goal": goal, "why": ""} for goal in ("collect_wood", "explore")]}
IDLE = {"rules": [{"when": {"op": "true"}, "goal": "move_left", "why": ""}, *SLEEPER["rules"]]}
STEPS = in_process()._replace(distil=lambda *of: pytest.fail("a model is distilled that nothing would ask"))


@pytest.fixture(autouse=True)
def short_lives(monkeypatch):
    """Lives of 60 steps, one world for a report, played in this process."""
    init = ProgramTrials.__init__

    def short(self, *args, **more):
        init(self, *args, **{**more, "length": 60, "worlds": 1})

    def play(programs, skills, environment, settings, episodes, workers=0):
        found = [AdviceSource(program_alone(program, skills, environment)) for program in programs]
        return [[play_life(source, n, settings) for n in range(episodes)] for source in found]

    monkeypatch.setattr(ProgramTrials, "__init__", short)
    monkeypatch.setattr(program_trials, "play_programs", play)


class Talker:
    """Prefers each state's first option, has no skills, answers questions for a program with ``programs`` in turn."""

    def __init__(self):
        self.programs, self.reports = [SLEEPER], []

    def __call__(self, question: str) -> str:
        first = re.search(r"^A\. (\w+)", question, re.MULTILINE)
        if first:
            return json.dumps({"ranked": [first[1]], "confidence": 0.8, "reason": "r"})
        self.reports.append(question)
        return json.dumps(self.programs.pop(0) if len(self.programs) > 1 else self.programs[0])


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """(server, folder): a run that has learned for forty steps from a version with rows and a program."""
    root = tmp_path_factory.mktemp("lab")
    with running(answer=Talker(), usage={}) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORE_DATASETS", str(root / "datasets"))
        states = play_states(CollectJob("play", CollectConfig(budget=60, stride=2)))
        made = AdviceJob(
            str(states), "talk", SelectConfig(budget=30), asked_at(server), AdviseConfig(kinds="program,prior")
        )
        first = advise_states(made)
        train(load_config(**SMALL, steps=40, dataset=str(first)), root / "run", tensorboard=False)
        yield server, root, str(first)


def asked_at(server) -> AskConfig:
    return AskConfig(backend="openai", model="m", base_url=f"http://127.0.0.1:{server.server_port}/v1", retries=0)


@pytest.fixture
def talker(begun):
    begun[0].answer = Talker()
    return begun[0].answer


@pytest.fixture
def lab(begun, tmp_path, monkeypatch):
    """A copy of the store and the run for one test: (RefreshJob, reference of the first version)."""
    server, root, first = begun
    for name in ("datasets", "run"):
        shutil.copytree(root / name, tmp_path / name, dirs_exist_ok=True)
    monkeypatch.setenv("LORE_DATASETS", str(tmp_path / "datasets"))
    run = str(tmp_path / "run")
    ask, advise = asked_at(server), AdviseConfig(kinds="prior")
    return RefreshJob(run, visits=24, steps=16, select=SELECT, ask=ask, advise=advise, revise_worlds=4), first


def test_a_round_adds_rows_and_takes_the_better_program_without_distilling(lab, talker):
    job, first = lab
    talker.programs = [WORKER]
    (record,) = refresh(job, STEPS)
    store, data = Store(), load_advice(record["advice"])
    assert record["advice"].startswith("talk@v3") and record["model"] == "" and record["rows"] > 0
    second = next(each for each in data.manifest.parents if each.startswith("talk@v2"))
    assert first in store.manifest(second).parents and record["visits"] in store.manifest(second).parents
    assert [json.loads(text)["rules"][0]["goal"] for text in data.programs] == ["noop", "collect_wood"]
    assert data.manifest.provenance["program_revisions"][-1]["kept"]
    costs = [store.manifest(second).cost, data.manifest.cost]
    assert record["cost"]["requests"] == sum(cost["requests"] for cost in costs) > costs[1]["requests"] > 0
    assert record["cost"]["journal_usd_before"] == costs[0]["journal_usd_before"]
    assert len(talker.reports) == 1 and '"goal": "noop"' in talker.reports[-1] and "return" in talker.reports[-1]
    assert record["before"]["program"] > 0 and record["before"]["none"] == record["after"]["none"] == 0
    assert record["after"]["row"] > record["before"]["row"]
    assert [(row["step"], row["advice"]) for row in versions(job.folder)] == [(0, first), (40, record["advice"])]
    assert record["to"] == 56


def test_a_round_keeps_a_program_that_no_answer_betters_and_the_next_round_asks_anew(lab, talker, capsys):
    job, first = lab
    with use(PlainTerminal(sys.stdout)):
        (record,) = refresh(job, STEPS)  # the same program again: there is nothing to compare
    assert record["advice"].startswith("talk@v2") and record["rows"] > 0 and "no gain" in capsys.readouterr().out
    assert load_advice(record["advice"]).programs == load_advice(first).programs
    talker.programs = [IDLE]
    (record,) = refresh(job, STEPS)
    data = load_advice(record["advice"])
    assert len(talker.reports) == 2 and talker.reports[0] != talker.reports[1] and len(data.programs) == 1
    assert [each["kept"] for each in data.manifest.provenance["program_revisions"]] == [False]
    arrays = Store().open(record["advice"]).arrays
    told = [array.tolist() for path, array in arrays.items() if path.endswith("rejects/reason")]
    assert ["program_not_better"] in told


def test_a_round_that_is_told_not_to_revise_asks_for_no_program(lab, talker):
    job, _ = lab
    (record,) = refresh(RefreshJob(**{**vars(job), "revise_worlds": 0}), STEPS)
    assert not talker.reports and len(load_advice(record["advice"]).programs) == 1 and record["rows"] > 0
