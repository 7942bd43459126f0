"""Child processes that cannot outlive their parent.

A child is started as ``python -m flows.jobs.child_process MODULE ARGS...`` in a session of its own, with a pipe as its
standard input that the parent never writes to. The pipe closes when the parent ends, however it ends; a thread of
the child sees that and kills the child's whole process group. (``PR_SET_PDEATHSIG`` would fire when the *thread* that
started the child ends, and exists on Linux only.)
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["spawn", "stop"]


def spawn(
    module: str, arguments: Sequence[str] = (), *, env: Mapping[str, str] | None = None, log: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start ``python -m module arguments``, to end with this process; its output goes to the file ``log`` (appended) or
    nowhere."""
    sink = open(log, "ab") if log is not None else subprocess.DEVNULL  # noqa: SIM115
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "flows.jobs.child_process", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
    finally:
        if not isinstance(sink, int):
            sink.close()


def stop(process: subprocess.Popen[bytes], seconds: float = 10.0) -> int:
    """End a child of :func:`spawn`: SIGTERM, SIGKILL after ``seconds``; returns its code."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    if process.stdin is not None and not process.stdin.closed:
        process.stdin.close()
    return process.wait()


def _watch() -> None:
    while True:
        try:
            if not os.read(0, 4096):
                break
        except OSError:
            break
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(137)


def _main() -> None:
    import runpy
    import threading

    threading.Thread(target=_watch, name="watch the parent", daemon=True).start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
