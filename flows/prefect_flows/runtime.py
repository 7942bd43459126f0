"""Where Prefect keeps its things, and the embedded server: loopback, SQLite under the run's folder, no orphan."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lore_datasets.errors import ServiceError, shown

__all__ = [
    "SETTINGS", "close_stale_runs", "embedded_server", "free_port", "lab_environment", "prepare", "running_lab",
    "start_server",
]  # fmt: skip

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

_LAB = {
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    "PREFECT_SERVER_UI_ENABLED": "true",
    "PREFECT_LOGGING_LEVEL": "INFO",
    "PREFECT_LOGGING_TO_API_ENABLED": "true",
    "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "true",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "true",
    "PREFECT_RUNNER_POLL_FREQUENCY": "3",
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "20",
    "PREFECT_SERVER_SERVICES_SCHEDULER_MAX_RUNS": "5",
    "PREFECT_SERVER_SERVICES_SCHEDULER_MIN_SCHEDULED_TIME": "00:02:00",
}
"""What a server with pages and schedules has otherwise than the embedded one."""

_STARTUP_SECONDS = 180.0
LAB_FILE = "lab.json"
"""In Prefect's home while ``lore up`` runs: where its server answers."""
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


def lab_environment(home: Path, host: str, port: int, auth: str = "") -> dict[str, str]:
    """Environment of a server with pages on ``host:port`` and of what talks to it; ``auth`` is ``user:password``."""
    seen = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}/api"
    found = {**SETTINGS, **_LAB, "PREFECT_HOME": str(home.resolve()), "PREFECT_API_URL": seen}
    # Without these the pages call port 4200 whatever the server listens on.
    found |= {"PREFECT_SERVER_API_HOST": host, "PREFECT_SERVER_API_PORT": str(port), "PREFECT_UI_API_URL": "/api"}
    if auth:
        found |= {"PREFECT_SERVER_API_AUTH_STRING": auth, "PREFECT_API_AUTH_STRING": auth}
    return found


def running_lab(home: Path) -> str | None:
    """URL of the API of a ``lore up`` that runs with this home, None when there is none."""
    import json

    try:
        found = json.loads((home / LAB_FILE).read_text())
        return str(found["url"]) if _healthy(str(found["host"]), int(found["port"])) else None
    except (OSError, ValueError, KeyError):
        return None


@contextmanager
def embedded_server(home: Path) -> Iterator[str]:
    """The URL of a Prefect API for this process: the user's (PREFECT_API_URL), else that of a ``lore up`` with this
    home, else a server that ends with the block.

    One server per process: a second use inside the first reuses it. ServiceError when none comes up in 180 s, or when
    nobody answers at PREFECT_API_URL.
    """
    given = os.environ.get("PREFECT_API_URL")
    if given:
        if str(home) not in _started:
            _check_reachable(given)
        yield given
        return
    lab = running_lab(home)
    if lab is not None:
        prepare(home)
        os.environ["PREFECT_API_URL"] = lab
        try:
            yield lab
        finally:
            os.environ.pop("PREFECT_API_URL", None)
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
            from flows.jobs.child_process import stop

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


def free_port(host: str = "127.0.0.1") -> int:
    """A port of ``host`` that nobody listens on now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def start_server(
    home: Path, host: str, port: int, env: dict[str, str], *, pages: bool, seconds: float = _STARTUP_SECONDS
) -> tuple[str, subprocess.Popen[bytes]]:
    """Start a Prefect server that ends with this process; (URL of its API, the server's process) once it answers.

    ServiceError when it does not within ``seconds``.
    """
    from flows.jobs.child_process import spawn, stop

    log = home / "server.log"
    home.mkdir(parents=True, exist_ok=True)
    arguments = ["server", "start", "--host", host, "--port", str(port), "--ui" if pages else "--no-ui"]
    process = spawn("prefect", arguments, log=log, env=env)
    seen = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    try:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and process.poll() is None:
            if _healthy(seen, port):
                return f"http://{seen}:{port}/api", process
            time.sleep(0.1)
    except BaseException:
        stop(process, 1.0)
        raise
    stop(process, 1.0)
    lines = log.read_text(errors="replace").strip().splitlines() if process.returncode and log.exists() else []
    why = f": {shown(lines[-1].strip(), 200)}" if lines else ""
    raise ServiceError(
        f"the Prefect server did not come up on http://{seen}:{port}{why}",
        hint=f"read {log}; or set PREFECT_API_URL",
    )


def _start(home: Path) -> tuple[str, subprocess.Popen[bytes]]:
    port = free_port()
    return start_server(home, "127.0.0.1", port, {"PREFECT_SERVER_API_PORT": str(port)}, pages=False)


def _check_reachable(url: str) -> None:
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    local = parts.hostname in ("127.0.0.1", "localhost", "::1")
    if local and not _healthy(parts.hostname or "", parts.port or 80):
        raise ServiceError(
            f"no Prefect server answers at PREFECT_API_URL = {url}",
            hint="start one with lore up, or unset the variable",
        )


def _healthy(host: str, port: int) -> bool:
    import http.client

    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", "/api/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
