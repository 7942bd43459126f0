"""Timing and recording: CPU seconds beside wall time, medians with spread, machine and versions."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "alternated", "machine", "timed", "write"]

RESULTS = Path(__file__).parent / "results"


def timed(work: Callable[[], Any], repeats: int, warmup: int = 1) -> dict[str, Any]:
    """Median, minimum and maximum of CPU seconds (this process) and wall seconds per call."""
    for _ in range(warmup):
        work()
    cpu, wall = [], []
    for _ in range(repeats):
        a, b = time.process_time(), time.perf_counter()
        work()
        cpu.append(time.process_time() - a)
        wall.append(time.perf_counter() - b)
    out: dict[str, Any] = {"n": repeats}
    for name, values in (("cpu_s", cpu), ("wall_s", wall)):
        out[name] = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return out


def alternated(works: dict[str, Callable[[], Any]], repeats: int, warmup: int = 1) -> dict[str, dict[str, Any]]:
    """:func:`timed` for several works that are called in turn, so that a busy machine is as busy for each."""
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in works}
    for _ in range(warmup):
        for work in works.values():
            work()
    for _ in range(repeats):
        for name, work in works.items():
            rounds[name].append(timed(work, 1, warmup=0))
    out = {}
    for name, rows in rounds.items():
        out[name] = {"n": repeats}
        for kind in ("cpu_s", "wall_s"):
            values = [row[kind]["median"] for row in rows]
            out[name][kind] = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return out


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import numpy as np
    import torch

    model = ""
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return {
        "cpu": model or platform.processor(),
        "cores": os.cpu_count(),
        "load": list(os.getloadavg()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "numpy": np.__version__,
    }


def write(name: str, result: dict[str, Any]) -> Path:
    """Store one benchmark's result with the machine it came from; returns the file."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **result}, indent=1) + "\n")
    return path
