"""Counts the Prefect servers that a test session starts, in whatever process: each costs seconds, so one has to do."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from itertools import pairwise

import psutil

__all__ = ["ServerCount", "servers"]


class ServerCount:
    """Looks at the processes below this one once a second; a server lives for many seconds, so that none is missed."""

    def __init__(self) -> None:
        self.found: dict[tuple[int, float], str] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="server count", daemon=True)
        self._thread.start()

    def stop(self) -> list[str]:
        """Command lines of the servers that were seen, oldest first."""
        self._ended.set()
        self._thread.join()
        return [self.found[key] for key in sorted(self.found, key=lambda key: key[1])]

    def _watch(self) -> None:
        while not self._ended.wait(1.0):
            self.look()

    def look(self) -> None:
        """Note the servers that run now."""
        self.found |= servers(psutil.Process(os.getpid()).children(recursive=True))


def servers(processes: Iterable[psutil.Process]) -> dict[tuple[int, float], str]:
    """(pid, start) -> command line of Prefect servers; those that one of them started are part of it."""
    found: dict[int, tuple[psutil.Process, list[str]]] = {}
    for process in processes:
        with suppress(psutil.Error):
            words = process.cmdline()
            if ("server", "start") in pairwise(words) or any("prefect.server.api.server" in word for word in words):
                found[process.pid] = (process, words)
    out = {}
    for process, words in found.values():
        with suppress(psutil.Error):
            if process.ppid() not in found:
                out[process.pid, process.create_time()] = " ".join(words)[-200:]
    return out
