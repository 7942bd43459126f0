"""The folder of a run: configuration, lock, name of the checkpoint, and what an exact resume depends on."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lore.config import Config, from_dict
from lore.fast import parallel
from lore.training.records import read_json
from lore_datasets.atomic import held, write_json
from lore_datasets.errors import CorruptArtifact, NotFound

__all__ = [
    "CHECKPOINT",
    "CONFIG",
    "lock_run",
    "machine",
    "mark_saved",
    "read_config",
    "recorded_advice",
    "set_generator",
]

_LOG = logging.getLogger("lore")
CHECKPOINT = "checkpoint.safetensors"
CONFIG = "config.json"


def read_config(folder: Path | str) -> Config:
    """The configuration a run was started with; NotFound when there is no run, CorruptArtifact when it is damaged."""
    found = read_json(Path(folder) / CONFIG)
    if found is None:
        raise NotFound(f"no run in {folder}", hint="start one with lore train --preset smoke --folder DIR")
    if not isinstance(found.get("config"), dict):
        raise CorruptArtifact(f"{CONFIG} in {folder} holds no settings of a run", kept="the file as it is")
    return from_dict(found["config"])


def recorded_advice(folder: Path | str) -> str:
    """The advice version that ``config.json`` names, ``name@vN#digest``; empty without one."""
    return str((read_json(Path(folder) / CONFIG) or {}).get("advice", ""))


def mark_saved(folder: Path | str) -> None:
    """Note in ``config.json`` that the run has a checkpoint, so that a lost one is not taken for a run that begins."""
    found = read_json(Path(folder) / CONFIG)
    if found is not None and not found.get("is_saved"):
        write_json(Path(folder) / CONFIG, found | {"is_saved": True})


def lock_run(folder: Path) -> AbstractContextManager[None]:
    """Hold the run's folder; Busy when another trainer has it. The lock dies with the process."""
    return held(
        folder / ".lock", f"another trainer holds {folder}", hint="wait for it, or choose another --folder", wait=1.0
    )


def set_generator(generator: torch.Generator, state: torch.Tensor, seed: int) -> None:
    """Let random numbers go on from the saved ``state``; from ``seed`` where another kind of device saved it."""
    try:
        generator.set_state(state.cpu())
    except RuntimeError:  # the states of a CPU's generator and of a GPU's have other sizes
        generator.manual_seed(seed)
        _LOG.warning("resume is statistical, not bit-exact: saved on another kind of device than %s", generator.device)


def machine() -> dict[str, Any]:
    """What an exact resume depends on: threads, CPU capability, versions."""
    return {
        "threads": parallel.threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
