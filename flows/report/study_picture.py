"""The learning curves of a study as one SVG, for its Markdown page; the same figures give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["bands"]

_COLOURS = ("#4c566a", "#d08770", "#5e81ac", "#a3be8c", "#b48ead", "#bf616a", "#88c0d0", "#ebcb8b")
_DASHES = ("-", "--", ":", "-.")
"""Of arms that use the colours for the first time, again, and so on."""
_STYLE = {
    "svg.hashsalt": "lore", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.color": "#eceff4", "axes.edgecolor": "#9aa3b2", "legend.frameon": False,
}  # fmt: skip


def bands(grid: Sequence[float], arms: dict[str, Any]) -> str:
    """Learning curve of every arm with its band over seeds; empty while no arm has a point."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    if not any(v is not None for arm in arms.values() for v in arm["curve"]):
        return ""
    with matplotlib.rc_context(_STYLE):  # pyright: ignore[reportArgumentType]
        figure = Figure(figsize=(8.2, 3.8), layout="constrained")
        axes = figure.subplots()
        for index, (label, arm) in enumerate(arms.items()):
            if all(v is None for v in arm["curve"]):
                continue
            colour, (low, high) = _COLOURS[index % len(_COLOURS)], np.array(arm["band"], float).T
            dashes = _DASHES[index // len(_COLOURS) % len(_DASHES)]
            axes.fill_between(grid, low, high, color=colour, alpha=0.18, linewidth=0)
            axes.plot(grid, np.array(arm["curve"], float), dashes, color=colour, label=label, linewidth=2)
        axes.set_xlabel("environment steps")
        axes.set_ylabel("episode return")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        out = io.BytesIO()
        FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None})
    return out.getvalue().decode()
