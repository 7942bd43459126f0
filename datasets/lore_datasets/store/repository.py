"""One Icechunk repository per dataset name: where it lies, who may write, and how its failures are named."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from lore_datasets.atomic import FULL, held, write_bytes
from lore_datasets.errors import BadInput, Busy, CorruptArtifact, LoreError, NoSpace, NotFound, shown
from lore_datasets.json_text import parsed
from lore_datasets.places import shipped_files
from lore_datasets.store.bucket import Bucket
from lore_datasets.types import ArtifactRef

__all__ = [
    "MAIN",
    "SUFFIX",
    "Root",
    "check_name",
    "check_space",
    "guarded",
    "locked",
    "open_repository",
    "repository_path",
    "stored_names",
]

SUFFIX = ".icechunk"
MAIN = "main"
"""The branch whose tip is the newest commit."""
_ICECHUNK = {"refs", "snapshots", "manifests", "chunks", "transactions", "config.yaml"}
_CONFLICT = re.compile(r"ConflictError|branch update conflict|tag already exists|only be created in clean prefixes")
_FULL_TEXT = re.compile(r"no space left|file too large|quota exceeded|os error (28|27|122)\b", re.IGNORECASE)


Root = Path | Bucket
"""Where datasets lie: a folder, or a prefix in an object store."""


def check_name(name: str) -> None:
    """BadInput unless ``name`` may name a dataset."""
    if ArtifactRef.parse(name) != (name, None, None) or name.endswith((".", SUFFIX)):
        raise BadInput(f"{shown(name)!r} is not a dataset name", hint="lower case letters, digits, . _ -, at most 64")


def repository_path(root: Path, name: str) -> Path:
    """Folder of the repository of ``name``; BadInput unless it is a slug, CorruptArtifact on a symbolic link."""
    check_name(name)
    path = root / f"{name}{SUFFIX}"
    if path.is_symlink():
        raise CorruptArtifact(f"{path} is a symbolic link", hint="put the repository itself there")
    return path


def stored_names(root: Root) -> list[str]:
    """Names of the repositories under ``root``, sorted; no symbolic links, no foreign folders, and no folder whose
    writer died before it held a branch."""
    if isinstance(root, Bucket):
        with guarded(f"reading the catalogue of {root}", "everything"):
            return [name for name in root.names(SUFFIX) if _is_name(name)]
    if not root.is_dir():
        return []
    found = []
    for entry in os.scandir(root):
        name = entry.name.removesuffix(SUFFIX)
        if (
            entry.name.endswith(SUFFIX)
            and entry.is_dir(follow_symlinks=False)
            and _is_name(name)
            and _is_made(Path(entry))
        ):
            found.append(name)
    return sorted(found)


def _is_name(text: str) -> bool:
    try:
        return ArtifactRef.parse(text) == (text, None, None)
    except BadInput:
        return False


def _pointed_at(ref: Path) -> str:
    """The snapshot that the file of a tag or branch names, "" when there is none."""
    try:
        found = parsed(ref.read_bytes())["snapshot"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return found if type(found) is str else ""


def _is_made(path: Path) -> bool:
    """True unless a writer died before the repository had its first branch; a tag of any kind says that it had."""
    refs = path / "refs"
    return bool(_pointed_at(refs / f"branch.{MAIN}" / "ref.json")) or any(refs.glob("tag.*/ref.json"))


def _holds_data(path: Path) -> bool:
    return any(entry.is_file() for name in ("chunks", "manifests") for entry in (path / name).glob("*"))


def _clear(path: Path) -> None:
    """Remove what a writer that died left of a repository that never was; the caller holds the lock."""
    if not path.exists():
        return
    if foreign := sorted({entry.name for entry in os.scandir(path)} - _ICECHUNK):
        raise CorruptArtifact(
            f"{path} is no repository and holds {shown(foreign[0])}", kept="it as it is", hint="move it elsewhere"
        )
    shutil.rmtree(path)


def _mend_main(path: Path) -> None:
    """Let ``main`` point at the newest readable tag where its own file is damaged, as the next commit would."""
    main, snapshots = path / "refs" / f"branch.{MAIN}" / "ref.json", path / "snapshots"
    if (snapshots / (_pointed_at(main) or "-")).is_file():
        return
    tags = sorted(path.glob("refs/tag.v*/ref.json"), key=lambda file: (len(file.parent.name), file.parent.name))
    for tag in reversed(tags):
        if (snapshots / (_pointed_at(tag) or "-")).is_file():
            write_bytes(main, tag.read_bytes())
            return


def _refuse_links(path: Path) -> None:
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            try:
                mode = os.lstat(os.path.join(folder, name)).st_mode
            except FileNotFoundError:  # a draft of a writer that has taken its place meanwhile
                continue
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise CorruptArtifact(f"{Path(folder, name)} is a link or special file inside a repository")


@contextmanager
def locked(root: Root, name: str, wait: float) -> Iterator[None]:
    """Hold the write lock of ``name``; Busy tells who holds it after ``wait`` seconds. It dies with the process.

    In an object store there is none: conditional writes find out who came second.
    """
    if isinstance(root, Bucket):
        yield
        return
    folder = root / ".locks"
    with guarded(f"preparing {root}", "everything"):
        folder.mkdir(parents=True, exist_ok=True)
    if folder.is_symlink():
        raise CorruptArtifact(f"{folder} is a symbolic link", hint="remove the link")
    taken, hint = f"dataset {name} is being written by {{who}}", "wait for it, or stop that process"
    with ExitStack() as stack:
        with guarded(f"locking {name}", "everything"):
            stack.enter_context(held(folder / f"{name}.lock", taken, hint=hint, wait=wait))
        yield


def check_space(root: Root, needed: int, kept: str) -> None:
    """NoSpace unless the file system of ``root`` has twice ``needed`` bytes free."""
    if isinstance(root, Bucket):
        return
    free = shutil.disk_usage(root).free
    if free < 2 * needed + 2**20:
        raise NoSpace(
            f"{root} has {free / 2**20:.1f} MiB free, this version may need {2 * needed / 2**20 + 1:.1f} MiB",
            kept=kept,
            hint="free some space or set LORE_DATASETS to another disk, then run again",
        )


def open_repository(root: Root, name: str, create: bool = False) -> Any:
    """The ``icechunk.Repository`` of a dataset; NotFound when there is none, unless ``create`` says to make it.

    With ``create`` the caller holds the lock.
    """
    if isinstance(root, Bucket):
        return _open_remote(root, name, create)
    path = repository_path(root, name)
    icechunk = _icechunk()
    exists = _is_made(path)
    if not exists and _holds_data(path):
        raise CorruptArtifact(
            f"{path} holds data and no version of it, as after half a copy", kept="it as it is",
            hint="copy it again, whole, or move it elsewhere",
        )  # fmt: skip
    if not exists and not create:
        raise _not_there(root, name)
    with guarded(f"opening {path}", "the files as they are"):
        storage = icechunk.local_filesystem_storage(str(path))
        if not exists:
            _clear(path)
            return icechunk.Repository.create(storage)
        _refuse_links(path)
        _mend_main(path)
        return icechunk.Repository.open(storage)


def _open_remote(root: Bucket, name: str, create: bool) -> Any:
    check_name(name)
    icechunk = _icechunk()
    with guarded(f"opening {name} in {root}", "everything"):
        storage = root.storage(name, SUFFIX)
        exists = icechunk.Repository.exists(storage)
        if exists or create:
            repository = icechunk.Repository.open(storage) if exists else icechunk.Repository.create(storage)
            if create:  # a writer that died between the two left it out of the catalogue
                root.enter(name, SUFFIX)
            return repository
    raise _not_there(root, name)


def _not_there(root: Root, name: str) -> NotFound:
    known, shipped = stored_names(root), sorted(shipped_files())
    if near := get_close_matches(name, [*known, *shipped], 3):
        hint = f"did you mean {', '.join(dict.fromkeys(near))}?"
    else:
        hint = f"there is: {', '.join(known)}" if known else "the folder is empty"
        hint += f"; with LoRe come {', '.join(shipped)}" if shipped else ""
    return NotFound(f"no dataset {name!r} in {root}", hint=hint)


def _icechunk() -> Any:
    os.environ.setdefault("ICECHUNK_LOG", "error")  # read once, when the module is loaded
    import icechunk

    return icechunk


@contextmanager
def guarded(doing: str, kept: str) -> Iterator[None]:
    """Turn failures of the storage libraries into NoSpace or CorruptArtifact; LoRe's own errors pass."""
    try:
        yield
    except (LoreError, KeyboardInterrupt, SystemExit, GeneratorExit, NameError, ImportError):
        raise
    except MemoryError as error:
        raise NoSpace(f"not enough memory while {doing}", kept=kept, hint="free some memory") from error
    except BaseException as error:  # a panic in the storage library is a BaseException
        text = f"{type(error).__name__}: {error}"
        if getattr(error, "errno", None) in FULL or _FULL_TEXT.search(text):
            raise NoSpace(
                f"no space left while {doing}", kept=kept, hint="free some space or set LORE_DATASETS to another disk"
            ) from error
        if _CONFLICT.search(text):
            raise Busy(f"somebody else was first while {doing}", kept=kept, hint="run again") from error
        raise CorruptArtifact(f"failed while {doing}: {shown(_first_line(text), 160)}", kept=kept) from error


def _first_line(text: str) -> str:
    return " ".join(
        line.strip() for line in text.split("|  context")[0].split("\n  | \n")[0].splitlines() if line.strip()
    )
