"""The result of one shard as plain JSON, so that a stopped round takes finished shards as they are."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from lore_datasets.errors import CorruptArtifact, shown
from pipeline.llm.base import Prompt, Response
from pipeline.llm.journal.journal import JournalStats
from pipeline.questions.check import Rejected
from pipeline.questions.parse import Advice, Plan
from pipeline.rounds.advise import questions_of
from pipeline.rounds.ask import ShardResult
from pipeline.rounds.round import Round
from pipeline.rounds.rows import Row

__all__ = ["from_json", "shard_key", "to_json"]


def shard_key(now: Round, shard: Sequence[int]) -> str:
    """SHA-256 (hex) of everything that a shard's result follows from: states, model, templates, schemas, parameters.

    The request hashes of the questions hold the last four; beside them stand the skills, which index the rows, and
    the settings of checking and asking again.
    """
    questions = now.journal.keys(now.llm, questions_of(now, shard))
    body = {
        "states": hashlib.sha256(now.packed[list(shard)].tobytes()).hexdigest(),
        "scheme": now.environment.key_scheme,
        "first": shard[0],
        "questions": questions,
        "skills": [skill.to_json() for skill in now.skills],
        "advise": asdict(now.config.advise),
        "retries": now.config.ask.retries,
    }
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def to_json(result: ShardResult) -> dict[str, Any]:
    """Rows, answers, rejects and counts of a shard; of prompts only what a dataset version keeps."""
    return {
        "rows": [
            {
                "index": int(row.index),
                "goals": list(row.goals),
                "goals_known": row.goals_known,
                "advice": None if row.advice is None else asdict(row.advice),
                "plans": [asdict(plan) for plan in row.plans],
            }
            for row in result.rows
        ],
        "answers": [[key, prompt.kind, prompt.user, vars(response)] for key, prompt, response in result.answers],
        "rejects": [[r.reason, r.where, r.text] for r in result.rejects],
        "counts": dict(result.counts),
    }


def from_json(body: dict[str, Any]) -> ShardResult:
    """Inverse of :func:`to_json`; its answers count as served. CorruptArtifact when it does not read."""
    try:
        answers = [
            (key, Prompt(kind, "", user), Response(**{**r, "probabilities": _tuple(r["probabilities"])}))
            for key, kind, user, r in body["answers"]
        ]
        return ShardResult(
            rows=[_row(each) for each in body["rows"]],
            answers=answers,
            rejects=[Rejected(*each) for each in body["rejects"]],
            counts=Counter(body["counts"]),
            stats=JournalStats(served=len(answers)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptArtifact(f"a stored shard does not read: {shown(error)}") from None


def _row(body: dict[str, Any]) -> Row:
    row = Row(body["index"], body["goals"], body["goals_known"])
    row.plans = [_plan(plan) for plan in body["plans"]]
    if body["advice"] is not None:
        fields = dict(body["advice"])
        fields["choices"] = tuple((name, float(p)) for name, p in fields["choices"])
        fields["plans"] = tuple(_plan(plan) for plan in fields["plans"])
        row.advice = Advice(**{**fields, "skills": tuple(fields["skills"])})
    return row


def _plan(body: dict[str, Any]) -> Plan:
    return Plan(tuple((name, int(times)) for name, times in body["steps"]), float(body["score"]))


def _tuple(values: list[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(values)
