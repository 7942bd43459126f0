"""An ablation study: every run in a process of its own, a few at a time; finished ones are skipped, others go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from flows.cluster.cluster import place
from flows.config import AblateJob, EvaluateJob, TrainJob
from flows.jobs.ablation_arms import AblationRun, make_advice, planned_runs
from flows.jobs.phases import Phases, hold
from flows.jobs.seeds import run_all
from flows.jobs.training_process import evaluate_in_process, last_row, stop_processes, train_in_process
from flows.terminal import current
from lore.config import Config
from lore.config import replace as configured
from lore.presets import MACHINE
from lore_datasets.errors import ConfigError, CorruptArtifact, LoreError, NotFound

__all__ = ["ablate", "check_folder", "train_and_evaluate"]


def ablate(job: AblateJob) -> dict[str, Any]:
    """Run what is missing, then write ``ablation.json``, ``ablation.md`` and ``ablation.html``; returns the first.

    A run that fails does not stop the others; its error comes at the end, and the same command runs it again.
    ``job.report``: run nothing, write the page of what is there. A job with a preset comes here resolved
    (:func:`flows.jobs.presets.resolved`).
    """
    from flows.report.ablation import write_ablation
    from lore_datasets.exchange.shipped import ShippedStore

    folder, todo = Path(job.folder), planned_runs(job)
    if job.report:
        return write_ablation(job)
    with hold(folder):
        shared = {"name": job.dataset, "states": job.states, "rows": job.rows, "epochs": job.epochs}
        phases, wanted = Phases(folder, shared), _advisers(job, todo)
        asked = replace(job, advisers=wanted)
        advice = phases.run("advice", {"advisers": wanted}, lambda: make_advice(asked), _are_stored) if wanted else {}
        for name, ref in advice.items():
            current().say(f"  adviser {name}: {ref}")
        _run_all(job, todo, advice, str(ShippedStore().root.resolve()))
        return write_ablation(job)


def _are_stored(advice: dict[str, str]) -> bool:
    from lore_datasets.exchange.shipped import ShippedStore

    try:
        return all(ShippedStore().resolve(ref) is not None for ref in advice.values())
    except (NotFound, CorruptArtifact):
        return False


def _advisers(job: AblateJob, todo: Sequence[AblationRun]) -> str:
    """Those of the job's advisers that these runs read, and the first one, of which others are made."""
    needed = {run.cell.adviser for run in todo} - {""}
    named = {text.strip().partition("=")[0]: text.strip() for text in job.advisers.split(",") if text.strip()}
    return ",".join(text for i, (name, text) in enumerate(named.items()) if needed and (name in needed or not i))


def _run_all(job: AblateJob, todo: list[AblationRun], advice: dict[str, str], root: str) -> None:
    """Train and evaluate every run that is not finished; the first error is raised when all have ended."""
    from flows.report.results import evaluated_at, read_result, settings_of, write_result

    configs = {run: run.cell.config(job, run.seed, advice.get(run.cell.adviser, "")) for run in todo}
    where_to = {run: Path(job.results or Path(job.folder, "results")) / f"{run.name}.json" for run in todo}
    missing = [t for t in todo if read_result(where_to[t], settings_of(configs[t], job.episodes)) is None]
    current().say(f"  {len(todo) - len(missing)} of {len(todo)} runs are finished; {len(missing)} to go")
    if stale := [where_to[t].name for t in missing if where_to[t].exists()]:
        current().say(f"  {len(stale)} have figures of other settings and are run anew: {', '.join(stale[:4])}")
    if not missing:
        return

    def one(run: AblationRun) -> None:
        config, folder = configs[run], str(run.folder.resolve())
        check_folder(run.folder, config, job.episodes)
        evaluate = EvaluateJob(folder, max(1, job.episodes), 10_000 + run.seed) if job.episodes else None
        stops = tuple(evaluated_at(config)) if job.episodes else ()
        where.run(folder, train_and_evaluate, TrainJob(folder, config), evaluate, root, stops)
        write_result(where_to[run], run.cell.label, run.seed, run.folder, config, job.episodes)

    with place(job.dask, job.workers, job.config.train.device, stop_processes) as where:
        work = {str(run.folder.resolve()): partial(one, run) for run in missing}
        run_all(work, dict.fromkeys(work, job.steps), where, job.workers)


def check_folder(folder: Path, config: Config, episodes: int) -> None:
    """ConfigError where the folder of a run holds one of other settings, which would pass for what is asked."""
    from flows.report.results import evaluated_at, read_evaluation
    from lore.training.folder import CONFIG, read_config
    from lore.training.fork import differences

    if not (folder / CONFIG).exists():
        return
    free = {"train.steps", *MACHINE}
    if not config.options.max_options:  # the run has the number that came of it
        free.add("options.max_options")
    other = [name for name in differences(read_config(folder), config) if name not in free]
    done = (last_row(folder / "progress.jsonl") or {}).get("step", 0)
    if done >= config.train.steps + config.env.num_envs:
        other.append("train.steps")
    earlier = {path: read_evaluation(path) for path in folder.glob("evaluation-*.json")}
    if any(len(found["final_policy"]["as_trained"]["returns"]) != episodes for found in earlier.values()):
        other.append("number of episodes")
    stops = [step for step in evaluated_at(config) if episodes and step < config.train.steps]
    if any(done >= at + config.env.num_envs and folder / f"evaluation-{at}.json" not in earlier for at in stops):
        other.append("train.steps (it went by a step at which the policy is evaluated)")
    if other:
        raise ConfigError(
            f"{folder} holds a run with another {', '.join(other[:4])}", kept="that run",
            hint="move it away, or give another --folder",
        )  # fmt: skip


def train_and_evaluate(
    train: TrainJob, evaluate: EvaluateJob | None, root: str, stops: Sequence[int] = ()
) -> dict[str, Any]:
    """One run from start to end, or on from its checkpoint; on a cluster its folder must lie on a shared disk.

    At each of the steps ``stops`` before the end the policy is evaluated too, into ``evaluation-STEP.json``.
    """
    folder, end = Path(train.folder), train.config.train.steps
    for step in sorted(s for s in stops if s < end):
        kept = folder / f"evaluation-{step}.json"
        done = (last_row(folder / "progress.jsonl") or {}).get("step", 0)
        if evaluate is None or kept.exists() or done >= step + train.config.env.num_envs:
            continue
        _train_to(train, step, root)
        evaluate_in_process(evaluate, root)
        (folder / "evaluation.json").replace(kept)
    made = _train_to(train, end, root)
    if evaluate is not None:
        evaluate_in_process(evaluate, root)
    return made


def _train_to(train: TrainJob, step: int, root: str) -> dict[str, Any]:
    config: Config = configured(train.config, **{"train.steps": step})
    made = train_in_process(TrainJob(train.folder, config), root)
    if made.get("step", 0) < step:
        raise LoreError(f"{train.folder} stopped at step {made.get('step')}", kept="its checkpoint", hint="run again")
    return made
