"""The verb ``lore train``: one run in this process, or several seeds in one process each, here or on a cluster."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.cluster.cluster import check_address
from flows.config import TrainJob, check_pinned, check_seeds
from flows.jobs.training_process import last_row
from flows.terminal import Terminal, clock, current, use
from lore.config import Config
from lore.config import replace as configured
from lore.main import Flags, parse, prepare
from lore.presets import DURATIONS, PRESETS
from lore.training.progress import waits
from lore_datasets.errors import ConfigError, UsageError

__all__ = ["LongRun", "SeedFlags", "summary_of", "train"]

LOOK_S = 60.0
"""Seconds of updates after which the duration of a run is judged."""
_ESTIMATE_S = 5.0
"""Seconds of updates after which a run says how long it will take."""


@dataclass(frozen=True)
class SeedFlags(Flags):
    """Train DreamerV3 with stored advice; continues where it was when the folder holds a checkpoint."""

    seeds: tuple[int, ...] = ()
    """Train one run per seed, in ``folder/seed-N``, each in a process of its own; advice must be name@vN#digest."""
    workers: int = 0
    """Runs at a time where several are trained; 0 takes the number of cores, or of the cluster's threads."""
    dask: str = ""
    """Train on a Dask cluster: the scheduler's address (tcp://host:8786), or local for workers on this machine."""

    def __post_init__(self) -> None:
        check_address("dask", self.dask)
        if not 0 <= self.workers < 2**31:
            raise ConfigError.out_of_range("workers", self.workers, "0 or more")
        if self.seeds:
            check_seeds(self.seeds)
        if self.workers and not self.seeds:
            raise UsageError("--workers is for several runs", hint="give --seeds 0 1 2")

    def jobs(self) -> list[TrainJob]:
        """One run per seed, or the one that the flags describe; ConfigError unless several share a pinned version."""
        config = self.config()
        if not self.seeds:
            return [TrainJob(self.folder, config)]
        check_pinned(config.advice.dataset)
        return [
            TrainJob(str(Path(self.folder) / f"seed-{seed}"), configured(config, **{"train.seed": seed}))
            for seed in self.seeds
        ]


def train(words: Sequence[str]) -> int:
    """Train an agent: the flags of ``python -m lore.main``, and which seeds, how many at a time and where."""
    flags = parse(list(words), prog="lore train", kind=SeedFlags)
    assert isinstance(flags, SeedFlags)
    if flags.seeds or flags.dask:
        if flags.resume or flags.fork:
            raise UsageError("--resume and --fork are for one run", hint="leave --seeds and --dask away")
        return _several(flags)
    return _one(prepare(flags, lambda line: None if flags.quiet else print(line)), flags)


train.flags = SeedFlags  # type: ignore[attr-defined]


def summary_of(config: Config, flags: Flags) -> list[str]:
    """What a run is, in lines: device, learner, steps, advice, and how long it will take as far as that is known."""
    from lore.training.agent import device_of

    train, folder = config.train, Path(flags.folder)
    device = device_of(config)
    own = train.threads if device.type == "cpu" else 0  # 0: as many as torch takes
    threads = f", {own} thread{'' if own == 1 else 's'}" if own else ""
    updates = train.steps * train.train_ratio / train.batch_size
    paths = {"A, synthetic replay": config.synthetic, "B, policy prior": config.gate, "C, options": config.options}
    on = "; ".join(name for name, section in paths.items() if section.enabled) or "prefill"
    known = (
        DURATIONS.get(flags.preset, "") if train.steps <= PRESETS.get(flags.preset, {}).get("train.steps", 0) else ""
    )
    before = (last_row(folder / "progress.jsonl") or {}).get("step", 0)
    rows = {
        "folder": f"{folder}" + (f", goes on from step {before:,}" if before else ""),
        "device": f"{device}{threads}",
        "learner": f"size {config.model.size}, {config.env.observation} observations of {config.env.name}",
        "steps": f"{train.steps:,}, about {updates:,.0f} updates",
        "advice": f"{config.advice.dataset} ({on})" if config.needs_advice else "none",
        "time": (known + "; " if known else "") + "measured once updates flow",
    }
    return [f"  {name:<9}{text}" for name, text in rows.items()]


class LongRun:
    """Says how long a run will take once that can be told, and more where it is more than a day.

    Once, a minute after training began, it says that a run will take more than a day; on a terminal it asks.

    ``no`` stops the run as Ctrl-C does: its checkpoint is saved.
    """

    def __init__(self, flags: Flags) -> None:
        self.is_done = bool(flags.preset or flags.quiet)
        self.is_told = flags.quiet
        self.first: tuple[float, int] | None = None  # seconds and steps at the second update: compiling is over

    def __call__(self, row: dict[str, Any]) -> None:
        if (self.is_done and self.is_told) or row["updates"] < 2:
            return
        now = time.monotonic()
        if self.first is None:
            self.first = (now, row["step"])
        seconds, steps = now - self.first[0], row["step"] - self.first[1]
        if seconds < _ESTIMATE_S or not steps:
            return
        left = (row["total"] - row["step"]) * seconds / steps
        if not self.is_told:
            self.is_told = True
            current().say(
                f"  {'time':<9}about {clock(left)} for the {row['total'] - row['step']:,} steps that are left"
            )
        if seconds < LOOK_S or self.is_done:
            return
        self.is_done = True
        hours = left / 3600
        if hours <= 24:
            return
        print(f"\nat this speed the run takes {hours / 24:,.0f} days; next: --preset laptop takes under an hour, "
              f"lore doctor with the same flags measures others", file=sys.stderr)  # fmt: skip
        if sys.stdin.isatty() and sys.stderr.isatty():
            print("go on? [Y/n] ", end="", file=sys.stderr, flush=True)
            if sys.stdin.readline().strip().lower() in ("n", "no"):
                os.kill(os.getpid(), signal.SIGINT)


def _several(flags: SeedFlags) -> int:
    from flows.jobs.machine import datasets_root
    from flows.jobs.seeds import train_runs
    from lore.training.policy import is_export

    jobs = flags.jobs()
    if flags.config().needs_advice and not is_export(flags.config().advice.dataset):
        from lore_datasets.exchange.shipped import ShippedStore

        # an unknown version or a wrong digest is named before any start
        ShippedStore().verify(flags.config().advice.dataset)
    with use(Terminal()) if flags.quiet else nullcontext():
        found = train_runs(jobs, datasets_root(), flags.workers, flags.dask)
    if not flags.quiet:
        for job, row in zip(jobs, found, strict=True):
            print(f"{job.folder}: {row.get('step', 0):,} steps")
        print(f"next: lore eval {flags.folder}; lore report {flags.folder}; tensorboard --logdir {flags.folder}")
    return 0


def _one(config: Config, flags: Flags) -> int:
    from lore.training.loop import train as run

    total = config.train.steps
    if not flags.quiet:
        current().say("\n".join(summary_of(config, flags)))
    with nullcontext() if flags.quiet else current().bar("train", total) as bar:
        is_long = LongRun(flags)

        def show(row: dict[str, Any]) -> None:
            is_long(row)
            if bar is not None:
                mean = "" if row["episode_return"] is None else f"return {row['episode_return']:.2f}, "
                note = f"{mean}{row['updates']:,} updates, {row['fps']:.0f} steps/s"
                bar.update(row["step"], row["total"], note, waits(row))

        summary = run(config, flags.folder, show)
    if summary["interrupted"]:
        print(
            f"lore: stopped at step {summary['step']:,}, saved; next: the same command goes on from there",
            file=sys.stderr,
        )
        return 128 + summary["signal"]
    if not flags.quiet:
        score = summary.get("training_score")
        print(
            f"{flags.folder}: {summary['step']:,} steps, {summary['episodes']} episodes, "
            f"training-time score {'-' if score is None else f'{score:.2f} %'}\n"
            f"next: lore eval {flags.folder}; lore report {flags.folder}; tensorboard --logdir {flags.folder}"
        )
        if summary["unused_advice"]:
            print(summary["unused_advice"])
    return 0
