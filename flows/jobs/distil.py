"""Distilling: the advice model of a version, where look-up would ask one. No Prefect in here.

Heavy imports stand inside the functions, so that a server's worker imports this file quickly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.config import AdviceJob
from flows.jobs.advise import advise_states
from flows.terminal import current

if TYPE_CHECKING:
    from lore_datasets.types import ArtifactRef

__all__ = ["advise_and_distil", "coverage", "distil_model", "needs_model"]


def advise_and_distil(job: AdviceJob) -> dict[str, ArtifactRef]:
    """:func:`advise_states`, then the advice model where look-up would ask one: ``advice`` and, if there is one,
    ``model``."""
    ref = advise_states(job)
    if job.rows_only or not needs_model(ref):
        return {"advice": ref}
    return {"advice": ref, "model": distil_model(ref, seed=job.advise.seed)}


def needs_model(ref: ArtifactRef | str) -> bool:
    """Whether look-up would ask an advice model of this version: not where a program speaks in every state."""
    from lore_datasets.exchange.shipped import ShippedStore

    return not ShippedStore().manifest(ref).counts.get("programs")


def distil_model(ref: ArtifactRef, epochs: int = 30, seed: int = 0) -> ArtifactRef:
    """Train the advice model of a version and commit it as its child; one that can be used is taken as it is."""
    from lore.advice.distil import distil
    from lore.advice.model import is_current
    from lore_datasets.environments import get_environment
    from lore_datasets.exchange.shipped import ShippedStore
    from lore_datasets.store.lineage import newest_model

    store = ShippedStore()
    before = newest_model(store, ref)
    if before is not None and is_current(before.arrays, get_environment(before.manifest.environment)):
        current().say(f"  {ref} has its advice model {before.ref} already")
        return before.ref
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the same weights, hence the same digest, on machines with other core counts
    try:
        with current().bar("distil"):
            return distil(ref, store, epochs=epochs, seed=seed)
    finally:
        torch.set_num_threads(threads)


def coverage(ref: ArtifactRef) -> dict[str, float]:
    """Held-out figures of a version's advice model: agreement of the model, coverage and agreement of goal keys."""
    from lore_datasets.exchange.shipped import ShippedStore
    from lore_datasets.store.lineage import newest_model

    found = newest_model(ShippedStore(), ref, verify=False)
    about = found.manifest.provenance if found is not None else {}
    return {k: float(v) for k, v in about.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
