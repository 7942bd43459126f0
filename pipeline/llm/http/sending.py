"""The process behind a :class:`pipeline.llm.http.sender.Sender`: it asks what its parent says and writes every answer.

``python -m pipeline.llm.http.sending`` reads lines of JSON: first what to ask and where to write, then questions, and
which
of them to stop. It answers with lines ``[stream, answers]``, an empty list at the end of a stream, or what went wrong.
"""

from __future__ import annotations

import copy
import gc
import json
import os
import sys
import threading
from contextlib import suppress
from typing import Any

from lore_datasets.errors import LoreError
from pipeline.config import AskConfig
from pipeline.llm import backend_from
from pipeline.llm.base import Prompt, Response
from pipeline.llm.http.pace import Circuit
from pipeline.llm.http.service import Service
from pipeline.llm.journal.journal import Journal
from pipeline.llm.journal.shard_journal import KINDS

__all__: list[str] = []


class _Stream(threading.Thread):
    """One list of questions on its way; what a stopped one before still gets an answer to is not asked again."""

    def __init__(self, message: dict[str, Any], service: Service, journal: Journal, before: list[_Stream]) -> None:
        super().__init__()
        self.number, self.service, self.journal, self.before = message["ask"], copy.copy(service), journal, before
        self.service.concurrency = message["concurrency"]
        shared = message["shared"]
        self.entries = [
            (key, Prompt(kind, shared[at][0], user, shared[at][1], tuple(options), max_tokens=most))
            for key, at, kind, user, options, most in message["questions"]
        ]
        self.circuit = Circuit()

    def run(self) -> None:
        try:
            for stream in self.before:
                stream.join()
            known = self.journal.get_many([key for key, _ in self.entries]) if self.before else {}
            self._say([(i, known[key]) for i, (key, _) in enumerate(self.entries) if key in known])
            left = [i for i, (key, _) in enumerate(self.entries) if key not in known]

            def take(part: list[tuple[int, Response]]) -> None:
                answers = [(left[i], response) for i, response in part]
                self.journal.put([(*self.entries[i], response) for i, response in answers], self.service)
                self._say(answers)

            self.service.answer_to(take, [self.entries[i][1] for i in left], self.circuit)
        except LoreError as error:
            _tell(self.number, {"class": type(error).__name__, **vars(error)})
        except BaseException as error:
            _tell(self.number, {"class": "ServiceError", "message": f"the process that asks: {type(error).__name__}"})
        _tell(self.number, [])

    def _say(self, answers: list[tuple[int, Response]]) -> None:
        if answers:
            _tell(self.number, [(i, vars(response)) for i, response in answers])


_OUT = threading.Lock()


def _tell(stream: int, found: Any) -> None:
    left = json.dumps([stream, found]).encode() + b"\n"
    with _OUT, suppress(OSError):  # the parent may be gone
        while left:
            left = left[os.write(1, left) :]


def _main() -> None:
    from filelock import FileLock

    first = json.loads(sys.stdin.readline() or "null")
    if first is None:
        return
    try:
        service = backend_from(AskConfig(**first["spec"]))
        assert isinstance(service, Service)
        if first["kind"] == "shard":
            service.pace.drain()
        with FileLock(first["mark"]), KINDS[first["kind"]](first["journal"]) as journal:
            gc.freeze()  # modules stay: looking through them again would hold up what is in flight
            _tell(0, "ready")
            _serve(service, journal)
    except LoreError as error:
        _tell(0, {"class": type(error).__name__, **vars(error)})


def _serve(service: Service, journal: Journal) -> None:
    streams: dict[int, _Stream] = {}
    for line in sys.stdin:
        message = json.loads(line)
        if "stop" in message and message["stop"] in streams:
            streams[message["stop"]].circuit.open()
        elif "ask" in message:
            streams = {number: stream for number, stream in streams.items() if stream.is_alive()}
            before = [stream for stream in streams.values() if stream.circuit.is_open]
            streams[message["ask"]] = stream = _Stream(message, service, journal, before)
            stream.start()
    for stream in streams.values():
        stream.circuit.open()
    for stream in streams.values():
        stream.join()


if __name__ == "__main__":
    _main()
