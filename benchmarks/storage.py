"""How long a version of advice takes to commit, and to open until the first look-up can be answered."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from benchmarks.record import alternated, timed, write

__all__ = ["main", "measure"]

SMALL = 3_000
"""Rows of a usual round of questions; its commit is measured with and without waiting for the disk."""


def measure(commit_rows: int, open_rows: int, repeats: int) -> dict:
    """Commit ``commit_rows`` random rows, open ``open_rows`` from disk; CPU and wall seconds per call.

    Opening counts everything up to the sorted tables: read, decompress, verify every digest, sort the keys.
    """
    import numpy as np

    from lore.advice.lookup import AdviceSource
    from lore_datasets.advice import load_advice
    from lore_datasets.environments import get_environment
    from lore_datasets.store.store import Store
    from lore_datasets.testing import random_advice, small_advice

    environment, root = get_environment("crafter"), Path(tempfile.mkdtemp(prefix="lore-storage-"))
    try:
        rows = random_advice(environment, commit_rows, np.random.default_rng(0))
        store, number = Store(root), iter(range(10**6))

        def commit(count: int = commit_rows) -> None:
            writer = store.writer(f"b{next(number)}", "advice", environment=environment, skills=environment.skills)
            writer.append("rows", **{name: values[:count] for name, values in rows.items()})
            writer.commit("benchmark")

        def unsynced() -> None:
            with mock.patch("os.fsync", lambda handle: None):
                commit(SMALL)

        out = {"commit": {"rows": commit_rows, **timed(commit, repeats)}}
        small = alternated({"small_commit": lambda: commit(SMALL), "small_commit_unsynced": unsynced}, 3 * repeats)
        out |= {name: {"rows": SMALL, **figures} for name, figures in small.items()}
        small_advice(root, environment, open_rows, name="large")

        def load(texts: bool = False) -> AdviceSource:
            return AdviceSource(load_advice("large", root, texts=texts))

        found = load().lookup(load_advice("large", root, texts=False).rows.state[:64])
        if (found.source != 0).any():
            raise RuntimeError("the version does not find its own rows")
        out["open"] = {"rows": open_rows, **timed(load, repeats)}
        out["open_with_texts"] = {"rows": open_rows, **timed(lambda: load(True), repeats)}
        return out
    finally:
        shutil.rmtree(root, ignore_errors=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write ``results/storage.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storage")
    parser.add_argument("--commit", type=int, default=100_000, help="rows of the version that is committed")
    parser.add_argument("--open", type=int, default=1_000_000, help="rows of the version that is opened")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args(argv)
    result = measure(args.commit, args.open, args.repeats)
    for name, each in result.items():
        print(f"{name}: {each['rows']:,} rows, {each['wall_s']['median']:.2f} s, cpu {each['cpu_s']['median']:.2f} s")
    print(write("storage", result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
