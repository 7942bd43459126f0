"""One question about each skill that fails too often in a training run: what would be a better one?

Only what is checked reaches the question: the skill as the dataset holds it (without its free text), figures, and names
from the vocabulary. Each skill is asked about once per dataset; the version says what became of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lore_datasets.errors import BadInput, ConfigError
from lore_datasets.exchange.revisions import Revision
from lore_datasets.language.skills import Skill
from lore_datasets.types import SymbolicState
from pipeline.llm.base import Prompt
from pipeline.questions.check import Rejected, TrialRun, check_skills
from pipeline.questions.describe import describe

if TYPE_CHECKING:
    from lore_datasets.language.geometry import StateView
    from pipeline.rounds.round import Round

__all__ = ["OUTCOMES", "add_revisions", "revision_prompts"]

OUTCOMES = ("done", "aborted", "exhausted", "timeout", "stuck", "interrupted", "hold_over", "episode_end")
"""Ways a use of a skill ends; other words in a request are left out."""
_SHOWN_ACTIONS = 60


def _due(now: Round) -> list[tuple[Revision, Skill]]:
    """The round's requests about skills that the dataset holds and has not been asked about, each once."""
    stored = {skill.name: skill for skill in now.skills}
    first = {r.skill: r for r in reversed(now.revisions) if r.skill in stored and r.skill not in now.revised}
    return [(revision, stored[name]) for name, revision in sorted(first.items())]


def revision_prompts(now: Round) -> list[Prompt]:
    """The questions about the requests that are due, by the names of the skills."""
    return [now.renderer.revision(skill.name, _told(now, revision, skill)) for revision, skill in _due(now)]


def _told(now: Round, revision: Revision, skill: Skill) -> str:
    """The failing skill and how it failed, in a few lines."""
    vocab = now.environment.vocab
    body = {key: value for key, value in json.loads(skill.to_json()).items() if key != "about"}
    ends = ", ".join(f"{name} {revision.outcomes[name]}" for name in OUTCOMES if revision.outcomes.get(name, 0) > 0)
    lines = [
        json.dumps(body),
        f"Of {revision.uses} uses {100 * min(1.0, max(0.0, revision.success_rate)):.0f} % succeeded, "
        f"{revision.steps_per_use:.1f} steps each. How they ended: {ends or 'unknown'}.",
    ]
    actions = [name for name in revision.actions if name in vocab.actions]
    if actions:
        cut = " and so on" if len(actions) > _SHOWN_ACTIONS else ""
        ended = f", then {revision.outcome}" if revision.outcome in OUTCOMES else ""
        lines.append(f"The last use that failed: {_runs(actions[:_SHOWN_ACTIONS])}{cut}{ended}.")
    state = _state(now, revision.state)
    if state:
        lines += ["It began in this state:", state]
    return "\n".join([*lines, f"A name for the better skill: {skill.name[:36]}_new."])


def _runs(actions: Sequence[str]) -> str:
    out: list[list] = []
    for name in actions:
        if out and out[-1][0] == name:
            out[-1][1] += 1
        else:
            out.append([name, 1])
    return ", ".join(name if times == 1 else f"{name} x{times}" for name, times in out)


def _state(now: Round, text: str) -> str:
    try:
        packed = np.frombuffer(bytes.fromhex(text), np.uint8)
        return describe(SymbolicState.unpack(packed, now.environment.layout), now.environment)
    except (BadInput, ValueError):
        return ""


def add_revisions(now: Round, sample: Sequence[StateView], trial: TrialRun | None) -> list[tuple[Skill, str]]:
    """Ask about each request that is due; (skill, origin) of the better ones that hold, also noted in ``now.revised``.

    ConfigError when requests are given and the configuration lets no new skill in.
    """
    wanted, result = _due(now), now.first
    if not wanted:
        return []
    if not now.config.advise.max_new_skills:
        raise ConfigError(
            "there are requests for better skills, but advise.max_new_skills = 0", hint="allow some, or drop them"
        )
    kept: list[tuple[Skill, str]] = []
    asked = now.ask(revision_prompts(now), result)
    for (revision, _), answer in zip(wanted, asked, strict=True):
        offered = [(body, answer.where) for body in answer.advice.skills[:1]] if answer.advice else []
        taken = [skill.name for skill in (*now.skills, *(skill for skill, _ in kept))]
        room = now.config.advise.max_new_skills - len(kept)
        found, rejected, trials = check_skills(offered, now.environment.vocab, taken, sample, room, trial)
        kept += found
        now.trials |= trials
        result.rejects += rejected
        if answer.advice is not None:  # a question that failed is asked again in the next round
            now.revised[revision.skill] = found[0][0].name if found else ""
            if not offered:
                result.rejects.append(Rejected("skill_not_revised", answer.where, revision.skill))
        result.counts["revisions.asked"] += 1
        result.counts["revisions.kept"] += len(found)
    return kept
