"""What it costs to remember a finished step: a state file of ``flows.jobs.phases``, and a persisted Prefect result.

``python -m benchmarks.phases`` starts a Prefect server in a temporary folder, prints milliseconds per step, and how
many of 20 cached tasks ran again after what they had made was deleted (docs/adr/0011).
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.jobs.phases import Phases
from flows.prefect_flows.runtime import embedded_server

__all__ = ["main"]


def _timed(name: str, step: Callable[[int], Any], count: int) -> None:
    """Print the median wall time and the mean CPU time of ``step(0) ... step(count - 1)`` in milliseconds."""
    cpu, walls = time.process_time(), []
    for i in range(count):
        began = time.perf_counter()
        step(i)
        walls.append(time.perf_counter() - began)
    cpu = time.process_time() - cpu
    print(f"{name:<24} {1e3 * statistics.median(walls):8.2f} ms wall {1e3 * cpu / count:8.2f} ms CPU", flush=True)


def main() -> int:
    """The command."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="lore-phases-") as folder:
        home, ran = Path(folder), []
        phases = Phases(home / "job", {"seed": 0})
        for name in ("phase, run", "phase, skipped"):
            _timed(name, lambda i: phases.run(f"p{i}", {"a": i}, lambda: {"made": "x@v1"}), 50)
        with embedded_server(home / "prefect"):
            from prefect import flow, task
            from prefect.cache_policies import INPUTS

            @task(cache_policy=INPUTS, persist_result=True)
            def make(i: int) -> str:
                ran.append(i)
                (home / f"product{i}").touch()
                return f"product{i}"

            @flow
            def job() -> None:
                for name in ("Prefect task, run", "Prefect task, cached"):
                    _timed(name, make, 20)
                for product in home.glob("product*"):
                    product.unlink()
                for i in range(20):
                    make(i)

            job()
        print(f"products deleted: Prefect ran {len(ran) - 20} of 20 tasks again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
