"""A user's Dask cluster by address, or one on this machine: loopback only, one thread per worker."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from lore_datasets.errors import ConfigError, LoreError, ServiceError, shown

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["check_address", "cluster", "result_of"]

_ADDRESS = re.compile(r"(tcp|tls|ucx|ws|wss)://[\w.\-\[\]:]+:\d{1,5}", re.ASCII)
_SECONDS = 20.0
_HINT = "workers need this LoRe, its Python and the same paths; see docs/clusters.md"


def check_address(field: str, address: str) -> None:
    """ConfigError unless ``address`` is empty, ``local`` or a scheduler's address such as ``tcp://host:8786``."""
    if address not in ("", "local") and not _ADDRESS.fullmatch(address):
        raise ConfigError.out_of_range(field, address, "local, or the scheduler's address such as tcp://host:8786")


@contextmanager
def cluster(address: str, workers: int = 0) -> Iterator[Client]:
    """A client of the scheduler at ``address``, or of ``workers`` processes here (0: one per core) that end with it.

    ServiceError when no scheduler answers or no worker is there within 20 s.
    """
    import dask
    from distributed import Client, LocalCluster

    with dask.config.set({"distributed.comm.timeouts.connect": f"{_SECONDS:g}s"}):
        if address == "local":
            made = LocalCluster(
                n_workers=workers or os.cpu_count() or 1,
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                worker_dashboard_address="127.0.0.1:0",
                memory_limit=0,
            )
            with made, Client(made) as client:
                yield client
            return
        try:
            client = Client(address, timeout=_SECONDS)
        except (OSError, ValueError, TimeoutError) as error:
            raise ServiceError(f"no Dask scheduler answers at {shown(address)}: {type(error).__name__}",
                               kept="everything finished before", hint="see docs/clusters.md") from None  # fmt: skip
        with client:
            _wait_for_a_worker(client, address)
            yield client


def result_of(future: Any, what: str, stopping: threading.Event | None = None) -> Any:
    """The result of a Dask future; what the cluster did to it is a ServiceError, LoRe's own errors pass.

    When ``stopping`` is set meanwhile the future is cancelled: a task that runs already goes on to its end unheard.
    """
    from concurrent.futures import CancelledError

    from distributed import wait

    try:
        while stopping is not None:
            if stopping.is_set():
                future.cancel()
                raise ServiceError(f"stopped while {what} was on the cluster", kept="what was finished")
            with suppress(TimeoutError):
                wait([future], timeout=0.5)
                break
        return future.result()
    except LoreError:
        raise
    except CancelledError:
        raise ServiceError(f"{what} was cancelled on the cluster", kept="what was finished", hint="run again") from None
    except Exception as error:
        text = f"{what} failed on the cluster: {type(error).__name__}: {shown(error, 160)}"
        raise ServiceError(text, kept="what was finished; run again to go on", hint=_HINT) from None


def _wait_for_a_worker(client: Client, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=_SECONDS)
    except TimeoutError:
        raise ServiceError(
            f"the Dask cluster at {shown(address)} has no worker", kept="everything finished before", hint="start one"
        ) from None
