"""When a run is saved and by whom: a thread writes beside the training, and the interval follows what a save costs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lore.replay.ring import Replay
from lore.training import checkpoint, segments
from lore.training.folder import mark_saved
from lore.training.tensor_file import stored
from lore_datasets.errors import LoreError

__all__ = ["SNAPSHOT", "Saver"]

SNAPSHOT = 512 * 2**20
"""Bytes of replay that are copied for the writing thread at most; a save of more holds the training up instead."""
_SHARE = 100.0
"""An automatic interval is this many times as long as the last save took ..."""
_SHORTEST, _LONGEST = 30.0, 900.0
"""... within these seconds."""


class Saver:
    """Writes the checkpoints of one run, one at a time.

    Args:
        path: of the checkpoint. interval_s: seconds between two saves; 0 = 100 times the last one's, 30 to 900.

    Attributes:
        segments: what of the replay is on disk. seconds: of the last save, its part beside the training included.
    """

    def __init__(self, path: Path, interval_s: float) -> None:
        self.path, self.interval_s = Path(path), interval_s
        self.segments = segments.Segments(self.path.parent)
        self.seconds = 0.0
        self._files: set[str] = set()
        self._is_marked = False
        self._began = time.monotonic()
        self._next = self._began + self.pause_s()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def restored(self, meta: Mapping[str, Any], *, is_same: bool) -> None:
        """A checkpoint with this ``meta`` was read; ``is_same`` when its replay was taken over unchanged."""
        self._files = segments.files_of(meta)
        if is_same and meta.get("segments"):
            self.segments.restore(meta["segments"])

    def pause_s(self) -> float:
        """Seconds from the end of the last save to the next one."""
        return self.interval_s or min(_LONGEST, max(_SHORTEST, _SHARE * self.seconds))

    def is_due(self) -> bool:
        """Is it time for the next save? Raises what a save beside the training died of."""
        if self._thread is not None and self._thread.is_alive():
            return False
        self.finish()
        return time.monotonic() >= self._next

    def save(self, tensors: Mapping[str, Any], meta: Mapping[str, Any], replay: Replay, *, is_beside: bool) -> None:
        """Write everything; ``is_beside`` the training, from copies, where these are small enough."""
        self.finish()
        self._began = time.monotonic()
        index, drafts, size = self.segments.draft(replay)
        if not is_beside or size > SNAPSHOT:
            self._write({name: stored(value) for name, value in tensors.items()}, {**meta, "segments": index}, drafts)
            return
        copies = {name: stored(value, copy=True) for name, value in tensors.items()}
        told = {**json.loads(json.dumps(meta)), "segments": index}  # its lists grow while it is written
        self._thread = threading.Thread(target=self._try, args=(copies, told, list(drafts)), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Wait until no save is under way."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def finish(self) -> None:
        """Wait for the save under way and raise its error."""
        self.wait()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _try(self, *content: Any) -> None:
        try:
            self._write(*content)
        except BaseException as error:
            self._error = error

    def _write(self, tensors: Mapping[str, Any], meta: dict[str, Any], drafts: Iterable[segments.Draft]) -> None:
        folder = self.path.parent
        try:
            segments.write(folder, drafts)
            checkpoint.save(self.path, tensors, meta)
        except OSError as error:
            raise LoreError(
                f"the checkpoint in {folder} cannot be written: {error.strerror or error}",
                kept="the last checkpoint", hint="see to the disk, then run the same command again",
            ) from error  # fmt: skip
        if not self._is_marked:
            mark_saved(folder)
            self._is_marked = True
        before, self._files = self._files, segments.files_of(meta)
        segments.remove_others(folder, before | self._files)
        now = time.monotonic()
        self.seconds = now - self._began
        self._next = now + self.pause_s()
