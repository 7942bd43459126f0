"""What the processes of one machine share: datasets, a way to loopback, one trainer among the runs of a server."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lore_datasets.atomic import held

__all__ = ["LOOPBACK", "datasets_root", "keep_loopback_direct", "trainer_slot"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def datasets_root() -> str:
    """The absolute path of this machine's folder of datasets, for processes that run elsewhere."""
    from lore_datasets.store.store import default_root

    return str(default_root().resolve())


def keep_loopback_direct() -> None:
    """Send no request to loopback through a proxy that the environment names, here and in children (``NO_PROXY``)."""
    known = [name for variable in ("no_proxy", "NO_PROXY") for name in os.environ.get(variable, "").split(",")]
    names = dict.fromkeys(name.strip() for name in [*known, *LOOPBACK] if name.strip())
    os.environ |= dict.fromkeys(("no_proxy", "NO_PROXY"), ",".join(names))


@contextmanager
def trainer_slot(who: str) -> Iterator[None]:
    """Be the only served trainer of this machine; Busy names the other one. The slot dies with the process.

    Only runs of a deployment take part: what somebody starts by hand is that person's decision.
    """
    from prefect.runtime import deployment
    from prefect.settings import get_current_settings

    if not deployment.id:
        yield
        return
    host = re.sub(r"[^a-z0-9]+", "-", socket.gethostname().lower())
    path = Path(get_current_settings().home) / f"trainer-{host}.lock"
    with held(path, "this machine trains already: {who}", hint="the next scheduled run tries again", who=who):
        yield
