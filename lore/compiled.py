"""numba's compiler where there is one, and the folder in which it keeps what it has compiled.

Compiled code lies beside its source. Where that cannot be written (a read-only clone, a wheel of another user) it goes
to the user's cache, and without a home that can be written to a temporary folder: numba alone would refuse to compile.
"""

from __future__ import annotations

import os
import stat
import tempfile
from functools import cache, wraps
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["cache_folder", "is_temporary", "njit"]


def is_writable(folder: Path) -> bool:
    """Can files be made in ``folder``, which is made where it is missing? Asks the file system, not its flags."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def cache_folder(tree: Path, cache: Path, temporary: Path) -> Path | None:
    """Where compiled code is kept, None for beside the sources in ``tree``.

    A folder under ``temporary`` that others could have prepared is not read: code in it would be run.
    """
    if is_writable(tree / "__pycache__"):
        return None
    if is_writable(cache / "lore" / "compiled"):
        return cache / "lore" / "compiled"
    own = temporary / f"lore-compiled-{os.getuid() if hasattr(os, 'getuid') else ''}"
    try:
        own.mkdir(mode=0o700, exist_ok=True)
        about = own.lstat()
        if stat.S_ISDIR(about.st_mode) and not about.st_mode & 0o077 and about.st_uid == os.getuid():
            return own
    except (OSError, AttributeError):
        pass
    return Path(tempfile.mkdtemp(prefix="lore-compiled-", dir=temporary))


def is_temporary(folder: Path | None) -> bool:
    """Does that folder of :func:`cache_folder` end with the machine's next start?"""
    return folder is not None and folder.parent == Path(tempfile.gettempdir())


def _places() -> tuple[Path, Path, Path]:
    home = os.path.expanduser("~")
    return (
        Path(__file__).parent,
        Path(os.environ.get("XDG_CACHE_HOME") or f"{home}/.cache"),
        Path(tempfile.gettempdir()),
    )


try:
    import numba
    from numba import njit
    from numba.core.caching import InTreeCacheLocator, UserProvidedCacheLocator

    @cache
    def _sources(folder: Path) -> str:
        """Digest of the modules in a folder."""
        return sha256(b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))).hexdigest()

    class _OfFolder:
        """Compiled code is of use while no module of its folder has changed: it holds that of the loops it calls,
        of which numba alone would not learn."""

        _py_file: str

        def get_source_stamp(self) -> str:
            return _sources(Path(self._py_file).parent)

    class InTree(_OfFolder, InTreeCacheLocator):
        """Beside the sources."""

    class Provided(_OfFolder, UserProvidedCacheLocator):
        """In the folder that ``NUMBA_CACHE_DIR`` names."""

    _settings: Any = numba.config  # numba fills it at import time, out of a type checker's sight
    if not _settings.CACHE_LOCATOR_CLASSES:  # else NUMBA_CACHE_LOCATOR_CLASSES is the user's
        _own = f"{__name__}.{Provided.__name__},{__name__}.{InTree.__name__}"
        _settings.CACHE_LOCATOR_CLASSES = f"{_own},UserWideCacheLocator,IPythonCacheLocator,ZipCacheLocator"

    if not os.environ.get("NUMBA_CACHE_DIR") and (_folder := cache_folder(*_places())) is not None:
        os.environ["NUMBA_CACHE_DIR"] = str(_folder)  # children find it too
        _settings.CACHE_DIR = str(_folder)
except ImportError:  # the same loops, interpreted: the same results, some hundred times slower

    def njit(**_options):
        """Stand-in for ``numba.njit``: integers wrap without a warning, nothing is compiled."""

        def interpreted(function):
            @wraps(function)
            def run(*arguments):
                with np.errstate(over="ignore"):
                    return function(*arguments)

            return run

        return interpreted
