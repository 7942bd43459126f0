"""What a play without learning showed, as text: for a terminal, for a page, and for whoever revises the advice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flows.terminal import aligned
from lore.config import EnvConfig

__all__ = ["play_text"]


def play_text(report: Mapping[str, Any]) -> str:
    """The whole report; every figure with the 95 % interval of a bootstrap over the lives."""
    settings, names = report["settings"], list(report["players"])
    area = settings["area"]
    size = "" if area == EnvConfig().area[0] else f" of {area}x{area}"
    lines = [
        f"{report['ref']}, played without learning: {report['episodes']} lives each in fresh worlds{size}, "
        f"seed {settings['seed']}, goals held up to {settings['hold']} steps, "
        f"{'drawn from the advice' if settings['sampled'] else 'first choice'}",
        f"environment steps: {report['steps']:,}; mean and 95 % interval",
        "",
    ]
    columns = [_column(report, name) for name in names]
    titles = list(names)
    if "against" in names:
        lines.insert(1, f"against {report['against']}")
    rows = [
        (row, *(column.get(row, "-") for column in columns)) for row in dict.fromkeys(k for c in columns for k in c)
    ]
    if found := report.get("difference"):
        titles.append("difference, world by world")
        paired = {"return": _range(found["return"], 2), "length": _range(found["length"], 0),
                  "score, %": _range(found["score"], 1)}  # fmt: skip
        rows = [(*row, paired.get(row[0], "")) for row in rows]
    lines += aligned([("", *titles), *rows])
    for name in names:
        lines += ["", f"{name}: how lives ended, in % of the lives"]
        lines += [f"  {what}: {_range(share, 0)}" for what, share in _largest(report["players"][name]["ended"])]
        lines.append(f"  pursued then: {', '.join(f'{g} {n}' for g, n in report['players'][name]['at_end'].items())}")
    advice = report["players"]["advice"]
    lines += ["", "advice: how goals ended, in times per life"]
    for goal, ends in advice["goals"].items():
        lines.append(f"  {goal}: {', '.join(f'{how} {_range(n, 2)}' for how, n in _largest(ends))}")
    lines += ["", "advice: who spoke, in choices per life"]
    lines += [f"  {who}: {_range(times, 2)}" for who, times in _largest(advice["spoke"])]
    return "\n".join(lines)


def _column(report: Mapping[str, Any], name: str) -> dict[str, str]:
    found = report["players"][name]
    out = {"return": _range(found["return"], 2), "score, %": _range(found["score"], 1),
           "length": _range(found["length"], 0), "choices": _range(found["decisions"], 0)}  # fmt: skip
    return out | {f"{what}, %": _range(rate, 0) for what, rate in found["achievements"].items()}


def _range(value: Sequence[float], digits: int) -> str:
    mean, low, high = (f"{v:.{digits}f}" for v in value)
    return f"{mean} ({low} to {high})"


def _largest(shares: Mapping[str, Sequence[float]]) -> list[tuple[str, Sequence[float]]]:
    return sorted(shares.items(), key=lambda item: (-item[1][0], item[0]))
