"""Commit arrays as the next version of a dataset: under the lock, on top of the last tagged version, all or nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from lore_datasets.atomic import sync
from lore_datasets.attributes import array_attributes
from lore_datasets.environments import get_environment
from lore_datasets.errors import BadInput, Busy, CorruptArtifact, SchemeMismatch, shown
from lore_datasets.keys import check_scheme
from lore_datasets.language.programs import parse_program
from lore_datasets.language.skills import parse_skill
from lore_datasets.schema import (
    SCHEMA,
    array_path,
    check_group,
    check_layout,
    check_links,
    dimension_names,
    fill_keys,
    split_path,
)
from lore_datasets.store.bucket import ATTEMPTS, Bucket
from lore_datasets.store.manifest import array_spec, ref_of, sealed
from lore_datasets.store.reader import open_version, read_arrays, read_manifest, skill_texts
from lore_datasets.store.refs import current_version, make_tag, move_branch, read_refs
from lore_datasets.store.repository import (
    MAIN,
    Root,
    check_space,
    guarded,
    locked,
    open_repository,
    repository_path,
)
from lore_datasets.types import ArtifactRef, Manifest, layout_table, vocabulary_of

__all__ = ["LIBRARY", "check_copy", "check_programs", "check_skills", "commit_version"]

_log = logging.getLogger(__name__)
LIBRARY = "library"
"""Origin of skills that nobody appended to a round: written down from the program's library."""
_CHUNK_BYTES = 4 * 2**20
_TEXT_CHUNK = 8192
_SYNC_THREADS = 16


def check_skills(names: Sequence[str], texts: Sequence[str], manifest: Manifest) -> None:
    """Each text parses to a skill of its name, and the manifest lists it; BadInput or SkillError otherwise."""
    vocab = get_environment(manifest.environment).vocab
    for name, text in zip(names, texts, strict=True):
        if parse_skill(text, vocab).name != name or name not in manifest.skills:
            raise BadInput(f"skill {shown(name)!r} is not among the version's skills, or its JSON has another name")


def check_programs(texts: Sequence[str], manifest: Manifest) -> None:
    """Each text is the canonical JSON of a program over the version's skills; BadInput or ProgramError otherwise."""
    vocab = get_environment(manifest.environment).vocab
    for text in texts:
        if parse_program(text, vocab, manifest.skills).text != text:
            raise BadInput("a program is not in canonical form", hint="store Program.text")


def check_copy(manifest: Manifest, arrays: Mapping[str, np.ndarray]) -> None:
    """Hold arrays from elsewhere to the rules of :meth:`Writer.append`; BadInput or SkillError."""
    environment = get_environment(manifest.environment)
    check_scheme(manifest.key_scheme, environment)
    groups: dict[tuple[int, str], dict[str, np.ndarray]] = {}
    rounds: dict[int, dict[tuple[str, str], np.ndarray]] = {}
    for path, array in arrays.items():
        index, group, name = split_path(manifest.kind, path)
        groups.setdefault((index, group), {})[name] = array
        rounds.setdefault(index, {})[group, name] = array
    for columns in rounds.values():
        check_links(columns)
    for (_, group), columns in groups.items():
        skills = columns["applicable"].shape[1] if "applicable" in columns else 0
        check_group(manifest.kind, group, columns, len(manifest.actions), skills)
        if group == "rows" and manifest.kind == "advice":
            fill_keys(columns, environment)
        elif group == "skills":
            check_skills(columns["name"].tolist(), columns["json"].tolist(), manifest)
        elif group == "programs":
            check_programs(columns["json"].tolist(), manifest)


def commit_version(
    root: Root,
    draft: Manifest,
    arrays: Mapping[tuple[str, str], np.ndarray] | Mapping[str, np.ndarray],
    *,
    wait: float,
    version: int | None = None,
) -> ArtifactRef:
    """Write one version under the lock. Keys of ``arrays``: (group, name) for a new round, or whole paths for a copy.

    A new round goes on from the dataset's current version: the newest, or the one it was rolled back to.
    A copy (``version`` given) replaces the whole tree and takes that number when it is free, else the next one; who
    read it has held it to :func:`check_copy`.
    """
    needed = sum(a.nbytes if a.dtype != object else 16 * a.size + sum(map(len, a.ravel())) for a in arrays.values())
    for attempt in range(ATTEMPTS):
        try:
            with locked(root, draft.name, wait):
                return _commit_once(root, draft, arrays, needed, version, wait)
        except Busy:  # in an object store there is no lock: whoever came second begins anew
            if not isinstance(root, Bucket) or attempt + 1 == ATTEMPTS:
                raise
    raise AssertionError("unreachable")


def _commit_once(
    root: Root, draft: Manifest, arrays: Mapping, needed: int, version: int | None, wait: float
) -> ArtifactRef:
    kept = f"every committed version of {draft.name}"
    check_space(root, needed, kept)
    repository = open_repository(root, draft.name, create=True)
    with guarded(f"writing {draft.name}", kept):
        refs = read_refs(repository, root, draft.name)
        current = current_version(repository, refs) if refs.newest else 0
    last = read_manifest(repository, draft.name, current) if current else None
    if last and last.kind != draft.kind:
        raise BadInput(f"{draft.name} is a dataset of kind {last.kind}, not {draft.kind}", hint="take another name")
    copy = version is not None
    keep = last if draft.kind == "advice" and not copy else None
    paths, draft = _placed(_fresh(arrays, repository, keep) if keep else arrays, draft, keep)
    taken = {*refs.versions, *refs.damaged}
    number = version if version is not None and version not in taken else refs.newest + 1
    manifest = _finished(replace(draft, version=number), paths, keep)
    with guarded(f"writing {draft.name}@v{number}", kept), _drained():
        start = repository.lookup_tag(f"v{last.version}") if last else list(repository.ancestry(branch=MAIN))[-1].id
        _await_clock(repository, manifest, start, wait)
        _write(repository, root, manifest, paths, start, clear=keep is None, is_first=last is None)
    return ref_of(manifest)


def _fresh(arrays: Mapping, repository: Any, keep: Manifest) -> Mapping:
    """``arrays`` without the library's skills that ``keep`` holds word for word, whoever wrote them there."""
    if ("skills", "name") not in arrays:
        return arrays
    try:
        group, _ = open_version(repository, keep.name, keep.version)
        held = skill_texts(read_arrays(group, keep, wanted=lambda path: "/skills/" in path).arrays)
    except CorruptArtifact:  # its own readers name it; the new round holds all that it needs
        held = {}
    rows = zip(*(arrays["skills", name] for name in ("name", "json", "origin")), strict=True)
    new = [held.get(name) != text or origin != LIBRARY for name, text, origin in rows]
    out = {key: array[new] if key[0] == "skills" else array for key, array in arrays.items()}
    return out if any(new) else {key: array for key, array in out.items() if key[0] != "skills"}


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
    return replace(
        draft,
        schema=SCHEMA,
        arrays=dict(sorted(specs.items())),
        vocabulary=vocabulary_of(environment.vocab),
        layout=layout_table(environment.vocab),
        counts={**draft.counts, **totals},
        created=created,
    )


def _write(
    repository: Any,
    root: Root,
    manifest: Manifest,
    paths: Mapping[str, np.ndarray],
    start: str,
    clear: bool,
    is_first: bool,
) -> None:
    """Write on top of the snapshot ``start`` (what a killed writer left stays behind), wait for the disk, then tag."""
    import zarr
    from zarr.codecs import Crc32cCodec, ZstdCodec

    name, before = manifest.name, set() if is_first else _files(root, manifest.name)
    if repository.lookup_branch(MAIN) != start:
        move_branch(repository, root, name, MAIN, start)
    session = repository.writable_session(MAIN)
    if session.snapshot_id != start:
        raise Busy(f"somebody else was first while writing {name}@v{manifest.version}", hint="run again")
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
            dimension_names=dimension_names(manifest.kind, path, array.ndim),
            attributes=array_attributes(manifest, path),
        )
        if array.size:
            stored[...] = values
    group.attrs.put(sealed(manifest))
    metadata = {"digest": ref_of(manifest).digest, "version": manifest.version}
    snapshot = session.flush(manifest.message or str(ref_of(manifest)), metadata=metadata)
    _sync(root, name, _files(root, name) - before)
    make_tag(repository, root, name, manifest.version, snapshot)
    try:
        move_branch(repository, root, name, MAIN, snapshot)
    except Exception as error:  # the version is there; the next commit moves main (in a bucket others may have)
        _log.warning("main of %s was not moved to v%d: %s", name, manifest.version, shown(error))


def _await_clock(repository: Any, manifest: Manifest, start: str, wait: float) -> None:
    """Icechunk takes no commit that is older than its parent: wait ``wait`` seconds at most for a clock that was set
    back; Busy says until when nothing can be committed."""
    before = next(iter(repository.ancestry(snapshot_id=start))).written_at
    behind = (before - datetime.now(UTC)).total_seconds()
    if behind > wait:
        raise Busy(
            f"the clock of this machine stands {behind:.0f} s before the last commit to {manifest.name} "
            f"({before:%F %T} UTC), and the store takes no version that is older than its parent",
            kept=f"every committed version of {manifest.name}",
            hint="set the clock right, or run again after that time",
        )
    if behind > 0:
        time.sleep(behind + 0.001)


def _files(root: Root, name: str) -> set[str]:
    """The files of a repository on a local disk."""
    if not isinstance(root, Path):
        return set()
    return {os.path.join(at, file) for at, _, files in os.walk(repository_path(root, name)) for file in files}


def _sync(root: Root, name: str, files: set[str]) -> None:
    """Wait until files of a repository and the folders that list them are on the disk; an object store needs nothing.

    Several threads, because a file system writes the waiting ones of all threads at once.
    """
    if not isinstance(root, Path):
        return
    folders = [at for at, _, _ in os.walk(repository_path(root, name))]
    with ThreadPoolExecutor(_SYNC_THREADS) as pool:
        for _ in pool.map(sync, sorted(files)):
            pass
        for _ in pool.map(sync, [*folders, root]):
            pass
    with suppress(PermissionError):  # a folder above the datasets need not be ours to read
        sync(root.parent)


@contextmanager
def _drained() -> Iterator[None]:
    """After a failure, wait for writes still in flight: a process that ends before them would be aborted."""
    try:
        yield
    except BaseException:
        from zarr.core.sync import sync

        async def rest() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            if tasks:
                await asyncio.wait(tasks, timeout=10)

        sync(rest())
        raise


def _chunks(shape: tuple[int, ...], entries: int) -> tuple[int, ...]:
    """Whole rows, as many as make ``entries`` entries, at least one."""
    if not shape:
        return ()
    per_row = max(1, int(np.prod(shape[1:])))
    return tuple(max(1, n) for n in (min(shape[0], entries // per_row), *shape[1:]))
