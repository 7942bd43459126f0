"""``python -m benchmarks`` (``make bench``): every CPU row in a process of its own, then the table of docs/speed.md.

A row that fails or takes too long is named at the end, the others run, and the exit status is 1. ``--only`` and
``--skip`` choose rows, ``--list`` names them; ``--table`` measures nothing and brings the page up to date with the JSON
that is there. The row ``peers`` runs where ``LORE_PEER_PYTHON`` names an interpreter that has sheeprl.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import table
from benchmarks.record import RESULTS

__all__ = ["ROWS", "Row", "main", "run"]


@dataclass(frozen=True)
class Row:
    """One benchmark.

    Attributes:
        words: module and arguments.
        result: name of its JSON.
        seconds: what it takes about, until it has run once.
        limit_s: after so many seconds it is given up.
    """

    words: tuple[str, ...]
    result: str
    seconds: float
    limit_s: float = 900.0

    @property
    def expected(self) -> float:
        """Seconds that it took last time."""
        path = RESULTS / f"{self.result}.json"
        return float(json.loads(path.read_text()).get("seconds", self.seconds)) if path.exists() else self.seconds


_SPEED = {"game": 20, "replay": 40, "lookup": 5, "rules": 10, "update": 60, "policy": 15, "train": 60, "overhead": 180}
ROWS = {name: Row(("benchmarks.speed", name), f"speed_{name}", s) for name, s in _SPEED.items()}
ROWS |= {
    "storage": Row(("benchmarks.storage", "--repeats", "3"), "storage", 20),
    "http_backends": Row(("benchmarks.http_backends",), "http_backends", 120),
    "peers": Row(("benchmarks.peers",), "peers", 120),
    "rules_play": Row(("benchmarks.rules_play", "--episodes", "40", "--seed", "100", "--write"), "rules_play", 60),
    "launches": Row(("benchmarks.launches",), "launches", 60),
    "saving": Row(("benchmarks.saving",), "saving", 90),
    "coverage": Row(("benchmarks.coverage", "--rows", "1000", "3000", "--states", "1000"), "coverage", 180),
}
"""Name -> benchmark, in the order in which they run."""


def run(names: Sequence[str], rows: dict[str, Row] | None = None) -> dict[str, str]:
    """Run the rows one after the other, saying how far it is; name -> what went wrong, for those that failed."""
    rows = ROWS if rows is None else rows
    failed: dict[str, str] = {}
    for i, name in enumerate(names):
        left = sum(rows[other].expected for other in names[i:])
        load = os.getloadavg()[0]
        print(f"[{i + 1}/{len(names)}] {name}: about {left / 60:.1f} min left, load {load:.1f}", flush=True)
        began = time.monotonic()
        command = [sys.executable, "-m", *rows[name].words]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=rows[name].limit_s, check=False)
        except subprocess.TimeoutExpired:
            failed[name] = f"given up after {rows[name].limit_s:.0f} s"
        else:
            if done.returncode:
                last = done.stderr.strip().splitlines() or done.stdout.strip().splitlines() or ["no message"]
                failed[name] = last[-1][:300]
        print(f"    {failed.get(name, 'done')} ({time.monotonic() - began:.0f} s)", flush=True)
    return failed


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(ROWS), help="these rows")
    parser.add_argument("--skip", nargs="+", choices=list(ROWS), default=[], help="all but these")
    parser.add_argument("--list", action="store_true", help="name the rows and their seconds")
    parser.add_argument("--table", action="store_true", help="bring the page up to date; measure nothing")
    args = parser.parse_args(argv)
    names = [name for name in args.only or ROWS if name not in args.skip]
    if args.list:
        for name in names:
            print(f"{name:16s}{ROWS[name].expected:6.0f} s  python -m {' '.join(ROWS[name].words)}")
        return 0
    failed: dict[str, str] = {}
    if not args.table:
        if not args.only and not os.environ.get("LORE_PEER_PYTHON") and "peers" in names:
            print("peers: left out, LORE_PEER_PYTHON names no interpreter (see benchmarks/peers.py)", flush=True)
            names.remove("peers")
        failed = run(names)
    print(table.update_page())
    for name, why in failed.items():
        print(f"failed: {name}: {why}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
