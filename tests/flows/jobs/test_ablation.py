"""Studies: which runs they make, what their figures are, and one small study from end to end."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tyro

from flows.cli import main as cli
from flows.config import AblateJob, CollectJob
from flows.jobs.ablation_arms import GOAL_BONUS, Cell, cells, make_advice, planned_runs, shuffle
from flows.jobs.collect import play_states
from flows.report.ablation import ablation_figures
from flows.report.ablation_page import HEADER, markdown_page, table
from flows.report.read import RunData
from flows.report.study_page import study_page
from lore.config import replace, to_dict
from lore_datasets.advice import load_advice
from lore_datasets.environments import get_environment
from lore_datasets.errors import ConfigError, LoreError
from lore_datasets.store.store import Store
from lore_datasets.testing import small_advice
from pipeline.config import CollectConfig

NAMES = get_environment("crafter").vocab.achievements


def test_every_arm_runs_once_per_adviser_and_none_once():
    job = AblateJob(arms="none,B,A,C,ABC,B1", advisers="rules,random,shuffled", seeds=(0, 1))
    labels = [cell.label for cell in cells(job)]
    assert len(labels) == len(set(labels)) == 1 + 5 * 3
    assert labels[:3] == ["none", "B rules", "A rules"] and "B1 shuffled" in labels
    names = [run.name for run in planned_runs(job)]
    assert len(set(names)) == 32 and len({run.folder for run in planned_runs(job)}) == 32
    assert [t.seed for t in planned_runs(job)] == [0] * 16 + [1] * 16


def test_arms_differ_in_their_paths_alone_and_have_one_budget():
    job = AblateJob(arms="none,B,B1,A,C,ABC", steps=700)
    plain, *rest = (to_dict(cell.config(job, 5, "x@v1")) for cell in cells(job))
    assert plain["train"]["steps"] == 700 and plain["train"]["seed"] == 5 and not plain["advice"]["dataset"]
    changed = []
    for other in rest:
        differ = {f"{s}.{n}" for s in plain for n in plain[s] if plain[s][n] != other[s][n]}
        changed.append(differ - {"advice.dataset"})
        assert "advice.dataset" in differ
    b, a, c = {"gate.enabled", "gate.kickstart"}, {"synthetic.enabled"}, {"options.enabled"}
    assert changed == [b, b | {"gate.hold"}, a, c, a | b | c]


def test_words_behind_the_paths_add_kickstarting_slots_for_all_skills_and_a_falling_budget():
    job = AblateJob(arms="C,C+all,BC,BC+kick,BC+kick+budget,BCD+kick")
    c, c_all, bc, kick, budget, goals = (cell.config(job, 0, "x@v1") for cell in cells(job))
    assert (c.options.max_options, c_all.options.max_options, bc.gate.kickstart) == (8, 0, 0.0)
    assert kick.gate.kickstart == 1.0 and kick.options.max_options == 0 and kick.gate.delta_target_end is None
    assert budget.gate.delta_target > budget.gate.delta_target_end and budget.gate.kickstart == 1.0
    assert (kick.gate.goal_bonus, goals.gate.goal_bonus, goals.gate.kickstart) == (0.0, GOAL_BONUS, 1.0)
    assert len({cell.folder for cell in cells(job)}) == 6


def test_the_agent_acts_by_itself_in_a_share_of_the_episodes_or_but_for_a_stretch_that_the_arm_s_word_names():
    job = AblateJob(arms="BC+kick,BC+kick+episodes,BC+kick+blocks", steps=5_000)
    kick, episodes, blocks = (cell.config(job, 0, "x@v1").gate for cell in cells(job))
    assert [gate.guided for gate in (kick, episodes, blocks)] == ["always", "episodes", "blocks"]
    assert episodes == dataclasses.replace(kick, guided="episodes", guided_steps=2_000)
    assert dataclasses.replace(blocks, guided="episodes") == episodes


def test_an_arm_s_words_make_numbers_classes_and_imagination_choose_among_skills():
    end, more = cells(AblateJob(arms="BC+kick+end,BC+kick+end+numbers+skills"))
    plain, changed = end.config(AblateJob(), 0, "x@v1"), more.config(AblateJob(), 0, "x@v1")
    assert (plain.model.numbers_as_classes, plain.options.imagine_only_skills) == (0.0, False)
    assert changed == replace(plain, numbers_as_classes=3.0, imagine_only_skills=True)
    with pytest.raises(ConfigError, match="path C is off"):
        Cell("B+kick+skills", "rules").config(AblateJob(), 0, "x@v1")


def test_prefill_lets_the_version_play_half_of_a_short_run_and_5000_steps_of_a_long_one():
    for steps, played in ((20_000, 5_000), (700, 350)):
        (cell,) = cells(job := AblateJob(arms="prefill", steps=steps))
        found = cell.config(job, 0, "x@v1")
        assert (found.advice.prefill_steps, found.advice.dataset) == (played, "x@v1")
        assert not (found.gate.enabled or found.options.enabled or found.synthetic.enabled)


def test_controls_run_in_their_own_arms_and_uniform_changes_the_prior_alone():
    job = AblateJob(arms="none,B,A,ABC", advisers="rules,random,uniform", control_arms="B", seeds=(0,))
    found = {cell.label: cell for cell in cells(job)}
    assert list(found) == ["none", "B rules", "A rules", "ABC rules", "B random", "B uniform"]
    plain, flat = (to_dict(found[label].config(job, 0, "x@v1")) for label in ("B rules", "B uniform"))
    assert flat["advice"].pop("prior") == "uniform" and plain["advice"].pop("prior") == "stored"
    assert plain == flat
    with pytest.raises(ConfigError, match="unknown arm"):
        cells(AblateJob(control_arms="D"))


@pytest.mark.parametrize(
    "arms",
    [
        "",
        "none,D",
        "BA",
        "A1",
        "b",
        "CA",
        "C+kick",
        "BC+budget",
        "B+all",
        "BD+kick",
        "BC+blocks",
        "B+kick+end+blocks",
        "BC+numbers",
        "BC+kick+skills+numbers",
    ],
)
def test_an_arm_that_does_not_exist_is_refused_by_name(arms):
    with pytest.raises(ConfigError, match="arm"):
        cells(AblateJob(arms=arms))


@pytest.mark.parametrize("name", ["uniform", "program", "a.b", ""])
def test_a_dataset_under_a_name_that_means_another_adviser_or_no_folder_is_refused(name):
    with pytest.raises(ConfigError, match="cannot be the name of a dataset"):
        cells(AblateJob(advisers=f"rules,{name}=x@v1"))


@pytest.mark.parametrize(
    ("advisers", "said"),
    [
        ("rules,mine=gone@v1", "no dataset 'gone'"),
        ("rules,mine=some/other.h5", "other.h5 is a file"),
        ("rules,ruls", "unknown backend 'ruls'"),
        ("uniform,rules", "comes first"),
        ("rules,some.place:Thing", "not a dataset"),
        ("rules,random", "taken-random is a dataset of kind states, not advice"),
    ],
)
def test_what_is_wrong_with_an_adviser_is_said_before_the_first_is_asked(advisers, said, own_datasets):
    play_states(CollectJob("taken-random", CollectConfig(budget=20)))
    before = Store().names()
    with pytest.raises(LoreError, match=said):
        make_advice(AblateJob(advisers=advisers, dataset="taken", states=20, rows=20, epochs=1))
    assert Store().names() == before


def test_shuffled_advice_keeps_the_words_and_the_states_but_not_their_pairs(own_datasets):
    ref = small_advice(own_datasets, get_environment("crafter"), n=50)
    old, made = load_advice(ref), shuffle(str(ref), "mixed")
    new = load_advice(made)
    np.testing.assert_array_equal(new.rows.state, old.rows.state)
    assert str(ref) in new.manifest.parents and new.manifest.provenance["adviser"] == "shuffled"
    sums = [np.sort(data.rows.logits.astype(np.float64).sum(-1)) for data in (old, new)]
    np.testing.assert_allclose(*sums)
    same = (old.rows.logits == new.rows.logits).all(-1).mean()
    assert same < 0.2
    assert shuffle(str(ref), "mixed") == made  # made once
    other = small_advice(own_datasets, get_environment("crafter"), n=30, seed=1, name="other")
    assert shuffle(str(other), "mixed").version == 2 and shuffle(str(ref), "mixed") == made


def run(name: str, returns: list[float], unlocked: int = 1) -> RunData:
    """A run whose episodes end every 100 steps; the first ``unlocked`` achievements come in each."""
    episodes = tuple(
        {"step": 100 * (i + 1), "return": r, "length": 100, "achievements": dict.fromkeys(NAMES[:unlocked], 1)}
        for i, r in enumerate(returns)
    )
    progress = {"step": 100 * len(returns), "seconds": 60.0}
    return RunData(name, Path(name), {"env": {"name": "crafter"}}, episodes=episodes, progress=progress)


def test_the_figures_of_a_study_are_those_worked_out_by_hand():
    base = [run("a", [1.0] * 10), run("b", [3.0] * 10)]
    better = [run("c", [2.0] * 10, 2), run("d", [4.0] * 10, 2)]
    found = ablation_figures({"none": base, "B rules": better}, 1000, {"B rules": {"price_usd": 0.5}})
    none, arm = found["arms"]["none"], found["arms"]["B rules"]
    assert none["return_mean"] == none["return_iqm"] == 2.0 and arm["return_iqm"] == 3.0
    assert arm["difference"] == 1.0 and arm["improvement"] == 0.75
    assert arm["improvement_interval"][0] <= 0.75 <= arm["improvement_interval"][1]
    assert found["baseline"] == 2.0 and none["steps_ratio"] == arm["steps_ratio"] == 1.0
    assert [none["achievements"][n] for n in NAMES[:3]] == [100.0, 0.0, 0.0]
    assert [arm["achievements"][n] for n in NAMES[:3]] == [100.0, 100.0, 0.0]
    assert "difference" not in none
    json.dumps(found, allow_nan=False)
    lines = table(found).splitlines()
    assert len(lines) == 4 and all(line.count("|") == len(HEADER) + 1 for line in lines)
    assert "| 0.50 |" in lines[3] and "| 3.00 |" in lines[3]


def test_final_policies_are_compared_apart_from_training_returns():
    def tested(name: str, trained: list[float], final: list[float]) -> RunData:
        mode = {"returns": final, "score": 1.0, "episodes": len(final)}
        evaluation = {"final_policy": {"as_trained": mode, "agent_alone": mode}}
        return dataclasses.replace(run(name, trained), evaluation=evaluation)

    none = [tested("a", [1.0] * 9, [5.0] * 4), tested("b", [1.0] * 9, [5.0] * 4)]
    arm = [tested("c", [3.0] * 9, [2.0] * 4), tested("d", [3.0] * 9, [2.0] * 4)]
    found = ablation_figures({"none": none, "B rules": arm}, 900)["arms"]["B rules"]
    assert (found["return_mean"], found["difference"]) == (3.0, 2.0)
    assert found["as_trained"]["mean"] == 2.0 and found["as_trained"]["episodes"] == [4, 4]
    assert "primitives_only" not in found  # evaluations of before lack it
    assert found["as_trained_difference"] == -3.0 and found["as_trained_difference_interval"] == [-3.0, -3.0]


def test_what_the_choices_are_worth_is_measured_against_the_same_skills_without_preference():
    group = {"none": [1.0], "B rules": [5.0], "B uniform": [4.0], "A rules": [1.0]}
    arms = ablation_figures(
        {label: [run(label, value * 9), run(label, value * 9)] for label, value in group.items()}, 900
    )["arms"]
    assert arms["B rules"]["choice"] == 1.0 and arms["B rules"]["choice_interval"] == [1.0, 1.0]
    assert not [label for label in ("none", "B uniform", "A rules") if "choice" in arms[label]]


def test_an_arm_that_learns_sooner_has_a_steps_ratio_above_one():
    slow = [run("a", list(np.linspace(0, 4, 40)))]
    fast = [run("b", list(np.minimum(4.0, np.linspace(0, 8, 40))))]
    never = [run("c", [0.0] * 40)]
    arms = ablation_figures({"none": slow, "B": fast, "A": never}, 4000)["arms"]
    assert 1.5 < arms["B"]["steps_ratio"] < 2.1
    assert arms["A"]["steps_ratio"] is None and arms["A"]["steps_to_baseline"] is None


def test_an_arm_without_a_finished_episode_is_shown_empty_and_breaks_nothing():
    found = ablation_figures({"none": [run("a", [])], "B": [run("b", [])]}, 100)
    assert found["arms"]["B"]["steps_ratio"] is None
    assert "| B |" in table(found)
    assert "<html" in study_page(found | {"advice": {}, "runs": {}, "command": "lore ablate"})


def test_steps_that_trials_of_programs_took_stand_in_the_page_of_a_study():
    found = ablation_figures({"none": [run("a", [1.0])], "B": [run("b", [2.0])]}, 100) | {"command": "lore ablate"}
    said = "Programs of `mine` were tried for 1,234 environment steps before any arm learned."
    assert said in markdown_page(found | {"trial_steps": {"mine": 1234}}) and "were tried" not in markdown_page(found)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_small_study_runs_to_its_page_and_a_second_call_runs_nothing_again(tmp_path, own_datasets, capsys):
    ref = small_advice(own_datasets, get_environment("crafter"), n=40)
    folder = tmp_path / "study"
    words = ["ablate", "--arms", "none,B", "--advisers", f"mine={ref}", "--seeds", "0", "--steps", "300",
             "--episodes", "1", "--workers", "1", "--folder", str(folder), "--env.length", "80"]  # fmt: skip
    assert cli.main(words) == 0
    found = json.loads((folder / "ablation.json").read_text())
    assert [(label, arm["steps"]) for label, arm in found["arms"].items()] == [("none", [300]), ("B mine", [300])]
    assert all(arm["episodes"][0] >= 3 and "as_trained" in arm for arm in found["arms"].values())
    assert "uncertainty_gate/trust" not in found["arms"]["none"]["statistics"]
    again = tyro.cli(AblateJob, args=shlex.split(found["command"])[2:])
    assert again == dataclasses.replace(tyro.cli(AblateJob, args=words[1:]), workers=0)
    page = (folder / "ablation.html").read_text()
    assert "B mine" in page and '<figure class="chart"' in page
    before = {p: p.stat().st_mtime_ns for p in folder.glob("*/seed-0/checkpoint.safetensors")}
    assert len(before) == 2
    assert cli.main(words) == 0
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert "B mine" in (folder / "ablation.md").read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_study_runs_on_the_workers_of_a_cluster(tmp_path, own_datasets):
    folder = tmp_path / "study"
    words = ["ablate", "--arms", "none", "--seeds", "0", "1", "--steps", "60", "--episodes", "0", "--workers", "2",
             "--dask", "local", "--folder", str(folder), "--env.length", "50"]  # fmt: skip
    command = [sys.executable, "-m", "flows", *words]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "LORE_DATASETS": str(own_datasets)})
    found = json.loads((folder / "ablation.json").read_text())
    assert found["arms"]["none"]["steps"] == [60, 60]
    assert len(list(folder.glob("none/seed-*/checkpoint.safetensors"))) == 2
