"""The training loop: environments -> replay -> updates -> checkpoints, resumable at any moment."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lore.config import Config, to_dict
from lore.evaluation.open_loop import write_open_loop
from lore.training import checkpoint
from lore.training.advice_versions import is_same_dataset
from lore.training.advice_versions import record as record_version
from lore.training.clock import Every
from lore.training.metrics import Sink, crafter_score, read_jsonl
from lore.training.run import CHECKPOINT, Run, lock_run, machine, read_config
from lore_datasets.atomic import write_json
from lore_datasets.errors import ConfigError, Diverged
from lore_datasets.revisions import write_revisions

__all__ = ["Progress", "train"]

Progress = dict[str, Any]
MAX_BAD_UPDATES = 10
PROGRESS_S = 1.0
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
    end with.
    """
    folder = Path(run_dir)
    with lock_run(folder), _stop_signals() as stop:
        run = Run(config, folder)
        resumed, renewed = _open(run)
        sink = Sink(folder, run.frames, tensorboard, run.rows)
        clock = _Clock(run, on_progress)
        save_due, report_due = Every(config.train.save_interval_s), Every(REPORT_S)
        if not resumed:
            run.steps = run.envs.reset()
            _fill_slots(run)
        elif renewed:
            _save(run, sink, clock)  # the change of version is a checkpoint of its own
        clock.report("resumed" if resumed else "training")
        while run.frames < config.train.steps and not stop:
            _environment_step(run, sink)
            for _ in range(_updates_owed(run)):
                _update(run)
            if run.frames // config.train.log_interval > clock.logged:
                clock.logged = run.frames // config.train.log_interval
                sink.row(run.frames, _metrics(run, clock))
            clock.tick()
            if report_due():
                write_open_loop(run, sink)
            if save_due():
                _save(run, sink, clock)
        _save(run, sink, clock)
        if not stop:
            write_open_loop(run, sink)
        summary = clock.report("interrupted" if stop else "done", final=True)
        sink.close()
    return summary


def _open(run: Run) -> tuple[bool, bool]:
    """Restore when there is a checkpoint; refuse a folder that belongs to another configuration.

    Another version of the same advice dataset is no other configuration. (resumed, with another version than before).
    """
    path = run.folder / "config.json"
    checkpoint.clean(run.folder / CHECKPOINT)
    if path.exists():
        before, now = to_dict(read_config(run.folder)), to_dict(run.config)
        free = {"steps", "save_interval_s", "log_interval", "threads", "device"}
        if run.advice is not None and is_same_dataset(_version_before(path), str(run.advice.ref)):
            free.add("dataset")
        changed = [
            f"{section}.{name}" for section, body in now.items() for name, value in body.items()
            if before[section][name] != value and name not in free
        ]  # fmt: skip
        if changed:
            raise ConfigError(
                f"{run.folder} was started with another {', '.join(changed[:4])}", kept="the run as it was",
                hint="use the same settings, or another --folder",
            )  # fmt: skip
    renewed = False
    resumed = (run.folder / CHECKPOINT).exists() or (run.folder / (CHECKPOINT + ".previous")).exists()
    if resumed:
        meta = run.restore()
        saved, renewed = meta["machine"], meta["advice"] != (str(run.advice.ref) if run.advice else "")
        if saved != machine():
            print_once(f"resume is statistical, not bit-exact: saved on {saved}, now {machine()}")
    advice = str(run.advice.ref) if run.advice else ""
    write_json(path, {"config": to_dict(run.config), "advice": advice, "machine": machine()})
    if run.advice is not None and run.learner is not None:
        record_version(run.folder, run.frames, run.learner.updates, advice)
    if run.source is not None and run.source.ignored:
        print_once(
            f"advice {advice} is not used: on held-out rows a guesser that never sees the state foretells it as well"
            " (--advice.accept-uninformative uses it all the same)"
        )
    return resumed, renewed


def _version_before(path: Path) -> str:
    """The advice version that ``config.json`` names."""
    return str(json.loads(path.read_text()).get("advice", ""))


def print_once(message: str) -> None:
    """A warning through logging (the command line shows it)."""
    import logging

    logging.getLogger("lore").warning(message)


def _environment_step(run: Run, sink: Sink) -> None:
    """Act once everywhere, store the records, step the games, account finished episodes."""
    assert run.replay is not None
    actions, records = run.player.act(run.steps, run.frames)
    for env, (step, record) in enumerate(zip(run.steps, records, strict=True)):
        run.replay.add(env, record)
        if step.is_last:
            _episode(run, sink, step)
    played = sum(not step.is_last for step in run.steps)
    run.steps = run.envs.step(actions)
    run.frames += played
    for env, step in enumerate(run.steps):
        run.returns[env] = step.reward + (0.0 if step.is_first else run.returns[env])


def _episode(run: Run, sink: Sink, step) -> None:
    run.episodes += 1
    env = next(i for i, s in enumerate(run.steps) if s is step)
    unlocked = step.info["achievements"]
    names = run.environment.vocab.achievements
    score = float(run.returns[env])
    run.recent.append(score)
    run.successes.append((np.asarray(unlocked) > 0).tolist())
    tags = {
        "env/episode_return": score,
        "env/episode_length": float(step.info["length"]),
        "env/crafter_score": crafter_score(100.0 * np.mean(run.successes, 0)),
        "episode/score": score,
        "episode/length": float(step.info["length"]),
    } | {f"env/achievement/{n}": float(c > 0) for n, c in zip(names, unlocked, strict=True)}
    counts = {n: int(c) for n, c in zip(names, unlocked, strict=True)}
    row = {
        "episode": run.episodes,
        "length": int(step.info["length"]),
        "return": round(score, 4),
        "achievements": counts,
    }
    sink.episode(run.frames, row, tags)
    if run.slots is not None:
        if run.slots.retire():
            write_revisions(run.folder, run.revisions())
        run.slots.rest()
        generation = run.episodes % run.config.options.generation_interval == 0
        if generation or (run.slots.skill < 0).any():
            _fill_slots(run, generation)


def _fill_slots(run: Run, generation: bool = False) -> None:
    """Fill empty option slots with the skills that advice speaks for: on the version's rows first, then where the
    agent has been. A new generation also lets skills go that fit far less, or did worse, than a free one, and gives
    those that wait another chance."""
    if run.slots is None or run.advice is None or run.learner is None:
        return
    fit = run.controller.appeal
    if not fit.any():
        rows, width = run.advice.rows, run.agent.num_actions
        weights = np.exp(rows.logits - rows.logits.max(-1, keepdims=True)) * rows.mask
        fit = (weights / weights.sum(-1, keepdims=True).clip(1e-9))[:, width:].mean(0)
    fit = fit * run.slots.success()
    if generation:
        run.slots.recall()
        run.slots.release(fit)
    run.slots.fill(fit)
    run.learner.set_slots(run.slots.skill)


def _updates_owed(run: Run) -> int:
    assert run.replay is not None
    return run.ratio(run.frames) if run.replay.items() >= run.config.train.batch_size else 0


def _update(run: Run) -> None:
    assert run.learner is not None and run.replay is not None
    records = run.replay.sample(run.config.train.sequences)
    posterior, metrics = run.learner.update(records)
    if run.learner.bad_updates:
        run.means.add({"opt/skipped": 1.0})
        if run.learner.bad_updates >= MAX_BAD_UPDATES:
            _dump_batch(run, records)
        return
    run.replay.write_back(records["indices"], posterior.deter, posterior.stoch)
    if run.learner.updates % 10 == 0:
        tags = ("loss/", "opt/", "options/", "synthetic/")
        run.means.add({k if k.startswith(tags) else f"train/{k}": float(v) for k, v in metrics.items()})


def _dump_batch(run: Run, records: Mapping[str, Any]) -> None:
    path = run.folder / "diverged_batch.npz"
    host = {k: v if isinstance(v, np.ndarray) else v.cpu().numpy() for k, v in records.items()}
    np.savez_compressed(path, **host)  # pyright: ignore[reportArgumentType]
    raise Diverged(
        f"{MAX_BAD_UPDATES} updates in a row were not finite at step {run.frames}",
        kept=f"the last checkpoint, and the batch in {path.name}",
        hint="lower train.learning_rate, or look at the batch",
    )


def _metrics(run: Run, clock: _Clock) -> dict[str, float]:
    values = run.means.take()
    values |= run.controller.metrics()
    if run.recent:
        values["env/return_mean20"] = float(np.mean(run.recent))
    assert run.replay is not None and run.learner is not None
    values |= {
        "replay/items": float(run.replay.items()), "replay/ram_gb": run.replay.nbytes / 1e9,
        "opt/updates": float(run.learner.updates), "fps/policy": clock.rate(),
    }  # fmt: skip
    return values


def _save(run: Run, sink: Sink, clock: _Clock) -> None:
    run.seconds = clock.elapsed()
    sink.sync()
    run.rows = dict(sink.rows)
    run.save()


class _Clock:
    """Progress rows (progress.jsonl and the callback), speed and ETA."""

    def __init__(self, run: Run, on_progress: Callable[[Progress], None] | None) -> None:
        self.run, self.on_progress = run, on_progress
        self.began, self.before, self.first = time.monotonic(), run.seconds, run.frames
        self.logged = run.frames // run.config.train.log_interval
        self.due = Every(PROGRESS_S)

    def elapsed(self) -> float:
        return self.before + time.monotonic() - self.began

    def rate(self) -> float:
        return (self.run.frames - self.first) / max(1e-6, time.monotonic() - self.began)

    def tick(self) -> None:
        if self.due():
            self.report("training")

    def report(self, phase: str, final: bool = False) -> Progress:
        run, total = self.run, self.run.config.train.steps
        left = max(0, total - run.frames)
        row: Progress = {
            "phase": phase, "step": run.frames, "total": total, "updates": run.learner.updates if run.learner else 0,
            "episodes": run.episodes, "episode_return": float(np.mean(run.recent)) if run.recent else None,
            "fps": round(self.rate(), 2), "eta_s": round(left / self.rate(), 1) if self.rate() > 0 else None,
            "seconds": round(self.elapsed(), 1), "advice": str(run.advice.ref) if run.advice else "",
        }  # fmt: skip
        with (run.folder / "progress.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        if self.on_progress is not None:
            self.on_progress(row)
        if final:
            row = row | {"interrupted": phase == "interrupted", "training_score": _training_score(run)}
        return row


def _training_score(run: Run) -> float | None:
    """Crafter score over all training episodes so far (the benchmark's protocol)."""
    rows = read_jsonl(run.folder / "episodes.jsonl")
    if not rows:
        return None
    return crafter_score(100.0 * np.mean([[c > 0 for c in r["achievements"].values()] for r in rows], 0))


@contextmanager
def _stop_signals():
    """A list that becomes non-empty on SIGINT or SIGTERM; a second signal acts at once."""
    stop: list[int] = []

    def handle(number: int, frame: Any) -> None:
        stop.append(number)
        signal.signal(number, old[number])

    old: dict[int, Any] = {}
    try:
        old |= {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: the caller's own signals stand
        yield stop
        return
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
