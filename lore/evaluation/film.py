"""A recorded episode as a film: the frame, what was expected, who decided and why, and lanes with a cursor."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lore.evaluation.recording import AHEAD
from lore.evaluation.tiles import drawable, paint, player_tile
from lore.training.sinks import write_gif
from lore_datasets.environments import DEFAULT
from lore_datasets.errors import BadInput, UsageError
from lore_datasets.types import SymbolicState

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["check_ending", "film", "why", "write_film"]

_WIDTH, _HEIGHT = 720, 480
_PICTURE, _SMALL = (360, 280), (162, 126)
_LANES_AT, _LABEL, _LANE = 300, 96, 26
_INK, _SOFT, _PAPER, _TINT, _LINE = (229, 233, 240), (154, 165, 184), (20, 24, 31), (28, 34, 44), (127, 178, 236)
_WHO = {"policy": (154, 166, 187), "advice": (240, 145, 92), "option": (116, 171, 232), "plan": (191, 149, 224)}
_LANES = ("reward", "value", "entropy", "beta", "kl")
_WRAP = 44
"""Letters of a line of text beside the picture."""


def deciders(found: Mapping[str, np.ndarray]) -> list[str]:
    """Who took each step: policy, advice, option or plan."""
    steps = len(found["action"])
    advised = found.get("advised", np.zeros(steps, bool))
    kinds = found.get("charge", np.full(steps, "policy"))
    return ["advice" if told else str(kind) for kind, told in zip(kinds, advised, strict=True)]


def why(found: Mapping[str, np.ndarray], t: int) -> list[str]:
    """Lines about step ``t`` of a recorded episode: what was done, who decided it since when, what the advice says."""
    action = int(found["action"][t])
    name = "the end" if action < 0 else str(found["actions"][action])
    lines = [f"step {t} of {len(found['action']) - 1}: {name}"]
    if action < 0:
        return lines
    who, skill = deciders(found)[t], int(found.get("skill", np.full(t + 1, -1))[t])
    since = int(found["since"][t]) if "since" in found else t
    goal = f" {found['skills'][skill]}" if skill >= 0 else ""
    lines.append(f"{who}{goal}" + (f", since step {since}" if since < t else ""))
    spoke = str(found["spoke"][since if who == "advice" else t]) if "spoke" in found else ""
    if spoke and spoke != "none":
        lines += textwrap.wrap(f"advice: {spoke}", _WRAP)[:3]
    if "mixed" in found and int(found["entry"][t]) >= 0:
        own = np.where(found["allowed"][t], found["logits"][t].astype(np.float64), -np.inf)
        own = np.exp(own - own.max())
        own /= own.sum()
        best = np.argsort(-found["mixed"][t], kind="stable")[:3]
        lines += [f"{100 * own[k]:3.0f} -> {100 * found['mixed'][t, k]:3.0f} %  {found['entries'][k]}" for k in best]
    return lines


def film(found: Mapping[str, np.ndarray], every: int = 1) -> Iterator[np.ndarray]:
    """Frames uint8 [480, 720, 3] of a recorded episode, one for ``every`` so many steps; BadInput where nothing of it
    can be drawn."""
    from PIL import Image, ImageDraw

    real, expected = _pictures(found)
    ground, steps = _lanes(found), len(found["action"])
    places = {k: _PICTURE[0] + 16 + place * (_SMALL[0] + 8) for place, k in enumerate(expected)}
    for k, left in places.items():
        said = f"expected {k} step{'' if k == 1 else 's'} before"
        ImageDraw.Draw(ground).text((left, 144), said, fill=_SOFT)
    for t in range(0, steps, every):
        canvas = ground.copy()
        pen = ImageDraw.Draw(canvas)
        canvas.paste(Image.fromarray(real[t]).resize(_PICTURE, Image.Resampling.NEAREST), (8, 8))
        for k, left in places.items():
            if t >= k:
                canvas.paste(Image.fromarray(expected[k][t]).resize(_SMALL, Image.Resampling.NEAREST), (left, 160))
        for number, line in enumerate(why(found, t)[:9]):
            pen.text((_PICTURE[0] + 16, 8 + 14 * number), line, fill=_INK if number < 2 else _SOFT)
        x = _LABEL + (_WIDTH - _LABEL - 8) * t / max(1, steps - 1)
        pen.line((x, _LANES_AT, x, _HEIGHT - 6), fill=_INK)
        yield np.asarray(canvas)


def _pictures(found: Mapping[str, np.ndarray]) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """(real frames uint8 [T, H, W, 3], expected ones by how far ahead)."""
    aheads = {k: found[f"ahead_{k}"] for k in AHEAD if f"ahead_{k}" in found}
    if "image" in found:
        return found["image"], {k: film for k, film in aheads.items() if film.ndim == 4}
    name = str(found.get("environment", DEFAULT))
    game = drawable(name)
    if game is None or "state" not in found or found["state"].shape[1:] != (game.layout.size,):
        raise BadInput("nothing of this recording can be drawn", hint="lore eval RUN --record 3 makes a new one")
    layout, vocab = game.layout, game.vocab
    states = SymbolicState.unpack(found["state"], layout)
    cells, view = found["state"][:, layout.offsets()["view"]], layout.height * layout.width
    players = [player_tile(vocab, int(f), bool(s)) for f, s in zip(states.facing, states.sleeping, strict=True)]
    real = np.stack([paint(row, name, player) for row, player in zip(cells, players, strict=True)])
    return real, {k: paint(guess, name) for k, guess in aheads.items() if guess.shape[1:] == (view,)}


def _lanes(found: Mapping[str, np.ndarray]) -> Image:
    """The part of a frame that stays: who decided, and the lanes, with their labels."""
    from PIL import Image, ImageDraw

    canvas = Image.new("RGB", (_WIDTH, _HEIGHT), _PAPER)
    pen, steps = ImageDraw.Draw(canvas), len(found["action"])
    width = _WIDTH - _LABEL - 8
    at = _LABEL + width * np.arange(steps + 1) / max(1, steps - 1)
    who = deciders(found)
    pen.text((8, _LANES_AT + 2), "decided by", fill=_SOFT)
    for t, kind in enumerate(who[:-1]):
        pen.rectangle((at[t], _LANES_AT, at[t + 1], _LANES_AT + 12), fill=_WHO.get(kind, _SOFT))
    y = _LANES_AT + 18
    for name in _LANES:
        values = np.nan_to_num(np.asarray(found.get(name, np.zeros(0)), np.float64))
        if not values.any():
            continue
        low, high = min(0.0, float(values.min())), max(float(values.max()), 1e-6)
        heights = y + (_LANE - 3) * (1 - (values - low) / (high - low))
        pen.rectangle((_LABEL, y - 1, _WIDTH - 8, y + _LANE - 2), fill=_TINT)
        pen.text((8, y + 6), f"{name}, to {high:.2g}", fill=_SOFT)
        zero = y + (_LANE - 3) * (1 + low / (high - low))
        if name in ("reward", "beta", "kl"):
            for t in np.flatnonzero(values):
                pen.line((at[t], zero, at[t], heights[t]), fill=_LINE)
        else:
            pen.line([(float(a), float(b)) for a, b in zip(at, heights, strict=False)], fill=_LINE)
        y += _LANE + 2
    for k, kind in enumerate(sorted(set(who))):
        pen.rectangle((_LABEL + 90 * k, _HEIGHT - 14, _LABEL + 90 * k + 8, _HEIGHT - 6), fill=_WHO.get(kind, _SOFT))
        pen.text((_LABEL + 90 * k + 13, _HEIGHT - 16), kind, fill=_SOFT)
    return canvas


def write_film(found: Mapping[str, np.ndarray], path: Path, fps: int = 10) -> Path:
    """Write a recorded episode to ``path``, .gif or .mp4, by its ending; UsageError for another, or without PyAV."""
    check_ending(path)
    if path.suffix.lower() == ".gif":
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            write_gif(film(found), file, fps)
    else:
        _write_mp4(film(found), path, fps)
    return path


def check_ending(path: Path) -> None:
    """UsageError where a film cannot be written under that name."""
    if path.suffix.lower() not in (".gif", ".mp4"):
        raise UsageError(f"{path.name} is neither .mp4 nor .gif", hint="--out episode.mp4 or --out episode.gif")


def _write_mp4(frames: Iterator[np.ndarray], path: Path, fps: int) -> None:
    try:
        import av
    except ImportError:
        raise UsageError(
            "mp4 needs PyAV",
            kept="the recording",
            hint="pip install -e '.[video]' in LoRe's folder, or --out episode.gif",
        ) from None
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=fps, options={"crf": "20", "movflags": "+faststart"})
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
