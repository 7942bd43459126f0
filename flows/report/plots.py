"""Figures of the report as SVG data URIs; deterministic: the same files give the same bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from flows.report.read import RunData

__all__ = ["COLOURS", "bands", "coverage", "data_uri", "lines", "returns", "score_over_time"]

COLOURS = ("#4c566a", "#d08770", "#5e81ac", "#a3be8c", "#b48ead", "#bf616a", "#88c0d0", "#ebcb8b")
"""One colour per run, in order; readable side by side and in grey."""

_SOURCES = (
    ("row", "#2e7d6b"), ("program", "#8fbc8f"), ("goal", "#5e9ecf"), ("model", "#c9a24b"), ("none", "#d9dce3"),
)  # fmt: skip


def data_uri(svg: bytes) -> str:
    """``data:`` address of an SVG, usable under a policy that allows no network."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


def _draw(paint: Callable[[Any], None], width: float = 6.4, height: float = 2.9) -> str:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style = {
        "svg.hashsalt": "lore",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#eceff4",
        "axes.edgecolor": "#9aa3b2",
        "legend.frameon": False,
    }
    with matplotlib.rc_context(style):  # pyright: ignore[reportArgumentType]
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots()
        paint(axes)
        out = io.BytesIO()
        FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None})
    return data_uri(out.getvalue())


def _smooth(values: Sequence[float], window: int) -> np.ndarray:
    """Trailing mean over up to ``window`` values."""
    x = np.asarray(values, float)
    total = np.cumsum(np.concatenate([[0.0], x]))
    at = np.arange(1, len(x) + 1)
    low = np.maximum(0, at - window)
    return (total[at] - total[low]) / (at - low)


def returns(runs: Sequence[RunData], window: int = 10) -> str | None:
    """Return of every training episode (dots) and its trailing mean (line) over environment steps."""
    if not any(run.episodes for run in runs):
        return None

    def paint(axes: Any) -> None:
        for run, colour in zip(runs, COLOURS, strict=False):
            steps = [e["step"] for e in run.episodes]
            values = [float(e["return"]) for e in run.episodes]
            if steps:
                axes.plot(steps, values, ".", color=colour, alpha=0.45, markersize=6)
                axes.plot(steps, _smooth(values, window), color=colour, label=run.name, linewidth=2)
        axes.set_xlabel("environment steps")
        axes.set_ylabel("episode return")
        axes.legend(loc="best")

    return _draw(paint, 8.2, 3.4)


def bands(grid: Sequence[float], arms: dict[str, Any], colours: dict[str, str]) -> str | None:
    """Learning curve of every arm with its band over seeds; None while no arm has a point."""
    drawn = {label: arm for label, arm in arms.items() if any(v is not None for v in arm["curve"])}
    if not drawn:
        return None

    def paint(axes: Any) -> None:
        seen: set[str] = set()
        for label, arm in drawn.items():
            colour, (low, high) = colours[label], np.array(arm["band"], float).T
            dashes = "--" if colour in seen else "-"  # more arms than colours
            seen.add(colour)
            axes.fill_between(grid, low, high, color=colour, alpha=0.18, linewidth=0)
            axes.plot(grid, np.array(arm["curve"], float), dashes, color=colour, label=label, linewidth=2)
        axes.set_xlabel("environment steps")
        axes.set_ylabel("episode return")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))

    return _draw(paint, 8.2, 3.8)


def score_over_time(runs: Sequence[RunData], achievements: Sequence[str]) -> str | None:
    """Crafter score of all training episodes so far, over environment steps."""
    from flows.report.read import success_rates
    from lore.training.metrics import crafter_score

    if not achievements or not any(run.episodes for run in runs):
        return None

    def percent(episodes: Sequence[dict[str, Any]]) -> np.ndarray:
        return 100 * np.array(list(success_rates(episodes, achievements).values()))

    def paint(axes: Any) -> None:
        for run, colour in zip(runs, COLOURS, strict=False):
            total = len(run.episodes)
            ends = sorted({max(1, round(total * share / 60)) for share in range(1, 61)}) if total else []
            scores = [crafter_score(percent(run.episodes[:end])) for end in ends]
            axes.plot(
                [run.episodes[end - 1]["step"] for end in ends], scores, color=colour, label=run.name, linewidth=2
            )
        axes.set_xlabel("environment steps")
        axes.set_ylabel("score of all episodes so far, %")
        axes.legend(loc="best")

    return _draw(paint)


def lines(
    runs: Sequence[RunData], tags: Sequence[tuple[str, str]], ylabel: str, bound: float | None = None
) -> str | None:
    """Curves of several tags: one colour per run, one dash per tag; None where no run wrote any of them."""
    if not any(tag in run.series for run in runs for tag, _ in tags):
        return None

    def paint(axes: Any) -> None:
        dashes = ("-", "--", ":", "-.")
        for run, colour in zip(runs, COLOURS, strict=False):
            for index, (tag, label) in enumerate(tags):
                if tag in run.series:
                    steps, values = run.series[tag]
                    name = f"{run.name}: {label}" if label else run.name
                    axes.plot(steps, values, dashes[index % 4], color=colour, label=name, linewidth=1.6)
        if bound is not None:
            axes.axhline(bound, color="#bf616a", linewidth=1, linestyle=":", label=f"bound {bound:g}")
        axes.set_ylim(bottom=0, top=1 if ylabel == "share" else None)
        axes.set_xlabel("environment steps")
        axes.set_ylabel(ylabel)
        axes.legend(loc="best", fontsize=8)

    return _draw(paint)


def coverage(run: RunData) -> str | None:
    """Where the advice of the visited states came from, stacked shares over environment steps."""
    tags = [f"llm_adapter/coverage_{source}" for source, _ in _SOURCES]
    if not any(tag in run.series for tag in tags):
        return None
    steps = sorted({step for tag in tags if tag in run.series for step in run.series[tag][0]})

    def paint(axes: Any) -> None:
        layers = [np.interp(steps, *run.series[tag]) if tag in run.series else np.zeros(len(steps)) for tag in tags]
        axes.stackplot(steps, *layers, colors=[c for _, c in _SOURCES], labels=[s for s, _ in _SOURCES])
        axes.set_ylim(0, 1)
        axes.grid(False)
        axes.margins(x=0)
        axes.set_xlabel("environment steps")
        axes.set_ylabel("share of states")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=5, fontsize=8)

    return _draw(paint)
