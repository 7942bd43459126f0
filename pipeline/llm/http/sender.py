"""Questions of a service, asked by a process of its own that outlives the one that wants the answers.

It owns the connections and writes each answer into the journal itself (:mod:`pipeline.llm.http.sending`). When its
parent
ends, however it ends, it begins no further question, waits for what is in flight, at most for the deadline of one
question, writes those answers and ends too. A :class:`Sender` on the same journal waits for such a process first: so a
kill of the parent loses no answer, and nothing is asked twice. Keys come from the environment and never travel.
"""

from __future__ import annotations

import json
import logging
import queue
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lore_datasets import errors
from lore_datasets.errors import LoreError, ServiceError
from pipeline.llm.base import Prompt, response_from

__all__ = ["Sender", "Senders", "wait_for_senders"]

_LOG = logging.getLogger("lore")


class Sender:
    """One such process, for one adviser and one journal file.

    Args:
        spec: how the adviser is made there (:attr:`pipeline.llm.http.service.Service.spec`).
        journal: its file. kind: of its class (:data:`pipeline.llm.journal.shard_journal.KINDS`).
    """

    def __init__(self, spec: Mapping[str, Any], journal: Path, kind: str) -> None:
        from filelock import FileLock

        wait_for_senders(journal)
        mark = journal.with_name(f".{journal.name}.{uuid.uuid4().hex[:12]}")
        self._marks = (Path(f"{mark}.parent"), Path(f"{mark}.sender"))
        self._alive = FileLock(self._marks[0], thread_local=False)
        self._alive.acquire()
        self._streams: dict[int, queue.SimpleQueue[Any]] = {0: queue.SimpleQueue()}
        self._lock, self._last = threading.Lock(), 0
        self._ended: ServiceError | None = None
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.llm.http.sending"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        threading.Thread(target=self._read, name="answers of a sender", daemon=True).start()
        self._tell({"spec": dict(spec), "journal": str(journal), "kind": kind, "mark": str(self._marks[1])})
        try:
            self._next(0)
        except BaseException:
            self.close()
            raise

    def ask(
        self, keys: Sequence[str], prompts: Sequence[Prompt], concurrency: int, take: Callable[[list], None]
    ) -> None:
        """Ask all; ``take`` gets lists of (index, Response) that are in the journal already.

        What it raises ends the asking: no further question begins, and what is in flight is written all the same.
        """
        with self._lock:
            if self._ended is not None:
                raise self._ended
            self._last += 1
            stream, self._streams[self._last] = self._last, queue.SimpleQueue()
        shared = {(p.system, id(p.schema)): (p.system, p.schema) for p in prompts}
        place = {key: i for i, key in enumerate(shared)}
        questions = [
            (key, place[p.system, id(p.schema)], p.kind, p.user, p.options, p.max_tokens)
            for key, p in zip(keys, prompts, strict=True)
        ]
        try:
            self._tell(
                {"ask": stream, "concurrency": concurrency, "shared": [*shared.values()], "questions": questions}
            )
            while part := self._next(stream):
                take([(i, response_from(body)) for i, body in part])
        except BaseException:
            self._tell({"stop": stream})
            raise
        finally:
            with self._lock:
                del self._streams[stream]

    def close(self, seconds: float = 2.0) -> None:
        """Let the process end; one that has questions in flight is not waited for longer than that."""
        with suppress(OSError):
            self._process.stdin.close()  # type: ignore[union-attr]
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
            for mark in self._marks:
                mark.unlink(missing_ok=True)
        self._alive.release()

    def _tell(self, message: Mapping[str, Any]) -> None:
        with suppress(OSError, ValueError), self._lock:  # of one that has ended the reader says so
            self._process.stdin.write(json.dumps(message).encode() + b"\n")  # type: ignore[union-attr]
            self._process.stdin.flush()  # type: ignore[union-attr]

    def _next(self, stream: int) -> Any:
        """What the process says next of a stream; raises what it says went wrong."""
        found = self._streams[stream].get()
        if isinstance(found, LoreError):
            raise found
        return found

    def _read(self) -> None:
        with self._process.stdout as lines:  # type: ignore[union-attr]
            for line in lines:
                stream, found = json.loads(line)
                if isinstance(found, dict):
                    found = getattr(errors, found.pop("class"), ServiceError)(found.pop("message"), **found)
                with suppress(KeyError):  # nobody listens any more
                    self._streams[stream].put(found)
        self._ended = ServiceError(
            f"partial: the process that asks has ended (code {self._process.wait()})",
            kept="every answer that was written",
            hint="run the same command again; what was in flight is asked again",
        )
        with self._lock:
            for waiting in self._streams.values():
                waiting.put(self._ended)


class Senders:
    """The senders of one journal, each started when it is first wanted; safe with threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, Sender] = {}

    def get(self, spec: Mapping[str, Any], journal: Path, kind: str) -> Sender:
        """The one for ``spec``."""
        name = json.dumps(spec, sort_keys=True)
        with self._lock:
            if name not in self._running:
                self._running[name] = Sender(spec, journal, kind)
            return self._running[name]

    def close(self) -> None:
        """Let all end."""
        with self._lock:
            while self._running:
                self._running.popitem()[1].close()


def wait_for_senders(journal: Path) -> None:
    """Wait until nobody's questions are in flight for ``journal`` any more but those of a living parent."""
    from filelock import FileLock, Timeout

    for mark in sorted(journal.parent.glob(f".{journal.name}.*.sender")):
        parent, sender = FileLock(mark.with_suffix(".parent")), FileLock(mark)
        with suppress(Timeout):
            parent.acquire(timeout=0.2)
            parent.release()
            try:
                sender.acquire(timeout=0)
            except Timeout:
                _LOG.warning("waiting for the answers to what a stopped run has in flight, for %s", journal)
                sender.acquire()
            sender.release()
            mark.unlink(missing_ok=True)
            mark.with_suffix(".parent").unlink(missing_ok=True)
