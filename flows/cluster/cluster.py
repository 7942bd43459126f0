"""A user's Dask cluster by address, or one of this machine: on loopback, one thread and one GPU at most per worker."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from lore_datasets.cores import available_cores
from lore_datasets.errors import ConfigError, LoreError, ServiceError, shown

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Place", "check_address", "cluster", "place", "result_of"]

_ADDRESS = re.compile(r"(tcp|tls|ucx|ws|wss)://[\w.\-\[\]:]+:\d{1,5}", re.ASCII)
_SECONDS = 20.0
_RESTART = 180.0  # a killed worker of this machine is given up after so long; Dask's 15 s are too few on a busy one
_HINT = "workers need this LoRe, its Python and the same paths; see docs/clusters.md"


def check_address(field: str, address: str) -> None:
    """ConfigError unless ``address`` is empty, ``local`` or a scheduler's address such as ``tcp://host:8786``."""
    if address not in ("", "local") and not _ADDRESS.fullmatch(address):
        raise ConfigError.out_of_range(field, address, "local, or the scheduler's address such as tcp://host:8786")


@contextmanager
def cluster(address: str, workers: int = 0, gpus: int = 0) -> Iterator[Client]:
    """A client of the scheduler at ``address``, or of ``workers`` processes here (0: one per core) that end with it.

    The first ``gpus`` of those here offer the resource ``GPU`` and see one device each. ServiceError when no scheduler
    answers or no worker is there within 20 s.
    """
    import dask
    from distributed import Client

    patience = {
        "distributed.comm.timeouts.connect": f"{_SECONDS:g}s",
        "distributed.deploy.lost-worker-timeout": f"{_RESTART:g}s",
    }
    with dask.config.set(patience):
        if address == "local":
            count = workers or max(available_cores(), gpus)
            with _local(count, gpus) as made, Client(made) as client:
                _wait_for_workers(client, "this machine", count, _RESTART)
                yield client
            return
        try:
            client = Client(address, timeout=_SECONDS)
        except (OSError, ValueError, TimeoutError) as error:
            raise ServiceError(f"no Dask scheduler answers at {shown(address)}: {type(error).__name__}",
                               kept="everything finished before", hint="see docs/clusters.md") from None  # fmt: skip
        with client:
            _wait_for_workers(client, address, 1, _SECONDS)
            yield client


def _local(workers: int, gpus: int) -> Any:
    """A cluster of processes on this machine whose first ``gpus`` workers have a device of their own.

    Its ports are open to every user of the machine and run what they are sent, so scheduler, workers and client speak
    TLS with a certificate that this call makes: whoever has no copy of it is refused.
    """
    from distributed import LocalCluster, Security

    visible = [each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]
    devices = (visible or [str(i) for i in range(gpus)])[:gpus]

    class Local(LocalCluster):
        def new_worker_spec(self) -> dict[Any, Any]:
            made: dict[Any, Any] = super().new_worker_spec()
            device = devices[len(self.worker_spec)] if len(self.worker_spec) < len(devices) else ""
            mine: dict[str, Any] = {"env": {"CUDA_VISIBLE_DEVICES": device}} if devices else {}
            if device:
                mine["resources"] = {"GPU": 1}
            return {name: {**spec, "options": {**spec["options"], **mine}} for name, spec in made.items()}

    made = Local(
        n_workers=0,
        threads_per_worker=1,
        host="127.0.0.1",
        security=Security.temporary(),
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",
        memory_limit=0,
        silence_logs=logging.CRITICAL,  # an error of the work is raised by its caller; a worker's log repeats it
    )
    made.scale(workers)
    return made


class Place:
    """Where work runs: in this process, or one task each on a cluster, with a GPU where ``resources`` say so.

    ``on_stop(names)`` runs in every worker of the cluster when the work of these names is stopped.
    """

    def __init__(
        self,
        client: Client | None = None,
        resources: dict[str, float] | None = None,
        on_stop: Callable[[Collection[str]], None] | None = None,
    ) -> None:
        self.client, self.resources, self.stopping = client, resources or {}, threading.Event()
        self.on_stop = on_stop

    @property
    def threads(self) -> int:
        """Tasks that run at a time: threads of the cluster, or the cores of this machine."""
        if self.client is None:
            return available_cores()
        return sum(self.client.nthreads().values())  # pyright: ignore[reportAttributeAccessIssue]

    def run(self, what: str, work: Callable[..., Any], *arguments: Any) -> Any:
        """``work(*arguments)``, waited for; a task whose worker dies is begun anew by the cluster elsewhere."""
        if self.client is None:
            return work(*arguments)
        future = self.client.submit(work, *arguments, pure=False, resources=self.resources)
        return result_of(future, what, self.stopping)

    def stop(self, names: Collection[str]) -> None:
        """Wait for nothing more, and let ``on_stop`` end the work of these names on the cluster."""
        self.stopping.set()
        if self.client is not None and self.on_stop is not None:
            with suppress(Exception):  # a worker that is gone has nothing to stop
                self.client.run(self.on_stop, sorted(names), on_error="ignore")


@contextmanager
def place(
    address: str,
    workers: int = 0,
    device: str = "cpu",
    on_stop: Callable[[Collection[str]], None] | None = None,
) -> Iterator[Place]:
    """This process when ``address`` is empty, else a cluster; ``device`` is that of the learner (``auto``: any).

    On a cluster each run takes one of the workers' resource ``GPU`` when ``device`` is cuda, or auto and some worker
    offers one. ServiceError when it is cuda and none does.
    """
    gpus = _gpus() if address == "local" and device != "cpu" else 0
    with cluster(address, workers, gpus) if address else nullcontext() as client:
        yield Place(client, _resources(client, address, device) if client is not None else {}, on_stop)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _resources(client: Client, address: str, device: str) -> dict[str, float]:
    if device == "cpu":
        return {}
    info: Any = client.scheduler_info(n_workers=-1)
    if any("GPU" in worker.get("resources", {}) for worker in info["workers"].values()):
        return {"GPU": 1}
    if device == "auto":
        return {}
    raise ServiceError(
        f"train.device is {device}, and no worker of the Dask cluster ({address}) offers the resource GPU",
        kept="everything finished before",
        hint="start workers with --resources GPU=1, one per device, or train with --train.device cpu",
    )


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


def _wait_for_workers(client: Client, address: str, count: int, seconds: float) -> None:
    try:
        client.wait_for_workers(count, timeout=seconds)
    except TimeoutError:
        raise ServiceError(
            f"the Dask cluster at {shown(address)} has no worker" if count == 1 else f"{count} workers did not start",
            kept="everything finished before",
            hint="start one" if count == 1 else "try fewer",
        ) from None
