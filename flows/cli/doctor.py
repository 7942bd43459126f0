"""``lore doctor``: what this machine and this installation can do, and what to mend."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement

from flows.terminal import current
from lore.main import Flags
from lore_datasets.cores import available_cores

__all__ = ["checks", "doctor", "needs"]

Line = tuple[str, str, str]
"""(``ok`` | ``note`` | ``FAIL``, what was looked at, what was found)."""


def _packages() -> Iterator[Line]:
    for needed in map(Requirement, requires("lore-rl") or ()):
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(needed.name)
        except PackageNotFoundError:
            yield "FAIL", needed.name, "not installed; next: make setup"
            continue
        if found in needed.specifier:
            yield "ok", needed.name, found
        else:
            yield "FAIL", needed.name, f"{found} is not {needed.specifier}; next: make setup"


def _machine() -> Iterator[Line]:
    good = (3, 11) <= sys.version_info[:2] < (3, 13)
    yield (
        "ok" if good else "FAIL",
        "python",
        f"{platform.python_version()}{'' if good else '; LoRe needs 3.11 or 3.12'}",
    )
    cores = available_cores()
    yield (
        "ok" if cores >= 2 else "note",
        "cores",
        f"{cores} of {os.cpu_count() or 1}{'' if cores >= 2 else '; the demo takes twice as long on one'}",
    )
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        yield (
            "ok" if memory >= 6 else "note",
            "memory",
            f"{memory:.1f} GiB{'' if memory >= 6 else '; the demo plans with 6'}",
        )


def _device() -> Iterator[Line]:
    try:
        import torch
    except ImportError as error:
        yield "FAIL", "device", f"torch does not import: {error}"
        return
    if torch.cuda.is_available():
        yield "ok", "device", f"cuda: {torch.cuda.get_device_name(0)}"
    else:
        yield "note", "device", "cpu only: fine for symbolic observations and tiny networks, slow for pixels"


def _compiled() -> Iterator[Line]:
    from lore.compiled import is_temporary, njit

    if njit.__module__ == "lore.compiled":
        yield "note", "compiled code", "numba is not installed: everything runs, a hundred times slower"
        return
    import numba

    folder = numba.config.CACHE_DIR  # pyright: ignore[reportAttributeAccessIssue]
    if folder and is_temporary(Path(folder)):
        yield (
            "note",
            "compiled code",
            f"{folder}: neither this clone nor your cache can be written; set NUMBA_CACHE_DIR",
        )
    else:
        yield "ok", "compiled code", f"kept in {folder or 'this clone'}"


def _store() -> Iterator[Line]:
    from lore_datasets.errors import LoreError
    from lore_datasets.exchange.shipped import ShippedStore

    try:
        store = ShippedStore()
    except LoreError as error:
        yield "FAIL", "datasets", str(error)
        return
    root, beside = store.root, store.beside
    near = next(p for p in (beside, *beside.absolute().parents) if p.exists())
    free = shutil.disk_usage(near).free / 2**30
    yield "ok" if free >= 2 else "note", "disk", f"{free:.1f} GiB free for {beside}"
    if not os.access(near, os.W_OK):
        yield "FAIL", "datasets", f"{near} cannot be written; next: set LORE_DATASETS to another folder"
        return
    try:
        names = store.names()
        yield "ok", "datasets", f"{len(names)} in {root}"
    except LoreError as error:
        yield "FAIL", "datasets", str(error)


def _services() -> Iterator[Line]:
    import socket

    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
        yield "ok", "loopback", "a server can listen on 127.0.0.1"
    except OSError as error:
        yield "FAIL", "loopback", f"{error}: the flows need a local port"
    given = os.environ.get("PREFECT_API_URL")
    yield "ok", "prefect server", f"PREFECT_API_URL = {given}" if given else "embedded, started with each flow"
    has_key = any(os.environ.get(name) for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY"))
    yield (
        ("ok", "gemini key", "set")
        if has_key
        else ("note", "gemini key", "not set: the rule book and local models work without")
    )


def checks() -> Iterator[Line]:
    """Every finding, in order; never raises for what it looks at."""
    groups: tuple[Callable[[], Iterator[Line]], ...] = (_machine, _packages, _device, _compiled, _store, _services)
    for group in groups:
        yield from group()


def needs(words: Sequence[str]) -> Iterator[Line]:
    """What the learner will need with these flags of ``lore train``; the speed is measured, which takes seconds."""
    from lore.main import parse
    from lore.replay.backends import free_memory
    from lore.replay.needs import measure

    config = parse(list(words), prog="lore doctor").config()
    with current().bar("measure"):
        found = measure(config)
    free, gib = free_memory(), 2**30
    on_host = found.replay_bytes * (found.backend == "tensor")
    on_host += found.network_bytes * (found.device == "cpu")
    yield "ok", "networks", f"{found.parameters:,} parameters, {found.network_bytes / gib:.2f} GiB in training"
    yield (
        "ok",
        "replay",
        f"{found.records:,} records of {found.record_bytes:,} bytes: {found.replay_bytes / gib:.2f} GiB "
        f"({found.backend})",
    )
    yield (
        "ok" if on_host < 0.9 * free else "FAIL",
        "memory for it",
        f"{on_host / gib:.2f} GiB of {free / gib:.2f} GiB free"
        + ("" if on_host < 0.9 * free else "; next: lower --train.replay_capacity or set LORE_REPLAY_BACKEND=memmap"),
    )
    if found.device_bytes is not None:
        yield "ok", "device memory", f"{found.device_bytes / gib:.2f} GiB at the peak of one update on {found.device}"
    part = "" if found.measured_share == 1 else f" (measured on {found.measured_share:.0%} of a batch)"
    yield (
        "ok" if found.hours <= 24 else "FAIL",
        "duration",
        f"about {found.hours:,.1f} hours for {found.env_steps:,} steps: {1000 * found.step_s:.1f} ms a step, "
        f"{found.updates:,.0f} updates of {1000 * found.update_s:.0f} ms{part}"
        + ("" if found.hours <= 24 else "; next: --preset laptop, or fewer --steps, or a GPU"),
    )


def doctor(words: Sequence[str]) -> int:
    """Check this machine and this installation; with flags of ``lore train``, also what that run will need.

    Exit code 1 when something has to be mended.
    """
    failed = 0
    for state, what, found in chain(checks(), needs(words) if words else ()):
        print(f"{state:<5} {what:<15} {found}", flush=True)
        failed += state == "FAIL"
    where = Path(sys.executable).parent
    ready = "lore train with the same flags" if words else "lore demo"
    print(f"\n{failed} to mend" if failed else f"\nall good in {where}; next: {ready}")
    return 1 if failed else 0


doctor.flags = Flags  # type: ignore[attr-defined]
