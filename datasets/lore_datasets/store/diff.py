"""What changed between two versions: manifest fields, array shapes, and rows by their key."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lore_datasets.environments import get_environment
from lore_datasets.language.programs import Program, diff_programs, parse_program
from lore_datasets.schema import split_path
from lore_datasets.store.manifest import Artifact, to_dict
from lore_datasets.types import Manifest

__all__ = ["diff_versions"]

_SKIP = {"arrays", "counts", "created", "message", "version"}
_SAID = ("mask", "logits", "confidence", "plans", "plan_scores")
_CHUNK = 50_000


def diff_versions(read: Callable[[str, Callable[[str], bool]], Artifact], a: str, b: str) -> dict[str, Any]:
    """Plain JSON: ``manifest`` and ``counts`` (field -> [a, b]), ``arrays`` (added, removed, changed shape), ``rows``,
    ``skills`` (names added, removed, replaced by another form), ``program`` (rule by rule, as
    :func:`lore_datasets.language.programs.diff_programs` tells it).

    ``rows`` (datasets of states and advice): how many states were added, removed, changed (same state, other advice)
    and are the same; a state that stands in several rounds counts once, its newest row speaks. Rows are read one
    version after the other and kept as digests: 200 bytes a row and version.

    Args:
        read: (reference, which paths) -> manifest and those arrays. a, b: references of the older and newer version.
    """
    one, two = read(a, _is_text), read(b, _is_text)
    left, right = to_dict(one.manifest), to_dict(two.manifest)
    before, after = one.manifest.arrays, two.manifest.arrays
    shared = sorted(set(before) & set(after))
    width = max(_entries(one.manifest), _entries(two.manifest))
    return {
        "a": str(one.ref),
        "b": str(two.ref),
        "equal": one.ref.digest == two.ref.digest,
        "manifest": {k: [left[k], right[k]] for k in left if k not in _SKIP and left[k] != right[k]},
        "counts": {
            k: [left["counts"].get(k), right["counts"].get(k)]
            for k in sorted({*left["counts"], *right["counts"]})
            if left["counts"].get(k) != right["counts"].get(k)
        },
        "arrays": {
            "added": sorted(set(after) - set(before)),
            "removed": sorted(set(before) - set(after)),
            "reshaped": {
                path: [list(before[path].shape), list(after[path].shape)]
                for path in shared if before[path].shape != after[path].shape
            },
            "changed": [path for path in shared if before[path] != after[path]],
        },
        "rows": _row_changes(_rows(read(a, _is_said), width), _rows(read(b, _is_said), width)),
        "skills": _skill_changes(one, two),
        "program": _rule_changes(one, two),
    }  # fmt: skip


def _is_text(path: str) -> bool:
    """Whether an array holds skills or programs."""
    return "/skills/" in path or "/programs/" in path


def _is_said(path: str) -> bool:
    """Whether an array holds states or what is advised in them."""
    return path.count("/") == 1 and path.rpartition("/")[2] in ("state", *_SAID)


def _entries(manifest: Manifest) -> int:
    return len(manifest.actions) + len(manifest.skills)


def _skill_changes(a: Artifact, b: Artifact) -> dict[str, list[str]]:
    """Names of the skills that only one version has, and of those that both have in another form."""
    held = []
    for artifact in (a, b):
        texts: dict[str, str] = {}
        for path in sorted(path for path in artifact.arrays if path.endswith("/skills/name")):
            texts.update(zip(artifact.arrays[path], artifact.arrays[path.removesuffix("name") + "json"], strict=True))
        held.append({name: texts.get(name, "") for name in artifact.manifest.skills})
    before, after = held
    return {
        "added": [name for name in after if name not in before],
        "removed": [name for name in before if name not in after],
        "replaced": [name for name in after if after[name] != before.get(name, after[name])],
    }


def _rule_changes(a: Artifact, b: Artifact) -> list[str]:
    """How the program that speaks in ``a`` became the one of ``b``; a version without one has no rules."""
    programs = []
    for artifact in (a, b):
        paths = sorted(path for path in artifact.arrays if path.endswith("/programs/json"))
        texts = [text for path in paths for text in artifact.arrays[path]]
        manifest = artifact.manifest
        vocab = get_environment(manifest.environment).vocab
        programs.append(parse_program(texts[-1], vocab, manifest.skills) if texts else Program(()))
    return diff_programs(*programs)


def _row_changes(before: dict[bytes, bytes], after: dict[bytes, bytes]) -> dict[str, int]:
    shared = before.keys() & after.keys()
    changed = sum(before[key] != after[key] for key in shared)
    return {
        "added": len(after.keys() - shared),
        "removed": len(before.keys() - shared),
        "changed": changed,
        "same": len(shared) - changed,
    }


def _rows(artifact: Artifact, width: int) -> dict[bytes, bytes]:
    """Digest of a packed state -> digest of what its newest row says over ``width`` actions and skills."""
    kind = artifact.manifest.kind
    rounds: dict[int, dict[str, np.ndarray]] = {}
    for path, array in artifact.arrays.items():
        index, group, name = split_path(kind, path)
        if group == "rows":
            rounds.setdefault(index, {})[name] = array
    out: dict[bytes, bytes] = {}
    for _, columns in sorted(rounds.items()):
        for start in range(0, len(columns["state"]), _CHUNK):
            part = {name: array[start : start + _CHUNK] for name, array in columns.items()}
            out.update(zip(_digests([part["state"]]), _digests(_said(part, width)), strict=True))
    return out


def _said(columns: dict[str, np.ndarray], width: int) -> list[np.ndarray]:
    """Columns [N, ...] that are equal where two rows say the same, whatever their versions' numbers of skills."""
    if "logits" not in columns:
        return [np.zeros((len(columns["state"]), 1), np.uint8)]
    room = ((0, 0), (0, width - columns["mask"].shape[1]))
    known = np.pad(columns["mask"], room)
    logits = np.where(known, np.pad(columns["logits"], room), 0).astype(np.float32)
    return [known, logits, columns["confidence"], columns["plans"], columns["plan_scores"]]


def _digests(columns: list[np.ndarray]) -> Iterator[bytes]:
    """16 bytes for each row of some columns [N, ...]."""
    flat = [np.ascontiguousarray(c).reshape(len(c), -1).view(np.uint8) for c in columns]
    return (hashlib.blake2b(row, digest_size=16).digest() for row in np.concatenate(flat, 1))
