"""Replay: one numpy ring per stream, windows of consecutive records, stored latents that training refreshes.

A stream is the endless sequence of one environment's records; episodes simply follow each other in it. A window is
any run of consecutive records of one stream: it crosses episode ends and never the write seam.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lore_datasets.errors import BadInput, SchemeMismatch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LATENTS", "Replay", "latent_fields", "pack_latent"]

LATENTS = ("deter", "stoch")
"""Fields that training refreshes; a record's other fields never change."""


def latent_fields(deter: int, stoch: int) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Fields of the stored latents: deter float16 [D] (its values lie in -1..1) and stoch class indices uint8 [S]."""
    return {"deter": ((deter,), np.float16), "stoch": ((stoch,), np.uint8)}


def pack_latent(deter: Tensor, stoch: Tensor) -> dict[str, Tensor]:
    """Latents as stored, by field: deter [..., D] and one-hot stoch [..., S, K] -> float16 [..., D], uint8 [..., S]."""
    return {"deter": deter.detach().half(), "stoch": stoch.detach().argmax(-1).byte()}


class Replay:
    """Uniform replay over the valid window starts of all streams.

    Args:
        fields: name -> (shape, dtype) of one record.
        capacity: records kept in all streams together.
        streams: number of streams (environments).
        seed: seeds the generator used where :meth:`sample` is given none.
        length: window length that the online queue hands out (context record + trained steps).
        online: put every ``length``-th new window of a stream in a queue that is sampled first, once.
        folder: keep the arrays in files there (memory maps) in place of memory; they are scratch, made anew each time.

    Attributes:
        touched: bool [streams, slots]: slots whose latents came or were refreshed; who saves them clears it.
    """

    def __init__(
        self,
        fields: Mapping[str, tuple[tuple[int, ...], Any]],
        capacity: int,
        streams: int = 1,
        seed: int = 0,
        *,
        length: int = 65,
        online: bool = True,
        folder: Path | None = None,
    ) -> None:
        self.slots = capacity // streams
        if self.slots < length:
            raise BadInput(
                f"replay of {capacity} records in {streams} streams does not hold one window of {length}",
                hint=f"a capacity of at least {length * streams}",
            )
        self.fields = {name: (tuple(shape), np.dtype(dtype)) for name, (shape, dtype) in fields.items()}
        self.folder = folder
        self.arrays = {name: self._zeros(name, (streams, self.slots, *s), d) for name, (s, d) in self.fields.items()}
        self.streams, self.length, self.online = streams, length, online
        self.written = np.zeros(streams, np.int64)  # records ever added; slot of record i = i % slots
        self.touched = np.zeros((streams, self.slots), np.bool_)
        self.queue: deque[tuple[int, int]] = deque()
        self.rng = np.random.default_rng(seed)
        self._buffers: list[dict[str, np.ndarray]] = [{}, {}]
        self._turn = 0

    @staticmethod
    def bytes_needed(fields: Mapping[str, tuple[tuple[int, ...], Any]], records: int) -> int:
        """Bytes of ``records`` records with these fields."""
        return records * sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in fields.values())

    def _zeros(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """The ring of one field. Neither pages nor file blocks exist before they are written, so capacity is free."""
        if self.folder is None:
            return np.zeros(shape, dtype)
        self.folder.mkdir(parents=True, exist_ok=True)
        return np.memmap(self.folder / f"{name}.ring", dtype, "w+", shape=shape)

    def __len__(self) -> int:
        return int(np.minimum(self.written, self.slots).sum())

    @property
    def nbytes(self) -> int:
        """Bytes of the records held (not of the capacity)."""
        return self.bytes_needed(self.fields, len(self))

    def items(self, length: int | None = None) -> int:
        """Number of windows that can be sampled now."""
        return int(self._starts(length or self.length).sum())

    def _starts(self, length: int) -> np.ndarray:
        return np.maximum(0, np.minimum(self.written, self.slots) - length + 1)

    def add(self, stream: int, record: Mapping[str, Any]) -> None:
        """Append one record (every field) to a stream; the oldest one is overwritten when the ring is full."""
        index = int(self.written[stream])
        for name, array in self.arrays.items():
            array[stream, index % self.slots] = record[name]
        self.touched[stream, index % self.slots] = True
        self.written[stream] = index + 1
        start = index + 1 - self.length
        if self.online and start >= 0 and start % self.length == 0:
            self.queue.append((stream, start))

    def _draw(self, batch: int, length: int, rng: np.random.Generator) -> np.ndarray:
        """int64 [batch, 2]: stream and number of the first record of each window."""
        starts = self._starts(length)
        total = int(starts.sum())
        if total == 0:
            raise BadInput(f"replay holds no window of {length} records yet", hint=f"{len(self)} records were added")
        out = np.empty((batch, 2), np.int64)
        row = 0
        while self.queue and row < batch and length == self.length:
            stream, start = self.queue.popleft()
            if start >= self.written[stream] - self.slots:  # not overwritten meanwhile
                out[row] = stream, start
                row += 1
        at = rng.integers(total, size=batch - row)
        ends = np.cumsum(starts)
        stream = np.searchsorted(ends, at, side="right")
        oldest = np.maximum(0, self.written - self.slots)
        out[row:, 0] = stream
        out[row:, 1] = oldest[stream] + at - (ends - starts)[stream]
        return out

    def sample(
        self,
        batch: int,
        length: int | None = None,
        rng: np.random.Generator | None = None,
        *,
        only: Sequence[str] | None = None,
    ) -> dict[str, np.ndarray]:
        """Windows as arrays [batch, length, ...] by field, and ``indices`` int64 [batch, 2] for :meth:`write_back`.

        The arrays are one of two buffers used in turn: they stay valid until the call after the next one.
        """
        length = length or self.length
        windows = self._draw(batch, length, rng or self.rng)
        names = tuple(self.arrays) if only is None else tuple(only)
        self._turn ^= 1
        buffers, out = self._buffers[self._turn], {}
        for name in names:
            shape, dtype = self.fields[name]
            target = buffers.get(name)
            if target is None or target.shape[:2] != (batch, length):
                target = buffers[name] = np.empty((batch, length, *shape), dtype)
            out[name] = target
        for row, (stream, start) in enumerate(windows.tolist()):
            slot = start % self.slots
            head = min(length, self.slots - slot)
            for name, target in out.items():
                source = self.arrays[name][stream]
                target[row, :head] = source[slot : slot + head]
                if head < length:
                    target[row, head:] = source[: length - head]
        return out | {"indices": windows}

    def write_back(self, indices: np.ndarray, deter: Any, stoch: Any, *, offset: int = 1) -> None:
        """:meth:`send_back`, done when this returns."""
        self.send_back(indices, deter, stoch, offset=offset)()

    def send_back(
        self, indices: np.ndarray, deter: Any, stoch: Any, *, offset: int = 1, where: Tensor | None = None
    ) -> Callable[[], None]:
        """Overwrite the stored latents of the sampled windows from their record ``offset`` on, when what is returned is
        called: until then nobody waits for the device.

        Args:
            deter, stoch: [batch, T, D] and one-hot [batch, T, S, K] tensors, or both already packed as numpy arrays.
            where: 0-d bool tensor, False leaves everything as it was. Records that were overwritten since the windows
                were sampled are left alone.
        """
        if isinstance(deter, np.ndarray):
            return partial(self._write, indices, deter, stoch, offset)
        from lore.fast.transfer import Download

        coming = Download(pack_latent(deter, stoch) | ({} if where is None else {"where": where}))

        def finish() -> None:
            come = coming.arrays()
            if where is None or come["where"]:
                self._write(indices, come["deter"], come["stoch"], offset)

        return finish

    def _write(self, indices: np.ndarray, deter: np.ndarray, stoch: np.ndarray, offset: int) -> None:
        steps = deter.shape[1]
        for row, (stream, start) in enumerate(np.asarray(indices).tolist()):
            first = start + offset
            gone = min(steps, max(0, int(self.written[stream]) - self.slots - first))
            slot = (first + gone) % self.slots
            head = min(steps - gone, self.slots - slot)
            self.touched[stream, slot : slot + head] = True
            self.touched[stream, : steps - gone - head] = True
            for name, value in (("deter", deter), ("stoch", stoch)):
                ring = self.arrays[name][stream]
                ring[slot : slot + head] = value[row, gone : gone + head]
                ring[: steps - gone - head] = value[row, gone + head :]

    def records(self, stream: int, slots: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Copies [n, ...] of some fields of the records in ``slots`` int64 [n] of a stream."""
        return {name: self.arrays[name][stream, slots] for name in names}

    def cursors(self) -> dict[str, Any]:
        """Everything but the records, as plain JSON values."""
        return {
            "written": self.written.tolist(),
            "slots": self.slots,
            "length": self.length,
            "queue": [list(entry) for entry in self.queue],
            "rng": self.rng.bit_generator.state,
        }

    def restore(self, arrays: Mapping[str, np.ndarray], cursors: Mapping[str, Any]) -> None:
        """Take over records, arrays ``<stream>/<field>`` of all that were held, in slot order, and :meth:`cursors`.

        SchemeMismatch when streams, capacity or fields differ.
        """
        arrays = {name: np.asarray(value) for name, value in arrays.items()}
        self._check_state(arrays, cursors)
        self._take_state(arrays, cursors)

    def _check_state(self, arrays: Mapping[str, np.ndarray], cursors: Mapping[str, Any]) -> None:
        held = [min(n, self.slots) for n in cursors["written"]]
        want = {f"{i}/{name}": ((n, *s), d) for i, n in enumerate(held) for name, (s, d) in self.fields.items()}
        found = {name: (value.shape, value.dtype) for name, value in arrays.items()}
        if len(held) != self.streams or cursors["slots"] != self.slots or found != want:
            wrong = sorted(name for name in want.keys() | found.keys() if want.get(name) != found.get(name))
            raise SchemeMismatch(
                f"stored replay has {len(held)} streams of {cursors['slots']} records, "
                f"this one {self.streams} of {self.slots}" + (f"; differing: {wrong[0]}" if wrong else ""),
                kept="the replay as it was",
            )

    def _take_state(self, arrays: Mapping[str, Any], cursors: Mapping[str, Any]) -> None:
        for i, n in enumerate(min(n, self.slots) for n in cursors["written"]):
            for name, array in self.arrays.items():
                array[i, :n] = arrays[f"{i}/{name}"]
        self.written[:] = cursors["written"]
        self.queue = deque((int(stream), int(start)) for stream, start in cursors["queue"])
        self.rng.bit_generator.state = cursors["rng"]
