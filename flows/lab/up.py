"""``lore up``: server, deployments, schedules, TensorBoard and reports, as children that end with it."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.jobs.child_process import spawn, stop
from flows.jobs.machine import LOOPBACK, datasets_root, keep_loopback_direct
from flows.jobs.phases import hold
from flows.lab.lab_api import Api
from flows.lab.notify import FAILED, Notify
from flows.lab.schedules import Schedule, check_datasets, read_notify, read_schedules
from flows.prefect_flows.runtime import (
    AUTH_FILE,
    LAB_FILE,
    free_port,
    lab_environment,
    new_auth,
    seen_host,
    start_server,
    write_auth,
)
from flows.terminal import clock, current
from lore_datasets.atomic import write_json
from lore_datasets.errors import BadInput, Busy, ConfigError, NotFound, ServiceError, UsageError, shown

__all__ = ["Lab", "UpJob", "read_auth", "up"]

_READY_S = 600.0
"""A machine under load may need minutes; a child that ends is noticed at once."""


@dataclass(frozen=True)
class UpJob:
    """What ``lore up`` starts."""

    schedules: str = "schedules.toml"
    """File of schedules; where it does not exist by this default name, all flows wait to be started by hand."""
    port: int = 4200
    """Port of the server and its pages; 0 takes a free one."""
    host: str = "127.0.0.1"
    """Address that the server listens on. Another than loopback needs --auth-file, or LORE_AUTH."""
    auth_file: str = ""
    """File with ``user:password``, readable by its owner alone: what pages and clients have to know. Without it every
    start makes a new one, in the file ``auth`` of ``home``."""
    folder: str = "runs"
    """Folder that TensorBoard and the list of reports look into."""
    tensorboard_port: int = 6006
    """Port of TensorBoard, always on loopback; 0 takes a free one."""
    reports_port: int = 6007
    """Port of the list of reports, always on loopback; 0 takes a free one."""
    server_only: bool = False
    """Start no TensorBoard."""
    home: str = "runs/prefect"
    """Folder of the server's database and logs; one ``lore up`` at a time has it."""

    def __post_init__(self) -> None:
        for name in ("port", "tensorboard_port", "reports_port"):
            value = getattr(self, name)
            if type(value) is not int or not (value == 0 or 1024 <= value < 65536):
                raise ConfigError.out_of_range(name, value, "1024..65535, or 0 for a free one")


@dataclass
class Lab:
    """What runs: URLs, children in the order of their start, the API."""

    url: str
    api: Api
    children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)


def read_auth(job: UpJob, environment: Any = None) -> str:
    """``user:password`` of ``auth_file`` or LORE_AUTH, or empty; UsageError when the host needs one of the user's."""
    environment = os.environ if environment is None else environment
    text = str(environment.get("LORE_AUTH", ""))
    if job.auth_file:
        path = Path(job.auth_file)
        if not path.is_file():
            raise NotFound(f"no file {path}", hint="write user:password into it and chmod 600 it")
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise UsageError(f"{path} can be read by others", hint=f"chmod 600 {path}")
        try:
            text = path.read_text().strip()
        except UnicodeDecodeError:
            raise UsageError(f"{path} is not text", hint="write user:password into it") from None
    user, colon, password = text.partition(":")
    if text and (not user or not colon or len(password) < 12 or any(c.isspace() for c in text)):
        raise UsageError("the auth string is not user:password", hint="a password of 12 characters or more, no spaces")
    if job.host not in LOOPBACK and not text:
        raise UsageError(
            f"--host {job.host} would let everybody on that network start jobs here",
            hint="give --auth-file FILE (user:password), or leave --host away and use an ssh tunnel",
        )
    return text


def _claim(host: str, port: int, what: str, flag: str) -> int:
    """``port``, or a free one for 0; Busy when somebody listens there, BadInput where the host is not this machine."""
    try:
        if port == 0:
            return free_port(host)
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise BadInput(
                f"{shown(host, 60)} is no address of this machine ({error.strerror}); {what} cannot listen there",
                hint="--host takes one of its addresses, 127.0.0.1 without it",
            ) from None
        raise Busy(
            f"port {port} on {host} is taken ({error.strerror}); {what} cannot listen there",
            hint=f"{flag} N takes another, {flag} 0 a free one",
        ) from None
    return port


def _schedules(job: UpJob) -> tuple[Path | None, list[Schedule]]:
    path = Path(job.schedules)
    if not path.exists() and job.schedules == UpJob.schedules:
        return None, []
    found = read_schedules(path)
    check_datasets(found, path)
    return path.resolve(), found


def up(job: UpJob, until: Callable[[], bool] = lambda: False) -> int:
    """Start everything and watch it until Ctrl-C, SIGTERM or ``until()``; nothing that was started stays behind.

    Returns 0 after a stop that was asked for. Whatever is wrong is raised before the first child starts.
    """
    say, home = current().say, Path(job.home)
    keep_loopback_direct()
    auth = read_auth(job) or new_auth()
    path, schedules = _schedules(job)
    notify = read_notify(path) if path else None
    port = _claim(job.host, job.port, "the server", "--port")
    reports = _claim("127.0.0.1", job.reports_port, "the list of reports", "--reports-port")
    board = _claim("127.0.0.1", job.tensorboard_port, "TensorBoard", "--tensorboard-port") if not job.server_only else 0
    with hold(home):
        lab: Lab | None = None
        children: dict[str, subprocess.Popen[bytes]] = {}
        try:
            say("starting the server (half a minute the first time)")
            environment = lab_environment(home, job.host, port, auth) | _datasets()
            secret = write_auth(home, auth)
            with current().bar("start Prefect"):
                url, children["server"] = start_server(home, job.host, port, environment, pages=True, seconds=_READY_S)
            lab = Lab(url, Api(url, auth), children)
            crashed, missed = lab.api.settle()
            if crashed or missed:
                say(f"  {crashed} run(s) of the last time marked as crashed, {missed} that were missed as cancelled")
            _start_pages(lab, job, reports, board, environment)
            with current().bar("register flows"):
                _start_serving(lab, path, home, environment)
            write_json(home / LAB_FILE, {"url": url, "host": seen_host(job.host), "port": port, "links": lab.links})
            _welcome(lab, schedules, path, secret)
            _watch(lab, until, notify)
        except KeyboardInterrupt:
            say("\nstopping: trainers save their checkpoints first (Ctrl-C again kills)")
        finally:
            for name in (LAB_FILE, AUTH_FILE):
                (home / name).unlink(missing_ok=True)
            _stop(children)
    say("stopped; nothing is left running. next: lore up")
    return 0


def _datasets() -> dict[str, str]:
    return {"LORE_DATASETS": datasets_root()}


def _start_pages(lab: Lab, job: UpJob, reports: int, board: int, environment: dict[str, str]) -> None:
    """TensorBoard and the reports; their URLs go to the flows through the environment."""
    runs = Path(job.folder)
    runs.mkdir(parents=True, exist_ok=True)
    home = Path(job.home)
    log = home / "reports.log"
    lab.children["reports"] = spawn("flows.lab.report_server", [str(runs.resolve()), str(reports)], log=log)
    lab.links["reports"] = environment["LORE_REPORTS_URL"] = f"http://127.0.0.1:{reports}/"
    environment["LORE_REPORTS_ROOT"] = str(runs.resolve())
    if board:
        words = [
            "--logdir",
            str(runs.resolve()),
            "--host",
            "127.0.0.1",
            "--port",
            str(board),
            "--reload_interval",
            "30",
        ]
        lab.children["TensorBoard"] = spawn("tensorboard.main", words, log=home / "tensorboard.log")
        lab.links["TensorBoard"] = environment["LORE_TENSORBOARD_URL"] = f"http://127.0.0.1:{board}/"


def _start_serving(lab: Lab, path: Path | None, home: Path, environment: dict[str, str]) -> None:
    """The process that registers the deployments and starts their runs; returns when they are registered."""
    ready, log = home / "deployments.json", home / "serve.log"
    ready.unlink(missing_ok=True)
    words = [str(ready.resolve()), *([str(path)] if path else [])]
    process = lab.children["deployments"] = spawn("flows.lab.deployments", words, log=log, env=environment)
    deadline = time.monotonic() + _READY_S
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise ServiceError(f"the deployments were not registered: {_last_line(log)}", hint=f"read {log}")
        time.sleep(0.2)


def _last_line(log: Path) -> str:
    from lore_datasets.errors import shown

    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return shown(lines[-1].strip(), 300) if lines else "no message"


def _welcome(lab: Lab, schedules: Sequence[Schedule], path: Path | None, secret: Path) -> None:
    say = current().say
    say(f"\n  pages        {lab.url.removesuffix('/api')}/")
    say(f"  log in with  the text of {secret}")
    for name, url in lab.links.items():
        say(f"  {name:<12} {url}")
    say(f"  schedules    {path or 'none: no schedules.toml here; every flow can be started from its page'}")
    for each in schedules:
        say(f"    {each.flow}/{each.name}: {each.when}{'' if each.active else ' (switched off)'}")
    say("\n  from another terminal, in this folder: lore refresh --prefect ...; elsewhere first")
    say(f'    export PREFECT_API_URL={lab.url} PREFECT_API_AUTH_STRING="$(cat {secret.resolve()})"')
    say("  Ctrl-C stops everything.\n")


def _watch(lab: Lab, until: Callable[[], bool], notify: Notify | None) -> None:
    """Say what starts and ends, tell ``notify`` of what fails; ServiceError when a child ends that should not."""
    known: dict[str, str] = {run["id"]: run["state_type"] for run in lab.api.runs()}
    misses = 0
    while not until():
        for name, process in lab.children.items():
            if process.poll() is not None:
                raise ServiceError(f"{name} ended with code {process.returncode}", hint="read the logs in its home")
        try:
            rows, misses = lab.api.runs(), 0
        except ServiceError:
            misses += 1
            if misses > 30:
                raise
            rows = []
        for run in reversed(rows):
            kind = run["state_type"]
            if known.get(run["id"]) != kind:
                known[run["id"]] = kind
                _tell(run)
                if notify and kind in FAILED and not run.get("parent_task_run_id") and (wrong := notify.tell(run)):
                    current().say(f"  note: notify did not work: {wrong}")
        time.sleep(1.0)


def _tell(run: dict[str, Any]) -> None:
    state = run["state"] or {}
    if run.get("parent_task_run_id"):  # a flow inside a flow
        return
    message = (state.get("message") or "").removeprefix("Flow run encountered an exception: ")
    took = f" after {clock(run.get('total_run_time') or 0)}" if state["type"] != "RUNNING" else ""
    why = f": {message}" if state["type"] in ("FAILED", "CRASHED", "CANCELLED") and message else ""
    current().say(f"  {time.strftime('%H:%M:%S')}  {run['name']}  {state.get('name', '')}{took}{why}")


def _stop(children: dict[str, subprocess.Popen[bytes]]) -> None:
    """Last started, first stopped; the server goes last, so that runs can still report how they ended."""
    patience = {"deployments": 40.0}
    try:
        for name in reversed(list(children)):
            stop(children[name], patience.get(name, 10.0))
    except BaseException:
        for process in children.values():
            stop(process, 0.0)
        raise
