"""Phases of a long job that a kill cannot undo: a finished phase leaves a small file, and is skipped next time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from flows.terminal import current
from lore_datasets.atomic import held, write_json
from lore_datasets.errors import ConfigError, UsageError
from lore_datasets.json_text import parsed

__all__ = ["Phases", "hold"]

_WAIT_S = 5.0
"""Seconds that a job waits for another to leave its folder."""


def hold(folder: Path) -> AbstractContextManager[None]:
    """Have the job's folder to oneself; Busy when another process holds it. The lock dies with the process."""
    return held(
        folder / ".lock",
        f"another process works in {folder}",
        hint="wait for it, or choose another folder",
        wait=_WAIT_S,
    )


class Phases:
    """Runs named phases in order and remembers the finished ones under ``folder/state``.

    Args:
        folder: of the job. identity: settings that every phase depends on; a folder begun with others is refused.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.state = folder / "state"
        begun = self._read("begun")
        if begun is None:
            write_json(self.state / "begun.json", identity)
        else:
            changed = sorted(k for k in identity if begun.get(k) != identity[k])
            if changed:
                was = ", ".join(f"{k} {begun.get(k)}" for k in changed)
                raise ConfigError(
                    f"{folder} was begun with {was}",
                    kept="its finished phases",
                    hint="the same settings go on; another --folder takes others; demo --fresh starts over",
                )

    @classmethod
    def forget(cls, folder: Path, settings: Collection[str], made: Sequence[str]) -> None:
        """Remove the finished phases of a job that was begun in ``folder``, and the entries ``made`` of it.

        ``settings`` are the names of the job's identity: they tell its mark ``state/begun.json`` from that of another
        kind of job. Without the mark nothing is removed, and UsageError says so where there is anything. The mark goes
        last, so a call that was stopped can be made again. Busy when a process holds one of the folders ``made``.
        """
        mark = folder / "state" / "begun.json"
        try:
            begun = parsed(mark.read_text())
        except (OSError, ValueError):
            begun = None
        if not isinstance(begun, dict) or set(begun) != set(settings):
            if folder.is_dir() and any(entry.name not in (".lock", "prefect") for entry in folder.iterdir()):
                raise UsageError(
                    f"--fresh finds no such job begun in {folder}",
                    kept="everything in it",
                    hint="choose another --folder, or leave --fresh away",
                )
            return
        entries = [path for name in made if (path := folder / name).exists() or path.is_symlink()]
        with ExitStack() as locks:
            for entry in entries:
                if entry.is_dir() and not entry.is_symlink():
                    locks.enter_context(hold(entry))
            for entry in entries:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        for entry in mark.parent.glob("*.json"):
            if entry != mark:
                entry.unlink()
        mark.unlink()

    def done(self, name: str, inputs: dict[str, Any]) -> dict[str, Any] | None:
        """Result of a finished phase with the same inputs, None when it has to run."""
        found = self._read(name) or {}
        is_same = found.get("inputs") == json.loads(json.dumps(inputs))
        return found.get("result") if is_same else None

    def run(
        self,
        name: str,
        inputs: dict[str, Any],
        work: Callable[[], dict[str, Any]],
        holds: Callable[[dict[str, Any]], bool] = lambda result: True,
    ) -> dict[str, Any]:
        """The phase's result: from its file when ``holds`` confirms that what it made is there, else from ``work``."""
        before = self.done(name, inputs)
        if before is not None and holds(before):
            current().say(f"  {name}: done before, skipped")
            return before
        result = work()
        write_json(self.state / f"{name}.json", {"inputs": inputs, "result": result})
        return result

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.state / f"{name}.json"
        try:
            found = parsed(path.read_text())
        except FileNotFoundError:
            return None
        except ValueError:
            found = None
        if isinstance(found, dict):
            return found
        path.unlink()
        return None
