"""Make the next version of a dataset: collect arrays in memory, check them, commit them at once under the lock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Required, TypedDict, Unpack

import numpy as np

from lore_datasets.environments import Environment, get_environment
from lore_datasets.errors import BadInput, shown
from lore_datasets.language.skills import Skill
from lore_datasets.schema import FREE_DTYPES, KINDS, SCHEMA, array_path, check_group, check_links, fill_keys, split_path
from lore_datasets.store.commit import LIBRARY, check_programs, check_skills, commit_version
from lore_datasets.store.manifest import canonical_json
from lore_datasets.store.repository import Root, check_name, repository_path
from lore_datasets.types import ArtifactRef, Manifest

__all__ = ["Draft", "Writer"]


class Draft(TypedDict, total=False):
    """What a new version says of itself.

    Attributes:
        environment: the environment or its name (needed).
        parents: references of the versions that it was made from; the dataset's own last version is added.
        skills: names, or skills with their text, in the order of the extended action space.
        config, provenance: plain JSON: the settings, and who advised how.
    """

    environment: Required[Environment | str]
    parents: Sequence[ArtifactRef | str]
    skills: Sequence[str | Skill]
    config: Mapping[str, Any] | None
    provenance: Mapping[str, Any] | None


class Writer:
    """Collects the arrays of one new version; nothing reaches the disk before :meth:`commit`.

    In a dataset of kind ``advice`` the version keeps all rounds of the version before it and adds one; ``states``,
    ``advice_model`` and ``play`` versions stand alone. Made by :meth:`lore_datasets.store.store.Store.writer`.
    """

    def __init__(self, root: Root, name: str, kind: str, *, wait: float, **draft: Unpack[Draft]) -> None:
        check_name(name)
        if isinstance(root, Path):
            repository_path(root, name)
        if kind not in KINDS:
            raise BadInput(f"unknown kind {shown(kind)!r}", hint=f"one of: {', '.join(KINDS)}")
        given = draft["environment"]
        self.environment = get_environment(given) if isinstance(given, str) else given
        skills = draft.get("skills", ())
        self._root, self._wait = root, wait
        self._groups: dict[str, dict[str, list[np.ndarray]]] = {}
        self._known = {s.name: s for s in (*self.environment.skills, *(s for s in skills if isinstance(s, Skill)))}
        self._base = Manifest(
            schema=SCHEMA,
            kind=kind,
            name=name,
            version=1,
            parents=tuple(str(p) for p in draft.get("parents", ())),
            environment=self.environment.name,
            key_scheme=self.environment.key_scheme,
            actions=self.environment.vocab.actions if kind != "states" else (),
            skills=tuple(s.name if isinstance(s, Skill) else s for s in skills),
            config=_plain(draft.get("config") or {}),
            provenance=_plain(draft.get("provenance") or {}),
        )
        for parent in self._base.parents:
            ArtifactRef.parse(parent)
        if len(set(self._base.skills)) != len(self._base.skills):
            raise BadInput("a skill name stands twice", hint="names index the extended action space; keep them unique")
        self._counts: dict[str, Any] = {}
        self._cost: dict[str, Any] = {}
        self._done = False

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._groups.clear()

    def append(self, group: str, **arrays: Any) -> None:
        """Add rows to a group (``rows``, ``answers``, ``rejects``, ``skills``, ``programs``; ``model``, ...).

        Repeated calls are concatenated along the first axis. BadInput on an unknown name, another dtype, a value that
        does not fit, or arrays of different length. ``key_fine`` and ``key_goal`` may be left out.
        """
        try:
            self._append(group, arrays)
        except (ValueError, TypeError, IndexError, OverflowError) as error:
            raise BadInput(f"group {shown(group)}: {shown(error, 160)}", hint="see lore_datasets.schema") from None

    def _append(self, group: str, arrays: Mapping[str, Any]) -> None:
        kind = self._base.kind
        if group not in KINDS[kind]:
            raise BadInput(f"unknown group {shown(group)!r}", hint=f"{kind} has: {', '.join(KINDS[kind])}")
        fields = KINDS[kind][group]
        checked: dict[str, np.ndarray] = {}
        for name, values in arrays.items():
            if not fields:
                checked[name] = _free_array(f"{group}/{name}", values)
                split_path(kind, array_path(kind, 0, group, name))
            elif name not in fields:
                raise BadInput(f"unknown array {group}/{shown(name)}", hint=f"{group} has: {', '.join(fields)}")
            else:
                checked[name] = _typed_array(f"{group}/{name}", values, fields[name].dtype, len(fields[name].axes))
        if fields:
            if kind == "advice" and group == "rows" and "state" in checked:
                fill_keys(checked, self.environment)
            missing = [name for name, field in fields.items() if not field.optional and name not in checked]
            if missing:
                raise BadInput(f"group {group} lacks {', '.join(missing)}")
            if len({len(a) for a in checked.values()}) > 1:
                raise BadInput(f"group {group}: lengths differ: { ({n: len(a) for n, a in checked.items()}) }")
        check_group(kind, group, checked, len(self._base.actions), len(self._base.skills))
        if group == "programs":
            check_programs(checked["json"].tolist(), self._base)
        chunks = self._groups.setdefault(group, {})
        if fields and chunks and chunks.keys() != checked.keys():
            raise BadInput(f"group {group}: {', '.join(sorted(chunks.keys() ^ checked.keys()))} is given now and then")
        for name, array in checked.items():
            earlier = chunks.setdefault(name, [])
            if earlier and not fields:
                raise BadInput(f"array {group}/{name} was given twice")
            if earlier and earlier[0].shape[1:] != array.shape[1:]:
                raise BadInput(
                    f"array {group}/{name} has rows of {list(array.shape[1:])}, before {list(earlier[0].shape[1:])}"
                )
            earlier.append(array)

    def count(self, **counts: Any) -> None:
        """Add to the manifest's counts; numbers are summed, objects merged. Rows per group count themselves."""
        _add(self._counts, _plain(counts))

    def spent(self, **cost: Any) -> None:
        """Add to the manifest's cost: requests, tokens, ``price_usd``, ``seconds``."""
        _add(self._cost, _plain(cost))

    def commit(self, message: str) -> ArtifactRef:
        """Write, seal and tag the next version; Busy, NoSpace or BadInput leave every earlier version as it was."""
        if self._done:
            raise BadInput("this writer has committed already", hint="take a new writer for the next version")
        self._supply_skills()
        if not self._groups:
            raise BadInput(f"nothing to commit to {self._base.name}", hint="append rows first")
        arrays = {
            (group, name): _join(chunks) for group, named in self._groups.items() for name, chunks in named.items()
        }
        check_links(arrays)
        draft = replace(self._base, message=str(message)[:1000], counts=self._counts, cost=self._cost)
        ref = commit_version(self._root, draft, arrays, wait=self._wait)
        self._done = True
        self._groups.clear()
        return ref

    def _supply_skills(self) -> None:
        """Write the JSON of named skills that nobody appended; check that all appended ones parse."""
        if self._base.kind != "advice":
            return
        given = self._groups.get("skills", {})
        names = [n for chunk in given.get("name", []) for n in chunk]
        texts = [t for chunk in given.get("json", []) for t in chunk]
        check_skills(names, texts, self._base)
        missing = [n for n in self._base.skills if n not in names and n in self._known]
        if missing:
            texts = [self._known[n].to_json() for n in missing]
            self.append("skills", name=missing, json=texts, origin=[LIBRARY] * len(missing))


def _join(chunks: list[np.ndarray]) -> np.ndarray:
    return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)


def _plain(value: Any) -> Any:
    """``value`` as plain JSON: tuples become lists, numpy scalars numbers."""

    def convert(item: Any) -> Any:
        if isinstance(item, Mapping):
            return {str(k): convert(v) for k, v in item.items()}
        if isinstance(item, (list, tuple)):
            return [convert(v) for v in item]
        return item.item() if isinstance(item, np.generic) else item

    plain = convert(value)
    canonical_json(plain)
    return plain


def _add(total: dict[str, Any], more: Mapping[str, Any]) -> None:
    for name, value in more.items():
        old = total.get(name)
        if isinstance(old, dict) and isinstance(value, dict):
            _add(old, value)
        elif isinstance(old, (int, float)) and isinstance(value, (int, float)) and not isinstance(old, bool):
            total[name] = old + value
        else:
            total[name] = value


def _free_array(name: str, values: Any) -> np.ndarray:
    array = np.array(values)
    if array.dtype.name not in FREE_DTYPES:
        raise BadInput(f"array {name} has dtype {array.dtype}", hint=f"one of: {', '.join(FREE_DTYPES)}")
    return array


def _typed_array(name: str, values: Any, dtype: str, rank: int) -> np.ndarray:
    """A private copy with the field's dtype; BadInput when a value would change or the rank is wrong."""
    if dtype == "str":
        texts = list(values)
        try:
            if not all(type(t) is str for t in texts) or "\0" in "".join(texts).encode().decode():
                raise BadInput(f"array {name} must hold texts without NUL")
        except UnicodeEncodeError:
            raise BadInput(f"array {name} holds text that is not valid Unicode") from None
        array = np.empty(len(texts), object)
        array[:] = texts
    else:
        given = np.asarray(values)
        wanted = np.dtype(dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            array = np.array(given, wanted) if given.dtype.kind in "biuf" else given
        same_kind = given.dtype.kind in ("biuf" if wanted.kind == "f" else "biu") or not given.size
        if not same_kind or (wanted.kind != "f" and given.size and not np.array_equal(array, given)):
            raise BadInput(f"array {name}: {given.dtype} values do not fit {dtype}")
    if array.ndim != rank:
        raise BadInput(f"array {name} has shape {list(array.shape)}, expected {rank} axes")
    return array
