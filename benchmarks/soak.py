"""``make soak``: the sizes of a long life, each part in a process of its own: its memory and its seconds.

20,000 states collected and 20,000 steps trained, with the resident memory at every tenth; 100 versions of one dataset;
one version of a million rows: committed, opened, verified, compared and cleared.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.record import write

__all__ = ["PARTS", "main", "measure"]

MIB = 2**20
_CHUNK = 50_000


def resident() -> float:
    """MiB that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MIB


def peak() -> float:
    """MiB that this process held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def step(work: Callable[[], Any]) -> dict[str, float]:
    """Seconds of one call, by the clock and of the processor, and the peak of this process after it."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return {
        "wall_s": round(time.perf_counter() - wall, 3), "cpu_s": round(time.process_time() - cpu, 3),
        "peak_mib": round(peak(), 1),
    }  # fmt: skip


def _flat(samples: list[float]) -> dict[str, Any]:
    """Resident MiB at every tenth, and by how much the second half rose."""
    half = samples[len(samples) // 2]
    return {"resident_mib": [round(s, 1) for s in samples], "rose_mib": round(samples[-1] - half, 1)}


def states(count: int, folder: Path) -> dict[str, Any]:
    """Collect ``count`` states with the random player and the rule book."""
    from flows.config import CollectJob
    from flows.jobs.collect import play_states
    from flows.terminal import Terminal, use
    from pipeline.config import CollectConfig

    samples: list[float] = []

    class Watching(Terminal):
        def bars(self) -> Any:
            from contextlib import contextmanager

            @contextmanager
            def bars() -> Any:
                class Bar:
                    def update(self, done: float, total: float | None = None, note: str = "") -> None:
                        if done * 10 // count >= len(samples):
                            samples.append(resident())

                yield lambda label, total=None: Bar()

            return bars()

    with use(Watching()):
        made = step(lambda: play_states(CollectJob("soak", CollectConfig(budget=count))))
    return {"states": count, **made, **_flat(samples)}


def steps(count: int, folder: Path) -> dict[str, Any]:
    """Train a tiny network for ``count`` steps on symbolic observations."""
    from lore.config import load_config
    from lore.training.loop import train

    config = load_config(
        size="tiny", observation="symbolic", batch_size=64, sequence_length=16, train_ratio=4.0, horizon=5,
        log_interval=500, threads=1, replay_capacity=5000, steps=count, device="cpu",
    )  # fmt: skip
    samples: list[float] = []

    def look(row: dict[str, Any]) -> None:
        if row["step"] * 10 // count >= len(samples):
            samples.append(resident())

    made = step(lambda: train(config, folder / "run", look))
    return {"steps": count, **made, **_flat(samples or [resident()])}


def versions(count: int, folder: Path) -> dict[str, Any]:
    """Commit ``count`` versions of 20 rows, then read, compare and clear them."""
    from lore_datasets.environments import get_environment
    from lore_datasets.store.store import Store
    from lore_datasets.testing import small_advice

    environment, store, samples = get_environment("crafter"), Store(folder), []
    out: dict[str, Any] = {"versions": count}
    for number in range(count):
        found = step(lambda seed=number: small_advice(folder, environment, 20, seed=seed))
        if number in (0, count - 1):
            out["first_commit" if number == 0 else "last_commit"] = found
        if number * 10 // count >= len(samples):
            samples.append(resident())
    out["list"] = step(lambda: store.survey("small"))
    out["open"] = step(lambda: store.open("small"))
    out["verify"] = step(lambda: store.verify("small"))
    out["diff"] = step(lambda: store.diff("small@v1", "small"))
    out["gc"] = step(lambda: store.gc("small"))
    return out | _flat(samples)


def rows(count: int, folder: Path) -> dict[str, Any]:
    """One version of ``count`` rows, and its child of 100 more."""
    import numpy as np

    from lore.advice.lookup import AdviceSource
    from lore_datasets.advice import load_advice
    from lore_datasets.environments import get_environment
    from lore_datasets.exchange.hdf5 import export_hdf5, read_hdf5
    from lore_datasets.store.store import Store
    from lore_datasets.testing import random_advice

    environment, store, rng = get_environment("crafter"), Store(folder), np.random.default_rng(0)

    def commit(more: int) -> None:
        writer = store.writer("big", "advice", environment=environment, skills=environment.skills)
        for start in range(0, more, _CHUNK):
            writer.append("rows", **random_advice(environment, min(_CHUNK, more - start), rng))
        writer.commit("soak")

    file = folder / "big.h5"
    works = {
        "commit": lambda: commit(count), "commit_child": lambda: commit(100),
        "open": lambda: AdviceSource(load_advice("big", folder, texts=False)), "verify": lambda: store.verify("big"),
        "diff": lambda: store.diff("big@v1", "big@v2"), "export": lambda: export_hdf5(store, "big", file),
        "read_export": lambda: read_hdf5(file), "gc": lambda: store.gc("big"),
    }  # fmt: skip
    return {"rows": count, **_each_in_a_process(works)}


def _each_in_a_process(works: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """:func:`step` of each work in a fork of its own, one after the other: its peak is its own."""
    out = {}
    for name, work in works.items():
        read, wrote = os.pipe()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.write(wrote, json.dumps(step(work)).encode())
                code = 0
            finally:
                os._exit(code)
        os.close(wrote)
        with os.fdopen(read) as told:
            text = told.read()
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            raise RuntimeError(f"{name} failed")
        out[name] = json.loads(text)
        print(f"  {name}: {out[name]}", file=sys.stderr, flush=True)
    return out


PARTS: dict[str, tuple[Callable[[int, Path], dict[str, Any]], int]] = {
    "states": (states, 20_000), "steps": (steps, 20_000), "versions": (versions, 100), "rows": (rows, 1_000_000),
}  # fmt: skip
"""Name -> (what it does, how many)."""


def measure(part: str, count: int) -> dict[str, Any]:
    """One part in a process of its own, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="lore-soak-") as folder:
        words = [sys.executable, "-m", "benchmarks.soak", "--part", part, "--count", str(count)]
        environment = {**os.environ, "LORE_DATASETS": folder, "LORE_SOAK_FOLDER": folder}
        done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write ``results/soak.json``; parts that were left out keep their figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="these parts")
    parser.add_argument("--share", type=float, default=1.0, help="of every size")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.part:
        print(json.dumps(PARTS[args.part][0](args.count, Path(os.environ["LORE_SOAK_FOLDER"]))))
        return 0
    from benchmarks.record import RESULTS

    before = RESULTS / "soak.json"
    found = json.loads(before.read_text()) if before.exists() and args.only != list(PARTS) else {}
    result: dict[str, Any] = {name: found[name] for name in PARTS if name in found}
    for name in args.only:
        result[name] = measure(name, max(1, int(PARTS[name][1] * args.share)))
        print(f"{name}: {json.dumps(result[name])}", flush=True)
    if args.share == 1.0:
        print(write("soak", result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
