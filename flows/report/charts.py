"""Charts for the pages: what :file:`charts.js` draws with uPlot, as data.

uPlot 1.6.32 (MIT, 51 kB, kept beside this file) draws values that follow pointer and keys in every theme; a page with
plotly would carry 4 MB, and pictures of matplotlib know no values and one theme. Lines are thinned to keep pages small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from flows.report.page import data_block, filled

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["COLOURS", "DASHES", "SCRIPTS", "STYLES", "Dot", "Line", "chart", "colour", "forest", "played_dots"]

COLOURS = 8
"""Colours that style.css has for runs, named ``c0`` onwards."""
DASHES = (None, (6, 4), (2, 3), (10, 3, 2, 3))
"""Dashes of the first lines, one of a colour, and of those that use the colours again, once and more often."""
SCRIPTS = ("uplot.js", "charts.js")
STYLES = ("uplot.css",)
MOST_POINTS = 300
"""Points of a line; longer ones are means over equal parts."""


def colour(index: int) -> str:
    """Name of the colour of run ``index``."""
    return f"c{index % COLOURS}"


@dataclass(frozen=True)
class Line:
    """One series of a chart.

    Attributes:
        steps, values: as many each, steps rising; of a ``reference`` one value alone, drawn over the whole width.
        colour: name of a colour in style.css, without its dashes.
        kind: ``area``: stacked on the areas before it; all areas of a chart share their steps.
        band: (low, high), each as long as ``values``.
    """

    label: str
    steps: Sequence[float]
    values: Sequence[float | None]
    colour: str
    kind: Literal["line", "points", "area", "reference"] = "line"
    band: tuple[Sequence[float | None], Sequence[float | None]] | None = None
    dash: tuple[int, ...] | None = None


def chart(
    title: str,
    lines: Sequence[Line],
    *,
    ylabel: str,
    low: float | None = None,
    high: float | None = None,
    note: str = "",
) -> Markup | None:
    """A figure with its title; None where no line but references has a value. ``low``, ``high``: least extent of y."""
    drawn = [line for line in lines if line.kind != "reference" and len(line.steps)]
    if not drawn:
        return None
    spec: dict[str, Any] = {"xlabel": "environment steps", "ylabel": ylabel}
    spec |= {name: value for name, value in (("low", low), ("high", high)) if value is not None}
    columns: list[tuple[dict[str, Any], np.ndarray, np.ndarray]] = []
    bands, shown = [], {}
    base: np.ndarray | None = None
    for line in drawn:
        steps, values = _thinned(line.steps, _floats(line.values), picked=line.kind == "points")
        raw = values
        if line.kind == "area":
            values = base = values if base is None else base + values
        columns.append((_about(line), steps, values))
        if line.kind == "area":
            shown[len(columns) - 1] = raw
        if line.band is not None:
            edges = [len(columns), len(columns) + 1]
            for side in line.band:
                at, edge = _thinned(line.steps, _floats(side))
                columns.append(({**_about(line), "kind": "edge"}, at, edge))
            bands.append({"low": edges[0], "high": edges[1], "colour": line.colour})
    x = np.unique(np.concatenate([steps for _, steps, _ in columns]))
    spec["x"] = _plain(x)
    spec["lines"] = [{**about, "values": _plain(_spread(x, steps, values))} for about, steps, values in columns]
    for line in lines:
        if line.kind == "reference":
            spec["lines"].append({**_about(line), "values": _plain(np.full(len(x), _floats(line.values)[0]))})
    if shown:  # painted from the top of the stack down: each covers what lies below it
        order = list(shown)[::-1]
        spec["lines"] = [spec["lines"][i] for i in order]
        spec["shown"] = [_plain(shown[i]) for i in order]
    if bands:
        spec["bands"] = bands
    return filled("chart.html", title=title, note=note, data=data_block("data", spec))


def _about(line: Line) -> dict[str, Any]:
    out: dict[str, Any] = {"label": line.label, "colour": line.colour, "kind": line.kind}
    return out | ({"dash": list(line.dash)} if line.dash else {})


def _floats(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in values], np.float64)


def _thinned(steps: Sequence[float], values: np.ndarray, picked: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """At most ``MOST_POINTS`` points: some are ``picked``, or means over equal parts stand at each part's last step."""
    at = np.asarray(steps, np.float64)
    if len(at) <= MOST_POINTS:
        return at, values
    if picked:
        keep = np.unique(np.linspace(0, len(at) - 1, MOST_POINTS).round().astype(int))
        return at[keep], values[keep]
    parts = np.array_split(np.arange(len(at)), MOST_POINTS)
    return np.array([at[p[-1]] for p in parts]), np.array([values[p].mean() for p in parts])


def _spread(x: np.ndarray, steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values at their places in ``x``, NaN elsewhere; of several at one step the last."""
    out = np.full(len(x), np.nan)
    out[np.searchsorted(x, steps)] = values
    return out


def _plain(values: np.ndarray) -> list[float | int | None]:
    """JSON numbers of five digits (steps in full); None for what is not finite."""
    out: list[float | int | None] = []
    for value in values.tolist():
        if not np.isfinite(value):
            out.append(None)
        else:
            out.append(int(value) if value == int(value) else float(f"{value:.5g}"))
    return out


@dataclass(frozen=True)
class Dot:
    """A value with its interval (None where nobody knows it); a ``reference`` is no result of the page's own runs."""

    label: str
    value: float
    interval: Sequence[float | None] | None
    colour: str = "soft"
    is_reference: bool = False

    @property
    def ends(self) -> tuple[float, float] | None:
        """The interval, None unless both of its ends are known."""
        low, high = self.interval or (None, None)
        return None if low is None or high is None else (low, high)


def played_dots(play: Mapping[str, Any], figure: str) -> list[Dot]:
    """The players of a play without learning as references; ``play``: :func:`lore_datasets.exchange.played.played`."""
    names = {"advice": "the version's own play", "uniform": "uniform over its skills"}
    return [Dot(names.get(who, who), found[figure][0], found[figure][1:], is_reference=True)
            for who, found in play.items()]  # fmt: skip


def forest(
    title: str, dots: Sequence[Dot], *, note: str = "", chance: float | None = None, told: str = "chance"
) -> Markup:
    """Dots with their intervals on one scale that holds 0, each with its figures in text; a line at ``chance``."""
    values = [0.0, *(v for dot in dots for v in (dot.value, *(dot.ends or ())))]
    high = max(values if chance is None else [*values, chance])
    low = min(values) * 1.05
    width = 1.05 * high - low or 1.0
    place = lambda v: round(100 * (v - low) / width, 2)  # noqa: E731
    rows = [
        {
            "label": dot.label, "colour": dot.colour, "at": place(dot.value), "is_reference": dot.is_reference,
            "low": place(dot.ends[0]) if dot.ends else None,
            "width": round(place(dot.ends[1]) - place(dot.ends[0]), 2) if dot.ends else None, "text": _text(dot),
        }
        for dot in dots
    ]  # fmt: skip
    lines = [{"at": place(chance), "label": f"{told}: {chance:g}"}] if chance is not None else []
    return filled("forest.html", title=title, rows=rows, lines=lines, note=note)


def _text(dot: Dot) -> str:
    digits = 0 if abs(dot.value) >= 100 else 2
    mean, *ends = (f"{v:,.{digits}f}" for v in (dot.value, *(dot.ends or ())))
    return f"{mean} ({' to '.join(ends)})" if ends else mean
