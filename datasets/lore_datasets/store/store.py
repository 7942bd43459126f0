"""The versioned store: datasets by name, immutable versions ``v1, v2, ...``, and labels that move."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Unpack

from lore_datasets.errors import BadInput, ConfigError, CorruptArtifact, LoreError, NotFound, shown
from lore_datasets.places import local_path
from lore_datasets.store.bucket import Bucket
from lore_datasets.store.diff import diff_versions
from lore_datasets.store.manifest import Artifact, ref_of, to_dict
from lore_datasets.store.reader import open_version, read_arrays, read_manifest, stored_arrays
from lore_datasets.store.refs import Refs, current_version, move_branch, read_labels, read_refs, roll_back, set_label
from lore_datasets.store.repository import (
    MAIN,
    Root,
    check_name,
    guarded,
    locked,
    open_repository,
    stored_names,
)
from lore_datasets.store.writer import Draft, Writer
from lore_datasets.types import ArtifactRef, Manifest

__all__ = ["Store", "Survey", "default_root"]

_LABEL = re.compile(r"(?!v[0-9])[a-z][a-z0-9_-]{0,31}")
_LABELLED = re.compile(r"(?P<name>[^@#]+)@(?P<label>(?!v[0-9])[^@#]+)")


def default_root() -> Root:
    """Where datasets lie: ``$LORE_DATASETS`` (a folder or ``s3://bucket/prefix``) or ``./runs/datasets``."""
    return _root(os.environ.get("LORE_DATASETS") or Path("runs", "datasets"))


def _root(where: Path | str) -> Root:
    if (bucket := Bucket.parse(str(where))) is not None:
        return bucket
    if re.match(r"[a-z][a-z0-9+]+://", str(where)) and not str(where).startswith("file:"):
        raise ConfigError.out_of_range("LORE_DATASETS", where, "a folder, or s3://bucket/prefix")
    path = Path(local_path(str(where)))
    if path.exists() and not path.is_dir():
        raise BadInput(f"{path} is a file, not a folder of datasets", hint="set LORE_DATASETS to a folder")
    return path


@dataclass(frozen=True)
class Survey:
    """A dataset at one look: manifests of all versions that can be read, oldest first; what is damaged, a sentence
    each; and the version that the bare name means, 0 for none."""

    manifests: list[Manifest]
    damage: list[str]
    current: int


class Store:
    """Datasets in one folder or under one prefix of an object store, one Icechunk repository each.

    Versions never change once :meth:`Writer.commit` has returned; in a folder every commit holds the dataset's OS file
    lock for at most as long as the write takes, and waits ``wait`` seconds for it. For an object store see
    :mod:`lore_datasets.store.bucket`.
    """

    def __init__(self, root: Root | str | None = None, *, wait: float = 60.0) -> None:
        given = _root(root) if isinstance(root, (str, Path)) else root
        self.root: Root = default_root() if given is None else given
        self.wait = wait

    @property
    def beside(self) -> Path:
        """A local folder for what lies beside the datasets, such as the journal."""
        return self.root if isinstance(self.root, Path) else Path("runs")

    def names(self) -> list[str]:
        """Names of all datasets, sorted."""
        return stored_names(self.root)

    def versions(self, name: str) -> list[int]:
        """Committed versions of a dataset, ascending; NotFound lists the datasets that exist."""
        return list(self._refs(self._open(name), name).versions)

    def survey(self, name: str) -> Survey:
        """What a dataset holds and what is damaged in it; arrays are not read (:meth:`verify` does that)."""
        repository = self._open(name)
        refs = read_refs(repository, self.root, name, whole=True)
        manifests, damage, current = [], [str(refs.error(number)) for number in refs.damaged], 0
        with suppress(CorruptArtifact):
            current = current_version(repository, refs)
        for number in refs.versions:
            try:
                manifests.append(read_manifest(repository, name, number))
            except LoreError as error:
                damage.append(str(error))
        damage += [str(_lost(name, label)) for label in read_labels(repository, refs)[1]]
        return Survey(manifests, damage, current)

    def resolve(self, text: str | ArtifactRef) -> ArtifactRef:
        """The reference of ``name[@vN][#digest]`` or ``name@label`` (default: the current version); NotFound lists what
        is."""
        return ref_of(self._find(text)[1])

    def current(self, name: str) -> ArtifactRef:
        """The version that a dataset goes on from: the one of :meth:`rollback`, else the newest; the next commit's."""
        return self.resolve(ArtifactRef.parse(name)[0])

    def rollback(self, ref: str | ArtifactRef) -> ArtifactRef:
        """Let a dataset go on from an earlier version: it is what the bare name means, and the next commit's parent.

        Nothing is deleted: later versions stay under their numbers, and the next commit takes the next free one. That
        commit ends the rollback; so does rolling back to the newest version.
        """
        full = self.resolve(ref)
        with locked(self.root, full.name, self.wait):
            repository = self._open(full.name)
            refs = self._refs(repository, full.name)
            with guarded(f"rolling {full.name} back to {full}", "every version"):
                roll_back(repository, self.root, refs, full.version)
        return full

    def manifest(self, ref: str | ArtifactRef) -> Manifest:
        """The checked manifest of a version."""
        return self._find(ref)[1]

    def newest_manifest(self, name: str) -> Manifest | None:
        """The manifest of a dataset's current version, None where there is no version yet."""
        with suppress(NotFound):
            return self.manifest(name) if name in self.names() else None
        return None

    def open(
        self, ref: str | ArtifactRef, verify: bool = True, wanted: Callable[[str], bool] | None = None
    ) -> Artifact:
        """Manifest and arrays of a version (or those whose path is ``wanted``); CorruptArtifact names the array."""
        group, manifest = self._find(ref)
        return read_arrays(group, manifest, verify=verify, wanted=wanted)

    def stored(self, ref: str | ArtifactRef, wanted: Callable[[str], bool]) -> tuple[Manifest, dict[str, Any]]:
        """Manifest and read-only Zarr arrays (path ``wanted``) of a version too large to read whole; see
        :func:`lore_datasets.store.reader.stored_arrays`."""
        group, manifest = self._find(ref)
        return manifest, stored_arrays(group, manifest, wanted)

    def opened(self, ref: str | ArtifactRef) -> tuple[Any, Manifest]:
        """The read-only root Zarr group of a version and its checked manifest; nothing is read but the manifest."""
        return self._find(ref)

    def verify(self, text: str | ArtifactRef) -> ArtifactRef:
        """Recompute every digest of a version and return its reference; CorruptArtifact names what does not hold."""
        return self.open(text).ref

    def show(self, ref: str | ArtifactRef) -> dict[str, Any]:
        """Everything a version says of itself as plain JSON: reference, digest, labels, manifest."""
        manifest = self.manifest(ref)
        full = ref_of(manifest)
        labels = sorted(label for label, version in self.labels(full.name).items() if version == full.version)
        return {"ref": str(full), "digest": full.digest, "labels": labels, "manifest": to_dict(manifest)}

    def writer(self, name: str, kind: str, **draft: Unpack[Draft]) -> Writer:
        """A writer of the next version of ``name``; see :class:`lore_datasets.store.writer.Writer`."""
        return Writer(self.root, name, kind, wait=self.wait, **draft)

    def labels(self, name: str) -> dict[str, int]:
        """Label -> version of the labels that :meth:`tag` has set; damaged ones are not among them."""
        repository = self._open(name)
        with guarded(f"reading the labels of {name}", "the versions"):
            return read_labels(repository, self._refs(repository, name))[0]

    def tag(self, ref: str | ArtifactRef, label: str) -> ArtifactRef:
        """Point ``label`` (such as ``good``) at a version; a label moves, a version never changes."""
        if not _LABEL.fullmatch(label):
            raise BadInput(
                f"{shown(label)!r} is not a label", hint="lower case letters, digits, _ -; not v and a number"
            )
        full = self.resolve(ref)
        with locked(self.root, full.name, self.wait):
            repository = self._open(full.name)
            with guarded(f"labelling {full}", "the versions"):
                set_label(repository, self.root, self._refs(repository, full.name), label, full.version)
        return full

    def diff(self, a: str | ArtifactRef, b: str | ArtifactRef) -> dict[str, Any]:
        """What changed from ``a`` to ``b`` as plain JSON; see :func:`lore_datasets.store.diff.diff_versions`."""
        refs = (str(self.resolve(ref)) for ref in (a, b))
        return diff_versions(lambda ref, wanted: self.open(ref, wanted=wanted), *refs)

    def gc(self, name: str | None = None) -> dict[str, int]:
        """Delete files that no version needs (left by killed writers); returns bytes freed per dataset.

        A dataset with a damaged version is left as it is, for its files may be what somebody will mend it with:
        CorruptArtifact names it, after the others are done.
        """
        freed, damaged = {}, []
        for each in [name] if name is not None else self.names():
            with locked(self.root, each, self.wait):
                repository = self._open(each)
                refs = self._refs(repository, each)
                if refs.damaged:
                    damaged.append(refs.error(max(refs.damaged)))
                    continue
                with guarded(f"collecting garbage in {each}", "the versions"):
                    root = list(repository.ancestry(branch=MAIN))[-1].id
                    tip = repository.lookup_tag(f"v{refs.newest}") if refs.newest else root
                    if repository.lookup_branch(MAIN) != tip:  # where there is no room to write, it need not be
                        move_branch(repository, self.root, each, MAIN, tip)
                    age = timedelta(days=1 if isinstance(self.root, Bucket) else 0)  # others may be writing there
                    summary = repository.garbage_collect(datetime.now(UTC) - age)
                freed[each] = int(summary.bytes_deleted)
        if damaged:
            raise damaged[0]
        return freed

    def _open(self, name: str) -> Any:
        return open_repository(self.root, name)

    def _refs(self, repository: Any, name: str) -> Refs:
        return read_refs(repository, self.root, name)

    def _find(self, text: str | ArtifactRef) -> tuple[Any, Manifest]:
        """The opened Zarr group and manifest that a reference means."""
        label = None
        if isinstance(text, ArtifactRef):
            name, version, digest = text.name, text.version, text.digest
        elif match := _LABELLED.fullmatch(str(text)):
            name, label, version, digest = match["name"], match["label"], None, None
            check_name(name)
        else:
            name, version, digest = ArtifactRef.parse(str(text))
        repository = self._open(name)
        refs = self._refs(repository, name)
        versions = refs.versions
        known = ", ".join(f"{name}@v{n}" for n in versions) or "none"
        if label is not None:
            version = _labelled(repository, refs, label)
        elif version is None and digest:
            version = _with_digest(repository, name, versions, digest)
        if version in refs.damaged:
            raise refs.error(version)
        if not refs.newest or (version is not None and version not in versions):
            raise NotFound(f"no version {shown(text)!r} in {self.root}", hint=f"versions: {known}")
        if version is None:
            with guarded(f"looking for the current version of {name}", known):
                version = current_version(repository, refs)
        group, manifest = open_version(repository, name, version)
        if digest and not ref_of(manifest).digest.startswith(digest):
            raise NotFound(
                f"{name}@v{manifest.version} has digest {ref_of(manifest).digest[:12]}, not {digest[:12]}",
                hint=f"another dataset of the same name? versions here: {known}",
            )
        return group, manifest


def _with_digest(repository: Any, name: str, versions: Sequence[int], digest: str) -> int:
    """The newest version of that digest, 0 where none has it; the error of one that does not read, and may."""
    damage = None
    for number in reversed(versions):
        try:
            if ref_of(read_manifest(repository, name, number)).digest.startswith(digest):
                return number
        except LoreError as error:
            damage = damage or error
    if damage is not None:
        raise damage
    return 0


def _labelled(repository: Any, refs: Refs, label: str) -> int:
    with guarded(f"reading the labels of {refs.name}", "the versions"):
        labels, lost = read_labels(repository, refs)
    if label in lost:
        raise _lost(refs.name, label)
    if label not in labels:
        raise NotFound(f"{refs.name} has no label {shown(label)!r}", hint=f"labels: {', '.join(labels) or 'none'}")
    return labels[label]


def _lost(name: str, label: str) -> CorruptArtifact:
    return CorruptArtifact(
        f"label {label} of {name} cannot be read or points at no version",
        kept="the versions",
        hint=f"set it again: lore datasets tag {name}@vN {label}",
    )
