"""Gemini's Batch API: half the price, an answer within a day, and no answer paid twice whatever is killed when.

Before a job is created its intention (a display name) is written to the journal; its name replaces that before the
first poll. A later run collects open jobs first, finds the name of a job whose creation was cut off by its display
name, uses what answers there are, and asks the rest again.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from lore_datasets.errors import ConfigError, ServiceError, shown
from pipeline.llm.backends.gemini import Gemini
from pipeline.llm.base import Prompt, Response, Stop, Take
from pipeline.llm.journal.budget import why_failed
from pipeline.llm.journal.journal import Journal

__all__ = ["GeminiBatch"]

_INLINE_BYTES = 15_000_000
_FILE_BYTES = 1_500_000_000
_PREFIX = "intended:"
_OPEN = ("JOB_STATE_PENDING", "JOB_STATE_RUNNING", "JOB_STATE_QUEUED", "JOB_STATE_UNSPECIFIED", "JOB_STATE_PAUSED")


class GeminiBatch:
    """The questions of :class:`Gemini` as batch jobs, under the same name and parameters (one journal serves both).

    Args:
        gemini: who is asked; fewer than ``least`` questions go to it interactively.
        journal: keeps the names of open jobs; the one that the answers go to.
        mode: ``inline`` (requests inside the job) or ``file`` (uploaded as JSON lines).
        poll_s: seconds between looks at a job.
        times: jobs that one question may be part of in one run.
        least: fewest questions that make a job.
    """

    def __init__(
        self,
        gemini: Gemini,
        journal: Journal,
        mode: str = "inline",
        *,
        poll_s: float = 30.0,
        times: int = 2,
        least: int = 8,
    ) -> None:
        if mode not in ("inline", "file"):
            raise ConfigError.out_of_range("ask.batch", mode, "off, inline or file")
        self.gemini, self.mode, self.poll_s, self.times, self.least = gemini, mode, poll_s, times, least
        self.name, self._journal = gemini.name, journal
        known = gemini.capabilities
        self.capabilities = replace(
            known, one_shard=True, seconds_per_question=30.0, concurrency=1, estimate=known.estimate and self.estimate
        )

    def estimate(self, prompt: Prompt) -> float:
        """Highest price of a question: half the interactive one."""
        return self.gemini.estimate(prompt) / 2

    def answer(self, prompts: Sequence[Prompt], take: Take, stop: Stop) -> None:
        """Job by job; an interrupt loses nothing, the next run collects what was ordered."""
        keys = self._journal.keys(self, prompts)
        left = dict(zip(keys, range(len(prompts)), strict=True))
        client = self.gemini.connect()
        try:
            failed: dict[str, Response] = {}
            self._collect(client, left, failed, take)
            if 0 < len(left) < self.least:
                rest = sorted(left.values())
                asked = [prompts[i] for i in rest]
                self.gemini.answer(asked, lambda part: take([(rest[i], response) for i, response in part]), stop)
                return
            for _ in range(self.times):
                if left and not stop():
                    self._order(client, {key: prompts[i] for key, i in left.items()})
                    self._collect(client, left, failed, take)
            nothing = Response("", self.gemini.model, finish="error", error="no answer in any batch job")
            if left and not stop():
                take([(i, failed.get(key, nothing)) for key, i in left.items()])
        finally:
            client.close()

    def _order(self, client: Any, wanted: dict[str, Prompt]) -> None:
        """Create jobs for all of ``wanted`` (key -> prompt); each name is stored before the next step."""
        largest = _INLINE_BYTES if self.mode == "inline" else _FILE_BYTES
        part: dict[str, Prompt] = {}
        size = 0
        for key, prompt in wanted.items():
            more = 2 * len(prompt.text.encode()) + len(json.dumps(prompt.schema)) + 500
            if part and size + more > largest:
                self._create(client, part)
                part, size = {}, 0
            part[key] = prompt
            size += more
        self._create(client, part)

    def _create(self, client: Any, wanted: dict[str, Prompt]) -> None:
        from google.genai import types

        label = hashlib.sha256(f"{time.time_ns()}{''.join(wanted)}".encode()).hexdigest()[:24]
        self._journal.put_batch(_PREFIX + label, self.name, list(wanted))
        config = types.CreateBatchJobConfig(display_name=f"lore-{label}")

        def create() -> Any:
            source: Any
            if self.mode == "inline":
                source = [
                    types.InlinedRequest(contents=p.user, metadata={"key": key}, config=self._settings(p))
                    for key, p in wanted.items()
                ]
            else:
                lines = [json.dumps({"key": key, "request": self.gemini.request(p)}) for key, p in wanted.items()]
                body = io.BytesIO("\n".join(lines).encode())
                about = types.UploadFileConfig(mime_type="jsonl", display_name=f"lore-{label}")
                source = client.files.upload(file=body, config=about).name
            return client.batches.create(model=self.gemini.model, src=source, config=config)

        job = self._call(create, attempts=1)
        self._journal.put_batch(job.name, self.name, list(wanted), instead_of=_PREFIX + label)

    def _settings(self, prompt: Prompt) -> Any:
        """The SDK's form of one question's settings, for a request inside the job."""
        from google.genai import types

        body = self.gemini.request(prompt)
        about = {**body["generationConfig"], "systemInstruction": prompt.system}
        return types.GenerateContentConfig.model_validate(about)

    def _collect(self, client: Any, left: dict[str, int], failed: dict[str, Response], take: Take) -> None:
        """Wait for the open jobs that hold any of ``left`` and hand out their answers; takes them out of ``left``."""
        asked = set(left)
        for name, keys in self._journal.batches(self.name):
            if not any(key in left for key in keys):
                continue
            if name.startswith(_PREFIX):
                found = self._named(client, name.removeprefix(_PREFIX))
                if found is None:  # it was never created
                    self._journal.drop_batch(name)
                    continue
                self._journal.put_batch(found, self.name, keys, instead_of=name)
                name = found
            part = []
            for key, response in self._answers(client, name, keys):
                if key in left and response.error is None:
                    part.append((left.pop(key), response))
                elif key in left:
                    failed[key] = response
            take(part)
            rest = [key for key in keys if key not in asked and self._journal.get(key) is None]
            if rest:  # ordered by a run with other questions, which may come back
                self._journal.put_batch(name, self.name, rest, instead_of=name)
            else:
                self._journal.drop_batch(name)  # whatever it did not answer is asked again

    def _named(self, client: Any, label: str) -> str | None:
        jobs = self._call(lambda: list(client.batches.list(config={"page_size": 100})))
        return next((job.name for job in jobs if job.display_name == f"lore-{label}"), None)

    def _answers(self, client: Any, name: str, keys: Sequence[str]) -> Iterator[tuple[str, Response]]:
        """(key, Response) of a job when it has ended, however it has ended."""
        job = self._call(lambda: client.batches.get(name=name), gone=True)
        if job is None:
            return
        while job.state is None or job.state.name in _OPEN:
            time.sleep(self.poll_s)
            job = self._call(lambda: client.batches.get(name=name))
        if job.dest is not None and job.dest.file_name:
            body = self._call(lambda: client.files.download(file=job.dest.file_name))
            yield from self._lines(body, set(keys))
        inlined = (job.dest.inlined_responses if job.dest is not None else None) or []
        for item in inlined:
            key = (item.metadata or {}).get("key", "")  # never by position: without a key it answers nothing
            reply = item.response and item.response.model_dump(mode="json", by_alias=True, exclude_none=True)
            yield key, self._read(reply, item.error)

    def _lines(self, body: bytes, keys: set[str]) -> Iterator[tuple[str, Response]]:
        for line in body.decode("utf-8", "replace").splitlines():
            try:
                item = json.loads(line)
                key, reply = item.get("key"), item.get("response")
                if key in keys:
                    yield key, self._read(reply, item.get("error"))
            except (ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError):
                continue  # a line that does not read answers nothing; its question is asked again

    def _read(self, reply: Any, error: Any) -> Response:
        if not reply:
            code = error.get("code") if isinstance(error, dict) else getattr(error, "code", None)
            text = f"batch request failed{f' (code {code})' if isinstance(code, int) else ''}"
            return Response("", self.gemini.model, finish="error", error=text)
        response = self.gemini.read(reply)
        return replace(response, price_usd=self.gemini.dollars(response, batch=True))

    def _call(self, work: Any, attempts: int = 6, gone: bool = False) -> Any:
        """One call of the service, again after a failure that may pass; ServiceError when it stays.

        With ``gone``, None for what the service no longer knows.
        """
        for attempt in range(attempts):
            try:
                return work()
            except Exception as error:
                failed = self.gemini.failure(error)
                if failed is None:
                    raise
                if gone and failed.status == 404:
                    return None
                if not failed.again or attempt + 1 == attempts:
                    what, hint = why_failed(failed.status)
                    raise ServiceError(
                        f"partial: batch job: {what}{shown(failed.text)}",
                        kept=f"every answer and the names of open jobs, in {self._journal.path}",
                        hint=f"{hint}; what was ordered is collected then",
                    ) from None
                time.sleep(max(failed.wait_s, min(self.poll_s, 2.0**attempt)))
        raise AssertionError
