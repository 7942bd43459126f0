"""Where Prefect keeps its things, and the embedded server: loopback, SQLite under the run's folder, no orphan."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lore_datasets.errors import ServiceError

__all__ = ["SETTINGS", "close_stale_runs", "embedded_server", "prepare"]

SETTINGS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
    "PREFECT_CLIENT_METRICS_ENABLED": "false",
}
"""Set before Prefect is imported, unless the user's environment says otherwise."""

_STARTUP_SECONDS = 180.0
_lock = threading.Lock()
_started: dict[str, str] = {}


def prepare(home: Path) -> None:
    """Point Prefect at ``home`` (its database, profiles and results); must run before anything imports prefect."""
    if "prefect" in sys.modules and os.environ.get("PREFECT_HOME") != str(home.resolve()):
        known = os.environ.get("PREFECT_HOME", "its default folder")
        raise RuntimeError(f"prefect is imported already and uses {known}: prepare({home}) comes too late")
    home.mkdir(parents=True, exist_ok=True)
    os.environ["PREFECT_HOME"] = str(home.resolve())
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


@contextmanager
def embedded_server(home: Path) -> Iterator[str]:
    """The URL of a Prefect API for this process: the user's (PREFECT_API_URL), or a server that ends with the block.

    One server per process: a second use inside the first reuses it. ServiceError when none comes up in 180 s.
    """
    given = os.environ.get("PREFECT_API_URL")
    if given:
        yield given
        return
    with _lock:
        if str(home) in _started:
            url = _started[str(home)]
            process = None
        else:
            prepare(home)
            url, process = _start(home)
            _started[str(home)] = url
            os.environ["PREFECT_API_URL"] = url
    try:
        yield url
    finally:
        if process is not None:
            from flows.leash import stop

            _started.pop(str(home), None)
            os.environ.pop("PREFECT_API_URL", None)
            stop(process, 5.0)


def close_stale_runs() -> int:
    """Mark runs that a killed process left as Running as Crashed; how many there were.

    Only for a server whose database belongs to one job at a time, whose lock the caller holds.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    live = FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING])
    with get_client(sync_client=True) as client:
        stale = client.read_flow_runs(flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=live)))
        for run in stale:
            client.set_flow_run_state(run.id, Crashed(message="the process was killed"), force=True)
    return len(stale)


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _start(home: Path):
    from flows.leash import spawn, stop

    port = _free_port()
    address = f"http://127.0.0.1:{port}"
    log = home / "server.log"
    arguments = ["server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    process = spawn("prefect", arguments, log=log, env={"PREFECT_SERVER_API_PORT": str(port)})
    deadline = time.monotonic() + _STARTUP_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        if _healthy(port):
            return f"{address}/api", process
        time.sleep(0.1)
    stop(process, 1.0)
    raise ServiceError(
        f"the embedded Prefect server did not come up on {address}", hint=f"read {log}; or set PREFECT_API_URL"
    )


def _healthy(port: int) -> bool:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/api/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
