"""For the tests of the flows: a Dask cluster as a user would start it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest


@contextmanager
def _started(workers: int) -> Iterator[Any]:
    from distributed import Client, LocalCluster

    off = {"dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0"}
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, host="127.0.0.1", memory_limit=0, **off) as made,
        Client(made) as client,
    ):
        client.wait_for_workers(workers, timeout=180)
        yield client


@pytest.fixture(scope="session")
def started_cluster() -> Callable[[int], AbstractContextManager[Any]]:
    """``with started_cluster(2) as client``: worker processes and a scheduler that is reached by its address alone."""
    return _started
