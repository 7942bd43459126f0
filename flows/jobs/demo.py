"""The demo, phase by phase; what runs a phase is handed in (Prefect sub-flows, or plain functions)."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from flows.config import AdviceJob, CollectJob, DemoJob, EvaluateJob, TrainJob
from flows.jobs.phases import Phases
from flows.terminal import clock, current
from lore.config import Config, load_config
from lore_datasets.errors import CorruptArtifact, NotFound
from pipeline.config import AdviseConfig, CollectConfig, SelectConfig

__all__ = ["ARMS", "Steps", "arm_config", "forget_demo", "plain_steps", "run_demo", "write_report"]

ARMS = {"none": "no advice", "abc": "A + B + C"}
"""Folder of each arm -> its name in the report."""


class Steps(NamedTuple):
    """What runs each phase."""

    collect: Callable[[CollectJob], str]
    advise: Callable[[AdviceJob, int], dict[str, str]]
    train: Callable[[list[TrainJob], str], list[dict[str, Any]]]
    evaluate: Callable[[list[EvaluateJob], str], list[dict[str, Any]]]
    report: Callable[[dict[str, str], str, list[str], str], str]


def plain_steps() -> Steps:
    """The phases as plain functions, without Prefect."""
    from flows.jobs.advise import advise_states
    from flows.jobs.collect import play_states
    from flows.jobs.distil import distil_model
    from flows.jobs.training_process import EVALUATION_PROGRESS, evaluate_in_process, side_by_side, train_in_process

    def advise(job: AdviceJob, epochs: int) -> dict[str, str]:
        ref = advise_states(job)
        return {"advice": str(ref), "model": str(distil_model(ref, epochs, job.advise.seed))}

    def train(jobs: list[TrainJob], root: str) -> list[dict[str, Any]]:
        return side_by_side(train_in_process, jobs, root, "progress.jsonl", [j.config.train.steps for j in jobs])

    def evaluate(jobs: list[EvaluateJob], root: str) -> list[dict[str, Any]]:
        return side_by_side(evaluate_in_process, jobs, root, EVALUATION_PROGRESS, [j.episodes for j in jobs])

    return Steps(lambda job: str(play_states(job)), advise, train, evaluate, write_report)


def arm_config(job: DemoJob, arm: str, advice: str) -> Config:
    """Settings of one arm: the same learner, with all three paths and kickstarting, or with none."""
    settings: dict[str, Any] = {
        "env.observation": "symbolic",
        "model.size": "tiny",
        "train.seed": job.seed,
        "train.steps": job.steps,
        "train.batch_size": 256,
        "train.sequence_length": 32,
        "train.train_ratio": 64.0,
        "train.learning_rate": 4e-4,
        "train.warmup": 100,
        "train.entropy": 3e-3,
        "train.log_interval": 100,
        "train.save_interval_s": 15.0,
        "train.device": "cpu",
        "train.threads": 1,
    }
    if arm == "abc":
        settings |= {
            "gate.enabled": True,
            "synthetic.enabled": True,
            "options.enabled": True,
            "options.max_options": 0,  # all skills in slots
            "synthetic.warmup_updates": 50,
            "advice.dataset": advice,
        }
    return load_config(**settings)


_SETTINGS = ("seed", "name", "states", "rows", "epochs")
"""Settings that every phase depends on (``name`` is the dataset); a folder begun with others is refused."""
REPORT = "report.html"


def forget_demo(folder: Path) -> None:
    """Remove what a demo left in ``folder``: finished phases, both runs, the report. Other files stay.

    UsageError when no demo was begun there; Busy when one of its runs is being trained.
    """
    Phases.forget(folder, _SETTINGS, (*ARMS, REPORT))


def run_demo(job: DemoJob, folder: Path, steps: Steps) -> dict[str, Any]:
    """All phases in order; returns references, the report's path and the evaluations."""
    from flows.jobs.collect import check_kinds
    from lore_datasets.exchange.shipped import ShippedStore

    terminal, store, began = current(), ShippedStore(), time.monotonic()
    identity = {name: getattr(job, "dataset" if name == "name" else name) for name in _SETTINGS}
    check_kinds({f"{job.dataset}-states": "states", job.dataset: "advice"})
    phases = Phases(folder, identity)

    def stored(result: dict[str, Any]) -> bool:
        try:
            return all(store.resolve(ref) is not None for ref in result.values())
        except (NotFound, CorruptArtifact):
            return False

    terminal.say(f"1/5  collect {job.states:,} game states: random play, the rule book's, and half of each")
    play = CollectJob(f"{job.dataset}-states", CollectConfig(budget=job.states, seed=job.seed))
    states = phases.run("collect", identity, lambda: {"states": steps.collect(play)}, stored)["states"]
    terminal.say(f"     {states}")

    terminal.say(f"2/5  advise: ask `rules` (a rule book, not a language model) about {job.rows:,} of them")
    ask = AdviceJob(
        states,
        job.dataset,
        select=SelectConfig(budget=job.rows, seed=job.seed),
        advise=AdviseConfig(seed=job.seed),
    )
    made = phases.run("advise", {**identity, "from": states}, lambda: steps.advise(ask, job.epochs), stored)
    terminal.say(f"     {made['advice']}, advice model {made['model']}")

    terminal.say(f"3/5  train two arms side by side, {job.steps:,} steps each (tiny network, symbolic observations)")
    configs = {arm: arm_config(job, arm, made["advice"]) for arm in ARMS}
    trained = {"steps": job.steps, "advice": made["advice"]}
    jobs = [TrainJob(str(folder / arm), config) for arm, config in configs.items()]
    root = str(store.root.resolve())

    def is_trained(result: dict[str, Any]) -> bool:
        return all((folder / arm / "config.json").is_file() for arm in ARMS)

    phases.run("train", trained, lambda: dict(zip(ARMS, steps.train(jobs, root), strict=True)), is_trained)

    terminal.say(f"4/5  evaluate: {job.episodes} fresh episodes per arm and mode")
    tests = [EvaluateJob(str(folder / arm), job.episodes, 10_000 + job.seed, record=3) for arm in ARMS]

    def is_evaluated(result: dict[str, Any]) -> bool:
        return all((folder / arm / "evaluation.json").is_file() for arm in ARMS)

    evaluations = phases.run(
        "evaluate",
        {**trained, "episodes": job.episodes},
        lambda: dict(zip(ARMS, steps.evaluate(tests, root), strict=True)),
        is_evaluated,
    )

    terminal.say("5/5  report")
    runs = {label: str(folder / arm) for arm, label in ARMS.items()}
    report = steps.report(runs, made["advice"], _commands(job, folder, states, made["advice"]), str(folder / REPORT))
    terminal.say(f"     done in {clock(time.monotonic() - began)}")
    return {"states": states, **made, "report": report, "evaluations": evaluations}


def write_report(runs: dict[str, str], advice: str, commands: list[str], out: str) -> str:
    """The demo's HTML page; returns its path."""
    from flows.report.sections import build_report
    from lore_datasets.advice import load_advice

    folders = {label: Path(path) for label, path in runs.items()}
    title = "LoRe demo: one advice version, two arms"
    with current().bar("write the page"):
        return str(build_report(folders, Path(out), title=title, advice=load_advice(advice), commands=commands))


def _commands(job: DemoJob, folder: Path, states: str, advice: str) -> list[str]:
    """The demo's phases as single commands."""
    from flows.jobs.training_process import arguments

    plain = DemoJob(quick=job.quick).resolved()
    given = [(f.name, getattr(job, f.name)) for f in fields(job) if f.name not in ("quick", "fresh", "direct")]
    own = [word for name, value in given if value != getattr(plain, name) for word in (f"--{name}", str(value))]
    commands = [
        ["lore", "collect", "--dataset", f"{job.dataset}-states", "--budget", job.states, "--seed", job.seed],
        ["lore", "advise", "--states", states, "--dataset", job.dataset, "--ask.backend", "rules", "--select.budget",
         job.rows, "--select.seed", job.seed, "--advise.seed", job.seed],
    ]  # fmt: skip
    for arm in ARMS:
        run = folder / arm
        commands.append(["lore", "train", "--folder", run, *arguments(arm_config(job, arm, advice))])
        commands.append(
            ["lore", "eval", run, "--episodes", job.episodes, "--seed", 10_000 + job.seed, "--record", 3]
        )  # fmt: skip
    commands.append(["lore", "report", *(folder / arm for arm in ARMS)])
    return [
        shlex.join(["lore", "demo", *(["--quick"] if job.quick else []), *own]), "",
        f"# phase by phase; lore advise passes over the rows as often as it always does, not {job.epochs} times",
        *(shlex.join(map(str, command)) for command in commands),
    ]  # fmt: skip
