"""Phases of a long job that a kill cannot undo: a finished phase leaves a small file, and is skipped next time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from flows.terminal import current
from lore_datasets.atomic import held, write_json
from lore_datasets.errors import ConfigError

__all__ = ["Phases", "hold"]


def hold(folder: Path) -> AbstractContextManager[None]:
    """Have the job's folder to oneself; Busy when another process holds it. The lock dies with the process."""
    return held(
        folder / ".lock", f"another process works in {folder}", hint="wait for it, or choose another folder", wait=5
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
                    hint="the same settings go on; --fresh starts over; --folder takes another place",
                )

    @staticmethod
    def forget(folder: Path) -> None:
        """Remove what a job left in ``folder`` (its lock and Prefect's database stay)."""
        if folder.is_dir():
            for entry in folder.iterdir():
                if entry.name in (".lock", "prefect"):
                    continue
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()

    def done(self, name: str, inputs: dict[str, Any]) -> dict[str, Any] | None:
        """Result of a finished phase with the same inputs, None when it has to run."""
        found = self._read(name)
        return found["result"] if found is not None and found["inputs"] == json.loads(json.dumps(inputs)) else None

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
            return json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except ValueError:
            path.unlink()
            return None
