"""Files that several processes share: each is replaced at once or not at all, and a lock has one holder.

A new content is written beside its file as ``.<file>.<process id>-<number>.tmp``, synced and renamed, and the folder is
synced: after a kill or a power cut the old file or the new one stands there whole. The name of such a draft says whose
it is, so :func:`clear_drafts` removes nothing else.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lore_datasets.errors import Busy, CorruptArtifact, NoSpace, shown

__all__ = ["FULL", "clear_drafts", "held", "replacing", "sync", "write_bytes", "write_json", "write_text"]

FULL = frozenset({errno.ENOSPC, errno.EFBIG, errno.EDQUOT})
"""Error numbers of a disk, file or quota that is full."""
_numbers = itertools.count()


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """The path of a draft to write; afterwards it takes the place of ``path``, unless an error came first.

    NoSpace when the disk is full: the old file is kept.
    """
    path = Path(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}-{next(_numbers)}.tmp")
    try:
        yield draft
        sync(draft)
        os.replace(draft, path)
        sync(path.parent)
    except OSError as error:
        if error.errno not in FULL:
            raise
        kept = f"{path} as it was" if path.exists() else ""
        raise NoSpace(f"no space left for {path}", kept=kept, hint="free some disk space, then run again") from error
    finally:
        draft.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], content: bytes | memoryview) -> None:
    """Make ``path`` hold ``content``, at once or not at all; its folder is made where it is missing."""
    _make_folder(Path(path).parent)
    with replacing(path) as draft:
        draft.write_bytes(content)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """:func:`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode())


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """:func:`write_text` of indented JSON, keys in the order they have."""
    write_text(path, json.dumps(value, indent=1))


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, each with its name on the disk."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync(folder.parent)


def sync(path: str | os.PathLike[str]) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def clear_drafts(path: str | os.PathLike[str], *, alone: bool = True) -> None:
    """Remove drafts of ``path`` that killed processes left.

    ``alone``: nobody else may write there now, as under a lock; otherwise only those whose process is gone here.
    """
    path = Path(path)
    draft = re.compile(re.escape(f".{path.name}.") + r"([0-9]{1,9})-[0-9]+\.tmp")
    for entry in list(os.scandir(path.parent)) if path.parent.is_dir() else []:
        match = draft.fullmatch(entry.name)
        if match and entry.is_file(follow_symlinks=False) and (alone or not _is_alive(int(match[1]))):
            Path(entry).unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        return True
    return True


@contextmanager
def held(path: str | os.PathLike[str], taken: str, *, hint: str, wait: float = 0.0, who: str = "") -> Iterator[None]:
    """Hold the lock file ``path``; it is free again when this process ends, however it ends.

    Busy after ``wait`` seconds, with the message ``taken``, in which ``{who}`` stands for the holder's own words: its
    ``who`` with process and time, kept in ``<path without suffix>.holder``.
    """
    from filelock import FileLock, Timeout

    path = Path(path)
    holder = path.with_suffix(".holder")
    path.parent.mkdir(parents=True, exist_ok=True)
    for file in (path, holder):
        if file.is_symlink():  # what it points at would be emptied
            raise CorruptArtifact(f"{file} is a symbolic link", kept="what it points at", hint="remove the link")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=wait)
    except Timeout:
        other = shown(holder.read_text()) if "{who}" in taken and holder.is_file() else "another process"
        raise Busy(taken.replace("{who}", other), hint=hint) from None
    try:
        if "{who}" in taken:
            now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
            try:
                holder.write_text(
                    f"{who} (process {os.getpid()} since {now})" if who else f"process {os.getpid()} since {now}"
                )
            except OSError as error:
                if error.errno not in FULL:  # who holds it is for people; on a full disk somebody may be making room
                    raise
        yield
    finally:
        lock.release()
