"""Today's skills for a stored dataset: its rows and programs stay, its next version plays with the library as it is."""

from __future__ import annotations

from dataclasses import dataclass

from lore_datasets.advice import advice_from
from lore_datasets.store.store import Store
from lore_datasets.types import ArtifactRef

__all__ = ["Updated", "update_skills"]


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
    before = data.manifest
    about = {key: value for key, value in before.provenance.items() if key != "round_counts"}
    writer = store.writer(
        name, "advice", environment=data.environment, skills=[*stored, *added], config=before.config,
        provenance=about | {"library": {"of": str(data.ref), "replaced": replaced, "added": added}},
    )  # fmt: skip
    fresh = [library[name] for name in (*replaced, *added)]
    writer.append(
        "skills", name=[skill.name for skill in fresh], json=[skill.to_json() for skill in fresh],
        origin=["library"] * len(fresh),
    )  # fmt: skip
    totals = {key: value for key, value in before.cost.items() if key.endswith("_total")}
    writer.spent(price_usd=0.0, **totals)
    ref = writer.commit(f"skills of the library: {len(replaced)} replaced, {len(added)} added")
    return Updated(ref, replaced, added)
