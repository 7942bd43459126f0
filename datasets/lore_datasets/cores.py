"""How many cores this process may use: of the machine, of its affinity (taskset) and of its control group's quota."""

from __future__ import annotations

import math
import os
from pathlib import Path

__all__ = ["available_cores"]


def available_cores(root: Path = Path("/")) -> int:
    """Whole cores, at least 1; ``root`` is that of the file system in which the kernel shows control groups."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(count, _quota(root))))


def _quota(root: Path) -> float:
    """Cores that the control groups of this process allow (versions 1 and 2), infinity without a limit."""
    least = math.inf
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return least
    for line in lines:
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        folder = top / group.lstrip("/")
        for at in (folder, *folder.parents):  # inside a container the group's own path may not exist
            if not at.is_relative_to(top):
                break
            least = min(least, _limit(at))
    return least


def _limit(folder: Path) -> float:
    try:
        if (file := folder / "cpu.max").exists():
            quota, period = file.read_text().split()[:2]
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return float(quota) / float(period) if float(quota) > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):  # "max" is no number either
        return math.inf
