"""How far a run is: progress rows, speed, ETA and the training score."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from lore.training.clock import Every
from lore.training.metrics import crafter_score
from lore.training.records import read_jsonl

if TYPE_CHECKING:
    from lore.training.run import Training

__all__ = ["Progress", "ProgressLog", "waits"]

Progress = dict[str, Any]
PROGRESS_S = 1.0
"""Seconds between two progress rows."""


class ProgressLog:
    """Rows of ``progress.jsonl`` and of the callback, speed and ETA.

    Args:
        run: its counters are reported. on_progress: called with every row.

    Attributes:
        logged: rows of metrics that were due so far.
    """

    def __init__(self, run: Training, on_progress: Callable[[Progress], None] | None) -> None:
        self.run, self.on_progress = run, on_progress
        self.began, self.before, self.first = time.monotonic(), run.seconds, run.env_steps
        self.logged = run.env_steps // run.config.train.log_interval
        self.due = Every(PROGRESS_S)
        self.updates = run.learner.updates
        self.flowing: tuple[float, int] | None = None  # when updates began to flow, and the step then

    def elapsed(self) -> float:
        """Seconds of training, those before this process included."""
        return self.before + time.monotonic() - self.began

    def rate(self) -> float:
        """Environment steps per second since this process began."""
        return (self.run.env_steps - self.first) / max(1e-6, time.monotonic() - self.began)

    def before_updates(self) -> None:
        """Updates are due: a row before the first of this process says that it compiles."""
        if self.run.learner.updates == self.updates and self.flowing is None:
            self.report("compiling")

    def tick(self) -> None:
        """A row where one is due."""
        train = self.run.config.train
        if self.flowing is None and (self.run.learner.updates - self.updates >= 2 or train.train_ratio <= 0):
            self.flowing = (time.monotonic(), self.run.env_steps)
        if self.due():
            self.report("training")

    def left(self) -> float | None:
        """Seconds that the rest will take at the speed since the second update, None before there is one."""
        if self.flowing is None or self.run.env_steps <= self.flowing[1]:
            return None
        per_step = (time.monotonic() - self.flowing[0]) / (self.run.env_steps - self.flowing[1])
        return round(per_step * max(0, self.run.config.train.steps - self.run.env_steps), 1)

    def report(self, phase: str, final: bool = False) -> Progress:
        """Write one row and return it; the ``final`` one has ``interrupted``, ``training_score`` and
        ``unused_advice`` too."""
        run, total = self.run, self.run.config.train.steps
        row: Progress = {
            "phase": phase, "step": run.env_steps, "total": total, "updates": run.learner.updates,
            "episodes": run.episodes, "episode_return": float(np.mean(run.recent)) if run.recent else None,
            "fps": round(self.rate(), 2), "eta_s": self.left(),
            "seconds": round(self.elapsed(), 1), "advice": run.policy.reference,
        }  # fmt: skip
        with (run.folder / "progress.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        if self.on_progress is not None:
            self.on_progress(row)
        if final:
            row = row | {
                "interrupted": phase == "interrupted", "training_score": _training_score(run),
                "unused_advice": run.policy.unused_advice,
            }  # fmt: skip
        return row


def waits(row: Progress) -> str:
    """What a run waits for before its updates flow, by a row of its progress; empty when they do."""
    if row.get("phase") == "compiling":
        return "compiling, once"
    return "before updates flow" if row.get("eta_s", 0.0) is None and row["phase"] != "done" else ""


def _training_score(run: Training) -> float | None:
    """Crafter score over all training episodes so far (the benchmark's protocol)."""
    rows = read_jsonl(run.folder / "episodes.jsonl")
    if not rows:
        return None
    return crafter_score(100.0 * np.mean([[c > 0 for c in r["achievements"].values()] for r in rows], 0))
