"""Shards of checked answers as the next version of an advice dataset, with counts, rates, cost and provenance."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from lore_datasets.errors import BadInput
from lore_datasets.store.advisers import AdvisedRound, record
from lore_datasets.store.store import Store
from lore_datasets.types import ArtifactRef
from pipeline.config import to_dict
from pipeline.llm.base import KINDS, Prompt, Response
from pipeline.llm.journal.budget import JournalStats
from pipeline.questions.prompts import load_template
from pipeline.rounds.ask import ShardResult, storable
from pipeline.rounds.mixing import advised_rounds
from pipeline.rounds.round import Round
from pipeline.rounds.rows import row_arrays

__all__ = ["commit_round", "edits", "program_revisions", "steps_played"]


def program_revisions(store: Store, name: str) -> list[dict[str, Any]]:
    """What came of each question for a better program, oldest first, as the dataset's current version tells it."""
    newest = store.newest_manifest(name)
    return list(newest.provenance.get("program_revisions", [])) if newest else []


def edits(store: Store, name: str) -> list[dict[str, Any]]:
    """The changes of single skills and programs by persons, oldest first, as the dataset's current version tells it."""
    newest = store.newest_manifest(name)
    return list(newest.provenance.get("edits", [])) if newest else []


def steps_played(store: Store, name: str) -> int:
    """Environment steps that trials of programs took for the dataset's current version and those before it."""
    newest = store.newest_manifest(name)
    return int(newest.cost.get("environment_steps_total", 0)) if newest else 0


def commit_round(
    now: Round,
    results: Sequence[ShardResult],
    store: Store,
    name: str,
    *,
    parents: Sequence[ArtifactRef | str] = (),
    provenance: Mapping[str, Any] | None = None,
    message: str = "",
) -> ArtifactRef:
    """Write all shards as the next version of ``name``; the order of the shards is the order of the rows."""
    results = [now.first, *results]
    rows = [row for result in results for row in result.rows]
    answers = [answer for result in results for answer in result.answers]
    if not rows and not now.programs and not now.verdict and not now.edit:
        rejects = [reject for result in results for reject in result.rejects]
        why = f"refused: {dict(Counter(r.reason for r in rejects))}"
        why += f", the first: {rejects[0].text}" if rejects else ""
        raise BadInput(f"no usable advice in {len(answers)} answers", kept="the journal", hint=why)
    models = sorted({response.model for _, _, response in answers if response.error is None})
    if len(models) > 1 and not now.config.ask.allow_mixed_models:
        raise BadInput(
            f"answers of {len(models)} models in one version: {', '.join(models)}",
            kept="every answer, in the journal",
            hint="allow it with ask.allow_mixed_models, or ask one model version alone",
        )
    counts, before = _counts(results), advised_rounds(store, name)
    cost = _cost(now, results, len(rows), sum(each.price_usd for each in before))
    if spent := steps_played(store, name) + int((provenance or {}).get("environment_steps", 0)):
        cost["environment_steps_total"] = spent
    mine = AdvisedRound(now.llm.name, tuple(models), len(rows), cost["price_usd"])
    actions, skills = now.environment.vocab.actions, [skill.name for skill in now.skills]
    about = {**_provenance(now, models), **(provenance or {}), "round_counts": counts}
    about["rounds"] = record([*before, mine])
    if revised := [*program_revisions(store, name), *([now.verdict] if now.verdict else [])]:
        about["program_revisions"] = revised
    if made := [*edits(store, name), *([now.edit] if now.edit else [])]:
        about["edits"] = made
    config = to_dict(now.config)
    writer = store.writer(
        name, "advice", environment=now.environment, parents=parents, skills=now.skills, config=config, provenance=about
    )
    writer.append("rows", **row_arrays(rows, now.packed, actions, skills, now.config.advise))
    if now.programs:
        texts, origins = [program.text for program, _ in now.programs], [origin for _, origin in now.programs]
        writer.append("programs", json=texts, origin=origins)
    places = {now.packed[row.index].tobytes(): i for i, row in enumerate(rows)}
    linked = [places.get(prompt.state, -1) for _, prompt, _ in answers]
    writer.append("answers", row=linked, **_answer_arrays(answers))
    rejects = [r for result in results for r in result.rejects]
    if rejects:
        columns = {key: [storable(getattr(r, key)) for r in rejects] for key in ("reason", "where", "text")}
        writer.append("rejects", **columns)
    if now.new_skills:
        names, texts = [s.name for s, _ in now.new_skills], [s.to_json() for s, _ in now.new_skills]
        writer.append("skills", name=names, json=texts, origin=[origin for _, origin in now.new_skills])
    writer.count(**counts)
    writer.spent(**cost)
    return writer.commit(message or _said(now, len(rows)))


def _said(now: Round, rows: int) -> str:
    """The message of a version that was given none."""
    if rows:
        return f"{rows} states advised by {now.llm.name}"
    return f"{'a' if now.programs else 'no better'} program by {now.llm.name}"


def _answer_arrays(answers: Sequence[tuple[str, Prompt, Response]]) -> dict[str, Any]:
    responses = [response for _, _, response in answers]
    return {
        "kind": [prompt.kind for _, prompt, _ in answers],
        "prompt_hash": [key for key, _, _ in answers],
        "prompt": [prompt.user for _, prompt, _ in answers],
        "response": [storable(r.text) for r in responses],
        "model": [storable(r.model) for r in responses],
        "tokens_in": np.array([r.tokens_in for r in responses], np.int32),
        "tokens_out": np.array([r.tokens_out for r in responses], np.int32),
        "latency_s": np.array([r.latency_s for r in responses], np.float32),
        "price_usd": np.array([r.price_usd for r in responses], np.float32),
    }


def _counts(results: Sequence[ShardResult]) -> dict[str, Any]:
    """Nested counts, rejects by reason, and the rates of malformed and infeasible before and after checking."""
    flat: Counter[str] = sum((result.counts for result in results), Counter())
    nested: dict[str, Any] = {"rejected": dict(sorted(Counter(r.reason for s in results for r in s.rejects).items()))}
    for key, value in sorted(flat.items()):
        group, _, leaf = key.partition(".")
        if leaf:
            nested.setdefault(group, {})[leaf] = value
        else:
            nested[group] = value
    questions = max(sum(nested.get("questions", {}).values()), 1)
    named, plans = max(flat["choices.named"], 1), max(flat["plans.offered"], 1)
    nested["rates"] = {
        "malformed": round(sum(sum(nested.get(kind, {}).values()) for kind in ("malformed", "cut")) / questions, 6),
        "infeasible_before": round(flat["choices.infeasible"] / named, 6),
        "infeasible_after": 0.0,
        "plans_refused": round(1 - flat["plans.kept"] / plans if flat["plans.offered"] else 0.0, 6),
        "no_advice": round(flat["no_advice"] / max(flat["states"], 1), 6),
    }
    return nested


def _cost(now: Round, results: Sequence[ShardResult], rows: int, before: float) -> dict[str, float]:
    """What the answers of this version cost (whenever they were asked), per row, with all versions before it, how many
    were asked in this run, and what the journal had paid before and after it.
    """
    stats = JournalStats()
    for result in results:
        stats.add(result.stats)
    responses = [response for result in results for _, _, response in result.answers]
    dollars = float(sum(r.price_usd for r in responses))
    return {
        "requests": len(responses),
        "asked_now": stats.asked,
        "from_journal": stats.served,
        "tokens_in": sum(r.tokens_in for r in responses),
        "tokens_out": sum(r.tokens_out for r in responses),
        "price_usd": dollars,
        "price_usd_per_row": dollars / max(rows, 1),
        "price_usd_total": before + dollars,
        "journal_usd_before": now.budget.paid_before,
        "journal_usd_after": now.journal.paid(),
        "latency_s": round(float(sum(r.latency_s for r in responses)), 6),
        "seconds": round(time.monotonic() - now.started, 6),
    }


def _provenance(now: Round, models: Sequence[str]) -> dict[str, Any]:
    templates, systems = {}, {}
    known = now.llm.capabilities
    files = {kind: kind for kind in KINDS if kind in now.kinds}
    files |= {"program": "revise_program"} if now.revision is not None else {}
    files = {now.edit["kind"]: now.edit["template"]} if now.edit else files
    short = {"prior": "prior_letter", "program": "program_short"} if known.letters else {}
    files |= {kind: file for kind, file in short.items() if files.get(kind) == kind}
    for kind, file in files.items():
        template = load_template(now.environment, file)
        templates[kind] = {"name": template.name, "version": template.version, "sha256": template.sha256}
        systems[kind] = now.renderer.system(template)
    return {
        "adviser": now.llm.name,
        "models": list(models),
        "parameters": dict(known.parameters),
        **({"model": dict(known.about)} if known.about else {}),
        "templates": templates,
        "system_prompts": systems,
        **({"program_drafts": now.drafts} if now.drafts else {}),
        **({"program_findings": now.findings} if now.findings else {}),
        **({"skill_trials": _trials(now)} if now.trials else {}),
        **({"revisions": dict(sorted(now.revised.items()))} if now.revised else {}),
    }


def _trials(now: Round) -> dict[str, dict[str, Any]]:
    """Success rate and steps of each new skill that was tried out."""
    return {name: {**asdict(trial), "success_rate": round(trial.success_rate, 4)} for name, trial in now.trials.items()}
