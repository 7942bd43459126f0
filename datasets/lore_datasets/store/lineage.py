"""Where a version came from (its parents, their parents, and so on), and what was made of it: its advice model, its
play without learning."""

from __future__ import annotations

from lore_datasets.errors import NotFound
from lore_datasets.store.manifest import Artifact
from lore_datasets.store.store import Store
from lore_datasets.types import ArtifactRef, Manifest

__all__ = ["lineage", "mermaid", "model_name", "newest_model", "newest_play", "play_name"]

Line = tuple[str, Manifest | None, int]
"""(reference text, manifest or None when the store does not hold it, generations back)."""


def lineage(store: Store, ref: ArtifactRef | str) -> list[Line]:
    """The version and its ancestors, nearest first, each once; ancestors that the store lacks have no manifest."""
    start = store.resolve(ref)
    lines: list[Line] = []
    seen: set[str] = set()
    waiting: list[tuple[str, int]] = [(str(start), 0)]
    while waiting:
        text, depth = waiting.pop(0)
        if text in seen:
            continue
        seen.add(text)
        try:
            manifest = store.manifest(text)
        except NotFound:
            manifest = None
        lines.append((text, manifest, depth))
        waiting += [(parent, depth + 1) for parent in (manifest.parents if manifest else ())]
    return lines


def mermaid(lines: list[Line]) -> str:
    """A Mermaid flow chart of :func:`lineage`, parents above children; names are slugs, so nothing needs escaping."""
    ids = {text: f"n{i}" for i, (text, _, _) in enumerate(lines)}
    out = ["flowchart TD"]
    for text, manifest, _ in lines:
        about = f"{manifest.kind}, {manifest.counts.get('rows', '-')} rows" if manifest else "not in this store"
        out.append(f'    {ids[text]}["{text.replace("#", "#35;")}<br/>{about}"]')
    for text, manifest, _ in lines:
        out += [
            f"    {ids[parent]} --> {ids[text]}" for parent in (manifest.parents if manifest else ()) if parent in ids
        ]
    return "\n".join(out)


def model_name(name: str) -> str:
    """Dataset that holds the advice models of dataset ``name``."""
    return f"{name}-model"


def newest_model(store: Store, ref: ArtifactRef, verify: bool = True) -> Artifact | None:
    """The newest ``advice_model`` whose parent is ``ref`` (same digest), or None."""
    return _newest_child(store, ref, model_name(ref.name), "advice_model", verify)


def play_name(name: str) -> str:
    """Dataset that holds what the versions of dataset ``name`` were worth when they were played without learning."""
    return f"{name}-play"


def newest_play(store: Store, ref: ArtifactRef, verify: bool = True) -> Artifact | None:
    """The newest ``play`` whose parent is ``ref`` (same digest), or None; ``provenance["report"]`` has its figures."""
    return _newest_child(store, ref, play_name(ref.name), "play", verify)


def _newest_child(store: Store, ref: ArtifactRef, name: str, kind: str, verify: bool) -> Artifact | None:
    """From the child dataset's current version backwards; CorruptArtifact when that one is damaged, never an older."""
    if name not in store.names():
        return None
    try:
        current = store.current(name).version
    except NotFound:  # its first version is being made
        return None
    for version in reversed([number for number in store.versions(name) if number <= current]):
        manifest = store.manifest(f"{name}@v{version}")
        digests = [ArtifactRef.parse(parent)[2] or "-" for parent in manifest.parents]
        if manifest.kind == kind and any(ref.digest.startswith(d) for d in digests):
            return store.open(f"{name}@v{version}", verify=verify)
    return None
