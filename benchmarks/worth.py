"""What each chooser of skills is worth with no learner, on the same fresh worlds, at two world sizes.

``python -m benchmarks.worth --episodes 200``: the first choice of each is held up to 12 steps or until it ends;
``uniform`` draws among the same skills without preference. One row per chooser and world size, with bootstrap intervals
over the lives, goes to ``benchmarks/results/worth.json``. Play over given skills is no learning result and is never
compared with one.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from typing import Any

from benchmarks.record import write
from lore.advice.distil import train_arrays
from lore.advice.lookup import AdviceSource
from lore.advice.uniform import UniformSource
from lore.evaluation.play import Life, PlaySettings, figures, play_life
from lore_datasets.advice import load_advice

__all__ = ["CHOOSERS", "Chooser", "main", "measure", "table"]


@dataclass(frozen=True)
class Chooser:
    """Who chooses the skills: a name for the table, a shipped version, and which part of it answers."""

    name: str
    dataset: str
    part: str = "all"
    """``all``: the version's look-up; ``rows``: the same without its program; ``uniform``: no preference."""


CHOOSERS = (
    Chooser("uniform over the skills of crafter-claude", "crafter-claude", "uniform"),
    Chooser("crafter-qwen1.5b: rows of a small language model", "crafter-qwen1.5b"),
    Chooser("crafter-claude: rows of a language model", "crafter-claude", "rows"),
    Chooser("crafter-claude: program of a language model", "crafter-claude"),
    Chooser("crafter-rules@v1: rows of a rule book", "crafter-rules@v1"),
    Chooser("crafter-rules@v2: the rule book as a program", "crafter-rules@v2"),
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


def measure(episodes: int, areas: tuple[int, ...], workers: int, only: str = "") -> dict[str, Any]:
    """Play every chooser whose name holds ``only`` in worlds ``0..episodes-1`` of every area; rows with figures."""
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for area in areas:
            for chooser in (each for each in CHOOSERS if only in each.name):
                data = _source(chooser).data
                n = range(episodes)
                lives = list(pool.map(_life, [chooser] * episodes, n, [area] * episodes, chunksize=10))
                found = figures(lives, data.environment.vocab.achievements)
                rows.append(
                    {"chooser": chooser.name, "part": chooser.part, "dataset": str(data.ref), "area": area} | found
                )
                print(table(rows[-1:]).splitlines()[-1], flush=True)
    return {"episodes": episodes, "hold": PlaySettings().hold, "rows": rows}


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown: chooser, area, return, score, length."""

    def shown(value: list[float]) -> str:
        return "{:.1f} ({:.1f} to {:.1f})".format(*value)

    lines = ["| who chooses the skill | world | return | score, % | length |", "|---|---|---|---|---|"]
    for row in rows:
        told = " | ".join(shown(row[name]) for name in ("return", "score", "length"))
        lines.append(f"| {row['chooser']} | {row['area']}x{row['area']} | {told} |")
    return "\n".join(lines)


def main(words: list[str] | None = None) -> int:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--areas", type=int, nargs="+", default=[64, 32])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", help="part of a chooser's name")
    options = parser.parse_args(words)
    found = measure(options.episodes, tuple(options.areas), options.workers, options.only)
    print(table(found["rows"]))
    if not options.only:
        write("worth", found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
