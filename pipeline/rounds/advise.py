"""The walk of the offline phase: states -> questions -> answers -> checked rows -> one version of an advice dataset.

:func:`advise` is the whole walk. Its three parts stand alone for an orchestrator that runs shards as tasks:
:func:`pipeline.rounds.prepare.prepare` and :func:`ask_first` (skills first, for they index everything),
:func:`advise_shard`, :func:`pipeline.rounds.commit.commit_round`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lore_datasets.advice import AdviceData
from lore_datasets.environments import Environment
from lore_datasets.language.geometry import StateView
from lore_datasets.store.store import Store
from lore_datasets.types import ArtifactRef, SymbolicState
from pipeline.config import PipelineConfig
from pipeline.llm.base import Prompt, Stop, never
from pipeline.llm.journal.journal import Journal
from pipeline.llm.prices import estimate_tokens
from pipeline.questions.check import TrialRun, check_plans, check_prior
from pipeline.questions.describe import describe
from pipeline.questions.feasible import feasible_actions
from pipeline.questions.parse import Advice
from pipeline.questions.prompts import LETTERS
from pipeline.rounds.ask import ShardResult
from pipeline.rounds.commit import commit_round
from pipeline.rounds.prepare import ask_first, asks_for_skills, prepare, sample_views, skill_prompts
from pipeline.rounds.program import Judge, program_prompts
from pipeline.rounds.revise import revision_prompts
from pipeline.rounds.round import Round
from pipeline.rounds.rows import Row, merge_orders

__all__ = [
    "DryRun", "Round", "advise", "advise_shard", "ask_first", "commit_round", "dry_run", "explain", "prepare",
    "questions_of",
]  # fmt: skip


def advise(
    states: SymbolicState | np.ndarray,
    environment: Environment,
    llm: Any,
    store: Store,
    name: str,
    config: PipelineConfig | None = None,
    journal: Journal | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    *,
    parents: Sequence[ArtifactRef | str] = (),
    provenance: Mapping[str, Any] | None = None,
    message: str = "",
    trial: TrialRun | None = None,
    judge: Judge | None = None,
) -> ArtifactRef:
    """Ask ``llm`` about every state and commit the answers as the next version of dataset ``name``.

    ``states``: a batch or uint8[N, S]. ``llm``: an :class:`pipeline.llm.base.LLM`, or what has ``complete(prompts)``
    and a name. ``trial`` plays a new skill in real worlds before it may enter, ``judge`` drafts of a program.
    Interrupts and ServiceErrors lose nothing that was answered: the same call goes on from ``journal``.
    ``on_progress(states done, states)`` is called after each shard.
    """
    now = ask_first(prepare(states, environment, llm, store, name, config, journal), trial, judge)
    results, done = [], 0
    for shard in now.shards():
        results.append(advise_shard(now, shard))
        done += len(shard)
        if on_progress:
            on_progress(done, len(now.packed))
    return commit_round(now, results, store, name, parents=parents, provenance=provenance, message=message)


def _row(now: Round, index: int, view: StateView) -> Row:
    """The row of one state before it is asked about."""
    goals_known = now.llm.capabilities.speaks_of == "goals"
    return Row(index, list(now.feasible(view))[: len(LETTERS)], goals_known)


def _questions(now: Round, row: Row, view: StateView) -> list[Prompt]:
    """The questions about one state: one per order of the options, and for a share of the states one for plans."""
    config, renderer = now.config.advise, now.renderer
    state = SymbolicState.unpack(now.packed[row.index], now.environment.layout)
    packed, text = now.packed[row.index].tobytes(), describe(state, now.environment)
    form = "letter" if now.llm.capabilities.letters else "json"
    options = row.goals if row.goals and row.goals_known else feasible_actions(view)
    orders = config.orders if "prior" in now.kinds else 0
    out = [renderer.prior(state, options, order=i, answer=form, text=text, packed=packed) for i in range(orders)]
    if "plan" not in now.kinds:
        return out
    draw = int.from_bytes(hashlib.blake2b(b"%d" % config.seed + packed, digest_size=4).digest(), "little")
    if draw < config.plan_share * 2**32:
        out.append(renderer.plan(state, [*row.goals, *feasible_actions(view)], text=text, packed=packed))
    return out


def questions_of(now: Round, shard: Sequence[int]) -> list[Prompt]:
    """The questions that :func:`advise_shard` begins with, in order."""
    views = [(i, now.view(i)) for i in shard]
    return [prompt for i, view in views for prompt in _questions(now, _row(now, i, view), view)]


def advise_shard(now: Round, shard: Sequence[int], stop: Stop = never) -> ShardResult:
    """Ask about one shard (indices into ``now.packed``) and check what comes back; Stopped once ``stop()`` is True."""
    result = ShardResult()
    views = [now.view(i) for i in shard]
    rows = [_row(now, i, view) for i, view in zip(shard, views, strict=True)]
    questions = [_questions(now, row, view) for row, view in zip(rows, views, strict=True)]
    asked = iter(now.ask([prompt for each in questions for prompt in each], result, stop))
    for row, view, each in zip(rows, views, questions, strict=True):
        priors: list[Advice] = []
        for answer in [next(asked) for _ in each]:
            if answer.advice is None:
                continue
            if answer.advice.kind == "prior":
                checked, rejected = check_prior(answer.advice, row.goals, view, answer.where)
                result.counts["choices.named"] += len(answer.advice.choices)
                result.counts["choices.infeasible"] += len(rejected)
                priors += [checked] if checked is not None else []
            else:
                row.plans, rejected = check_plans(answer.advice, each[-1].options, view, answer.where)
                result.counts["plans.offered"] += len(answer.advice.plans)
                result.counts["plans.kept"] += len(row.plans)
            result.rejects += rejected
        row.advice = merge_orders(priors)
    result.rows = [row for row in rows if row.advice is not None or row.plans]
    result.counts["states"] += len(rows)
    result.counts["no_advice"] += len(rows) - len(result.rows)
    return result


@dataclass(frozen=True)
class DryRun:
    """What a round would take: questions in all, those not yet in the journal, and for these tokens, dollars, seconds.

    ``price_usd`` is None where the adviser has no known price; ``paid_usd`` is what the journal has paid so far.
    Questions that follow from new skills are not foreseen.
    """

    questions: int
    new: int
    tokens_in: int
    tokens_out: int
    price_usd: float | None
    seconds: float
    adviser: str
    paid_usd: float


def dry_run(now: Round) -> DryRun:
    """Count what a round would ask that was prepared and has asked nothing; tokens are upper figures (answers at their
    cap)."""
    prompts: list[Prompt] = []
    adviser, known = now.llm, now.llm.capabilities
    if asks_for_skills(adviser, now.config):
        prompts += skill_prompts(now, sample_views(now))
    if "skills" in known.kinds:
        prompts += revision_prompts(now)
    prompts += program_prompts(now)
    prompts += questions_of(now, range(len(now.packed)))
    keyed = dict(zip(now.journal.keys(adviser, prompts), prompts, strict=True))
    new = [prompt for key, prompt in keyed.items() if now.journal.get(key) is None]
    tokens = np.array([estimate_tokens(prompt) for prompt in new], np.int64).reshape(-1, 2).sum(0)
    dollars = None if known.estimate is None else sum(map(known.estimate, new))
    seconds = known.seconds(len(new), int(tokens.sum()))
    return DryRun(
        len(keyed), len(new), int(tokens[0]), int(tokens[1]), dollars, seconds, adviser.name, now.budget.paid_before
    )


def explain(data: AdviceData, row: int) -> str:
    """What one stored row says, in a few lines: the state, the choices with their probabilities, plans, the reason."""
    rows, names = data.rows, [*data.actions, *(skill.name for skill in data.skills)]
    state = SymbolicState.unpack(rows.state[row], data.environment.layout)
    lines = [describe(state, data.environment)]
    known = rows.mask[row].astype(bool)
    open_to = known & np.concatenate([known[: len(data.actions)], rows.applicable[row].astype(bool)])
    if open_to.any():
        logits = rows.logits[row].astype(float)
        p = np.where(open_to, np.exp(logits - logits[open_to].max()), 0.0)
        p /= p.sum()
        best = [f"{names[i]} {100 * p[i]:.0f} %" for i in np.argsort(-p, kind="stable")[:4] if p[i] > 0]
        lines.append(f"Advice (confidence {rows.confidence[row]:.2f}): {', '.join(best)}.")
    else:
        lines.append("Advice: no choice.")
    for plan, length, score in zip(rows.plans[row], rows.plan_lengths[row], rows.plan_scores[row], strict=True):
        if length:
            lines.append(f"Plan ({score:.2f}): {', '.join(names[i] for i in plan[:length])}.")
    if rows.reason[row]:
        lines.append(f"Reason: {rows.reason[row]}")
    return "\n".join(lines)
