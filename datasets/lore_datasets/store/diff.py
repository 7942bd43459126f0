"""What changed between two versions: manifest fields, array shapes, and rows by their key."""

from __future__ import annotations

from typing import Any

import numpy as np

from lore_datasets.environments import get_environment
from lore_datasets.language.programs import Program, diff_programs, parse_program
from lore_datasets.schema import split_path
from lore_datasets.store.manifest import Artifact, canonical_json, to_dict

__all__ = ["diff_artifacts"]

_SKIP = {"arrays", "counts", "created", "message", "version"}


def diff_artifacts(a: Artifact, b: Artifact) -> dict[str, Any]:
    """Plain JSON: ``manifest`` and ``counts`` (field -> [a, b]), ``arrays`` (added, removed, changed shape), ``rows``,
    ``skills`` (names added, removed, replaced by another form), ``program`` (rule by rule, as
    :func:`lore_datasets.language.programs.diff_programs` tells it).

    ``rows`` (datasets of states and advice): how many states were added, removed, changed (same state, other advice)
    and are the same; a state that stands in several rounds counts once, its newest row speaks.
    """
    left, right = to_dict(a.manifest), to_dict(b.manifest)
    arrays = {
        "added": sorted(set(b.arrays) - set(a.arrays)),
        "removed": sorted(set(a.arrays) - set(b.arrays)),
        "reshaped": {
            path: [list(a.arrays[path].shape), list(b.arrays[path].shape)]
            for path in sorted(set(a.arrays) & set(b.arrays))
            if a.arrays[path].shape != b.arrays[path].shape
        },
        "changed": sorted(
            path for path in set(a.arrays) & set(b.arrays) if a.manifest.arrays[path] != b.manifest.arrays[path]
        ),
    }
    return {
        "a": str(a.ref),
        "b": str(b.ref),
        "equal": a.ref.digest == b.ref.digest,
        "manifest": {k: [left[k], right[k]] for k in left if k not in _SKIP and left[k] != right[k]},
        "counts": {
            k: [left["counts"].get(k), right["counts"].get(k)]
            for k in sorted({*left["counts"], *right["counts"]})
            if left["counts"].get(k) != right["counts"].get(k)
        },
        "arrays": arrays,
        "rows": _row_changes(_rows(a), _rows(b)),
        "skills": _skill_changes(a, b),
        "program": _rule_changes(a, b),
    }


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


def _row_changes(before: dict[bytes, str], after: dict[bytes, str]) -> dict[str, int]:
    shared = before.keys() & after.keys()
    changed = sum(before[key] != after[key] for key in shared)
    return {
        "added": len(after.keys() - shared),
        "removed": len(before.keys() - shared),
        "changed": changed,
        "same": len(shared) - changed,
    }


def _rows(artifact: Artifact) -> dict[bytes, str]:
    """Packed state -> what its newest row says, comparable between versions with more or fewer skills."""
    kind = artifact.manifest.kind
    rounds: dict[int, dict[str, np.ndarray]] = {}
    for path, array in artifact.arrays.items():
        index, group, name = split_path(kind, path)
        if group == "rows":
            rounds.setdefault(index, {})[name] = array
    out: dict[bytes, str] = {}
    for _, columns in sorted(rounds.items()):
        said = _said(columns)
        out.update(zip((state.tobytes() for state in columns["state"]), said, strict=True))
    return out


def _said(columns: dict[str, np.ndarray]) -> list[str]:
    if "logits" not in columns:
        return [""] * len(columns["state"])
    rows = []
    for i in range(len(columns["state"])):
        known = np.flatnonzero(columns["mask"][i])
        plans = [p[p >= 0].tolist() for p in columns["plans"][i]]
        body = [
            known.tolist(),
            columns["logits"][i][known].tolist(),
            float(columns["confidence"][i]),
            plans,
            columns["plan_scores"][i].tolist(),
        ]
        rows.append(canonical_json(body))
    return rows
