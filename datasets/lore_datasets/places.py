"""Where files lie: ``~``, ``file://`` addresses, places that cannot be written, the datasets that come with LoRe."""

from __future__ import annotations

import os
import sysconfig
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lore_datasets.errors import BadInput, LoreError, NoSpace, NotFound, shown

__all__ = ["check_writable", "local_path", "named", "shipped_files"]


def local_path(text: str) -> str:
    """``text`` with a leading ``~`` or ``file://`` spelled out; what is neither stays as it is.

    BadInput on a ``file://`` address of another machine.
    """
    if text.startswith("file:"):
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise BadInput(
                f"{shown(text)} is no file of this machine", hint="write /folder/file, or file:///folder/file"
            )
        return unquote(parts.path)
    return os.path.expanduser(text) if text == "~" or text.startswith("~/") else text


def check_writable(path: Path) -> None:
    """BadInput unless a file can be made or replaced at ``path``: said before the work whose result goes there."""
    if path.is_dir():
        raise BadInput(f"{path} is a folder", hint="move it, or give another file")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise named(error) from None


def named(error: OSError) -> LoreError:
    """The error of ours for one of the system's about a path; one without a path is raised as it is."""
    from lore_datasets.atomic import FULL

    if error.errno in FULL:
        where = error.filename or "the disk"
        return NoSpace(
            f"no space left for {where}", kept="everything finished before", hint="free some space, run again"
        )
    if error.filename is None:
        raise error
    kind = NotFound if isinstance(error, FileNotFoundError) else BadInput
    return kind(
        f"{shown(error.filename, 200)}: {error.strerror or type(error).__name__}",
        kept="everything finished before",
        hint="give another path, or mend this one",
    )


def shipped_files() -> dict[str, list[Path]]:
    """Name -> files of the shipped datasets, oldest version first: ``NAME.h5``, ``NAME@vN.h5``."""
    beside = Path(__file__).resolve().parents[1]
    places = [Path(sysconfig.get_path("data"), "share", "lore", "datasets")]
    places += [beside] if beside.name == "datasets" else []
    found: dict[str, dict[int, Path]] = {}
    for path in (path for place in places if place.is_dir() for path in place.glob("*.h5")):
        name, _, version = path.stem.partition("@v")
        found.setdefault(name, {})[int(version or 1)] = path
    return {name: [files[version] for version in sorted(files)] for name, files in sorted(found.items())}
