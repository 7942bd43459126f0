"""Sample rows of a dataset: the visible crop, drawn, and what the advice said about it."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.report.page import Section, filled
from flows.report.read import Subject
from lore.evaluation.tiles import paint, player_tile
from lore_datasets.types import SymbolicState
from lore_datasets.vocab import Vocab

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["drawn", "sample_rows"]


@dataclass(frozen=True)
class Frame:
    """One sample: the drawn view, the state in words, and the advice for it."""

    drawing: Markup
    facing: str
    carries: str
    vitals: str
    unlocked: int
    choices: tuple[tuple[str, float], ...]
    confidence: float
    plan: str
    reason: str
    rule: str


def drawn(state: SymbolicState, vocab: Vocab, label: str = "the visible crop", shrink: int = 1) -> Markup:
    """The visible crop of one state as a picture in the tiles of the game; ``shrink`` divides its size."""
    from PIL import Image

    player = player_tile(vocab, int(state.facing), bool(state.sleeping))
    picture = Image.fromarray(paint(state.view.reshape(-1), vocab.environment, player))
    file = io.BytesIO()
    picture.reduce(shrink).quantize(64).save(file, "PNG", optimize=True)
    uri = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return filled("drawing.html", uri=uri, label=label)


def _counts(names: tuple[str, ...], values: np.ndarray) -> str:
    return ", ".join(f"{name} {int(v)}" for name, v in zip(names, values, strict=True) if v) or "nothing"


def _frame(state: SymbolicState, vocab: Vocab, names: tuple[str, ...], rows: Any, row: int, rule: str) -> Frame:
    logits = np.where(np.asarray(rows.mask[row], bool), np.asarray(rows.logits[row], float), -np.inf)
    known = np.isfinite(logits)
    chosen: list[tuple[str, float]] = []
    if known.any():
        p = np.exp(logits - logits[known].max())
        p /= p.sum()
        chosen = [(names[i], float(p[i])) for i in np.argsort(-p, kind="stable")[:4] if p[i] > 0.01]
    plan = ""
    if np.asarray(rows.plan_lengths[row]).max(initial=0) > 0:
        best = int(np.argmax(np.where(np.asarray(rows.plan_lengths[row]) > 0, np.asarray(rows.plan_scores[row]), -1.0)))
        ids = rows.plans[row][best][: int(rows.plan_lengths[row][best])]
        plan = _folded([names[int(i)] for i in ids if i >= 0])
    return Frame(
        drawing=drawn(state, vocab),
        facing=vocab.directions[int(state.facing)][0],
        carries=_counts(vocab.items, state.inventory),
        vitals=_counts(vocab.vitals, state.vitals),
        unlocked=int(np.count_nonzero(state.unlocked)),
        choices=tuple(chosen),
        confidence=float(rows.confidence[row]),
        plan=plan,
        reason=str(rows.reason[row]),
        rule=rule,
    )


def _folded(words: list[str]) -> str:
    """``a a b`` -> ``a x2, b``."""
    out: list[list[Any]] = []
    for word in words:
        if out and out[-1][0] == word:
            out[-1][1] += 1
        else:
            out.append([word, 1])
    return ", ".join(word if n == 1 else f"{word} x{n}" for word, n in out)


def sample_rows(subject: Subject) -> Section | None:
    """The section about rows of the version's dataset; None without advice or rows."""
    frames = _frames(subject.advice) if subject.advice is not None else []
    return Section("What the advice said", filled("samples.html", frames=frames)) if frames else None


def _frames(data: Any, count: int = 6) -> list[Frame]:
    """``count`` rows of an ``AdviceData``, spread over how far their episodes had come (achievements unlocked).

    Each bears what the version's program says there, where it has one: the number of the rule, its goal and why.
    """
    from lore.advice.program import ProgramAdvice

    rows, environment = data.rows, data.environment
    total = len(rows.state)
    if not total:
        return []
    states = SymbolicState.unpack(np.asarray(rows.state), environment.layout)
    order = np.lexsort((np.arange(total), np.count_nonzero(states.unlocked, axis=-1)))
    picks = order[np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int))]
    names = (*data.actions, *(skill.name for skill in data.skills))
    program = ProgramAdvice(data) if data.programs else None
    said = [program.told(int(rule)) for rule in program.rule_of(rows.state[picks])] if program else [""] * len(picks)
    return [
        _frame(states[int(i)], environment.vocab, names, rows, int(i), rule)
        for i, rule in zip(picks, said, strict=True)
    ]
