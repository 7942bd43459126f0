"""Timing and recording: CPU seconds beside wall time, medians with spread, machine, load and versions."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "alternated", "machine", "spread", "timed", "write"]

RESULTS = Path(__file__).parent / "results"
_BEGAN, _LOAD = time.perf_counter(), list(os.getloadavg())
_PACKAGES = ("torch", "numpy", "numba", "crafter", "h5py", "zarr", "aiohttp", "google-genai", "torchrl")


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def timed(work: Callable[[], Any], repeats: int, warmup: int = 1) -> dict[str, Any]:
    """Median, minimum and maximum of CPU seconds (this process) and wall seconds per call."""
    return alternated({"it": work}, repeats, warmup)["it"]


def alternated(
    works: dict[str, Callable[[], Any]], repeats: int, warmup: int = 1, base: str | None = None
) -> dict[str, dict[str, Any]]:
    """:func:`timed` for several works that are called in turn, so that a busy machine is as busy for each.

    With ``base`` each other work has ``over_base`` too: its CPU seconds over those of ``base`` in the same round.
    """
    for _ in range(warmup):
        for work in works.values():
            work()
    cpu: dict[str, list[float]] = {name: [] for name in works}
    wall: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            a, b = time.process_time(), time.perf_counter()
            work()
            cpu[name].append(time.process_time() - a)
            wall[name].append(time.perf_counter() - b)
    out: dict[str, dict[str, Any]] = {}
    for name in works:
        out[name] = {"n": repeats, "cpu_s": spread(cpu[name]), "wall_s": spread(wall[name])}
        if base not in (None, name):
            out[name]["over_base"] = spread([a / b for a, b in zip(cpu[name], cpu[base], strict=True)])
    return out


def machine() -> dict[str, Any]:
    """What the figures were measured on; the load before is that at the start of this process.

    Under real-time priority (``chrt --rr 1``, one thread) other work on the machine waits, so that it can be measured
    there at all.
    """
    import torch

    model = ""
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "cpu": model or platform.processor(),
        "cores": os.cpu_count(),
        "load_before": _LOAD,
        "load": list(os.getloadavg()),
        "priority": "real-time" if os.sched_getscheduler(0) != os.SCHED_OTHER else f"nice {os.nice(0)}",
        "python": platform.python_version(),
        "torch_threads": torch.get_num_threads(),
        **versions,
    }


def write(name: str, result: dict[str, Any], command: str = "") -> Path:
    """Store one benchmark's result with command, day, seconds taken and the machine it came from; returns the file."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    about = {
        "command": command or " ".join(["python", "-m", spec.name if spec else "", *sys.argv[1:]]),
        "day": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seconds": round(time.perf_counter() - _BEGAN, 1),
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **about, **result}, indent=1) + "\n")
    return path
