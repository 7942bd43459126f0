"""What a version was worth when it was played without learning, as its card, Croissant file and reports tell it."""

from __future__ import annotations

import re
from typing import Any

from lore_datasets.errors import CorruptArtifact
from lore_datasets.store.manifest import ref_of
from lore_datasets.types import Manifest

__all__ = ["in_one_line", "measured", "play_section", "played", "safe"]


def played(play: Manifest) -> dict[str, dict[str, list[float]]]:
    """Player -> figure (``return``, ``score``, ``length``) -> [mean, lower, upper], of a play artifact.

    CorruptArtifact when its manifest does not hold them.
    """
    try:
        players = play.provenance["report"]["players"]
        return {
            str(name): {figure: [float(v) for v in found[figure]] for figure in ("return", "score", "length")}
            for name, found in players.items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptArtifact(f"{ref_of(play)} holds no figures of a play: {type(error).__name__}") from None


def play_section(play: Manifest) -> list[str]:
    """The card's section: the version and its control, lines of Markdown."""
    report = play.provenance.get("report", {})
    settings = report.get("settings", {})
    lines = [
        f"## Played without learning ({ref_of(play)})",
        f"{safe(report.get('episodes'))} lives each in fresh worlds that follow the advice, goals held up to "
        f"{safe(settings.get('hold'))} steps, seed {safe(settings.get('seed'))}; mean and 95 % interval. Play over "
        "given skills is no learning result: the two are never compared.",
        "",
        "| player | return | score, % | length |",
        "|---|---|---|---|",
    ]
    for name, found in played(play).items():
        cells = (f"{m:.2f} ({low:.2f} to {high:.2f})" for m, low, high in found.values())
        lines.append(f"| {safe(name)} | {' | '.join(cells)} |")
    steps = play.cost.get("environment_steps", 0)
    return [*lines, "", f"Environment steps spent on it: {safe(steps)}.", ""]


def in_one_line(play: Manifest) -> str:
    """Return and score of every player, with intervals."""
    said = []
    for name, found in played(play).items():
        (reward, low, high), (score, least, most) = found["return"], found["score"]
        said.append(
            f"{safe(name)} return {reward:.1f} ({low:.1f} to {high:.1f}), "
            f"score {score:.0f} % ({least:.0f} to {most:.0f})"
        )
    return f"{'; '.join(said)}; without learning, {safe(play.message)}"


def measured(play: Manifest) -> list[dict[str, Any]]:
    """Figures of a play without learning as schema.org property values, with their 95 % intervals."""
    found = play.provenance.get("report", {}).get("settings", {})
    settings = ", ".join(f"{name} {value}" for name, value in found.items())
    how = f"play without learning ({ref_of(play)}), mean and 95 % bootstrap interval over lives; {settings}"
    return [
        {
            "@type": "sc:PropertyValue",
            "name": f"{figure} of {name}",
            "value": value[0],
            "minValue": value[1],
            "maxValue": value[2],
            "measurementTechnique": how,
        }
        for name, found in played(play).items()
        for figure, value in found.items()
    ]


def safe(text: object) -> str:
    """Stored text as Markdown shows it literally: printable, no markup, no table bars."""
    plain = "".join(c if c.isprintable() else "?" for c in str(text))[:400]
    return re.sub(r"([\\`|<>\[\]])", lambda m: f"&#{ord(m[1])};", plain)
