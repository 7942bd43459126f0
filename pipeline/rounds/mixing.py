"""A dataset has one adviser, unless it is said that it may have several."""

from __future__ import annotations

from lore_datasets.errors import BadInput, CorruptArtifact
from lore_datasets.store.advisers import AdvisedRound, advisers, rounds_of
from lore_datasets.store.store import Store
from lore_datasets.types import ArtifactRef

__all__ = ["advised_rounds", "refuse_mixed"]


def advised_rounds(store: Store, name: str) -> list[AdvisedRound]:
    """The rounds that the next version of ``name`` goes on from, oldest first; none where there is no version yet."""
    newest = store.newest_manifest(name)
    if newest is None:
        return []
    chain = [newest]
    while not isinstance(chain[-1].provenance.get("rounds"), list):
        own = [ref for ref in chain[-1].parents if ArtifactRef.parse(ref)[0] == name]
        if not own:
            break
        try:
            chain.append(store.manifest(own[0]))
        except CorruptArtifact:  # the version stands without it
            break
    found: list[AdvisedRound] = []
    for manifest in reversed(chain):
        found = rounds_of(manifest, found)
    return found


def refuse_mixed(store: Store, name: str, adviser: str, allowed: bool) -> None:
    """BadInput when ``name`` holds advice of others than ``adviser``, unless that is ``allowed``."""
    others = [each for each in advisers(advised_rounds(store, name)) if each != adviser]
    if others and not allowed:
        raise BadInput(
            f"{store.current(name)} is advised by {', '.join(others)}: advice of {adviser} would be mixed with it",
            kept="the dataset as it is",
            hint="give a new --dataset, or --ask.allow-mixed-advisers",
        )
