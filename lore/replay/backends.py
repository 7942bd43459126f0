"""Where replay lives: ``LORE_REPLAY_BACKEND`` = ``tensor`` (memory), ``memmap`` (files of the run) or ``device``."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lore.replay.ring import Replay, pack_latent
from lore_datasets.errors import ConfigError, shown

if TYPE_CHECKING:
    import torch

    from lore.config import Config

__all__ = ["BACKENDS", "DeviceReplay", "backend", "check_room", "free_memory", "make_replay", "records_kept"]

BACKENDS = ("tensor", "memmap", "device")
VARIABLE = "LORE_REPLAY_BACKEND"
RING = "replay"
"""Folder of the memory maps inside the run's."""
_MARGIN = 0.9


def backend() -> str:
    """The backend that the environment asks for (``tensor`` by default); ConfigError names the known ones."""
    name = os.environ.get(VARIABLE, "") or "tensor"
    if name not in BACKENDS:
        raise ConfigError(f"{VARIABLE} = {shown(name)} is unknown", hint=f"use {', '.join(BACKENDS)}")
    return name


class DeviceReplay(Replay):
    """Replay whose rings are tensors on a device: a batch is gathered there and never passes through the host.

    The same windows in the same order as :class:`lore.replay.ring.Replay` for the same seed; :meth:`sample` gives
    tensors.
    """

    def __init__(
        self, fields: Mapping[str, tuple[tuple[int, ...], Any]], capacity: int, streams: int, seed: int, *, length: int,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.device = device
        super().__init__(fields, capacity, streams, seed, length=length)

    def _zeros(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> torch.Tensor:
        import torch

        return torch.zeros(shape, dtype=torch.from_numpy(np.zeros(0, dtype)).dtype, device=self.device)

    def add(self, stream: int, record: Mapping[str, Any]) -> None:
        """Append one record (every field) to a stream, in one copy."""
        from lore.fast.transfer import upload

        values = {name: np.array(record[name], dtype) for name, (_, dtype) in self.fields.items()}
        super().add(stream, upload(values, self.device))

    def sample(self, batch, length=None, rng=None, *, only=None) -> dict[str, Any]:
        """Windows as tensors [batch, length, ...] by field, and ``indices`` int64 [batch, 2] (numpy)."""
        from lore.fast.transfer import upload

        length = length or self.length
        windows = self._draw(batch, length, rng or self.rng)
        slots = (windows[:, 1:] + np.arange(length)) % self.slots
        rows = upload({"rows": windows[:, :1] * self.slots + slots}, self.device)["rows"]
        names = self.arrays if only is None else only
        return {name: self.arrays[name].flatten(0, 1)[rows] for name in names} | {"indices": windows}

    def send_back(
        self, indices: np.ndarray, deter: Any, stoch: Any, *, offset: int = 1, where: torch.Tensor | None = None
    ) -> Callable[[], None]:
        """As :meth:`lore.replay.ring.Replay.send_back`, at once and without leaving the device."""
        import torch

        from lore.fast.transfer import upload

        if isinstance(deter, np.ndarray):
            fresh = {"deter": torch.from_numpy(deter), "stoch": torch.from_numpy(stoch)}
        else:
            fresh = pack_latent(deter, stoch)
        stream, start = np.asarray(indices).T[:, :, None]
        number = start + offset + np.arange(deter.shape[1])  # [batch, T]
        live = number >= self.written[stream] - self.slots
        rows = (stream * self.slots + number % self.slots)[live]
        self.touched.reshape(-1)[rows] = True
        # Where windows of a batch overlap the last one stands, as in memory.
        _, last = np.unique(rows[::-1], return_index=True)
        chosen = len(rows) - 1 - last
        at = upload({"rows": rows[chosen], "source": np.flatnonzero(live)[chosen]}, self.device)
        for name, value in fresh.items():
            ring, new = self.arrays[name].flatten(0, 1), value.to(self.device).flatten(0, 1)[at["source"]]
            ring[at["rows"]] = new if where is None else torch.where(where, new, ring[at["rows"]])
        return lambda: None

    def records(self, stream: int, slots: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        """As :meth:`lore.replay.ring.Replay.records`, copied to the host."""
        import torch

        at = torch.from_numpy(slots).to(self.device)
        return {name: self.arrays[name][stream, at].cpu().numpy() for name in names}

    def restore(self, arrays: Mapping[str, np.ndarray], cursors: Mapping[str, Any]) -> None:
        """As :meth:`lore.replay.ring.Replay.restore`."""
        import torch

        host = {name: np.asarray(value) for name, value in arrays.items()}
        self._check_state(host, cursors)
        self._take_state({name: torch.from_numpy(value) for name, value in host.items()}, cursors)


def make_replay(
    fields: Mapping[str, tuple[tuple[int, ...], Any]], capacity: int, streams: int, seed: int, *, length: int,
    folder: Path, device: torch.device,
) -> Replay:  # fmt: skip
    """The replay of a run in ``folder``, by the environment's choice of backend."""
    name = backend()
    if name == "device":
        return DeviceReplay(fields, capacity, streams, seed, length=length, device=device)
    return Replay(fields, capacity, streams, seed, length=length, folder=folder / RING if name == "memmap" else None)


def records_kept(config: Config) -> int:
    """Records that replay will hold at most: its capacity, or what the whole budget of steps leaves behind."""
    length = config.train.sequence_length + 1
    most = int(config.train.steps * 1.1) + config.env.num_envs * length  # every episode adds a reset record
    return min(max(config.train.replay_capacity, length * config.env.num_envs), most)


def free_memory() -> int:
    """Bytes of memory that can be had now: the kernel's estimate, else its free pages; a container's limit counts."""
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    free = os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, KeyError, ValueError):
        free = 1024 * _entries(Path("/proc/meminfo"))["MemAvailable:"]
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        kept = _entries(group / "memory.stat")  # files that are only cached can be given up
        return min(free, max(0, limit - used + kept["inactive_file"] + kept["active_file"]))
    except (OSError, KeyError, ValueError):  # no container, or one without a limit ("max")
        return free


def _entries(path: Path) -> dict[str, int]:
    """Lines ``name number ...`` of a kernel's table."""
    return {words[0]: int(words[1]) for words in map(str.split, path.read_text().splitlines())}


def check_room(
    config: Config, fields: Mapping[str, tuple[tuple[int, ...], Any]], folder: Path, device: torch.device
) -> None:
    """ConfigError when the replay of a run will not fit where its backend keeps it, naming the knob to turn."""
    name, records = backend(), records_kept(config)
    if name == "device":  # its rings are allocated whole
        records = max(config.train.replay_capacity, (config.train.sequence_length + 1) * config.env.num_envs)
    needed = Replay.bytes_needed(fields, records)
    if name == "memmap":
        near = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        free, where = shutil.disk_usage(near).free, "on disk"
    elif name == "device" and device.type == "cuda":
        import torch

        free, where = torch.cuda.mem_get_info(device)[0], "on the device"
    else:
        free, where = free_memory(), "of memory"
    if needed > free * _MARGIN:
        fit = int(free * _MARGIN / Replay.bytes_needed(fields, 1))
        raise ConfigError(
            f"replay of {records:,} records needs {needed / 2**30:.1f} GiB; {free / 2**30:.1f} GiB {where} are free",
            kept="nothing was started",
            hint=f"lower train.replay_capacity to {fit} or less, or set {VARIABLE} to another of {', '.join(BACKENDS)}",
        )
