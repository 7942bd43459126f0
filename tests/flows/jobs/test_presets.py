"""Studies with a name: what they fix, which runs they make, the small files that runs leave, and the page of these."""

from __future__ import annotations

import dataclasses
import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import tyro

from flows.cli import main as cli
from flows.config import AblateJob, EvaluateJob, TrainJob
from flows.jobs.ablation import ablate, check_folder, train_and_evaluate
from flows.jobs.ablation_arms import cells, planned_runs, rows_alone
from flows.jobs.presets import PRESETS, resolved
from flows.prefect_flows import ablate as flow_of_studies
from flows.report.ablation import page_folder
from flows.report.results import evaluated_at, guidance_end, read_result, run_of, settings_of, write_result
from flows.terminal import open_terminal, use
from lore.config import Config, from_dict, load_config, replace, to_dict
from lore_datasets.advice import load_advice
from lore_datasets.environments import get_environment
from lore_datasets.errors import BadInput, ConfigError, CorruptArtifact, NotFound
from lore_datasets.json_text import parsed

NAMES = get_environment("crafter").vocab.achievements
ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_names_its_cells_budget_learner_and_the_place_of_its_figures(name):
    job = resolved(AblateJob(preset=name))
    labels = [cell.label for cell in cells(job)]
    first = job.advisers.partition(",")[0].partition("=")[0]
    assert {"none", f"BC+kick {first}"} <= set(labels) and len(labels) == len(set(labels))
    assert job.results == f"docs/studies/runs/{name}" and job.folder == f"runs/ablate-{name}"
    configs = [cell.config(job, 0, "x@v1") for cell in cells(job)]
    assert {c.train.steps for c in configs} == {job.steps}
    assert {c.env.observation for c in configs} == {"pixels" if name == "paper" else "symbolic"}
    ratios = {"paper": 32.0, "doorkey": 16.0, "keycorridor": 16.0}
    assert {c.train.train_ratio for c in configs} == {ratios.get(name, 64.0)}
    controls = [label for label in labels if not label.endswith(first) and label != "none"]
    known = {"paper": [], "doorkey": ["BC+kick uniform"], "keycorridor": ["BC+kick uniform"]}
    arms = ["BC+kick", "BC+kick+end+numbers+skills"] if name == "laptop" else ["BC+kick"]
    assert controls == known.get(name, [f"{arm} {who}" for who in ("rows", "rules", "uniform") for arm in arms])
    assert {c.env.name for c in configs} == {get_environment(job.config.env.name).name}
    for text in job.advisers.split(","):
        if "=" in text:
            assert load_advice(text.partition("=")[2], texts=False).skills


@pytest.mark.parametrize("name", PRESETS)
def test_the_figures_in_the_docs_are_of_what_the_preset_runs_today(name):
    job = resolved(AblateJob(preset=name))
    of = {cell.folder: cell for cell in cells(job)}
    versions = dict(text.split("=") for text in job.advisers.split(",") if "=" in text)
    paths = sorted((ROOT / "docs" / "studies" / "runs" / name).glob("*.json"))
    assert len(paths) >= {"quick": 51, "laptop": 43, "paper": 2, "doorkey": 9, "keycorridor": 9}.get(name, 0)
    for path in paths:
        value = parsed(path.read_text())
        cell, _, seed = path.stem.rpartition("-s")
        now = settings_of(of[cell].config(job, int(seed), value["advice"]), job.episodes)
        assert value["settings"] == now, f"{path.name} would be run again"
        assert read_result(path, now) is not None and value["cell"] == of[cell].label
        assert value["advice"].startswith(versions.get(of[cell].adviser, "")), f"{path.name} has another version"


@pytest.mark.parametrize(
    "more",
    [{"steps": 99}, {"arms": "none"}, {"advisers": "random"}, {"episodes": 3},
     {"config": load_config(**{"model.size": "1m"})}, {"epochs": 3}, {"rows": 50}, {"control_arms": "none"}],
)  # fmt: skip
def test_what_a_preset_fixes_cannot_be_given_beside_it(more):
    with pytest.raises(ConfigError, match="beside --preset quick"):
        resolved(AblateJob(preset="quick", **more))


def test_threads_and_device_are_the_callers_and_change_no_settings():
    job = resolved(tyro.cli(AblateJob, args=["--preset", "quick", "--train.threads", "2", "--seeds", "3"]))
    assert job.config.train.threads == 2 and job.seeds == (3,)
    plain = resolved(AblateJob(preset="quick"))
    one, two = (cells(j)[0].config(j, 3, "") for j in (job, plain))
    assert one != two and settings_of(one, 10) == settings_of(two, 10)


def test_a_part_of_a_study_runs_by_the_names_of_its_cells():
    job = dataclasses.replace(resolved(AblateJob(preset="quick", seeds=(0, 4))), only="BC+kick uniform, none")
    assert [run.name for run in planned_runs(job)] == [
        "BC-kick-uniform-s0", "none-s0", "BC-kick-uniform-s4", "none-s4"
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="no cell 'BC'"):
        planned_runs(dataclasses.replace(job, only="BC"))


def test_the_policy_is_evaluated_when_its_guidance_has_ended_and_a_tenth_and_a_half_of_the_budget_later():
    job = resolved(AblateJob(preset="laptop"))
    found = {cell.label: evaluated_at(cell.config(job, 0, "x@v1")) for cell in cells(job)}
    assert found["prefill claude"] == {5_000: 0.0, 10_000: 0.1, 30_000: 0.5}
    ending = [label for label in found if "+end" in label]
    assert len(ending) == 7 and all(found[k] == {25_000: 0.0, 30_000: 0.1, 50_000: 0.5} for k in ending)
    assert not any(v for label, v in found.items() if label not in ("prefill claude", *ending))


@pytest.mark.parametrize(
    ("advice", "gate", "end"),
    [
        ({}, {}, None),
        ({}, {"delta_target_end": 0.0, "budget_steps": 300}, 300),
        ({}, {"anneal_steps": 400}, 400),
        ({}, {"guided": "blocks", "guided_end": 0.0, "guided_steps": 500}, 500),
        ({}, {"guided": "always", "guided_end": 0.0, "guided_steps": 500}, None),
        ({}, {"anneal_steps": 400, "beta_max_end": 0.0, "budget_steps": 300}, 300),
        ({}, {"anneal_steps": 400, "kickstart": 1.0, "kickstart_floor": 0.0, "kickstart_steps": 700}, 700),
        ({}, {"anneal_steps": 400, "kickstart": 1.0, "kickstart_floor": 0.1}, None),
        ({"prefill_steps": 600}, {"enabled": False}, 600),
    ],
)
def test_guidance_ends_when_gate_and_kickstart_have_ended_whichever_way(advice, gate, end):
    values = {"gate": {"enabled": True, "kickstart": 0.0, **gate}, "advice": {"dataset": "x@v1", **advice}}
    assert guidance_end(from_dict(values)) == end


def test_the_run_of_a_study_in_prefect_is_named_after_what_its_preset_sets(monkeypatch):
    for given in (AblateJob(preset="quick"), {"preset": "quick", "config": {"train": {"log_interval": 100}}}):
        monkeypatch.setattr(flow_of_studies, "flow_run", SimpleNamespace(parameters={"job": given}))
        name = flow_of_studies.ablate.flow_run_name()
        assert name.startswith("ablate runs/ablate-quick: none,prefill") and "rules x" not in name


def test_rows_alone_are_a_version_without_the_program(own_datasets):
    ref = rows_alone("crafter-claude@v1", "alone")
    old, new = load_advice("crafter-claude@v1"), load_advice(ref)
    assert old.programs and not new.programs and [s.name for s in new.skills] == [s.name for s in old.skills]
    assert (new.rows.logits == old.rows.logits).all() and (new.rows.plans == old.rows.plans).all()
    assert rows_alone("crafter-claude@v1", "alone") == ref


def finished(folder: Path, config: Config, returns: list[float], step: int = 100) -> Path:
    """A run's folder whose episodes took ``step`` steps each, evaluated at its end and, with another figure, before."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(
        json.dumps({"config": to_dict(config), "advice": config.advice.dataset, "unused_advice": ""})
    )
    rows = [
        {"step": step * (i + 1), "return": r, "length": step, "achievements": dict.fromkeys(NAMES, 0) | {NAMES[2]: 2}}
        for i, r in enumerate(returns)
    ]
    (folder / "episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps({"step": s, "uncertainty_gate/avg_kl": v}) + "\n" for s, v in ((1, 0.25), (2, 0.75)))
    )
    (folder / "progress.jsonl").write_text(json.dumps({"step": step * len(returns), "seconds": 90.0}) + "\n")
    for name, at, value in (("evaluation.json", step * len(returns), 3.0), ("evaluation-150.json", 150, 9.0)):
        rates = {NAMES[0]: {"rate": 50.0}}
        mode = {"episodes": 2, "return_mean": value, "returns": [value] * 2, "score": 1.0, "achievements": rates}
        policy = dict.fromkeys(("as_trained", "agent_alone", "primitives_only"), mode)
        (folder / name).write_text(json.dumps({"frames": at, "final_policy": policy}))
    return folder


def test_a_finished_run_leaves_a_small_file_that_says_all_its_page_needs(tmp_path):
    config = load_config(**{"train.steps": 300, "dataset": "x@v1", "advice.prefill_steps": 150})
    folder = finished(tmp_path / "run", config, [1.0, 2.0, 6.0])
    path = tmp_path / "prefill-s0.json"
    written = write_result(path, "prefill x", 0, folder, config, 2)
    assert read_result(path) == written == read_result(path, settings_of(config, 2))
    assert read_result(path, settings_of(config, 3)) is None and read_result(tmp_path / "none.json") is None
    assert path.stat().st_size < 4_000
    assert [(e["step"], e["after_guidance"]) for e in written["evaluations"]] == [(150, 0.0), (300, 0.5)]
    several = load_config(**{"train.steps": 298, "dataset": "x@v1", "advice.prefill_steps": 148, "env.num_envs": 3})
    reached = write_result(tmp_path / "several-s0.json", "prefill x", 0, folder, several, 2)["evaluations"]
    assert [(e["step"], e["after_guidance"]) for e in reached] == [(150, 0.0), (300, None)]
    assert written["statistics"] == {"uncertainty_gate/avg_kl": 0.5} and written["minutes"] == 1.5
    run = run_of(written, path)
    assert [e["return"] for e in run.episodes] == [1.0, 2.0, 6.0] and run.mean("uncertainty_gate/avg_kl") == 0.5
    assert run.episodes[0]["achievements"] == {NAMES[2]: 1}
    assert run.evaluation is not None and run.evaluation["final_policy"]["as_trained"]["returns"] == [3.0, 3.0]


def test_figures_that_lack_a_part_or_have_one_of_another_form_are_refused_by_name(tmp_path):
    config = load_config(**{"train.steps": 300})
    path = tmp_path / "none-s0.json"
    whole = write_result(path, "none", 0, finished(tmp_path / "run", config, [1.0, 2.0, 6.0]), config, 2)
    no_score = {k: v for k, v in whole["evaluations"][-1]["as_trained"].items() if k != "score"}
    damaged = [{k: v for k, v in whole.items() if k != name} for name in whole]
    damaged += [whole | {name: value} for name, value in [
        ("episodes", 3), ("statistics", None), ("evaluations", [{}]), ("advice", None), ("seed", "0"),
        ("evaluations", [whole["evaluations"][-1] | {"as_trained": no_score}]),
        ("episodes", whole["episodes"] | {"return": [1.0, 2.0]}),
        ("episodes", whole["episodes"] | {"unlocked": [[99], [], []]}),
    ]]  # fmt: skip
    for each in damaged:
        path.write_text(json.dumps(each))
        with pytest.raises(BadInput, match=r"none-s0\.json"):
            read_result(path)


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 1}', '{"schema": 9, "cell": "none"}'])
def test_a_file_that_holds_no_figures_is_refused_by_name(tmp_path, text):
    (tmp_path / "none-s0.json").write_text(text)
    with pytest.raises(BadInput, match=r"none-s0\.json"):
        read_result(tmp_path / "none-s0.json")


def test_the_page_of_a_preset_is_made_from_the_files_alone(tmp_path):
    job = resolved(AblateJob(
        preset="quick", report=True, results=str(tmp_path / "docs/runs/quick"), folder=str(tmp_path / "study"),
    ))  # fmt: skip
    with pytest.raises(NotFound, match="no finished runs"):
        ablate(job)
    chosen = {cell.label: cell for cell in cells(job) if cell.label in ("none", "prefill claude", "BC+kick claude")}
    level = {"none": 2.0, "prefill claude": 4.0, "BC+kick claude": 8.0}
    for label, cell in chosen.items():
        for seed in (0, 7):
            config = cell.config(job, seed, "crafter-claude@v1")
            folder = finished(tmp_path / "study" / cell.folder / str(seed), config, [level[label]] * 50)
            write_result(Path(job.results) / f"{cell.folder}-s{seed}.json", label, seed, folder, config, 10)
    found = ablate(job)
    assert set(found["arms"]) == set(chosen) and found["arms"]["BC+kick claude"]["difference"] == 6.0
    assert found["arms"]["none"]["seeds"] == 2 and found["command"] == "lore ablate --preset quick"
    text = (tmp_path / "docs" / "quick.md").read_text()
    assert "| BC+kick claude | 2 | 100 | 8.00 |" in text
    assert "| prefill claude | 2 | 5,000 | 50 % | 3.00 (3.00 to 3.00) |" in text
    assert (tmp_path / "docs" / "quick.svg").is_file() and (tmp_path / "study" / "ablation.html").is_file()


def test_a_page_leaves_out_runs_of_other_settings_and_says_so(tmp_path, capsys):
    job = AblateJob(arms="none", seeds=(0, 1), steps=300, episodes=2, folder=str(tmp_path), report=True)
    (none,) = cells(job)
    for seed, steps in ((0, 300), (1, 200)):
        config = none.config(dataclasses.replace(job, steps=steps), seed, "")
        folder = finished(tmp_path / "none" / f"seed-{seed}", config, [1.0 + seed] * (steps // 100))
        write_result(tmp_path / "results" / f"none-s{seed}.json", "none", seed, folder, config, 2)
    with use(open_terminal()):
        assert ablate(job)["arms"]["none"]["seeds"] == 1
    assert "none: 1 of 2 runs have other settings, left out" in capsys.readouterr().out


def test_a_page_pools_neither_a_copied_seed_nor_another_version_of_the_advice(tmp_path, capsys):
    job = AblateJob(arms="BC", advisers="c=x@v2", seeds=(0, 1, 2, 3), steps=300, episodes=2,
                    folder=str(tmp_path), report=True)  # fmt: skip
    (cell,) = cells(job)
    for seed, advice in ((0, "x@v1#000000000000"), (1, "x@v2#000000000000"), (2, "x@v2#000000000000")):
        config = cell.config(job, seed, advice)
        folder = finished(tmp_path / "BC" / f"seed-{seed}", config, [1.0] * 3)
        write_result(tmp_path / "results" / f"{cell.folder}-s{seed}.json", cell.label, seed, folder, config, 2)
    copy = tmp_path / "results" / f"{cell.folder}-s3.json"
    copy.write_text(copy.with_name(f"{cell.folder}-s2.json").read_text())
    with use(open_terminal()):
        found = ablate(job)
    assert found["arms"]["BC c"]["seeds"] == 2 and found["advice"] == {"c": "x@v2#000000000000"}
    out = capsys.readouterr().out
    assert "BC c: 1 of 4 runs have other settings, left out" in out
    assert "BC c: 1 of 3 runs have other advice than x@v2#000000000000, left out" in out


def test_results_beside_the_docs_get_no_page_there(tmp_path):
    assert page_folder(resolved(AblateJob(preset="quick"))) == Path("docs/studies")
    assert page_folder(resolved(AblateJob(preset="quick", results="mine"))) is None
    assert page_folder(AblateJob(results=str(tmp_path))) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"train.threads": 2}, ""),
        ({"train.steps": 400}, ""),
        ({"train.steps": 299}, r"another train\.steps"),
        ({"advice.dataset": "x@v2"}, r"another advice\.dataset"),
        ({"train.train_ratio": 8.0}, r"another train\.train_ratio"),
    ],
)
def test_the_folder_of_a_run_with_other_settings_is_not_taken_for_the_one_that_is_asked(tmp_path, change, said):
    config = load_config(**{"train.steps": 300, "dataset": "x@v1", "gate.enabled": True})
    folder = finished(tmp_path / "run", config, [1.0] * 3)
    with pytest.raises(ConfigError, match=said) if said else nullcontext():
        check_folder(folder, replace(config, **change), 2)
    with pytest.raises(ConfigError, match="another number of episodes"):
        check_folder(folder, config, 3)  # the evaluation at step 150 cannot be made again


def test_a_step_at_which_the_policy_was_not_evaluated_cannot_be_passed(tmp_path):
    config = load_config(**{"train.steps": 600, "dataset": "x@v1", "advice.prefill_steps": 150, "env.num_envs": 3})
    folder = finished(tmp_path / "run", config, [1.0] * 2)  # stands at 200; the next evaluation is at 210
    check_folder(folder, config, 2)
    with pytest.raises(ConfigError, match="went by a step"):
        check_folder(folder, replace(config, **{"train.steps": 300}), 2)  # with one at 180
    (folder / "evaluation-150.json").write_text("{}")
    with pytest.raises(CorruptArtifact, match=r"evaluation-150\.json holds no evaluation"):
        check_folder(folder, config, 2)


def test_a_run_of_several_games_that_was_killed_while_it_was_evaluated_is_evaluated_again(tmp_path, monkeypatch):
    config = load_config(**{"train.steps": 300, "env.num_envs": 3})
    (tmp_path / "progress.jsonl").write_text('{"step": 102}\n')
    done: list[str] = []

    def trained(job, root):
        done.append(f"to {job.config.train.steps}")
        return {"step": job.config.train.steps}

    def evaluated(job, root):
        done.append("evaluated")
        (tmp_path / "evaluation.json").write_text("{}")

    monkeypatch.setattr("flows.jobs.ablation.train_in_process", trained)
    monkeypatch.setattr("flows.jobs.ablation.evaluate_in_process", evaluated)
    train_and_evaluate(TrainJob(str(tmp_path), config), EvaluateJob(str(tmp_path)), "", (50, 100))
    assert done == ["to 100", "evaluated", "to 300", "evaluated"] and (tmp_path / "evaluation-100.json").is_file()


def test_a_cell_that_the_preset_lacks_is_said_before_anything_runs(capsys):
    assert cli.main(["ablate", "--preset", "quick", "--only", "BCD"]) != 0
    assert "no cell 'BCD'" in capsys.readouterr().err
