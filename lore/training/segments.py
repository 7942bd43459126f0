"""Replay on disk: files that are written once, so that a save costs what came since the last one, at any step.

A *segment* holds new records of all streams, but for their latents. A *latent log* holds the latents that came or were
refreshed since the last save, and those of the next of :data:`SLICES` slices of the ring: after that many saves every
latent was written anew, and the older logs go. Segments go when the ring has overwritten all their records. A
checkpoint lists the files that make its replay, each with its SHA-256; the files that neither it nor the one before it
lists are removed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lore.replay.ring import LATENTS, Replay
from lore.training import tensor_file
from lore_datasets.atomic import clear_drafts, replacing
from lore_datasets.errors import CorruptArtifact, shown

__all__ = ["FOLDER", "SLICES", "Segments", "files_of", "read", "remove_others", "write"]

FOLDER = "segments"
"""Folder of the files inside the run's."""
SLICES = 32
"""Saves after which every latent of the ring was written anew."""
_CHUNK = 64 * 2**20
"""Bytes of one file, about."""
_NAME = re.compile(r"(?:segment|latents)-[0-9]{8}\.safetensors")

Draft = tuple[dict[str, Any], dict[str, np.ndarray]]
"""Entry of the list in the checkpoint (its ``sha256`` is added when it is written), arrays of the file."""


class Segments:
    """Which records and latents of a run's replay are on disk; drafts what a save has to add.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder) / FOLDER
        names = [entry.name for entry in self.folder.iterdir()] if self.folder.is_dir() else []
        self.number = 1 + max((int(name[-20:-12]) for name in names if _NAME.fullmatch(name)), default=-1)
        self.saves = 0
        self.saved = np.zeros(0, np.int64)  # per stream: records that are in segments
        self.segments: list[dict[str, Any]] = []
        self.logs: list[dict[str, Any]] = []

    def restore(self, index: Mapping[str, Any]) -> None:
        """Go on from the list of a checkpoint whose replay was read."""
        self.saves, self.saved = int(index["saves"]), np.array(index["saved"], np.int64)
        self.segments, self.logs = list(index["segments"]), list(index["latents"])

    def draft(self, replay: Replay) -> tuple[dict[str, Any], Iterator[Draft], int]:
        """(list for the checkpoint, files to write first, their bytes). Files copy from replay as they are taken."""
        if not len(self.saved):  # nothing of this replay is on disk yet
            self.saved = np.zeros(replay.streams, np.int64)
            replay.touched[:] = True
        written, oldest = replay.written.copy(), np.maximum(0, replay.written - replay.slots)
        self.saves += 1
        turn = self.saves % SLICES
        replay.touched[:, turn * replay.slots // SLICES : (turn + 1) * replay.slots // SLICES] = True
        slots = [
            np.flatnonzero(replay.touched[s, : n - o]) for s, (n, o) in enumerate(zip(written, oldest, strict=True))
        ]
        replay.touched[:] = False
        first, self.saved = np.maximum(self.saved, oldest), written
        fixed = {name: field for name, field in replay.fields.items() if name not in LATENTS}
        latents = {name: replay.fields[name] for name in LATENTS}
        self.segments = [entry for entry in self.segments if (np.array(entry["last"]) > oldest).any()]
        self.logs = [entry for entry in self.logs if entry["save"] > self.saves - SLICES]
        size = Replay.bytes_needed(fixed, int((written - first).sum())) + Replay.bytes_needed(
            latents, sum(map(len, slots))
        )
        drafts = [*self._segments(replay, fixed, first, written), *self._logs(replay, latents, slots)]
        index = {
            "fields": {name: [list(shape), dtype.str] for name, (shape, dtype) in replay.fields.items()},
            "saves": self.saves, "saved": written.tolist(), "segments": self.segments, "latents": self.logs,
        }  # fmt: skip
        return index, (make() for make in drafts), size

    def _entry(self, kind: str, entries: list[dict[str, Any]], **about: Any) -> dict[str, Any]:
        entry = {"file": f"{kind}-{self.number:08d}.safetensors", **about}
        self.number += 1
        entries.append(entry)
        return entry

    def _segments(self, replay, fields, first, written):
        rows = max(1, _CHUNK // Replay.bytes_needed(fields, replay.streams))
        for start in range(0, int((written - first).max(initial=0)), rows):
            low = np.minimum(first + start, written)
            high = np.minimum(low + rows, written)
            entry = self._entry("segment", self.segments, first=low.tolist(), last=high.tolist())
            numbers = [np.arange(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True)]
            yield lambda entry=entry, numbers=numbers: (entry, {
                f"{stream}/{name}": values
                for stream, number in enumerate(numbers) if len(number)
                for name, values in replay.records(stream, number % replay.slots, tuple(fields)).items()
            })  # fmt: skip

    def _logs(self, replay, fields, slots):
        rows = max(1, _CHUNK // Replay.bytes_needed(fields, replay.streams))
        for start in range(0, max(map(len, slots), default=0), rows):
            parts = [at[start : start + rows] for at in slots]
            entry = self._entry("latents", self.logs, save=self.saves)
            yield lambda entry=entry, parts=parts: (entry, {
                f"{stream}/{name}": values
                for stream, at in enumerate(parts) if len(at)
                for name, values in ({"slot": at} | replay.records(stream, at, LATENTS)).items()
            })  # fmt: skip


def write(folder: Path, drafts: Iterable[Draft]) -> None:
    """Write drafted files into ``folder`` of a run, noting each one's SHA-256 in its entry; NoSpace on a full disk."""
    (Path(folder) / FOLDER).mkdir(parents=True, exist_ok=True)
    for entry, arrays in drafts:
        with replacing(Path(folder) / FOLDER / entry["file"]) as draft:
            entry["sha256"] = tensor_file.write(draft, {k: tensor_file.stored(v) for k, v in arrays.items()}, {})


def files_of(meta: Mapping[str, Any]) -> set[str]:
    """Names of the files that a checkpoint with this ``meta`` needs."""
    index = meta.get("segments") or {}
    return {entry["file"] for kind in ("segments", "latents") for entry in index.get(kind, ())}


def remove_others(folder: Path, keep: set[str]) -> None:
    """Remove the segments, logs and drafts of the run in ``folder`` but for those to ``keep``; nothing else there."""
    for path in list((Path(folder) / FOLDER).glob("*.safetensors")):
        if _NAME.fullmatch(path.name) and path.name not in keep:
            path.unlink(missing_ok=True)
    for path in list((Path(folder) / FOLDER).glob(".*.tmp")):
        name = path.name[1:].rsplit(".", 2)[0]
        if _NAME.fullmatch(name):
            clear_drafts(path.with_name(name))


def read(folder: Path, index: Mapping[str, Any], cursors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays that :meth:`lore.replay.ring.Replay.restore` takes, from the files of a checkpoint's list.

    CorruptArtifact names a file that is missing or changed, or says how many records no file holds.
    """
    slots, written = int(cursors["slots"]), np.array(cursors["written"], np.int64)
    held, oldest = np.minimum(written, slots), np.maximum(0, written - slots)
    arrays = {
        f"{stream}/{name}": np.zeros((n, *shape), np.dtype(dtype))
        for stream, n in enumerate(held.tolist()) for name, (shape, dtype) in index["fields"].items()
    }  # fmt: skip
    there = [np.zeros((2, n), np.bool_) for n in held.tolist()]  # is a slot's record, are its latents found
    for entry in index["segments"]:
        found = _read(Path(folder) / FOLDER, entry)
        for stream, (low, high) in enumerate(zip(entry["first"], entry["last"], strict=True)):
            start = max(0, int(oldest[stream]) - low)
            at = np.arange(low + start, max(high, low + start)) % slots
            there[stream][0, at] = True
            for name in index["fields"].keys() - set(LATENTS) if len(at) else ():
                arrays[f"{stream}/{name}"][at] = found[f"{stream}/{name}"][start:]
    for entry in index["latents"]:
        found = _read(Path(folder) / FOLDER, entry)
        for stream in range(len(held)):
            if f"{stream}/slot" in found:
                at = found[f"{stream}/slot"]
                there[stream][1, at] = True
                for name in LATENTS:
                    arrays[f"{stream}/{name}"][at] = found[f"{stream}/{name}"]
    missing = sum(int((~each.all(0)).sum()) for each in there)
    if missing:
        raise CorruptArtifact(f"no file of {FOLDER} holds {missing} of {int(held.sum())} replayed records")
    return arrays


def _read(folder: Path, entry: Mapping[str, Any]) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    name = str(entry["file"])
    try:
        data = (folder / name).read_bytes()
    except OSError as error:
        raise CorruptArtifact(
            f"{FOLDER}/{shown(name)} of the replay cannot be read: {shown(error.strerror)}"
        ) from error
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise CorruptArtifact(f"{FOLDER}/{shown(name)} of the replay does not match its SHA-256")
    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CorruptArtifact(f"{FOLDER}/{shown(name)} of the replay cannot be read: {shown(error)}") from error
