"""What every stored array says of itself: shape, unit, meaning, and the words that its numbers stand for.

Written beside the arrays into Zarr and HDF5, so that a state is read without LoRe; outside the digest of a version,
because the manifest implies all of it.
"""

from __future__ import annotations

import math
from typing import Any

from lore_datasets.schema import KINDS, dimension_names, round_name, split_path
from lore_datasets.types import Manifest

__all__ = ["array_attributes", "byte_names", "options", "version_attributes"]

_MOST_BYTES = 2048
"""Packed states longer than this do not name their bytes one by one: HDF5 holds 64 KiB per attribute."""


def version_attributes(manifest: Manifest) -> dict[str, Any]:
    """What the root of a file says: which version this is, of which game, and its options by name."""
    return {
        "dataset": f"{manifest.name}@v{manifest.version}",
        "kind": manifest.kind,
        "environment": manifest.environment,
        "actions": list(manifest.actions),
        "skills": list(manifest.skills),
    }


def array_attributes(manifest: Manifest, path: str) -> dict[str, Any]:
    """``shape`` (axes by name with their lengths), ``unit``, ``meaning``, and lists of words by what they are for.

    ``state``: ``bytes`` names each byte, ``view_values`` and ``facing_values`` what their numbers stand for;
    ``logits``, ``mask`` and ``plans``: ``options``; ``applicable``: ``skills``; ``source``: ``values``.
    """
    index, group, name = split_path(manifest.kind, path)
    shape = manifest.arrays[path].shape
    axes = zip(dimension_names(manifest.kind, path, len(shape)), shape, strict=True)
    told = {"shape": ", ".join(f"{axis} {size}" for axis, size in axes) or "one number"}
    field = KINDS[manifest.kind][group].get(name)
    if field is None:
        return told | {"unit": "none", "meaning": f"{group} of the advice model"}
    told |= {"unit": field.unit or "none", "meaning": field.meaning}
    return told | (_words(manifest, index, name) if group == "rows" else {})


def _words(manifest: Manifest, index: int, name: str) -> dict[str, list[str]]:
    if name == "state":
        return _state_words(manifest)
    if name == "source":
        return {"values": list(map(str, manifest.provenance.get("sources", [])))}
    if name == "scalars":
        return {"names": list(manifest.vocabulary.get("scalars", []))}
    if name not in ("logits", "mask", "plans", "applicable"):
        return {}
    count = manifest.arrays[f"{round_name(index)}/applicable"].shape[1]
    return {"skills": list(manifest.skills[:count])} if name == "applicable" else {"options": options(manifest, count)}


def options(manifest: Manifest, skills: int) -> list[str]:
    """Names of the actions and the first ``skills`` skills, each once: ``NAME (skill)`` where an action has it too."""
    both = set(manifest.actions)
    return [*manifest.actions, *(f"{name} (skill)" if name in both else name for name in manifest.skills[:skills])]


def _state_words(manifest: Manifest) -> dict[str, list[str]]:
    """The words of a packed state; none where the environment is not known here."""
    fields = manifest.layout.get("fields", [])
    words = {
        f"{field['name']}_values": [str(w if isinstance(w, str) else w[0]) for w in _list(manifest, field["values"])]
        for field in fields if "values" in field
    }  # fmt: skip
    return ({"bytes": byte_names(manifest)} if 0 < manifest.layout.get("size", 0) <= _MOST_BYTES else {}) | words


def byte_names(manifest: Manifest) -> list[str]:
    """A name for each byte of a packed state: ``view[0,0]``, ..., ``inventory.wood``, ..., ``facing``, ..."""
    names: list[str] = []
    for field in manifest.layout.get("fields", []):
        title, shape = field["name"], field["shape"]
        if "names" in field:
            names += [f"{title}.{word}" for word in _list(manifest, field["names"])]
        elif math.prod(shape) == 1:
            names.append(title)
        else:
            names += [f"{title}[{i // shape[-1]},{i % shape[-1]}]" for i in range(math.prod(shape))]
    return names


def _list(manifest: Manifest, group: str) -> list[Any]:
    return list(manifest.vocabulary.get(group, []))
