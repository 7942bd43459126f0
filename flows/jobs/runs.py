"""Folders of runs: which there are, in what two differ, and removing one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from flows.report.read import RunData, read_run
from lore.config import from_dict, to_dict
from lore_datasets.atomic import held
from lore_datasets.errors import Busy, LoreError, NotFound

__all__ = ["compare_runs", "find_runs", "own_files", "remove_run", "summary"]

_DEEP = 4
_OWN = (
    "checkpoint.safetensors*", ".checkpoint.safetensors*", "config.json", "metrics.jsonl", "episodes.jsonl",
    "progress.jsonl", "advice.jsonl", "revisions.jsonl", "evaluation*.json*", "evaluation-log.txt", "episode*.npz",
    "report.html", "log.txt", "events.out.tfevents.*", "diverged_batch.npz", ".lock", ".holder", "segments/*",
    "replay/*", "recordings/episode-*.npz", "episode.gif", "wandb/**/*",
)  # fmt: skip
"""What the learner and the commands about a run write into its folder."""


def find_runs(folder: Path | str) -> list[Path]:
    """Folders of training runs in ``folder`` and some levels below it, by name."""
    found, level = [], [Path(folder)]
    for _ in range(_DEEP):
        following: list[Path] = []
        for path in level:
            if (path / "config.json").is_file():
                found.append(path)
            elif path.is_dir():
                following += [entry for entry in path.iterdir() if entry.is_dir() and not entry.is_symlink()]
        level = following
    return sorted(found)


def _hold(folder: Path) -> AbstractContextManager[None]:
    return held(folder / ".lock", f"another trainer holds {folder}", hint="wait for it, or stop it first")


def _is_running(folder: Path) -> bool:
    if not (folder / ".lock").exists():
        return False
    try:
        with _hold(folder):
            return False
    except Busy:
        return True


def summary(folder: Path) -> dict[str, Any]:
    """One row of ``lore runs list``: state, steps, returns, advice, size on the disk; ``error`` for a damaged run."""
    row: dict[str, Any] = {"run": str(folder), "bytes": sum(p.lstat().st_size for p in own_files(folder))}
    try:
        run = read_run(folder)
        last = run.progress or {}
        config = from_dict(run.config)
    except LoreError as error:
        return row | {"state": "damaged", "error": str(error)}
    state = "running" if _is_running(folder) else {"done": "done"}.get(last.get("phase", ""), "stopped")
    return row | {
        "state": state, "steps": run.step, "total": config.train.steps,
        "size": config.model.size, "observation": config.env.observation, "environment": config.env.name,
        "advice": run.advice, "return": _rounded(last.get("episode_return")), "seed": config.train.seed,
    }  # fmt: skip


def compare_runs(folders: Sequence[Path | str]) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """(settings that are not the same in all, figures) of some runs: name -> one value per run."""
    runs: list[RunData] = [read_run(Path(folder)) for folder in folders]
    configs = [to_dict(from_dict(run.config)) for run in runs]
    every = {
        f"{section}.{name}": [config[section][name] for config in configs]
        for section, body in configs[0].items() for name in body
    }  # fmt: skip
    settings = {name: values for name, values in every.items() if any(value != values[0] for value in values)}
    figures: dict[str, list[Any]] = {"advice": [run.advice or "-" for run in runs]}
    for name, pick in {
        "steps": lambda run: (run.progress or {}).get("step"),
        "episodes": lambda run: len(run.episodes),
        "return, last 20 training episodes": lambda run: _rounded((run.progress or {}).get("episode_return")),
        "hours": lambda run: round((run.progress or {}).get("seconds", 0) / 3600, 3),
        "evaluated at step": lambda run: (run.evaluation or {}).get("frames"),
        "return then, as trained": lambda run: _evaluated(run, "as_trained"),
        "return then, agent alone": lambda run: _evaluated(run, "agent_alone"),
    }.items():
        figures[name] = [pick(run) for run in runs]
    return settings, figures


def _evaluated(run: RunData, mode: str) -> float | None:
    found = ((run.evaluation or {}).get("final_policy") or {}).get(mode) or {}
    return _rounded(found.get("return_mean"))


def _rounded(value: Any) -> float | None:
    return round(value, 3) if isinstance(value, (int, float)) else None


def own_files(folder: Path) -> list[Path]:
    """Files in the folder of a run that the learner and the commands about it wrote."""
    return sorted({path for pattern in _OWN for path in folder.glob(pattern) if path.is_file() or path.is_symlink()})


def remove_run(folder: Path | str) -> tuple[int, list[str]]:
    """Remove what a run wrote, and its folder where nothing else is left in it; (bytes freed, names of what stays).

    NotFound where there is no run; Busy while a trainer holds it.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise NotFound(f"no run in {folder}", hint="lore runs list")
    with _hold(folder):
        size = 0
        for path in own_files(folder):
            if path.name != ".lock":
                size += path.lstat().st_size
                path.unlink()
    (folder / ".lock").unlink(missing_ok=True)
    for name in ("segments", "replay", "recordings", "wandb"):
        for at, _, _ in os.walk(folder / name, topdown=False):
            if not os.listdir(at):
                os.rmdir(at)
    left = sorted(entry.name for entry in folder.iterdir())
    if not left:
        shutil.rmtree(folder)
    return size, left
