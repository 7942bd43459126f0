"""Skills and programs into a stored dataset without a question: today's library, or what a person wrote; rows stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lore_datasets.advice import AdviceData, advice_from
from lore_datasets.language.programs import Program
from lore_datasets.language.skills import Skill
from lore_datasets.store.store import Store
from lore_datasets.types import ArtifactRef

__all__ = ["Updated", "commit_written", "update_skills"]


@dataclass(frozen=True)
class Updated:
    """The version with today's skills; names of those that replaced stored ones, and of those that are new."""

    ref: ArtifactRef
    replaced: tuple[str, ...]
    added: tuple[str, ...]


def update_skills(store: Store, name: str) -> Updated:
    """Commit the next version of ``name`` with the skills of its environment's library.

    Those of the library take the place of the stored ones under their names, new ones come last, skills that the
    library lacks stay: every name keeps its place in the extended action space. Stored rows know nothing of the new
    ones. Where nothing differs the current version is returned. BadInput when ``name`` is no advice dataset.
    """
    data = advice_from(store.open(name))
    library = {skill.name: skill for skill in data.environment.skills}
    stored = {skill.name: skill for skill in data.skills}
    replaced = tuple(name for name, skill in stored.items() if library.get(name, skill) != skill)
    added = tuple(name for name in library if name not in stored)
    if not replaced and not added:
        return Updated(data.ref, (), ())
    about = {"library": {"of": str(data.ref), "replaced": replaced, "added": added}}
    fresh = [library[name] for name in (*replaced, *added)]
    message = f"skills of the library: {len(replaced)} replaced, {len(added)} added"
    return Updated(commit_written(store, data, fresh, about=about, origin="library", message=message), replaced, added)


def commit_written(
    store: Store, data: AdviceData, skills: Sequence[Skill] = (), program: Program | None = None, *,
    about: Mapping[str, Any], origin: str, message: str, steps: int = 0,
) -> ArtifactRef:  # fmt: skip
    """Commit the version after ``data`` with these skills and this program; nobody was asked for them, rows stay.

    A skill takes the place of the stored one of its name, or comes last. ``about`` is added to the provenance of
    ``data``, ``origin`` is noted beside each text, ``steps`` are environment steps that trials took.
    """
    before, stored = data.manifest, [skill.name for skill in data.skills]
    kept = {key: value for key, value in before.provenance.items() if key != "round_counts"}
    names = [*stored, *(skill.name for skill in skills if skill.name not in stored)]
    writer = store.writer(
        data.ref.name, "advice", environment=data.environment, skills=names, config=before.config,
        provenance=kept | dict(about),
    )  # fmt: skip
    if skills:
        texts = [skill.to_json() for skill in skills]
        writer.append("skills", name=[skill.name for skill in skills], json=texts, origin=[origin] * len(texts))
    if program is not None:
        writer.append("programs", json=[program.text], origin=[origin])
    totals = {key: value for key, value in before.cost.items() if key.endswith("_total")}
    if steps:
        totals["environment_steps_total"] = totals.get("environment_steps_total", 0) + steps
    writer.spent(price_usd=0.0, **totals)
    return writer.commit(message)
