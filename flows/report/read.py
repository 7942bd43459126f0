"""The files of a training run, read back: metrics, episodes, configuration, final evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lore.aliases import renamed
from lore.training.records import read_json, read_jsonl
from lore_datasets.environments import ENVIRONMENTS, get_environment
from lore_datasets.errors import NotFound
from lore_datasets.store.advisers import advisers_of

if TYPE_CHECKING:
    from lore_datasets.advice import AdviceData

__all__ = ["RunData", "Subject", "json_lines", "read_run", "success_rates"]


@dataclass(frozen=True)
class RunData:
    """What one run folder says.

    Attributes:
        name: label of the run in the page.
        path: its folder.
        config: the resolved settings in ``config.json``. advice: the version it learned from, name@vN#digest.
        unused_advice: why nothing of that version is followed, empty where it is.
        series: tag -> (steps, values) of ``metrics.jsonl``, steps strictly rising.
        episodes: rows of ``episodes.jsonl`` in step order.
        evaluation: ``evaluation.json`` or None.
        progress: last row of ``progress.jsonl`` or None.
    """

    name: str
    path: Path
    config: dict[str, Any] = field(default_factory=dict)
    advice: str = ""
    unused_advice: str = ""
    series: dict[str, tuple[list[int], list[float]]] = field(default_factory=dict)
    episodes: tuple[dict[str, Any], ...] = ()
    evaluation: dict[str, Any] | None = None
    progress: dict[str, Any] | None = None

    @property
    def environment(self) -> str:
        """Name of its environment, empty where its settings do not say."""
        return str(self.config.get("env", {}).get("name", ""))

    @property
    def setting(self) -> str:
        """Environment and observation in words."""
        env = self.config.get("env", {})
        return f"{env.get('name', 'unknown environment')}, {env.get('observation', 'unknown')} observations"

    def last(self, tag: str) -> float | None:
        """Newest value of a tag, None when it was never written."""
        return self.series[tag][1][-1] if tag in self.series else None

    def mean(self, tag: str) -> float | None:
        """Mean over all rows of a tag, None when it was never written."""
        values = self.series[tag][1] if tag in self.series else []
        return math.fsum(values) / len(values) if values else None


@dataclass(frozen=True)
class Subject:
    """What a report is about: runs, the advice version that it shows, and the commands that made them."""

    runs: tuple[RunData, ...]
    advice: AdviceData | None = None
    commands: tuple[str, ...] = ()

    @cached_property
    def adviser(self) -> str:
        """Who gave the advice, ``unknown`` where the version does not say."""
        return (advisers_of(self.advice.manifest) or "unknown") if self.advice is not None else ""

    @cached_property
    def settings(self) -> tuple[str, ...]:
        """``environment, observation`` of the runs, each pair once: runs of different ones share no chart."""
        return tuple(dict.fromkeys(run.setting for run in self.runs))

    @cached_property
    def achievements(self) -> tuple[str, ...]:
        """Names of the achievements of the runs' environments; () where none is known."""
        known = [run.environment for run in self.runs if run.environment in ENVIRONMENTS]
        names = [name for each in dict.fromkeys(known) for name in get_environment(each).vocab.achievements]
        if not names and self.advice is not None:
            names = list(self.advice.environment.vocab.achievements)
        return tuple(dict.fromkeys(names))


def json_lines(path: Path) -> list[dict[str, Any]]:
    """Objects of a JSON-lines file, [] when there is none; a torn last line (a killed writer) is left out.

    A run that resumed from a checkpoint wrote some steps twice: of rows with a ``step``, the later writing wins.
    """
    rows: list[dict[str, Any]] = []
    for row in read_jsonl(path):
        step = row.get("step")
        if isinstance(step, int) and rows and rows[-1].get("step", -1) > step:
            while rows and rows[-1].get("step", -1) >= step:
                rows.pop()
        if not rows or rows[-1] != row:
            rows.append(row)
    return rows


def read_run(path: Path, name: str = "") -> RunData:
    """Everything a run folder holds; NotFound when it is no run folder."""
    config = read_json(path / "config.json")
    if config is None:
        raise NotFound(f"{path} is not a training run (no config.json)", hint="give the --folder of a run")
    series: dict[str, tuple[list[int], list[float]]] = {}
    for row in json_lines(path / "metrics.jsonl"):
        for tag, value in row.items():
            if (
                tag == "step"
                or isinstance(value, bool)
                or not isinstance(value, (int, float))
                or not math.isfinite(value)
            ):
                continue
            steps, values = series.setdefault(tag, ([], []))
            if steps and steps[-1] == row["step"]:
                values[-1] = float(value)
            else:
                steps.append(int(row["step"]))
                values.append(float(value))
    progress = json_lines(path / "progress.jsonl")
    return RunData(
        name=name or path.name,
        path=path,
        config=renamed(config.get("config", config)),
        advice=config.get("advice", ""),
        unused_advice=config.get("unused_advice", ""),
        series=series,
        episodes=tuple(json_lines(path / "episodes.jsonl")),
        evaluation=read_json(path / "evaluation.json"),
        progress=progress[-1] if progress else None,
    )


def success_rates(episodes: Sequence[dict[str, Any]], achievements: Sequence[str]) -> dict[str, float]:
    """Share of episodes (0..1) in which each achievement was unlocked at least once."""
    counts = dict.fromkeys(achievements, 0)
    for episode in episodes:
        found = episode.get("achievements") or {}
        pairs = found.items() if isinstance(found, dict) else zip(achievements, found, strict=False)
        for name, count in pairs:
            if name in counts and count:
                counts[name] += 1
    return {name: n / max(1, len(episodes)) for name, n in counts.items()}
