"""What a version is worth with no learner: lives in processes, kept as they end, their figures and where they go."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flows.cli import main as cli
from flows.jobs import play as jobs_play
from flows.jobs.play import PlayJob, play, play_programs
from lore.advice.lookup import AdviceSource
from lore.evaluation.play import Life, PlaySettings, play_life
from lore_datasets.advice import program_alone
from lore_datasets.environments import get_environment
from lore_datasets.errors import BadInput, ConfigError
from lore_datasets.language.programs import parse_program
from lore_datasets.store.lineage import newest_play
from lore_datasets.store.store import Store
from lore_datasets.testing import random_states, small_advice

CRAFTER = get_environment("crafter")
SHORT = PlaySettings(length=60, area=24)


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """(folder of datasets, reference, report of three lives each): played once for the tests that read it."""
    root = tmp_path_factory.mktemp("play") / "datasets"
    ref = small_advice(root, CRAFTER, n=24)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORE_DATASETS", str(root))
        yield root, ref, play(PlayJob(str(ref), 3, settings=SHORT, workers=2))


def lives_in(root: Path) -> list[dict]:
    return [json.loads(line) for path in root.glob("plays/*/lives-*.jsonl") for line in path.read_text().splitlines()]


def test_a_report_counts_every_life_and_every_step_of_both(played):
    root, ref, report = played
    rows = lives_in(root)
    assert sorted((row["player"], row["number"]) for row in rows) == [
        (player, n) for player in ("advice", "uniform") for n in range(3)
    ]
    assert report["steps"] == sum(row["length"] for row in rows) and report["ref"] == str(ref)
    for player, found in report["players"].items():
        mine = [row for row in rows if row["player"] == player]
        assert found["return"][0] == pytest.approx(np.mean([row["reward"] for row in mine]), abs=1e-3)
        assert found["return"][1] <= found["return"][0] <= found["return"][2]
        assert set(found["achievements"]) == set(CRAFTER.vocab.achievements)
        assert sum(share[0] for share in found["ended"].values()) == pytest.approx(100)
        assert sum(times[0] for times in found["spoke"].values()) == pytest.approx(found["decisions"][0])
    mine, control = (found["return"][0] for found in report["players"].values())
    assert report["difference"]["return"][0] == pytest.approx(mine - control, abs=1e-3)


def test_the_artifact_is_the_version_s_child_and_holds_every_life(played):
    root, ref, report = played
    store = Store(root)
    found = newest_play(store, ref)
    assert str(found.ref) == report["artifact"] and found.manifest.parents == (str(ref),)
    assert {k: v for k, v in report.items() if k != "artifact"} == found.manifest.provenance["report"]
    assert found.manifest.cost["environment_steps"] == report["steps"]
    kept = [Life(**json.loads(text)) for text in found.arrays["round-000/life"]]
    assert [life.length for life in kept] == found.arrays["round-000/length"].tolist() and len(kept) == 6
    other = small_advice(root, CRAFTER, n=20, name="other")
    assert newest_play(store, other) is None


def test_the_same_call_plays_nothing_again_and_more_episodes_play_the_difference(played):
    root, ref, report = played
    before = {path: path.stat().st_mtime_ns for path in root.glob("plays/*/lives-*.jsonl")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORE_DATASETS", str(root))
        job = PlayJob(str(ref), 3, settings=SHORT, workers=1)
        assert play(job) == report
        assert {path: path.stat().st_mtime_ns for path in before} == before
        fewer = play(replace(job, episodes=2))
        assert fewer["episodes"] == 2 and fewer["players"]["advice"]["lives"] == 2
        torn = next(path for path in before if path.name == "lives-0.jsonl")  # the part that a single process plays
        torn.write_text(torn.read_text() + '{"player": "advice", "number": 3, "rew')  # a kill in the middle of a line
        more = play(replace(job, episodes=4))
    assert more["players"]["uniform"]["lives"] == 4
    whole = torn.read_text().replace('{"player": "advice", "number": 3, "rew\n', "")
    assert whole != torn.read_text()  # the next line begins a line of its own
    torn.write_text(whole)
    rows = lives_in(root)
    assert sorted(row["number"] for row in rows if row["player"] == "advice") == [0, 1, 2, 3]


def test_card_croissant_and_show_tell_the_figures_with_their_intervals(played, capsys):
    root, ref, _ = played

    def said(*words: str) -> str:
        assert cli.main(["datasets", "show", str(ref), "--root", str(root), *words]) == 0
        return capsys.readouterr().out

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORE_DATASETS", str(root))
        play(PlayJob(str(ref), 3, settings=SHORT, workers=1))
    card = said("--card", "md")
    newest = newest_play(Store(root), ref).manifest.provenance["report"]
    reward = newest["players"]["advice"]["return"]
    assert f"| advice | {reward[0]:.2f} ({reward[1]:.2f} to {reward[2]:.2f}) |" in card
    assert f"Environment steps spent on it: {newest['steps']}" in card and "no learning result" in card
    measured = {m["name"]: m for m in json.loads(said("--card", "croissant"))["variableMeasured"]}
    assert [measured["return of advice"][k] for k in ("value", "minValue", "maxValue")] == reward
    assert {"score of uniform", "length of advice"} <= measured.keys()
    assert f"advice return {reward[0]:.1f}" in " ".join(said().split())


def test_a_version_without_skills_and_one_whose_skills_never_start_are_named(own_datasets):
    rng = np.random.default_rng(0)
    never = replace(CRAFTER.skills[0], start={"op": "false"})
    for name, skills, said in (("bare", (), "has no skills"), ("idle", (never,), "could start in")):
        writer = Store().writer(name, "advice", environment=CRAFTER, skills=skills)
        n, width = 4, len(CRAFTER.vocab.actions) + len(skills)
        logits = np.zeros((n, width), np.float32)
        writer.append(
            "rows", state=random_states(CRAFTER, n, rng).pack(), logits=logits, mask=np.ones((n, width), np.uint8),
            confidence=np.ones(n, np.float32), plans=np.full((n, 1, 2), -1, np.int16), reason=[""] * n,
            plan_lengths=np.zeros((n, 1), np.int16), plan_scores=np.zeros((n, 1), np.float32),
            applicable=np.zeros((n, len(skills)), np.uint8),
        )  # fmt: skip
        writer.commit(name)
        with pytest.raises(BadInput, match=said):
            play(PlayJob(name, 1, "", replace(SHORT, length=5), 1))
    assert len(lives_in(own_datasets)) == 1  # of the second; it is kept
    for wrong in ({"episodes": 0}, {"workers": -1}):
        with pytest.raises(ConfigError):
            PlayJob("idle", **wrong)
    with pytest.raises(ConfigError, match="hold"):
        PlaySettings(hold=0)


def test_a_version_committed_meanwhile_is_not_played_under_the_name_of_the_one_before(own_datasets, monkeypatch):
    ref, real = small_advice(own_datasets, CRAFTER, n=20, name="moving"), jobs_play.hold

    def commits_meanwhile(folder):
        small_advice(own_datasets, CRAFTER, n=20, name="moving", seed=1)
        return real(folder)

    monkeypatch.setattr(jobs_play, "hold", commits_meanwhile)
    assert play(PlayJob("moving", 1, settings=replace(SHORT, length=20), workers=1))["ref"] == str(ref)
    (todo,) = own_datasets.glob("plays/*/todo.json")
    assert json.loads(todo.read_text())["where"] == {"advice": str(ref), "uniform": str(ref)}


def test_versions_of_two_games_are_not_compared(own_datasets):
    small_advice(own_datasets, CRAFTER, n=20, name="one")
    small_advice(own_datasets, get_environment("minigrid:MiniGrid-DoorKey-5x5-v0", named=True), n=20, name="two")
    with pytest.raises(BadInput, match=r"two@v1.* is advice on minigrid:MiniGrid-DoorKey-5x5-v0, one@v1.* on crafter"):
        play(PlayJob("one", 1, "two", SHORT, 1))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_play_that_is_killed_goes_on_with_the_lives_that_are_missing(tmp_path, own_datasets):
    ref = small_advice(own_datasets, CRAFTER, n=24)
    words = ["datasets", "play", str(ref), "--episodes", "12", "--length", "400", "--workers", "2", "--json"]
    process = subprocess.Popen([sys.executable, "-m", "flows", *words], stdout=subprocess.DEVNULL)
    while len(lives_in(own_datasets)) < 3 and process.poll() is None:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = lives_in(own_datasets)
    assert 3 <= len(kept) < 24
    done = subprocess.run([sys.executable, "-m", "flows", *words], capture_output=True, text=True, check=True)
    rows = [(row["player"], row["number"]) for row in lives_in(own_datasets)]
    assert len(rows) == len(set(rows)) == 24 and json.loads(done.stdout)["players"]["advice"]["lives"] == 12


@pytest.mark.parametrize("body", ["{}", "[]"])
def test_a_json_file_that_holds_no_advice_is_named(tmp_path, own_datasets, body):
    (tmp_path / "x.json").write_text(body)
    with pytest.raises(BadInput, match=r"x\.json holds no advice"):
        play(PlayJob(str(tmp_path / "x.json"), episodes=1))


def test_programs_in_no_version_are_played_alone_and_their_lives_are_kept(own_datasets):
    skills = CRAFTER.skills[:2]
    names = [skill.name for skill in skills]
    both = [parse_program({"rules": [{"when": {"op": "true"}, "goal": goal}]}, CRAFTER.vocab, names) for goal in names]
    found = play_programs(both, skills, CRAFTER, SHORT, 2, workers=1)
    for program, lives in zip(both, found, strict=True):
        source = AdviceSource(program_alone(program, skills, CRAFTER))
        assert lives == [play_life(source, number, SHORT) for number in range(2)]
        assert set(lives[0].spoke) <= {f"rule 0 {program.rules[0].goal}", "none"}
    kept = sorted(own_datasets.parent.glob("**/plays/*/lives-*.jsonl"))
    before = [path.stat().st_mtime_ns for path in kept]
    assert play_programs(both, skills, CRAFTER, SHORT, 2) == found and kept
    assert [path.stat().st_mtime_ns for path in kept] == before
