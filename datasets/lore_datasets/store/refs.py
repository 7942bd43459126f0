"""The names inside a repository: a tag ``vN`` per version, labels, rollbacks, and the branch ``main``.

A tag is made once, when all that it means is on the disk; ``main`` is moved to the same snapshot after it. So every
snapshot of ``main`` that bears a number once had a tag, and who reads ``main`` first and the tags afterwards never
misses one that is being made. On a local disk a name is Icechunk's file ``refs/<tag|branch>.<name>/ref.json``, which
holds ``{"snapshot": id}`` (its specification, version 1); it is replaced as a whole and synced.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lore_datasets.atomic import write_bytes
from lore_datasets.errors import Busy, CorruptArtifact
from lore_datasets.store.repository import MAIN, Root, guarded, repository_path

__all__ = ["Refs", "current_version", "make_tag", "move_branch", "read_labels", "read_refs", "roll_back", "set_label"]

_BACK = "back."
_LABEL = "label."


@dataclass(frozen=True)
class Refs:
    """The versions of a dataset, read once.

    Attributes:
        name: of the dataset.
        versions: numbers of the versions whose tags can be read, ascending.
        damaged: number -> what is wrong with the tag of that version.
    """

    name: str
    versions: tuple[int, ...]
    damaged: dict[int, str]

    @property
    def newest(self) -> int:
        """The highest number ever given, 0 for none: a damaged version counts, for its number is taken."""
        return max((*self.versions, *self.damaged), default=0)

    def error(self, version: int) -> CorruptArtifact:
        """The error that names a damaged version and says how to go on."""
        kept = ", ".join(f"{self.name}@v{n}" for n in self.versions)
        hint = f"go on from another version: lore datasets rollback {self.name}@vN"
        return CorruptArtifact(f"{self.name}@v{version} is damaged: {self.damaged[version]}", kept=kept, hint=hint)


def read_refs(repository: Any, root: Root, name: str, whole: bool = False) -> Refs:
    """The versions of an opened repository.

    ``whole``: look for missing tags in an object store too, where that is a request for each version.
    """
    readable: list[int] = []
    damaged: dict[int, str] = {}
    with guarded(f"listing the versions of {name}", "the files as they are"):
        ancestry = _numbered(repository) if whole or isinstance(root, Path) else set()
        found = set()
        if isinstance(root, Path):  # Icechunk leaves what it cannot read out of its list
            found = {file.parent.name.removeprefix("tag.") for file in _refs(root, name).glob("tag.*/ref.json")}
        numbers = _numbers({*found, *repository.list_tags()})
    for number in numbers:
        if reason := _damage(repository, root, name, number):
            damaged[number] = reason
        else:
            readable.append(number)
    damaged |= dict.fromkeys(ancestry - set(numbers), "its tag is missing")
    return Refs(name, tuple(readable), dict(sorted(damaged.items())))


def _damage(repository: Any, root: Root, name: str, number: int) -> str:
    """What is wrong with a tag, as far as a look at it tells; nothing is asked of an object store."""
    if not isinstance(root, Path):
        return ""
    try:
        snapshot = repository.lookup_tag(f"v{number}")
    except Exception:  # whatever the storage library makes of it
        return "its tag cannot be read"
    return "" if (repository_path(root, name) / "snapshots" / snapshot).is_file() else "its tag points at nothing"


def _numbered(repository: Any) -> set[int]:
    """The version numbers of ``main``'s snapshots; what lies behind a damaged snapshot is not seen."""
    out: set[int] = set()
    with suppress(Exception):  # the version of a damaged snapshot shows its damage itself
        for snapshot in repository.ancestry(branch=MAIN):
            if type(number := snapshot.metadata.get("version")) is int:
                out.add(number)
    return out


def current_version(repository: Any, refs: Refs) -> int:
    """The version that a dataset goes on from: the one it was rolled back to, else the newest.

    A rollback is the branch ``back.<newest>``; it holds only while that version is the newest, so that the next commit
    ends it without a second write. CorruptArtifact when the newest version is damaged and nobody rolled back.
    """
    branch = f"{_BACK}{refs.newest}"
    if branch in repository.list_branches():
        snapshot = repository.lookup_branch(branch)
        for number in refs.versions:
            if repository.lookup_tag(f"v{number}") == snapshot:
                return number
        raise CorruptArtifact(
            f"{refs.name} was rolled back to a version that cannot be found",
            hint=f"say it again: lore datasets rollback {refs.name}@vN",
        )
    if refs.newest in refs.damaged:
        raise refs.error(refs.newest)
    return refs.newest


def roll_back(repository: Any, root: Root, refs: Refs, version: int) -> None:
    """Make ``version`` the current one until the next commit; the caller holds the lock."""
    move_branch(repository, root, refs.name, f"{_BACK}{refs.newest}", repository.lookup_tag(f"v{version}"))


def read_labels(repository: Any, refs: Refs) -> tuple[dict[str, int], list[str]]:
    """Label -> version, and the labels that cannot be read or point at no version; both sorted."""
    by_snapshot = {repository.lookup_tag(f"v{number}"): number for number in refs.versions}
    labels, lost = {}, []
    for branch in sorted(repository.list_branches()):
        if not branch.startswith(_LABEL):
            continue
        try:
            labels[branch.removeprefix(_LABEL)] = by_snapshot[repository.lookup_branch(branch)]
        except Exception:  # whatever the storage library makes of it
            lost.append(branch.removeprefix(_LABEL))
    return labels, lost


def set_label(repository: Any, root: Root, refs: Refs, label: str, version: int) -> None:
    """Point a label at a version; the caller holds the lock."""
    move_branch(repository, root, refs.name, _LABEL + label, repository.lookup_tag(f"v{version}"))


def make_tag(repository: Any, root: Root, name: str, version: int, snapshot: str) -> None:
    """Give a snapshot its version number for good; Busy when somebody else took the number first."""
    if not isinstance(root, Path):
        repository.create_tag(f"v{version}", snapshot_id=snapshot)
        return
    file = _refs(root, name) / f"tag.v{version}" / "ref.json"
    if file.exists():
        raise Busy(f"{name}@v{version} was made by somebody else", hint="run again")
    _point(file, snapshot)


def move_branch(repository: Any, root: Root, name: str, branch: str, snapshot: str) -> None:
    """Let a branch, new or not, point at a snapshot."""
    if isinstance(root, Path):
        _point(_refs(root, name) / f"branch.{branch}" / "ref.json", snapshot)
    elif branch in repository.list_branches():
        repository.reset_branch(branch, snapshot)
    else:
        repository.create_branch(branch, snapshot)


def _refs(root: Path, name: str) -> Path:
    return repository_path(root, name) / "refs"


def _point(file: Path, snapshot: str) -> None:
    write_bytes(file, json.dumps({"snapshot": snapshot}, separators=(",", ":")).encode())


def _numbers(tags: Iterable[str]) -> list[int]:
    matches = (re.fullmatch(r"v([1-9][0-9]*)", tag) for tag in tags)
    return sorted(int(match[1]) for match in matches if match)
