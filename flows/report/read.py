"""The files of a training run, read back: metrics, episodes, configuration, final evaluation.

What does not read is left out and named: a page shows what can be shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from flows.terminal import current
from lore.aliases import renamed
from lore.training.records import read_json, read_jsonl
from lore_datasets.environments import Environment, get_environment
from lore_datasets.errors import LoreError, NotFound, shown
from lore_datasets.exchange.played import played
from lore_datasets.store.advisers import advisers_of

if TYPE_CHECKING:
    from lore_datasets.advice import AdviceData
    from lore_datasets.types import Manifest

__all__ = ["RunData", "Subject", "is_number", "read_run", "report_advice", "success_rates"]

T = TypeVar("T")


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
        damage: what of its files did not read, one sentence each.
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
    damage: tuple[str, ...] = ()

    @cached_property
    def environment(self) -> Environment | None:
        """Its environment; None where nobody here knows it."""
        try:
            return get_environment(str(self.config.get("env", {}).get("name", "")))
        except LoreError:
            return None

    @cached_property
    def achievements(self) -> tuple[str, ...]:
        """Names of its environment's achievements; () where that is not known."""
        return self.environment.vocab.achievements if self.environment is not None else ()

    @property
    def setting(self) -> str:
        """Environment and observation in words: figures of two settings are never compared."""
        env = self.config.get("env", {})
        return f"{env.get('name', 'unknown environment')}, {env.get('observation', 'unknown')} observations"

    @property
    def step(self) -> int:
        """Environment steps that it made."""
        last = self.episodes[-1]["step"] if self.episodes else 0
        done = (self.progress or {}).get("step", last)
        return int(done) if is_number(done) else last

    @property
    def paths(self) -> str:
        """The paths of advice that are on, as letters."""
        sections = {"A": "synthetic", "B": "gate", "C": "options"}
        return " + ".join(n for n, section in sections.items() if self.config.get(section, {}).get("enabled")) or "none"

    def last(self, tag: str) -> float | None:
        """Newest value of a tag, None when it was never written."""
        return self.series[tag][1][-1] if tag in self.series else None

    def mean(self, tag: str) -> float | None:
        """Mean over all rows of a tag, None when it was never written."""
        values = self.series[tag][1] if tag in self.series else []
        return math.fsum(values) / len(values) if values else None


@dataclass(frozen=True)
class Subject:
    """What a report is about: runs, the advice version that it shows, the commands that made them, and what could not
    be shown (``notes``). ``root``: the folder of datasets, None for the usual one."""

    runs: tuple[RunData, ...]
    advice: AdviceData | None = None
    commands: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    root: Path | None = None

    @cached_property
    def adviser(self) -> str:
        """Who gave the advice, ``unknown`` where the version does not say."""
        return (advisers_of(self.advice.manifest) or "unknown") if self.advice is not None else ""

    @cached_property
    def settings(self) -> tuple[str, ...]:
        """Environments and observations of the runs, each pair once: runs of different ones share no chart."""
        return tuple(dict.fromkeys(run.setting for run in self.runs))

    @cached_property
    def play(self) -> tuple[Manifest | None, str]:
        """(newest play without learning of the version, or why there is none to show)."""
        from lore_datasets.exchange.shipped import ShippedStore
        from lore_datasets.store.lineage import newest_play

        if self.advice is None:
            return None, "no advice"
        try:
            found = newest_play(ShippedStore(self.root), self.advice.ref, verify=False)
            if found is None:
                return None, f"not played; lore datasets play '{self.advice.ref}' does"
            played(found.manifest)
        except LoreError as error:
            return None, f"unknown: {error.message}"
        return found.manifest, ""


def is_number(value: Any) -> bool:
    """Whether a value read from a file is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def read_run(path: Path, name: str = "") -> RunData:
    """What a run folder holds; NotFound when it is no run folder, CorruptArtifact when its ``config.json`` is damaged.

    Other files that do not read, and rows that lack what every row has, are left out and named in ``damage``.
    """
    about = read_json(path / "config.json")
    if about is None:
        raise NotFound(f"{path} is not a training run (no config.json)", hint="give the --folder of a run")
    damage: list[str] = []

    def tried(read: Callable[[], T], otherwise: T) -> T:
        try:
            return read()
        except LoreError as error:
            damage.append(error.message)
            return otherwise

    told = about.get("config", about)
    told = told if isinstance(told, dict) else {}
    config = {section: body for section, body in told.items() if isinstance(body, dict)}
    series: dict[str, tuple[list[int], list[float]]] = {}
    rows = tried(lambda: read_jsonl(path / "metrics.jsonl"), [])
    for row in _whole(rows, "metrics.jsonl", ("step",), damage):
        for tag, value in row.items():
            if tag == "step" or not is_number(value):
                continue
            steps, values = series.setdefault(tag, ([], []))
            if steps and steps[-1] == row["step"]:
                values[-1] = float(value)
            else:
                steps.append(int(row["step"]))
                values.append(float(value))
    episodes = tried(lambda: read_jsonl(path / "episodes.jsonl"), [])
    progress = tried(lambda: read_jsonl(path / "progress.jsonl"), [])
    return RunData(
        name=name or path.name,
        path=path,
        config=tried(lambda: renamed(config), config),
        advice=str(about.get("advice") or ""),
        unused_advice=str(about.get("unused_advice") or ""),
        series=series,
        episodes=tuple(_whole(episodes, "episodes.jsonl", ("step", "return"), damage)),
        evaluation=_evaluation(tried(lambda: read_json(path / "evaluation.json"), None), damage),
        progress=progress[-1] if progress else None,
        damage=tuple(damage),
    )


def _whole(rows: Sequence[dict[str, Any]], file: str, needed: Sequence[str], damage: list[str]) -> list[dict[str, Any]]:
    kept = [
        row for row in rows
        if all(is_number(row.get(n)) for n in needed) and isinstance(row.get("achievements") or {}, (dict, list))
    ]  # fmt: skip
    if len(kept) < len(rows):
        damage.append(f"{len(rows) - len(kept)} rows of {file} without {' and '.join(needed)} or of another form")
    return kept


def _evaluation(found: dict[str, Any] | None, damage: list[str]) -> dict[str, Any] | None:
    """An evaluation without the modes that lack a mean return or have figures of another form."""
    if found is None:
        return None
    modes = found.get("final_policy")
    kept = {
        str(mode): body for mode, body in (modes.items() if isinstance(modes, dict) else ())
        if _is_mode(body)
    }  # fmt: skip
    if not isinstance(modes, dict) or len(kept) < len(modes):
        lost = [shown(mode, 40) for mode in modes if mode not in kept] if isinstance(modes, dict) else ["every mode"]
        damage.append(f"evaluation.json is of another form: {', '.join(lost)} left out")
    return found | {"final_policy": kept}


def _is_mode(body: Any) -> bool:
    """Whether a mode of an evaluation has its mean return, and numbers or nothing in the other figures."""
    try:
        ends = [tuple(body.get(name) or (None, None)) for name in ("return_interval", "score_interval")]
        others = [body.get("score"), body.get("length_mean"), *(body.get("returns") or ()), *ends[0], *ends[1]]
    except (AttributeError, TypeError):
        return False
    whole = all(is_number(body.get(name)) for name in ("episodes", "return_mean"))
    # A world without achievements has no score: nan.
    plain = all(x is None or (isinstance(x, (int, float)) and not isinstance(x, bool)) for x in others)
    return whole and plain and len(ends[0]) == len(ends[1]) == 2


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


def _recorded(run: RunData) -> str:
    """Where the version that a run learned from is found: its export, else its full reference; empty without one."""
    from lore.training.policy import is_export

    named = run.config.get("advice", {}).get("dataset", "")
    return named if is_export(named) else run.advice or named


def report_advice(folders: dict[str, Path], dataset: str = "") -> AdviceData | None:
    """The advice that a report shows: ``dataset``, or what the runs themselves name; None when the store lacks it."""
    from lore_datasets.advice import load_advice

    if dataset:
        return load_advice(dataset)
    named = [_recorded(read_run(path)) for path in folders.values()]
    for name in dict.fromkeys(n for n in named if n):
        try:
            return load_advice(name)
        except LoreError as error:
            current().say(f"  note: {error.message}; the report goes without {name}")
    return None
