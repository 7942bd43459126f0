"""What each chooser of skills is worth with no learner, on the same fresh worlds, at two world sizes.

``python -m benchmarks.worth --episodes 200``: the first choice of each is held up to 12 steps or until it ends;
``uniform`` draws among the same skills without preference. One row per chooser and world size, with bootstrap intervals
over the lives, goes to ``benchmarks/results/worth.json``; a row that is finished is kept in ``runs/worth.jsonl``, so
that a stop costs one row (delete it after a change of how skills are played). ``--table`` brings docs/results.md up to
date with the JSON and plays nothing. Play over given skills is no learning result and is never compared with one.
"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import RESULTS, write
from benchmarks.table import put_between
from lore.advice.distil import train_arrays
from lore.advice.lookup import AdviceSource
from lore.advice.uniform import UniformSource
from lore.evaluation.play import Life, PlaySettings, figures, play_life
from lore_datasets.advice import load_advice

__all__ = ["BEGIN", "CHOOSERS", "END", "PAGE", "Chooser", "main", "measure", "page_part"]

BEGIN, END = "<!-- worth: made by `python -m benchmarks.worth --table` -->", "<!-- end of worth -->"
PAGE = Path(__file__).parents[1] / "docs" / "results.md"
KEPT = Path("runs", "worth.jsonl")
FIGURES = ("lives", "steps", "return", "score", "length", "achievements", "ended")
LEAST = 5.0
"""Per cent of the lives from which on a way to end has a line of its own."""


@dataclass(frozen=True)
class Chooser:
    """Who chooses the skills: a name for the table, a shipped version, and which part of it answers."""

    name: str
    dataset: str
    part: str = "all"
    """``all``: the version's look-up; ``rows``: the same without its program; ``uniform``: no preference."""


CHOOSERS = (
    Chooser("uniform over the skills of `crafter-claude`", "crafter-claude@v2", "uniform"),
    Chooser("`crafter-qwen1.5b`: rows of a small language model", "crafter-qwen1.5b"),
    Chooser("`crafter-claude`: rows of a language model", "crafter-claude@v2", "rows"),
    Chooser("`crafter-claude`: program of a language model", "crafter-claude@v2"),
    Chooser("`crafter-claude@v1`: the same program with older skills", "crafter-claude@v1"),
    Chooser("`crafter-rules@v1`: rows of a rule book", "crafter-rules@v1"),
    Chooser("`crafter-rules@v2`: the rule book as a program", "crafter-rules@v2"),
)
"""Everything that ships."""


@lru_cache(maxsize=1)
def _source(chooser: Chooser) -> AdviceSource:
    data = load_advice(chooser.dataset, texts=False)
    if chooser.part == "uniform":
        return UniformSource(data)
    if chooser.part == "rows":  # as a version without a program is looked up: rows, goal keys, distilled model
        data = replace(data, programs=(), model=train_arrays(data)[0])
    return AdviceSource(data)


def _life(chooser: Chooser, number: int, area: int) -> Life:
    return play_life(_source(chooser), number, PlaySettings(area=area, sampled=chooser.part == "uniform"))


def measure(episodes: int, areas: tuple[int, ...], workers: int, only: str = "", kept: Path = KEPT) -> dict[str, Any]:
    """Play every chooser whose name holds ``only`` in worlds ``0..episodes-1`` of every area; rows with figures.

    Rows that ``kept`` holds of the same version and size are taken from there; each new one is added to it.
    """
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        for area in areas:
            for chooser in (each for each in CHOOSERS if only in each.name):
                data = load_advice(chooser.dataset, texts=False)
                about = {"chooser": chooser.name, "part": chooser.part, "dataset": str(data.ref), "area": area}
                row = next((each for each in _rows(kept) if each.items() >= (about | {"lives": episodes}).items()), {})
                if not row:
                    lives = list(pool.map(_life, [chooser] * episodes, range(episodes), [area] * episodes, chunksize=5))
                    found = figures(lives, data.environment.vocab.achievements)
                    row = about | {name: found[name] for name in FIGURES}
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    with kept.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                rows.append(row)
                print(f"{chooser.name}, {area}x{area}: return {_shown(row['return'])}", flush=True)
    steps = sum(row["steps"] for row in rows)
    return {"episodes": episodes, "hold": PlaySettings().hold, "environment_steps": steps, "rows": rows}


def _rows(kept: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []


def _shown(value: list[float]) -> str:
    return "{:.1f} ({:.1f} to {:.1f})".format(*value)


def page_part(found: dict[str, Any]) -> str:
    """The page's tables from the JSON: every chooser at every world size, then what limits the programs."""
    rows = found["rows"]
    areas = list(dict.fromkeys(row["area"] for row in rows))
    head = [f"{what}, {area}x{area}" for area in areas for what in ("return", "score %", "length")]
    lines = [f"| who chooses the skill | {' | '.join(head)} |", "|---" * (1 + len(head)) + "|"]
    for name in dict.fromkeys(row["chooser"] for row in rows):
        mine = {row["area"]: row for row in rows if row["chooser"] == name}
        cells = [cell for area in areas for cell in (
            _shown(mine[area]["return"]), _shown(mine[area]["score"]), f"{mine[area]['length'][0]:.0f}")]  # fmt: skip
        lines.append(f"| {name} | {' | '.join(cells)} |")
    spent = f"{found['episodes']} lives a cell; {found['environment_steps']:,} environment steps were played for it."
    return "\n".join([*lines, "", spent, "", *_limits([row for row in rows if row["area"] == areas[0]])])


def _limits(rows: list[dict[str, Any]]) -> list[str]:
    """How lives end and which achievements they reach, in per cent of the lives, of all that choose by a program."""
    shown = [row for row in rows if row["part"] == "all" and "program" in row["chooser"]]
    names = [row["chooser"].partition(":")[0] for row in shown]
    lines = [f"| per cent of the lives, {rows[0]['area']}x{rows[0]['area']} | {' | '.join(names)} |"]
    lines.append("|---" * (1 + len(names)) + "|")
    for kind, least in (("ended", LEAST), ("achievements", 0.0)):
        shares: dict[str, list[float]] = {}
        for i, row in enumerate(shown):
            for name, value in row[kind].items():
                shares.setdefault(name, [0.0] * len(shown))[i] = value[0]
        rare = [shares.pop(name) for name in list(shares) if max(shares[name]) < least]
        for name, values in sorted(shares.items(), key=lambda pair: -max(pair[1])):
            what = f"end: {name}" if kind == "ended" else f"`{name}`"
            lines.append(f"| {what} | {' | '.join(f'{value:.1f}' for value in values)} |")
        if rare:
            sums = (f"{sum(column):.1f}" for column in zip(*rare, strict=True))
            lines.append(f"| end: otherwise | {' | '.join(sums)} |")
    return lines


def main(words: list[str] | None = None) -> int:
    """Measure, write the JSON, bring the page up to date with it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--areas", type=int, nargs="+", default=[64, 32])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", help="part of a chooser's name")
    parser.add_argument("--table", action="store_true", help="bring the page up to date; play nothing")
    options = parser.parse_args(words)
    if not options.table:
        found = measure(options.episodes, tuple(options.areas), options.workers, options.only)
        if options.only:
            return 0
        write("worth", found)
    put_between(PAGE, BEGIN, END, made := page_part(json.loads((RESULTS / "worth.json").read_text())))
    print(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
