"""``lore runs ...``: which runs there are, in what they differ, and removing one."""

from __future__ import annotations

import json as _json
import sys
from pathlib import Path
from typing import Annotated, Any

import tyro

from flows.terminal import aligned
from lore_datasets.errors import UsageError

__all__ = ["compare", "list_runs", "remove"]

Folder = Annotated[str, tyro.conf.Positional]
Folders = Annotated[tuple[str, ...], tyro.conf.Positional]


def list_runs(folder: Folder = "runs", json: bool = False) -> int:
    """List the training runs below a folder: state, steps, return of the last episodes, advice, size on the disk.

    Args:
        folder: Where to look, with the folders in it.
        json: Print JSON.
    """
    from flows.jobs.runs import find_runs, summary

    rows = [summary(path) for path in find_runs(folder)]
    if json:
        print(_json.dumps(rows, indent=2))
        return 0
    if not rows:
        print(f"no runs in {folder}; next: lore train --preset smoke --folder {folder}/smoke")
        return 0
    table = [("run", "state", "steps", "return", "learner", "MB", "advice")]
    for row in rows:
        if row["state"] == "damaged":
            table.append((row["run"], "damaged", "", "", "", f"{row['bytes'] / 1e6:,.1f}", row["error"]))
            continue
        mean = "-" if row["return"] is None else f"{row['return']:.2f}"
        learner = f"{row['size']} {row['observation']}"
        table.append((row["run"], row["state"], f"{row['steps']:,}/{row['total']:,}", mean, learner,
                      f"{row['bytes'] / 1e6:,.1f}", row["advice"] or "-"))  # fmt: skip
    print("\n".join(aligned(table)))
    return 0


def compare(folders: Folders, json: bool = False) -> int:
    """Settings that differ between runs, and their figures side by side.

    Args:
        folders: Two runs or more.
        json: Print JSON.
    """
    from flows.jobs.runs import compare_runs

    if len(folders) < 2:
        raise UsageError("give two runs or more", hint="lore runs list")
    settings, figures = compare_runs(folders)
    if json:
        print(_json.dumps({"runs": list(folders), "settings": settings, "figures": figures}, indent=2))
        return 0
    rows = [(name, *map(_text, values)) for name, values in (settings | figures).items()]
    print("\n".join(aligned([("", *folders), *rows])))
    return 0


def remove(folder: Folder, yes: bool = False) -> int:
    """Remove what a run wrote (checkpoint, replay, metrics, TensorBoard events, evaluation, report); other files stay.

    Args:
        folder: The run.
        yes: Do not ask.
    """
    from flows.jobs.runs import own_files, remove_run

    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("nobody is there to ask", hint="--yes removes without asking")
        size = sum(path.lstat().st_size for path in own_files(Path(folder)))
        print(f"remove the run in {folder} ({size / 1e6:,.1f} MB)? [y/N] ", end="", flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            print("nothing was removed")
            return 0
    size, left = remove_run(folder)
    print(f"{folder}: {size / 1e6:,.1f} MB freed" + (f"; left alone: {', '.join(left)}" if left else ""))
    return 0


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
