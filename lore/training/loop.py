"""The training loop: environments -> replay -> updates -> checkpoints, resumable at any moment."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from lore.config import Config, to_dict
from lore.envs.base import Step
from lore.evaluation.open_loop import write_open_loop
from lore.options.slots import Slots
from lore.training.clock import Every
from lore.training.folder import lock_run
from lore.training.metrics import crafter_score
from lore.training.policy import with_absolute_export
from lore.training.progress import Progress, ProgressLog
from lore.training.resume import open_folder
from lore.training.run import Training
from lore.training.sinks import Sink, Sinks, check_wandb, open_sinks
from lore.training.stopping import stop_signals
from lore_datasets.errors import Diverged
from lore_datasets.exchange.revisions import write_revisions
from lore_datasets.places import local_path

__all__ = ["train"]

_LOG = logging.getLogger("lore")
MAX_BAD_UPDATES = 10
"""Updates in a row that may be skipped because they are not finite."""
READ_EVERY = 10
"""Updates between two times that the host looks how they went; until then the device alone knows."""
REPORT_S = 300.0
"""Seconds between two pictures of the world model's predictions; the end of a run gives one more."""


def train(
    config: Config,
    run_dir: str | Path,
    on_progress: Callable[[Progress], None] | None = None,
    *,
    tensorboard: bool = True,
) -> dict[str, Any]:
    """Train until ``config.train.steps``, resuming from the folder's checkpoint when there is one.

    SIGINT and SIGTERM finish the step, save and return with ``interrupted`` set. Returns the summary that progress rows
    end with, and the ``signal`` that stopped it (0 for none).
    """
    folder = Path(local_path(str(run_dir)))
    if config.train.wandb:
        check_wandb()
    with lock_run(folder), stop_signals() as stop, ExitStack() as cleanup:
        run = Training(with_absolute_export(config), folder)
        cleanup.callback(run.saver.wait)
        resumed, renewed = open_folder(run)
        told = to_dict(run.config)
        settings = {f"{section}.{name}": value for section, body in told.items() for name, value in body.items()}
        wandb = told if run.config.train.wandb else None
        sink = open_sinks(folder, run.env_steps, run.rows, tensorboard=tensorboard, settings=settings, wandb=wandb)
        progress = ProgressLog(run, on_progress)
        report_due = Every(REPORT_S)
        if not resumed:
            run.steps = run.envs.reset()
            run.fill_slots()
        elif renewed:
            _save(run, sink, progress)  # the change of version is a checkpoint of its own
        progress.report("resumed" if resumed else "training")
        while run.env_steps < config.train.steps and not stop:
            actions = _act(run)
            owed = _updates_owed(run)
            if owed:
                progress.before_updates()
            for _ in range(owed):
                _update(run)
            _play(run, sink, actions)  # while a device is still busy with the updates
            if run.env_steps // config.train.log_interval > progress.logged:
                progress.logged = run.env_steps // config.train.log_interval
                sink.row(run.env_steps, _metrics(run, progress))
            progress.tick()
            if report_due():
                write_open_loop(run, sink)
            if run.saver.is_due():
                _save(run, sink, progress, is_beside=True)
        _save(run, sink, progress)
        if not stop:
            write_open_loop(run, sink)
            _warn_without_updates(run)
        summary = progress.report("interrupted" if stop else "done", final=True)
        sink.close()
    return summary | {"signal": stop[0] if stop else 0}


def _act(run: Training) -> list[int]:
    """The next action everywhere; the records of the states they are taken in go to replay."""
    actions, records = run.policy.act(run.steps)
    for env, record in enumerate(records):
        run.replay.add(env, record)
    ended = sum(step.is_last for step in run.steps)
    if ended and run.policy.slots is not None:
        _review_skills(run, run.policy.slots, ended)
    run.policy.env_steps += len(run.steps) - ended
    return actions


def _play(run: Training, sink: Sink, actions: list[int]) -> None:
    """Step the games, count the episodes that end, and let what the last update said of its latents come to replay."""
    run.steps = run.envs.step(actions)
    _settle(run)
    for env, step in enumerate(run.steps):
        run.returns[env] = step.reward + (0.0 if step.is_first else run.returns[env])
        if step.is_last:
            _count_episode(run, sink, env, step)


def _settle(run: Training) -> None:
    if run.coming is not None:
        run.coming()
    run.coming = None


def _count_episode(run: Training, sink: Sink, env: int, step: Step) -> None:
    """Report the episode of ``env`` that ended with ``step``."""
    run.episodes += 1
    unlocked, names = step.info["achievements"], run.policy.environment.vocab.achievements
    score, length = float(run.returns[env]), int(step.info["length"])
    run.recent.append(score)
    run.successes.append((np.asarray(unlocked) > 0).tolist())
    tags = {
        "env/episode_return": score,
        "env/episode_length": float(length),
        "env/crafter_score": crafter_score(100.0 * np.mean(run.successes, 0)),
        "episode/score": score,
        "episode/length": float(length),
    } | {f"env/achievement/{n}": float(c > 0) for n, c in zip(names, unlocked, strict=True)}
    counts = {n: int(c) for n, c in zip(names, unlocked, strict=True)}
    row = {"episode": run.episodes, "length": length, "return": round(score, 4), "achievements": counts}
    sink.episode(run.env_steps, row, tags)


def _review_skills(run: Training, slots: Slots, ended: int) -> None:
    """After ``ended`` episodes ended at once: poor skills leave their slots to others that wait for them."""
    fit = run.advised_skills()
    if slots.retire(fit):
        write_revisions(run.folder, run.revisions())
    slots.rest(fit)
    interval = run.config.options.generation_interval
    generation = run.episodes // interval > (run.episodes - ended) // interval
    if generation or (slots.skill < 0).any():
        run.fill_slots(generation)


def _updates_owed(run: Training) -> int:
    return run.ratio(run.env_steps) if run.replay.items() >= run.config.train.batch_size else 0


def _update(run: Training) -> None:
    """One update, which a device goes on with when this has returned."""
    _settle(run)
    records = run.replay.sample(run.config.train.sequences, only=run.learner.reads)
    posterior, metrics = run.learner.update(records)
    finite = run.learner.optimiser.finite
    run.coming = run.replay.send_back(records["indices"], posterior.deter, posterior.stoch, where=finite)
    if run.learner.updates % READ_EVERY == 0:
        values, bad = run.learner.read(metrics)
        tags = ("kickstart/", "loss/", "opt/", "options/", "synthetic/")
        run.means.add({name if name.startswith(tags) else f"train/{name}": value for name, value in values.items()})
        if bad >= MAX_BAD_UPDATES:
            _dump_batch(run, records, bad)


def _warn_without_updates(run: Training) -> None:
    train = run.config.train
    if not run.learner.updates and train.train_ratio > 0:
        _LOG.warning(
            "no update was made: replay holds %d windows of %d records, updates begin with %d; next: more --steps or a "
            "smaller --train.batch-size", run.replay.items(), train.sequence_length + 1, train.batch_size,
        )  # fmt: skip


def _dump_batch(run: Training, records: Mapping[str, Any], bad: int) -> None:
    path = run.folder / "diverged_batch.npz"
    host = {k: v if isinstance(v, np.ndarray) else v.cpu().numpy() for k, v in records.items()}
    np.savez_compressed(path, **host)  # pyright: ignore[reportArgumentType]
    raise Diverged(
        f"{bad} updates in a row were not finite at step {run.env_steps}",
        kept=f"the last checkpoint, and the batch in {path.name}",
        hint="lower train.learning_rate, or look at the batch",
    )


def _metrics(run: Training, progress: ProgressLog) -> dict[str, float]:
    values = run.means.take() | run.policy.controller.metrics()
    if run.recent:
        values["env/return_mean20"] = float(np.mean(run.recent))
    return values | {
        "replay/items": float(run.replay.items()), "replay/ram_gb": run.replay.nbytes / 1e9,
        "opt/updates": float(run.learner.updates), "fps/policy": progress.rate(),
    }  # fmt: skip


def _save(run: Training, sink: Sinks, progress: ProgressLog, *, is_beside: bool = False) -> None:
    run.seconds = progress.elapsed()
    sink.sync()
    run.rows = dict(sink.rows)
    run.save(is_beside=is_beside)
