"""Where Prefect keeps its things, and the embedded server: loopback, SQLite under the run's folder, no orphan.

Whoever reaches a Prefect server can make it run shell commands (a deployment's pull steps), and loopback is open to
every user of the machine and to every web page in a browser there. So each server asks for an auth string, made anew at
every start; clients and children get it through their environment.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.jobs.machine import LOOPBACK, keep_loopback_direct
from flows.terminal import current
from lore_datasets.errors import BadInput, ServiceError, shown
from lore_datasets.json_text import parsed

__all__ = [
    "AUTH_FILE", "LAB_FILE", "SETTINGS", "close_stale_runs", "embedded_server", "free_port", "lab_environment",
    "new_auth", "origin_of", "prepare", "running_lab", "seen_host", "start_server", "write_auth",
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
AUTH_FILE = "auth"
"""In Prefect's home while ``lore up`` runs: the auth string of its server, readable by its owner alone."""
_AUTH = ("PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING")


def prepare(home: Path) -> None:
    """Point Prefect at ``home`` (its database, profiles and results); must run before anything imports prefect."""
    if "prefect" in sys.modules and os.environ.get("PREFECT_HOME") != str(home.resolve()):
        known = os.environ.get("PREFECT_HOME", "its default folder")
        raise RuntimeError(f"prefect is imported already and uses {known}: prepare({home}) comes too late")
    home.mkdir(parents=True, exist_ok=True)
    keep_loopback_direct()
    os.environ["PREFECT_HOME"] = str(home.resolve())
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


def new_auth() -> str:
    """``lore:`` and 192 random bits: the auth string of one start of a server."""
    return f"lore:{secrets.token_urlsafe(24)}"


def write_auth(home: Path, auth: str) -> Path:
    """Write the auth string of a ``lore up`` where its owner's commands find it; the file, readable by nobody else."""
    home.mkdir(parents=True, exist_ok=True)
    path = home / AUTH_FILE
    path.unlink(missing_ok=True)  # a file that somebody else opened before keeps the old text
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(auth)
    return path


def lab_environment(home: Path, host: str, port: int, auth: str) -> dict[str, str]:
    """Environment of a server with pages on ``host:port`` and of what talks to it; ``auth`` is ``user:password``."""
    found = {**SETTINGS, **_LAB, "PREFECT_HOME": str(home.resolve()), "PREFECT_API_URL": f"{origin_of(host, port)}/api"}
    # Without these the pages call port 4200 whatever the server listens on.
    found |= {"PREFECT_SERVER_API_HOST": host, "PREFECT_SERVER_API_PORT": str(port), "PREFECT_UI_API_URL": "/api"}
    return found | dict.fromkeys(_AUTH, auth)


def seen_host(host: str) -> str:
    """Where this machine reaches a server that listens on ``host``."""
    return "127.0.0.1" if host in ("0.0.0.0", "::") else host


def origin_of(host: str, port: int) -> str:
    """``http://host:port`` of a server that listens on ``host``."""
    seen = seen_host(host)
    return f"http://[{seen}]:{port}" if ":" in seen else f"http://{seen}:{port}"


def running_lab(home: Path) -> str | None:
    """URL of the API of a ``lore up`` that runs with this home, None when there is none."""

    try:
        found = parsed((home / LAB_FILE).read_text())
        return str(found["url"]) if _healthy(str(found["host"]), int(found["port"])) else None
    except (OSError, ValueError, KeyError):
        return None


@contextmanager
def embedded_server(home: Path) -> Iterator[str]:
    """The URL of a Prefect API for this process: the user's (PREFECT_API_URL), else that of a ``lore up`` with this
    home, else a server that ends with the block.

    A use inside another one takes its server. ServiceError when none comes up in 180 s, or when
    PREFECT_API_URL is an address of this machine and nobody answers there; another machine's is not tried.
    """
    given = os.environ.get("PREFECT_API_URL")
    if given:
        keep_loopback_direct()
        _check_reachable(given)
        yield given
        return
    lab = running_lab(home)
    if lab is not None:
        prepare(home)
        with _speaking_to(lab, _auth_of(home)):
            yield lab
        return
    from flows.jobs.child_process import stop

    prepare(home)
    port, auth = free_port(), new_auth()
    env = {"PREFECT_SERVER_API_PORT": str(port), **dict.fromkeys(_AUTH, auth)}
    with current().bar("start Prefect"):
        url, process = start_server(home, "127.0.0.1", port, env, pages=False)
    try:
        with _speaking_to(url, auth):
            yield url
    finally:
        stop(process, 5.0)


@contextmanager
def _speaking_to(url: str, auth: str) -> Iterator[None]:
    """This process and its children talk to the API at ``url``."""
    os.environ |= {"PREFECT_API_URL": url, "PREFECT_API_AUTH_STRING": auth}
    try:
        yield
    finally:
        for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING"):
            os.environ.pop(name, None)


def _auth_of(home: Path) -> str:
    """The auth string of the ``lore up`` that runs with this home; ServiceError where it is somebody else's."""
    try:
        return (home / AUTH_FILE).read_text().strip()
    except OSError as error:
        raise ServiceError(
            f"a lore up runs with {home}, and {home / AUTH_FILE} cannot be read: {type(error).__name__}",
            hint="run the command as the user who started it, or use another folder",
        ) from None


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
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def start_server(
    home: Path, host: str, port: int, env: dict[str, str], *, pages: bool, seconds: float = _STARTUP_SECONDS
) -> tuple[str, subprocess.Popen[bytes]]:
    """Start a Prefect server that ends with this process; (URL of its API, the server's process) once it answers.

    ServiceError when it does not within ``seconds``.
    """
    from flows.jobs.child_process import spawn, stop

    if "?" in str(home.resolve()):  # what follows it would be options of the database's address
        raise BadInput(
            f"Prefect cannot keep its database in {home.resolve()}", hint="use a folder without ? in its path"
        )
    log = home / "server.log"
    home.mkdir(parents=True, exist_ok=True)
    arguments = ["server", "start", "--host", host, "--port", str(port), "--ui" if pages else "--no-ui"]
    origin = origin_of(host, port)
    own = {"PREFECT_SERVER_CORS_ALLOWED_ORIGINS": origin}  # Prefect's default lets every page in
    process = spawn("prefect", arguments, log=log, env={**env, **own})
    try:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and process.poll() is None:
            if _healthy(seen_host(host), port):
                return f"{origin}/api", process
            time.sleep(0.1)
    except BaseException:
        stop(process, 1.0)
        raise
    stop(process, 1.0)
    lines = log.read_text(errors="replace").strip().splitlines() if process.returncode and log.exists() else []
    why = f": {shown(lines[-1].strip(), 200)}" if lines else ""
    raise ServiceError(
        f"the Prefect server did not come up on {origin}{why}",
        hint=f"read {log}; or set PREFECT_API_URL",
    )


def _check_reachable(url: str) -> None:
    from urllib.parse import urlsplit

    try:
        given = urlsplit(url)
        host, port = given.hostname or "", given.port or 80
        if given.scheme not in ("http", "https") or not host:
            raise ValueError
    except ValueError:
        raise BadInput(f"PREFECT_API_URL = {shown(url)} is no address", hint="http://HOST:PORT/api") from None
    if host in LOOPBACK and not _healthy(host, port):
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
