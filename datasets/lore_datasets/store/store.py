"""The versioned store: datasets by name, immutable versions ``v1, v2, ...``, and labels that move."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Unpack

from lore_datasets.errors import BadInput, NotFound, shown
from lore_datasets.store.bucket import Bucket
from lore_datasets.store.diff import diff_artifacts
from lore_datasets.store.manifest import Artifact, ref_of, to_dict
from lore_datasets.store.reader import open_version, read_arrays, read_manifest, stored_arrays
from lore_datasets.store.repository import (
    Root,
    check_name,
    current_version,
    guarded,
    locked,
    open_repository,
    roll_back,
    stored_names,
    tagged_versions,
)
from lore_datasets.store.writer import Draft, Writer
from lore_datasets.types import ArtifactRef, Manifest

__all__ = ["Store", "default_root"]

_LABEL = re.compile(r"(?!v[0-9])[a-z][a-z0-9_-]{0,31}")
_LABELLED = re.compile(r"(?P<name>[^@#]+)@(?P<label>(?!v[0-9])[^@#]+)")
_BRANCH = "label."


def default_root() -> Root:
    """Where datasets lie: ``$LORE_DATASETS`` (a folder or ``s3://bucket/prefix``) or ``./runs/datasets``."""
    return _root(os.environ.get("LORE_DATASETS") or Path("runs", "datasets"))


def _root(where: Path | str) -> Root:
    return Bucket.parse(str(where)) or Path(where)


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
        return self._versions(self._open(name), name)

    def resolve(self, text: str | ArtifactRef) -> ArtifactRef:
        """The reference of ``name[@vN|@label][#digest]`` (default: the current version); NotFound lists what is."""
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
            versions = self._versions(repository, full.name)
            with guarded(f"rolling {full.name} back to {full}", "every version"):
                roll_back(repository, versions, full.version)
        return full

    def manifest(self, ref: str | ArtifactRef) -> Manifest:
        """The checked manifest of a version."""
        return self._find(ref)[1]

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
        """Label -> version of the labels that :meth:`tag` has set."""
        repository = self._open(name)
        with guarded(f"reading the labels of {name}", "the versions"):
            by_snapshot = {repository.lookup_tag(f"v{n}"): n for n in tagged_versions(repository, self.root, name)}
            branches = [b for b in repository.list_branches() if b.startswith(_BRANCH)]
            pairs = {b.removeprefix(_BRANCH): by_snapshot.get(repository.lookup_branch(b)) for b in branches}
        return {label: version for label, version in sorted(pairs.items()) if version is not None}

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
                snapshot = repository.lookup_tag(f"v{full.version}")
                if _BRANCH + label in repository.list_branches():
                    repository.reset_branch(_BRANCH + label, snapshot)
                else:
                    repository.create_branch(_BRANCH + label, snapshot)
        return full

    def diff(self, a: str | ArtifactRef, b: str | ArtifactRef) -> dict[str, Any]:
        """What changed from ``a`` to ``b`` as plain JSON; see :func:`lore_datasets.store.diff.diff_artifacts`."""
        return diff_artifacts(self.open(a), self.open(b))

    def gc(self, name: str | None = None) -> dict[str, int]:
        """Delete files that no version needs (left by killed writers); returns bytes freed per dataset."""
        freed = {}
        for each in [name] if name is not None else self.names():
            with locked(self.root, each, self.wait):
                repository = self._open(each)
                with guarded(f"collecting garbage in {each}", "the versions"):
                    versions = tagged_versions(repository, self.root, each)
                    root = list(repository.ancestry(branch="main"))[-1].id
                    repository.reset_branch("main", repository.lookup_tag(f"v{versions[-1]}") if versions else root)
                    age = timedelta(days=1 if isinstance(self.root, Bucket) else 0)  # others may be writing there
                    summary = repository.garbage_collect(datetime.now(UTC) - age)
                freed[each] = int(summary.bytes_deleted)
        return freed

    def _open(self, name: str) -> Any:
        return open_repository(self.root, name)

    def _versions(self, repository: Any, name: str) -> list[int]:
        with guarded(f"listing the versions of {name}", "the files as they are"):
            return tagged_versions(repository, self.root, name)

    def _find(self, text: str | ArtifactRef) -> tuple[Any, Manifest]:
        """The opened Zarr group and manifest that a reference means."""
        if isinstance(text, ArtifactRef):
            name, version, digest = text.name, text.version, text.digest
        elif match := _LABELLED.fullmatch(str(text)):
            name, version, digest = match["name"], self._labelled(match["name"], match["label"]), None
        else:
            name, version, digest = ArtifactRef.parse(str(text))
        repository = self._open(name)
        versions = self._versions(repository, name)
        known = ", ".join(f"{name}@v{n}" for n in versions) or "none"
        if version is None and digest:
            candidates = [n for n in versions if ref_of(read_manifest(repository, name, n)).digest.startswith(digest)]
            version = candidates[-1] if candidates else 0
        if not versions or (version is not None and version not in versions):
            raise NotFound(f"no version {shown(text)!r} in {self.root}", hint=f"versions: {known}")
        group, manifest = open_version(repository, name, version or current_version(repository, versions))
        if digest and not ref_of(manifest).digest.startswith(digest):
            raise NotFound(
                f"{name}@v{manifest.version} has digest {ref_of(manifest).digest[:12]}, not {digest[:12]}",
                hint=f"another dataset of the same name? versions here: {known}",
            )
        return group, manifest

    def _labelled(self, name: str, label: str) -> int:
        check_name(name)
        labels = self.labels(name)
        if label not in labels:
            raise NotFound(f"{name} has no label {shown(label)!r}", hint=f"labels: {', '.join(labels) or 'none'}")
        return labels[label]
