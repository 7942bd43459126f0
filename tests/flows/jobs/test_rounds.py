"""Refresh rounds: new rows alone, lineage round by round, training on from the checkpoint, stops and repeats."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from flows.config import AdviceJob, CollectJob, RefreshJob, SeedsJob
from flows.jobs import rounds
from flows.jobs.advise import advise_states
from flows.jobs.collect import play_states
from flows.jobs.distil import distil_model
from flows.jobs.rounds import Steps, finished_rounds, plain_steps, refresh, round_names
from flows.prefect_flows import refresh as flow_of_rounds
from flows.prefect_flows.artifacts import key, shares_table
from flows.prefect_flows.pages import advice_page, round_page, training_page
from lore.config import load_config
from lore.training.advice_versions import versions
from lore.training.loop import train
from lore_datasets.errors import BadInput, Busy, ConfigError, NotFound
from lore_datasets.store.store import Store
from pipeline.config import CollectConfig, SelectConfig

SMALL = {
    "size": "tiny", "observation": "symbolic", "batch_size": 32, "sequence_length": 8, "train_ratio": 2.0, "horizon": 5,
    "warmup": 5, "log_interval": 20, "threads": 1, "replay_capacity": 2000, "env.length": 60, "device": "cpu",
    "train.save_interval_s": 3600.0, "gate.enabled": True,
}  # fmt: skip
SELECT = SelectConfig(budget=10, novelty=0.2, coverage=0.4, unsure=0.2)


def in_process() -> Steps:
    """The plain steps, with training in this process."""
    return plain_steps()._replace(train=lambda job, root: train(job.config, job.folder, tensorboard=False))


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A store with one advice version, and a run that has learned from it for forty steps."""
    root = tmp_path_factory.mktemp("lab")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORE_DATASETS", str(root / "datasets"))
        states = play_states(CollectJob("play", CollectConfig(budget=60, stride=2)))
        first = advise_states(AdviceJob(str(states), "talk", select=SelectConfig(budget=30)))
        distil_model(first, 1)
        train(load_config(**SMALL, steps=40, dataset=str(first)), root / "run", tensorboard=False)
    return root, str(first)


@pytest.fixture
def lab(begun, tmp_path, monkeypatch):
    """A copy of the store and the run for one test: (folder of the run, reference of v1)."""
    for name in ("datasets", "run"):
        shutil.copytree(begun[0] / name, tmp_path / name, dirs_exist_ok=True)
    monkeypatch.setenv("LORE_DATASETS", str(tmp_path / "datasets"))
    return tmp_path / "run", begun[1]


def job(run, **more) -> RefreshJob:
    return RefreshJob(str(run), visits=24, steps=16, select=SELECT, epochs=1, **more)


def test_two_rounds_make_a_child_each_and_training_goes_on(lab, monkeypatch):
    run, first = lab
    made = refresh(job(run, rounds=2), in_process())
    store = Store()
    assert [record["round"] for record in made] == [1, 2] and made == finished_rounds(run)
    second, third = (record["advice"] for record in made)
    assert [ref.split("#")[0] for ref in (second, third)] == ["talk@v2", "talk@v3"]
    assert first in store.manifest(second).parents and second in store.manifest(third).parents
    assert [(m["from"], m["to"]) for m in made] == [(40, 56), (56, 72)]
    assert [(row["step"], row["advice"]) for row in versions(run)] == [(0, first), (40, second), (56, third)]
    keys = store.open(third, wanted=lambda path: path.endswith("key_fine")).arrays
    assert sorted(keys) == [f"round-{n:03d}/key_fine" for n in range(3)]
    whole = np.concatenate(list(keys.values()))
    assert len(np.unique(whole)) == len(whole)  # each round holds new rows only
    for record in made:
        assert record["after"]["row"] > record["before"]["row"] and record["rows"] > 0
        assert record["visits"] in store.manifest(record["advice"]).parents
        assert record["cost"]["requests"] > 0
        page = round_page(record)
        assert all(f"`{record[key]}`" in page for key in ("base", "advice", "visits"))
        with_advice = 100 * (1 - record["after"]["none"])
        assert (
            f"| states with advice | {100 * (1 - record['before']['none']):.1f} % before, {with_advice:.1f} %" in page
        )
        assert f"lore refresh --folder {run}" in page and "rollback 'talk@v" in page and "answers (" in page
    assert training_page([(str(run), {"step": 72, "total": 72, "episodes": 1})], third).count(third) == 1
    monkeypatch.setenv("LORE_REPORTS_URL", "http://127.0.0.1:6007/")
    monkeypatch.setenv("LORE_REPORTS_ROOT", str(run.resolve().parent))
    page = training_page([(str(run), {"step": 72, "total": 72, "episodes": 1})], third)
    assert f"[report](http://127.0.0.1:6007/{run.name}/report.html)" in page
    assert third in (run / "report.html").read_text()
    page = advice_page({"advice": third})
    flags = "--gate.enabled --options.enabled --options.max-options 0"
    assert f"| rows | {len(whole)} |" in page and f"{flags} --dataset '{third}'" in page


def test_a_stop_inside_a_round_repeats_nothing_that_was_done(lab):
    run, _ = lab
    calls = []

    def counted(name, step, fails=False):
        def call(*arguments):
            calls.append(name)
            if fails:
                raise KeyboardInterrupt
            return step(*arguments)

        return call

    steps = in_process()

    def wrapped(failing):
        return Steps(*(counted(name, step, name == failing) for name, step in zip(Steps._fields, steps, strict=True)))

    for failing in ("distil", "train"):
        with pytest.raises(KeyboardInterrupt):
            refresh(job(run, rounds=1), wrapped(failing))
    made = refresh(job(run, rounds=1), wrapped(""))
    assert [r["round"] for r in made] == [1]
    once = ["visit", "coverage", "advise", "distil"]
    assert calls == [*once, "distil", "coverage", "train", "train", "finished"]
    assert Store().versions("talk") == [1, 2]


def test_the_rounds_that_a_stop_left_out_come_before_new_ones(lab):
    run, _ = lab
    steps, trained = in_process(), []

    def once(job, root):
        if trained:
            raise KeyboardInterrupt
        trained.append(1)
        return steps.train(job, root)

    with pytest.raises(KeyboardInterrupt):
        refresh(job(run, rounds=2), steps._replace(train=once))
    assert len(refresh(job(run, rounds=2), steps)) == 1 and len(finished_rounds(run)) == 2


def test_a_round_after_a_rollback_goes_on_from_the_version_rolled_back_to(lab):
    run, first = lab
    refresh(job(run), in_process())
    store = Store()
    store.rollback("talk@v1")
    (made,) = refresh(job(run), in_process())
    assert made["base"] == first and made["advice"].startswith("talk@v3")
    parents = store.manifest(made["advice"]).parents
    assert first in parents and not any(p.startswith("talk@v2") for p in parents)


def test_a_rollback_inside_a_round_is_told_in_its_record(lab):
    run, first = lab
    store, steps = Store(), in_process()
    row = {"states": 1, "row": 0.0, "confidence": 0.0}
    steps = steps._replace(
        coverage=lambda visits, advice, when: row | {"of": advice, "when": when},
        distil=lambda *_: "",
        train=lambda job, root: {"step": job.config.train.steps},
    )
    refresh(job(run, rounds=1), steps)

    def rolled_back(ask):
        store.rollback("talk@v1")
        return steps.advise(ask)

    (made,) = refresh(job(run, rounds=1), steps._replace(advise=rolled_back))
    assert made["advice"].startswith("talk@v3") and made["base"] == first == made["before"]["of"]
    assert made["rows"] == store.manifest("talk@v3").counts["rows"] - store.manifest(first).counts["rows"] > 0


def test_a_rules_adviser_asked_twice_about_the_same_states_adds_no_version(lab):
    run, _ = lab
    (made,) = refresh(job(run, rounds=1), in_process())
    (run / "refresh" / "round-001" / "round.json").unlink()
    (run / "refresh" / "round-001" / "state" / "advise.json").unlink()  # killed between the commit and its note
    (again,) = refresh(job(run, rounds=1), in_process())
    assert again["advice"] == made["advice"] and Store().versions("talk") == [1, 2]


def test_what_cannot_be_refreshed_is_refused_by_name(tmp_path, lab, monkeypatch):
    monkeypatch.setattr("flows.jobs.phases._WAIT_S", 0.2)
    run, _ = lab
    with pytest.raises(NotFound, match="no run in"):
        refresh(RefreshJob(str(tmp_path / "nowhere")))
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "config.json").write_text(json.dumps({"advice": ""}))
    with pytest.raises(BadInput, match="learns without advice"):
        refresh(RefreshJob(str(plain)))
    (plain / "config.json").write_text(json.dumps({"advice": "gone@v1#0123456789ab"}))
    with pytest.raises(NotFound, match="which is not in"):
        refresh(RefreshJob(str(plain)))
    from flows.jobs.phases import hold

    with hold(run / "refresh"), pytest.raises(Busy):
        refresh(job(run))
    for values in ({"rounds": 0}, {"visits": True}, {"steps": -1}):
        with pytest.raises(ConfigError, match="out of range"):
            RefreshJob(**values)


def test_a_full_disk_in_the_middle_of_a_round_leaves_no_half_version(lab, monkeypatch):
    import errno

    run, first = lab
    from lore_datasets.store import commit

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(commit, "_write", full)
        with pytest.raises(Exception, match=r"(?i)no (room|space)") as caught:
            refresh(job(run), in_process())
    assert getattr(caught.value, "kind", "") == "no_space"
    assert Store().versions("talk") == [1] and versions(run)[-1]["advice"] == first
    assert len(refresh(job(run), in_process())) == 1 and Store().versions("talk") == [1, 2]


def test_a_refresh_of_a_busy_run_is_an_error_by_hand_and_cancelled_where_it_is_scheduled(monkeypatch):
    def busy(job, steps):
        raise Busy("another refresh holds the run")

    monkeypatch.setattr(flow_of_rounds, "refresh", busy)
    with pytest.raises(Busy):
        flow_of_rounds.refresh_round.fn(RefreshJob())
    monkeypatch.setattr(flow_of_rounds, "deployment", SimpleNamespace(id="scheduled"))
    assert flow_of_rounds.refresh_round.fn(RefreshJob()).type.value == "CANCELLED"


def test_keys_of_pages_are_what_prefect_takes():
    assert key("refresh", "runs/Seed_0") == "refresh-runs-seed-0" and key("  ") == "lore" and len(key("x" * 999)) == 200
    rows = shares_table({"before": {"row": 0.25, "confidence": 0.5}})
    assert rows == [{"": "before", "row": 25.0, "confidence": 50.0}]


def test_names_of_runs_say_version_round_and_seed(lab, tmp_path):
    run, first = lab
    assert round_names(str(run)) == (first, 1, 0)
    assert round_names(str(tmp_path / "nowhere")) == ("no run", 1, 0)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_round_that_asks_on_a_cluster_makes_the_rows_that_it_makes_here(lab, tmp_path, monkeypatch, started_cluster):
    from distributed import get_task_stream

    run, _ = lab
    for name in ("datasets", "run"):
        shutil.copytree(tmp_path / name, tmp_path / "here" / name)
    with started_cluster(1) as client, get_task_stream(client) as stream:
        [there] = refresh(job(run, dask=client.scheduler.address), in_process())
    assert any("_answers" in task["key"] for task in stream.data)
    monkeypatch.setenv("LORE_DATASETS", str(tmp_path / "here" / "datasets"))
    [here] = refresh(job(tmp_path / "here" / "run"), in_process())
    assert here["rows"] == there["rows"] > 0 and here["after"] == there["after"]


def test_seeds_share_one_pinned_version_and_nothing_newer():
    ref = "talk@v1#0123456789ab"
    jobs = SeedsJob(ref, paths="AB", seeds=(5, 6), steps=10).jobs()
    assert [j.folder for j in jobs] == ["runs/seeds/seed-5", "runs/seeds/seed-6"]
    assert {j.config.advice.dataset for j in jobs} == {ref} and [j.config.train.seed for j in jobs] == [5, 6]
    assert jobs[0].config.gate.enabled and not jobs[0].config.options.enabled
    assert not SeedsJob().jobs()[0].config.needs_advice
    for loose in ("talk", "talk@v1", "talk@good"):
        with pytest.raises(ConfigError, match="names no version exactly"):
            SeedsJob(loose)
    with pytest.raises(ConfigError, match="paths"):
        SeedsJob(ref, paths="BA")


def test_coverage_adds_up(lab):
    run, first = lab
    made = rounds.visit_states(job(run), 1, "talk")
    assert rounds.visit_states(job(run), 1, "talk") == made and made["frames"] == 40
    found = rounds.measure_coverage(made["visits"], first, "before")
    assert found["states"] == 24
    assert sum(found[key] for key in ("row", "goal", "model", "none")) == pytest.approx(1, abs=1e-5)
