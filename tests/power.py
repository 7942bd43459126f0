"""A disk whose power can be cut: what fsync made durable is kept, the rest is lost."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

_FSYNC = os.fsync


class Disk:
    """What of ``root`` a power cut would leave, kept up to date by the calls of ``os.fsync``.

    It keeps a file's bytes as they were when it was synced, a folder's names as they were when the folder was synced.
    """

    def __init__(self, root: Path, cut: Callable[[Disk], None]) -> None:
        self.root, self.cut = root, cut
        self.bytes: dict[int, bytes] = {}
        self.names: dict[int, dict[str, int]] = {}

    def synced(self, handle: int) -> None:
        """Stands where ``os.fsync`` stands."""
        _FSYNC(handle)
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        if path.is_relative_to(self.root):
            self.keep(path)
            self.cut(self)

    def keep(self, path: Path) -> None:
        """A file or folder is on the disk as it is now."""
        number = path.stat().st_ino
        if path.is_dir():
            self.names[number] = {entry.name: entry.inode() for entry in os.scandir(path)}
        else:
            self.bytes[number] = path.read_bytes()

    def left(self, strict: bool) -> dict[str, bytes]:
        """What is found when the power is back: path below ``root`` -> bytes; a path of a folder ends with a slash."""
        return dict(self._left(self.root, strict))

    def _left(self, path: Path, strict: bool) -> Iterator[tuple[str, bytes]]:
        kept = self.names.get(path.stat().st_ino, {})
        for entry in os.scandir(path):
            if strict and kept.get(entry.name) != entry.inode():
                continue
            name = str(Path(entry).relative_to(self.root))
            if entry.is_dir():
                yield name + "/", b""
                yield from self._left(Path(entry), strict)
            else:
                yield name, self.bytes.get(entry.inode(), b"")


def written(found: dict[str, bytes], target: Path) -> Path:
    """``target`` anew, with what was found."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for name, body in found.items():
        if name.endswith("/"):
            (target / name).mkdir()
        else:
            (target / name).write_bytes(body)
    return target
