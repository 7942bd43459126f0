"""Make the next version of a dataset: collect arrays in memory, check them, commit them at once under the lock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lore_datasets.environments import Environment, get_environment
from lore_datasets.errors import BadInput, SchemeMismatch, shown
from lore_datasets.keys import check_scheme
from lore_datasets.manifest import array_spec, canonical_json, ref_of, sealed
from lore_datasets.reader import read_manifest
from lore_datasets.repository import check_space, guarded, locked, open_repository, repository_path, tagged_versions
from lore_datasets.schema import (
    FREE_DTYPES,
    KINDS,
    SCHEMA,
    array_path,
    check_group,
    check_layout,
    fill_keys,
    split_path,
)
from lore_datasets.skills import Skill, parse_skill
from lore_datasets.types import ArtifactRef, Manifest

if TYPE_CHECKING:
    from lore_datasets.store import Store

__all__ = ["Writer", "check_copy", "commit_version"]

_CHUNK_BYTES = 4 * 2**20
_TEXT_CHUNK = 8192


class Writer:
    """Collects the arrays of one new version; nothing reaches the disk before :meth:`commit`.

    In a dataset of kind ``advice`` the version keeps all rounds of the version before it and adds one; ``states`` and
    ``advice_model`` versions stand alone. Made by :meth:`lore_datasets.store.Store.writer`.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        kind: str,
        *,
        environment: Environment | str,
        parents: Sequence[ArtifactRef | str] = (),
        actions: Sequence[str] = (),
        skills: Sequence[str | Skill] = (),
        config: Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        repository_path(store.root, name)
        if kind not in KINDS:
            raise BadInput(f"unknown kind {shown(kind)!r}", hint=f"one of: {', '.join(KINDS)}")
        self.environment = get_environment(environment) if isinstance(environment, str) else environment
        self._store = store
        self._groups: dict[str, dict[str, list[np.ndarray]]] = {}
        self._known = {s.name: s for s in (*self.environment.skills, *(s for s in skills if isinstance(s, Skill)))}
        self._base = Manifest(
            schema=SCHEMA,
            kind=kind,
            name=name,
            version=1,
            parents=tuple(str(p) for p in parents),
            environment=self.environment.name,
            key_scheme=self.environment.key_scheme,
            actions=tuple(actions) or (self.environment.vocab.actions if kind != "states" else ()),
            skills=tuple(s.name if isinstance(s, Skill) else s for s in skills),
            config=_plain(config or {}),
            provenance=_plain(provenance or {}),
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
        """Add rows to a group (``rows``, ``answers``, ``rejects``, ``skills``; ``model``, ``calibration``).

        Repeated calls are concatenated along the first axis. BadInput on an unknown name, another dtype, a value that
        does not fit, or arrays of different length. ``key_fine`` and ``key_goal`` may be left out.
        """
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
            missing = [name for name in fields if name not in checked]
            if missing:
                raise BadInput(f"group {group} lacks {', '.join(missing)}")
            if len({len(a) for a in checked.values()}) > 1:
                raise BadInput(f"group {group}: lengths differ: { ({n: len(a) for n, a in checked.items()}) }")
        check_group(kind, group, checked, len(self._base.actions), len(self._base.skills))
        chunks = self._groups.setdefault(group, {})
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
        draft = replace(self._base, message=str(message)[:1000], counts=self._counts, cost=self._cost)
        ref = commit_version(self._store.root, draft, arrays, wait=self._store.wait)
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
        _check_skills(names, texts, self._base)
        missing = [n for n in self._base.skills if n not in names and n in self._known]
        if missing:
            texts = [self._known[n].to_json() for n in missing]
            self.append("skills", name=missing, json=texts, origin=["library"] * len(missing))


def _check_skills(names: Sequence[str], texts: Sequence[str], manifest: Manifest) -> None:
    vocab = get_environment(manifest.environment).vocab
    for name, text in zip(names, texts, strict=True):
        if parse_skill(text, vocab).name != name or name not in manifest.skills:
            raise BadInput(f"skill {shown(name)!r} is not among the version's skills, or its JSON has another name")


def check_copy(manifest: Manifest, arrays: Mapping[str, np.ndarray]) -> None:
    """Hold arrays from elsewhere to the rules of :meth:`Writer.append`; BadInput or SkillError."""
    environment = get_environment(manifest.environment)
    check_scheme(manifest.key_scheme, environment)
    groups: dict[tuple[int, str], dict[str, np.ndarray]] = {}
    for path, array in arrays.items():
        index, group, name = split_path(manifest.kind, path)
        groups.setdefault((index, group), {})[name] = array
    for (_, group), columns in groups.items():
        skills = columns["applicable"].shape[1] if "applicable" in columns else 0
        check_group(manifest.kind, group, columns, len(manifest.actions), skills)
        if group == "rows" and manifest.kind == "advice":
            fill_keys(columns, environment)
        elif group == "skills":
            _check_skills(columns["name"], columns["json"], manifest)


def commit_version(
    root: Path,
    draft: Manifest,
    arrays: Mapping[tuple[str, str], np.ndarray] | Mapping[str, np.ndarray],
    *,
    wait: float,
    version: int | None = None,
) -> ArtifactRef:
    """Write one version under the lock. Keys of ``arrays``: (group, name) for a new round, or whole paths for a copy.

    A copy (``version`` given) replaces the whole tree and takes that number when it is free, else the next one.
    """
    if version is not None:
        check_copy(draft, {str(path): array for path, array in arrays.items()})
    needed = sum(a.nbytes if a.dtype != object else 16 * a.size + sum(map(len, a.ravel())) for a in arrays.values())
    with locked(root, draft.name, wait):
        kept = f"every committed version of {draft.name}"
        check_space(root, needed, kept)
        repository = open_repository(root, draft.name, create=True)
        with guarded(f"writing {draft.name}", kept):
            existing = tagged_versions(repository, root, draft.name)
        last = read_manifest(repository, draft.name, existing[-1]) if existing else None
        if last and last.kind != draft.kind:
            raise BadInput(f"{draft.name} is a dataset of kind {last.kind}, not {draft.kind}", hint="take another name")
        copy = version is not None
        keep = last if draft.kind == "advice" and not copy else None
        paths, draft = _placed(arrays, draft, keep)
        free = (last.version if last else 0) + 1
        number = version if version is not None and version not in existing else free
        manifest = _finished(replace(draft, version=number), paths, keep)
        with guarded(f"writing {draft.name}@v{number}", kept):
            _write(repository, manifest, paths, base=last, clear=keep is None)
        return ref_of(manifest)


def _placed(arrays: Mapping, draft: Manifest, keep: Manifest | None) -> tuple[dict[str, np.ndarray], Manifest]:
    """Paths of the new arrays; with ``keep``, as the next round of that version, whose words must be a prefix."""
    if keep is None:
        index = 0
    else:
        check_scheme(keep.key_scheme, get_environment(draft.environment))
        if (keep.environment, keep.actions) != (draft.environment, draft.actions):
            raise SchemeMismatch(
                f"{keep.name} speaks of other actions or another environment", hint="take another name"
            )
        if draft.skills[: len(keep.skills)] != keep.skills:
            raise SchemeMismatch(
                f"the skills of {keep.name}@v{keep.version} are not the first of the new ones",
                hint="keep their order and append new skills at the end; somebody may have committed meanwhile",
            )
        index = 1 + max(split_path(keep.kind, path)[0] for path in keep.arrays)
        parent = str(ref_of(keep))
        draft = replace(draft, parents=tuple(dict.fromkeys((*draft.parents, parent))))
    if any(isinstance(key, str) for key in arrays):
        return dict(arrays), draft
    return {array_path(draft.kind, index, *key): array for key, array in arrays.items()}, draft


def _finished(draft: Manifest, paths: Mapping[str, np.ndarray], keep: Manifest | None) -> Manifest:
    """The manifest with specs, counts per group over all rounds, and the time; its layout is checked."""
    specs = {**(keep.arrays if keep else {}), **{path: array_spec(array) for path, array in paths.items()}}
    environment = get_environment(draft.environment)
    shapes = {path: (spec.shape, spec.dtype) for path, spec in specs.items()}
    check_layout(draft.kind, shapes, environment, len(draft.actions), len(draft.skills))
    totals: dict[str, int] = {}
    rounds: dict[tuple[int, str], int] = {}
    for path, spec in specs.items():
        index, group, _ = split_path(draft.kind, path)
        if draft.kind != "advice_model":
            rounds[index, group] = spec.shape[0]
    for (_, group), rows in rounds.items():
        totals[group] = totals.get(group, 0) + rows
    if rounds:
        totals["rounds"] = 1 + max(index for index, _ in rounds)
    if draft.skills:
        totals["skills"] = len(draft.skills)
    created = draft.created or datetime.now(UTC).isoformat(timespec="seconds")
    return replace(draft, arrays=dict(sorted(specs.items())), counts={**draft.counts, **totals}, created=created)


def _write(
    repository: Any, manifest: Manifest, paths: Mapping[str, np.ndarray], base: Manifest | None, clear: bool
) -> None:
    """Commit on top of the last tagged version (an untagged commit of a killed writer is left behind), then tag."""
    import zarr
    from zarr.codecs import Crc32cCodec, ZstdCodec

    snapshots = list(repository.ancestry(branch="main"))
    start = repository.lookup_tag(f"v{base.version}") if base else snapshots[-1].id
    if snapshots[0].id != start:
        repository.reset_branch("main", start)
    session = repository.writable_session("main")
    group = zarr.open_group(session.store, mode="w" if clear else "a")
    for path, array in paths.items():
        text = array.dtype == object
        values = array.astype(np.dtypes.StringDType()) if text else array
        chunks = _chunks(array.shape, _TEXT_CHUNK if text else _CHUNK_BYTES // array.itemsize)
        stored = group.create_array(
            path,
            shape=array.shape,
            chunks=chunks,
            dtype=values.dtype,
            compressors=[ZstdCodec(level=3), Crc32cCodec()],
            config={"write_empty_chunks": True},
        )
        if array.size:
            stored[...] = values
    group.attrs.put(sealed(manifest))
    snapshot = session.commit(manifest.message or str(ref_of(manifest)), metadata={"digest": ref_of(manifest).digest})
    repository.create_tag(f"v{manifest.version}", snapshot_id=snapshot)


def _chunks(shape: tuple[int, ...], entries: int) -> tuple[int, ...]:
    """Whole rows, as many as make ``entries`` entries, at least one."""
    if not shape:
        return ()
    per_row = max(1, int(np.prod(shape[1:])))
    return tuple(max(1, n) for n in (min(shape[0], entries // per_row), *shape[1:]))


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
