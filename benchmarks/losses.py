"""What each loss is after 1,000, 10,000 and 50,000 updates: from a run's own files, for docs/learner.md.

``lore train --preset laptop --train.train-ratio 256 --folder runs/losses && python -m benchmarks.losses runs/losses``
makes ``results/losses.json`` and prints the table: DreamerV3 without advice on symbolic Crafter, an update a step.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.record import write
from lore.config import to_dict
from lore.training.folder import read_config
from lore.training.records import read_jsonl

__all__ = ["MARKS", "collected", "main", "table"]

MARKS = (1_000, 10_000, 50_000)
"""Updates at which the losses are told."""
_NEAR = 0.1
"""Rows count whose updates are within this share of a mark."""


def collected(folder: Path) -> list[dict[str, float]]:
    """Rows of updates, seconds of training until then, and losses, one each time that the run logged."""
    told = read_jsonl(folder / "progress.jsonl")
    seconds = {row["step"]: row["seconds"] for row in told if row["phase"] == "training"}
    rows = []
    for row in read_jsonl(folder / "metrics.jsonl"):
        losses = {name.removeprefix("loss/"): value for name, value in row.items() if name.startswith("loss/")}
        if losses:
            near = max((step for step in seconds if step <= row["step"]), default=0)
            shown = {"return": row["env/return_mean20"], "entropy": row["train/rand/action"]}
            here = {"updates": row["opt/updates"], "seconds": seconds.get(near, 0.0), **losses, **shown}
            rows.append({name: float(f"{value:.4g}") for name, value in here.items()})
    return rows


def table(rows: Sequence[dict[str, float]]) -> list[str]:
    """Lines of a Markdown table: of each column the median of the rows near a mark, and their range."""
    names = [name for name in rows[0] if name not in ("updates", "seconds")]
    heads = [mark for mark in MARKS if rows[-1]["updates"] >= (1 - _NEAR) * mark]
    near = [[row for row in rows if abs(row["updates"] - mark) <= max(_NEAR * mark, 500)] for mark in heads]
    spent = [row[-1]["seconds"] / 60 for row in near]
    hours = [f"{m:.0f} min" if m < 60 else f"{m / 60:.1f} h" for m in spent]
    out = ["| | " + " | ".join(f"{mark:,} ({h})" for mark, h in zip(heads, hours, strict=True)) + " |"]
    out.append("|" + "---|" * (len(heads) + 1))
    for name in names:
        cells = []
        for some in near:
            values = sorted(row[name] for row in some)
            cells.append(f"{values[len(values) // 2]:.3g} ({values[0]:.3g} to {values[-1]:.3g})")
        out.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Write ``results/losses.json`` from a run's folder and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.losses")
    parser.add_argument("run", type=Path, help="folder of a run")
    args = parser.parse_args(argv)
    rows, config = collected(args.run), to_dict(read_config(args.run))
    kept: dict[str, Any] = {"settings": config, "rows": rows}
    write("losses", kept, "lore train --preset laptop --train.train-ratio 256; python -m benchmarks.losses RUN")
    print("\n".join(table(rows)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
