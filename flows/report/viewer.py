"""The section that plays recorded episodes: frames, who decided and why, how a choice came about, what was expected."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from flows.report.page import Section, data_block, filled
from flows.report.read import RunData, Subject
from lore.evaluation.recording import AHEAD, SCHEMA, read_recording, recordings
from lore.evaluation.tiles import SIZE, atlas, drawable
from lore_datasets.errors import CorruptArtifact, LoreError
from lore_datasets.types import SymbolicState

__all__ = ["BUDGET", "episode_data", "recorded_episodes"]

BUDGET = 2_800_000
"""Bytes that all episodes of a page may take; longer ones are cut to their share, and it is said."""
TOP = 12
"""Entries of the policy shown of each decision: the likeliest before or after the advice, and what was drawn."""
_PER_FRAME = ("state", "image", "action", "reward", "value", "entropy", "beta", "kl", "uncertainty", "confidence",
              "charge", "advised", "skill", "since", "entry", "followed", "spoke", "goals", "logits", "advice_logits",
              "allowed", "mixed", *(f"ahead_{k}" for k in AHEAD))  # fmt: skip
_LANES = ("reward", "value", "entropy", "beta", "kl", "uncertainty", "confidence")
_WHO = {"policy": "p", "advice": "a", "option": "o", "plan": "l"}


def recorded_episodes(subject: Subject) -> Section:
    """The section; where nothing was recorded it says how to."""
    paths = [(run, path) for run in subject.runs for path in recordings(run.path)]
    episodes: list[dict[str, Any]] = []
    wrong: list[str] = []
    for run, path in paths:
        try:
            episodes.append(episode_data(path, run, BUDGET // len(paths)))
        except LoreError as error:
            wrong.append(f"{run.name}, {path.name}: {error.message}")
        except (IndexError, KeyError, TypeError, ValueError) as error:  # arrays of a form that nobody wrote before
            wrong.append(f"{run.name}, {path.name}: its arrays do not fit together ({type(error).__name__})")
    episodes.sort(key=lambda each: -(each["return"] or 0.0))  # the page opens with the best one
    pictures = {name: _atlas(name) for name in sorted({each["environment"] for each in episodes}) if drawable(name)}
    data = data_block("viewer-data", {"episodes": episodes, "atlas": pictures, "ahead": AHEAD}) if episodes else ""
    html = filled("viewer.html", episodes=episodes, data=data, wrong=wrong, ahead=AHEAD,
                  folder=subject.runs[0].path if subject.runs else "RUN")  # fmt: skip
    return Section("Watch an episode", html, ("viewer.js",) if episodes else (), ("viewer.css",) if episodes else ())


def episode_data(path: Path, run: RunData, budget: int = BUDGET) -> dict[str, Any]:
    """One recorded episode as JSON values of at most about ``budget`` bytes; ``notes`` say what is missing and why.

    CorruptArtifact where the file is none, or has neither states nor frames.
    """
    notes: list[str] = []
    arrays: dict[str, Any] = read_recording(path)
    schema = int(arrays.get("schema", np.array(1)))
    if schema < SCHEMA:
        notes.append("Recorded by an older LoRe: how choices came about and what was expected are not in it.")
    if schema > SCHEMA:
        notes.append(f"Recorded by a newer LoRe (version {schema} of the form, this one knows {SCHEMA}).")
    if "action" not in arrays or not {"state", "image"} & set(arrays):
        raise CorruptArtifact("no states, frames or actions in it", hint="lore eval RUN --record 3 makes new ones")
    frames = _cut_to_whole(arrays, notes)
    about = {name: str(arrays[name]) for name in ("place", "advice") if name in arrays}
    environment = str(arrays.get("environment", np.array(run.environment)))
    _compare(arrays, about, run, notes)
    keep = _steps_within(arrays, frames, budget)
    if keep < frames:
        notes.append(f"The page shows the first {keep - 1:,} of {frames - 1:,} steps; {path.name} holds all of them.")
    arrays = {name: array[:keep] if name in _PER_FRAME else array for name, array in arrays.items()}
    names = {name: [str(n) for n in arrays.get(name, np.zeros(0, str))] for name in ("actions", "skills", "entries")}
    return {
        "run": run.name, "place": about.get("place", "one"), "number": int(arrays.get("number", np.array(0))),
        "length": frames - 1, "return": _plain(float(arrays.get("return", arrays["reward"].sum()))),
        "environment": environment, "advice": about.get("advice", ""), **names, **_decisions(arrays),
        **{name: [_plain(float(v)) for v in arrays[name]] for name in _LANES if name in arrays},
        "who": "".join(_who(arrays)), "action": arrays["action"].tolist(),
        **{n: arrays[n].tolist() for n in ("skill", "since") if n in arrays}, **_texts(arrays), **_goals(arrays, names),
        **_pictures(arrays, environment, notes), "notes": notes,
    }  # fmt: skip


def _plain(value: float) -> float | None:
    """Four digits; what is not finite becomes null."""
    return float(f"{value:.4g}") if math.isfinite(value) else None


def _cut_to_whole(arrays: dict[str, np.ndarray], notes: list[str]) -> int:
    """Frames that every lane has; lanes that are shorter cut the episode, and it is said."""
    lengths = {name: len(arrays[name]) for name in _PER_FRAME if name in arrays and arrays[name].ndim}
    frames = min(lengths.values())
    if frames < max(lengths.values()):
        short = min(lengths, key=lambda name: lengths[name])
        notes.append(f"Frames are missing: {short} ends after {frames:,} of {max(lengths.values()):,}.")
        for name in lengths:
            arrays[name] = arrays[name][:frames]
    if any(not np.isfinite(arrays[n]).all() for n in _LANES if n in arrays):
        notes.append("Some values are not finite; they are left out.")
    arrays.setdefault("reward", np.zeros(frames, np.float32))
    return frames


def _compare(arrays: dict[str, np.ndarray], about: dict[str, str], run: RunData, notes: list[str]) -> None:
    """Say where the recording is of another state of the run than the page."""
    now, then = int((run.progress or {}).get("step", 0)), int(arrays.get("trained", np.array(0)))
    if then and now and then != now:
        notes.append(f"Recorded after {then:,} steps of training; the run is at {now:,} now.")
    if about.get("advice") and run.advice and about["advice"] != run.advice:
        notes.append(f"Recorded with {about['advice']}; the run reads {run.advice} now.")


def _steps_within(arrays: dict[str, np.ndarray], frames: int, budget: int) -> int:
    """Frames that fit into ``budget`` bytes of the page."""
    pictures = 3 * 1100 if "image" in arrays else 3 * 1.34 * 63
    return int(max(2, min(frames, budget / (pictures + 1.34 * 14 * TOP + 120))))


def _who(arrays: dict[str, np.ndarray]) -> list[str]:
    advised = arrays.get("advised", np.zeros(len(arrays["action"]), bool))
    kinds = arrays.get("charge", np.full(len(arrays["action"]), "policy"))
    return ["a" if told else _WHO.get(str(kind), "p") for kind, told in zip(kinds, advised, strict=True)]


def _texts(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Who of the advice speaks in each frame: numbers into a list of texts."""
    spoke = [str(text) for text in arrays.get("spoke", np.full(len(arrays["action"]), ""))]
    texts = list(dict.fromkeys(spoke))
    at = {text: k for k, text in enumerate(texts)}
    return {"texts": texts, "spoke": [at[text] for text in spoke]}


def _goals(arrays: dict[str, np.ndarray], names: dict[str, list[str]]) -> dict[str, Any]:
    """The three likeliest goals of the advice in each frame: [name, per cent] each."""
    goals = arrays.get("goals")
    words = [*names["actions"], *names["skills"]]
    if goals is None or goals.ndim != 2 or goals.shape[1] != len(words):
        return {}
    best = np.argsort(-goals.astype(np.float32), axis=1, kind="stable")[:, :3]
    rows = [
        [[int(k), round(100 * float(p[k]))] for k in row if p[k] > 0.005] for row, p in zip(best, goals, strict=True)
    ]
    return {"goals": rows}


def _decisions(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Of each step at which somebody decided: the likeliest entries with the policy's logit, what the advice adds to
    it, and the probability of the mixture; ``base``, ``level``: what the logits of the policy and of the mixture exceed
    their log-probabilities by."""
    needed = ("entry", "logits", "advice_logits", "allowed", "mixed", "beta", "followed")
    if any(name not in arrays for name in needed) or arrays["logits"].ndim != 2:
        return {}
    steps = np.flatnonzero(arrays["entry"] >= 0)
    own, allowed, mixed = (arrays[n][steps].astype(np.float64) for n in ("logits", "allowed", "mixed"))
    added = arrays["beta"][steps, None].astype(np.float64) * arrays["advice_logits"][steps]
    total = np.where(allowed > 0, own + added, -np.inf)
    alone = np.where(allowed > 0, own, -np.inf)
    level, base = _log_sum(total), _log_sum(alone)
    policy = np.exp(alone - base[:, None])
    worth = np.maximum(policy, mixed) + 2.0 * (np.arange(own.shape[1]) == arrays["entry"][steps, None])
    shown = np.argsort(-worth, axis=1, kind="stable")[:, :TOP]

    def pick(values: np.ndarray, kind: Any = np.float32) -> str:
        return _bytes(np.take_along_axis(values, shown, 1).astype(kind))

    return {
        "decided": steps.tolist(), "drawn": arrays["entry"][steps].tolist(),
        "followed": arrays["followed"][steps].astype(int).tolist(), "shown": _bytes(shown.astype(np.uint8)),
        "top": shown.shape[1], "own": pick(own), "added": pick(added), "mixed": pick(mixed),
        "possible": pick(allowed, np.uint8), "base": _bytes(base), "level": _bytes(level),
    }  # fmt: skip


def _log_sum(logits: np.ndarray) -> np.ndarray:
    """ln sum exp over the last axis."""
    top = logits.max(-1, initial=-1e30)
    return top + np.log(np.exp(logits - top[..., None]).sum(-1))


def _bytes(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _pictures(arrays: dict[str, np.ndarray], environment: str, notes: list[str]) -> dict[str, Any]:
    """Frames, or the cells that tiles are drawn from, real and expected; and what the player carries."""
    out: dict[str, Any] = {}
    if "image" in arrays:
        out["sheets"] = {"real": _sheet(arrays["image"])}
        out["sheets"] |= {str(k): _sheet(arrays[f"ahead_{k}"]) for k in AHEAD if _is_film(arrays.get(f"ahead_{k}"))}
        out["sheet_size"] = list(arrays["image"].shape[1:3])
    if "state" not in arrays:
        return out
    known = drawable(environment)
    if known is None or arrays["state"].ndim != 2 or arrays["state"].shape[1] != known.layout.size:
        notes.append(f"Its states are of another version of {environment or 'an unknown game'}: they are not drawn.")
        return out
    vocab, layout = known.vocab, known.layout
    states = SymbolicState.unpack(np.ascontiguousarray(arrays["state"], np.uint8), layout)
    at = layout.offsets()
    unlocked = arrays["state"][:, at["unlocked"]] > 0
    first = [(int(np.argmax(column)), name) for name, column in zip(vocab.achievements, unlocked.T, strict=True)
             if column.any()]  # fmt: skip
    out |= {
        "view": list(vocab.view), "targets": list(vocab.targets), "cells": _bytes(arrays["state"][:, at["view"]]),
        "facing": states.facing.reshape(-1).tolist(), "sleeping": [int(v) for v in states.sleeping.reshape(-1)],
        "light": [int(v) for v in arrays["state"][:, at["daylight"]].reshape(-1)],
        "carried": [*vocab.vitals, *vocab.items], "directions": [d[0] for d in vocab.directions],
        "counts": _bytes(np.concatenate([states.vitals, states.inventory], -1).astype(np.uint8)),
        "unlocked": sorted(first),
    }  # fmt: skip
    cells = int(np.prod(vocab.view))
    foretold = {k: arrays.get(f"ahead_{k}") for k in AHEAD}
    out["ahead"] = {str(k): _bytes(a) for k, a in foretold.items() if a is not None and a.shape[1:] == (cells,)}
    return out


def _is_film(array: np.ndarray | None) -> bool:
    return array is not None and array.ndim == 4


def _sheet(film: np.ndarray) -> str:
    """Frames uint8 [T, H, W, 3] side by side, 32 in a row, as the address of one WebP picture."""

    frames, height, width, _ = film.shape
    rows = -(-frames // 32)
    sheet = np.zeros((rows * 32, height, width, 3), np.uint8)
    sheet[:frames] = film
    whole = sheet.reshape(rows, 32, height, width, 3).swapaxes(1, 2).reshape(rows * height, 32 * width, 3)
    return _picture(whole, "WEBP", quality=60, method=4)


def _atlas(environment: str) -> dict[str, Any]:
    tiles = atlas(environment)
    return {
        "picture": _picture(np.concatenate(list(tiles), 1), "PNG", optimize=True),
        "size": SIZE,
        "count": len(tiles),
    }


def _picture(pixels: np.ndarray, kind: str, **options: Any) -> str:

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
