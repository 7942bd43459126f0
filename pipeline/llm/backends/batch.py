"""Batch jobs of a service: half the price, an answer within a day, and no answer paid twice whatever is killed when.

Before a job is created its intention (a label) is written to the journal; the job's name replaces that before the
first poll. A later run collects open jobs first, finds the name of a job whose creation was cut off by its label, uses
what answers there are, and asks the rest again. What a service has to do for it is in the methods of the subclasses.
"""

from __future__ import annotations

import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from lore_datasets.errors import ServiceError, shown
from pipeline.llm.base import Prompt, Response, Stop, Take
from pipeline.llm.http.service import Failed, Service
from pipeline.llm.journal.budget import LEFT, why_failed
from pipeline.llm.journal.journal import Journal

__all__ = ["BatchJobs"]

_PREFIX = "intended:"


class BatchJobs(ABC):
    """The questions of ``service`` as batch jobs, under the same name and parameters (one journal serves both).

    Args:
        service: who is asked; fewer than ``least`` questions go to it interactively.
        journal: keeps the names of open jobs; the one that the answers go to.
        poll_s: seconds between looks at a job.
        times: jobs that one question may be part of in one run.
        least: fewest questions that make a job.
    """

    most_requests, most_bytes = 50_000, 15_000_000
    """Of one job."""
    keyless_hint = "the same command would order and pay them once more: take --ask.batch off"

    def __init__(
        self, service: Service, journal: Journal, *, poll_s: float = 30.0, times: int = 2, least: int = 8
    ) -> None:
        self.service, self.poll_s, self.times, self.least = service, poll_s, times, least
        self.name, self._journal = service.name, journal
        self.refused = ""
        known = service.capabilities
        self.capabilities = replace(
            known, one_shard=True, seconds_per_question=30.0, concurrency=1, estimate=known.estimate and self.estimate
        )

    @abstractmethod
    def connect(self) -> AbstractContextManager[Any]:
        """What the calls of one run share."""

    @abstractmethod
    def submit(self, client: Any, wanted: dict[str, Prompt], label: str) -> str:
        """Create a job of key -> prompt that bears ``label``; its name."""

    @abstractmethod
    def labels(self, client: Any) -> Iterator[tuple[str, str]]:
        """(label, name) of the service's jobs, newest first."""

    @abstractmethod
    def results(self, client: Any, name: str) -> Iterator[tuple[str, Response]] | None:
        """(key, Response) of an ended job, however it ended, key "" where there is none; None while it runs."""

    @abstractmethod
    def stop_job(self, client: Any, name: str) -> None:
        """Cancel a job; what it has answered so far stays."""

    @abstractmethod
    def failure(self, error: Exception) -> Failed | None:
        """What an error of a call means; None for one that is not the service's."""

    def estimate(self, prompt: Prompt) -> float:
        """Highest price of a question: half the interactive one."""
        return self.service.estimate(prompt) / 2

    def answer(self, prompts: Sequence[Prompt], take: Take, stop: Stop) -> None:
        """Job by job; an interrupt loses nothing, the next run collects what was ordered."""
        keys = self._journal.keys(self, prompts)
        left = dict(zip(keys, range(len(prompts)), strict=True))
        with self.connect() as client:
            failed: dict[str, Response] = {}
            self._collect(client, left, failed, take)
            if 0 < len(left) < self.least:
                rest = sorted(left.values())
                asked = [prompts[i] for i in rest]
                self.service.answer(asked, lambda part: take([(rest[i], response) for i, response in part]), stop)
                return
            for _ in range(self.times):
                if left and not stop():
                    self._order(client, {key: prompts[i] for key, i in left.items()})
                    self._collect(client, left, failed, take)
            why = f": {self.refused}" if self.refused else ""
            nothing = Response("", self.service.model, finish="error", error=f"no answer in any batch job{why}")
            if left and not stop():
                finish = LEFT if len(left) < len(keys) else "error"  # a service that answers none may be asked no more
                take([(i, replace(failed.get(key, nothing), finish=finish)) for key, i in left.items()])

    def cancel(self) -> tuple[int, int]:
        """Cancel the open jobs of this adviser; (jobs, questions in them). What they answered is collected later."""
        jobs = questions = 0
        with self.connect() as client:
            for name, keys in self._journal.batches(self.name):
                found = self._known(client, name, keys)
                if found is not None:
                    self._call(lambda name=found: self.stop_job(client, name), gone=True)
                    jobs, questions = jobs + 1, questions + len(keys)
        return jobs, questions

    def _order(self, client: Any, wanted: dict[str, Prompt]) -> None:
        """Create jobs for all of ``wanted`` (key -> prompt); each name is stored before the next step."""
        part: dict[str, Prompt] = {}
        size = 0
        for key, prompt in wanted.items():
            more = 2 * len(prompt.text.encode()) + len(json.dumps(prompt.schema)) + 500
            if part and (size + more > self.most_bytes or len(part) >= self.most_requests):
                self._create(client, part)
                part, size = {}, 0
            part[key] = prompt
            size += more
        self._create(client, part)

    def _create(self, client: Any, wanted: dict[str, Prompt]) -> None:
        label = hashlib.sha256(f"{time.time_ns()}{''.join(wanted)}".encode()).hexdigest()[:24]
        self._journal.put_batch(_PREFIX + label, self.name, list(wanted))
        name = self._call(lambda: self.submit(client, wanted, f"lore-{label}"), attempts=1)
        self._journal.put_batch(name, self.name, list(wanted), instead_of=_PREFIX + label)

    def _known(self, client: Any, name: str, keys: Sequence[str]) -> str | None:
        """The name of an open job, looked up by its label where its creation was cut off; None: it was never made."""
        if not name.startswith(_PREFIX):
            return name
        label = f"lore-{name.removeprefix(_PREFIX)}"
        found = next((job for said, job in self._call(lambda: list(self.labels(client))) if said == label), None)
        if found is None:
            self._journal.drop_batch(name)
        else:
            self._journal.put_batch(found, self.name, keys, instead_of=name)
        return found

    def _collect(self, client: Any, left: dict[str, int], failed: dict[str, Response], take: Take) -> None:
        """Wait for the open jobs that hold any of ``left`` and hand out their answers; takes them out of ``left``."""
        asked = set(left)
        for named, keys in self._journal.batches(self.name):
            if not any(key in left for key in keys) or (name := self._known(client, named, keys)) is None:
                continue
            part, strange = [], 0
            for key, response in self._ended(client, name):
                strange += key not in keys
                if key in left and response.error is None:
                    dollars = self.service.dollars(response, batch=True)
                    part.append((left.pop(key), replace(response, price_usd=dollars)))
                elif key in left:
                    failed[key] = response
            take(part)
            if strange and not part:
                self._journal.drop_batch(name)
                raise ServiceError(
                    f"batch job {name} has {strange:,} answers without the keys of their questions: none can be used",
                    kept=f"every answer so far, in {self._journal.path}", hint=self.keyless_hint,
                )  # fmt: skip
            rest = [key for key in keys if key not in asked and self._journal.get(key) is None]
            if rest:  # ordered by a run with other questions, which may come back
                self._journal.put_batch(name, self.name, rest, instead_of=name)
            else:
                self._journal.drop_batch(name)  # whatever it did not answer is asked again

    def _ended(self, client: Any, name: str) -> Iterator[tuple[str, Response]]:
        """The results of a job, when it has ended; none of one that the service no longer knows."""
        while (found := self._call(lambda: self.results(client, name), gone=True, nothing=())) is None:
            time.sleep(self.poll_s)
        yield from found

    def _call(self, work: Any, attempts: int = 6, gone: bool = False, nothing: Any = None) -> Any:
        """One call of the service, again after a failure that may pass; ServiceError when it stays.

        With ``gone``, ``nothing`` for what the service no longer knows.
        """
        for attempt in range(attempts):
            try:
                return work()
            except Exception as error:
                failed = self.failure(error)
                if failed is None:
                    raise
                if gone and failed.status == 404:
                    return nothing
                if not failed.again or attempt + 1 == attempts:
                    what, hint = why_failed(failed.status)
                    raise ServiceError(
                        f"partial: batch job: {what}{shown(failed.text)}",
                        kept=f"every answer and the names of open jobs, in {self._journal.path}",
                        hint=f"{hint}; what was ordered is collected then",
                    ) from None
                time.sleep(max(failed.wait_s, min(self.poll_s, 2.0**attempt)))
        raise AssertionError
