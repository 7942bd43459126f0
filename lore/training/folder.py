"""The folder of a run: configuration, lock, name of the checkpoint, and what an exact resume depends on."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lore.config import Config, from_dict
from lore.fast import parallel
from lore_datasets.atomic import held
from lore_datasets.errors import NotFound

__all__ = ["CHECKPOINT", "CONFIG", "lock_run", "machine", "read_config", "recorded_advice"]

CHECKPOINT = "checkpoint.safetensors"
CONFIG = "config.json"


def read_config(folder: Path | str) -> Config:
    """The configuration a run was started with; NotFound when there is no run."""
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise NotFound(f"no run in {folder}", hint="start one with lore train --folder DIR")
    return from_dict(json.loads(path.read_text())["config"])


def recorded_advice(folder: Path | str) -> str:
    """The advice version that ``config.json`` names, ``name@vN#digest``; empty without one."""
    path = Path(folder) / CONFIG
    return str(json.loads(path.read_text()).get("advice", "")) if path.is_file() else ""


def lock_run(folder: Path) -> AbstractContextManager[None]:
    """Hold the run's folder; Busy when another trainer has it. The lock dies with the process."""
    return held(folder / ".lock", f"another trainer holds {folder}", hint="wait for it, or choose another --folder")


def machine() -> dict[str, Any]:
    """What an exact resume depends on: threads, CPU capability, versions."""
    return {
        "threads": parallel.threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
