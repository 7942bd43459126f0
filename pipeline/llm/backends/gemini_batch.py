"""Gemini's Batch API for :mod:`pipeline.llm.backends.batch`: requests inside the job, or as an uploaded file."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from typing import Any

from lore_datasets.errors import ConfigError
from pipeline.llm.backends.batch import BatchJobs
from pipeline.llm.backends.file_formats import read_gemini
from pipeline.llm.backends.gemini import Gemini
from pipeline.llm.base import Prompt, Response
from pipeline.llm.http.service import Failed
from pipeline.llm.journal.journal import Journal

__all__ = ["GeminiBatch"]

_FILE_BYTES = 1_500_000_000
_ENDED = ("SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED", "PARTIALLY_SUCCEEDED")
"""States of a job that goes no further; it is waited for in every other one, the unknown ones too."""


class GeminiBatch(BatchJobs):
    """``mode``: ``inline`` (requests inside the job) or ``file`` (uploaded as JSON lines)."""

    keyless_hint = "the same command would order and pay them once more: take --ask.batch file, or off"

    def __init__(self, gemini: Gemini, journal: Journal, mode: str = "inline", **options: Any) -> None:
        if mode not in ("inline", "file"):
            raise ConfigError.out_of_range("ask.batch", mode, "off, inline or file")
        super().__init__(gemini, journal, **options)
        self.gemini, self.mode = gemini, mode
        if mode == "file":
            self.most_requests, self.most_bytes = 200_000, _FILE_BYTES

    def connect(self) -> AbstractContextManager[Any]:
        return closing(self.gemini.connect())

    def submit(self, client: Any, wanted: dict[str, Prompt], label: str) -> str:
        from google.genai import types

        source: Any
        if self.mode == "inline":
            source = [
                types.InlinedRequest(contents=p.user, metadata={"key": key}, config=self._settings(p))
                for key, p in wanted.items()
            ]
        else:
            lines = [json.dumps({"key": key, "request": self.gemini.request(p)}) for key, p in wanted.items()]
            body = io.BytesIO("\n".join(lines).encode())
            about = types.UploadFileConfig(mime_type="jsonl", display_name=label)
            source = client.files.upload(file=body, config=about).name
        config = types.CreateBatchJobConfig(display_name=label)
        return client.batches.create(model=self.gemini.model, src=source, config=config).name

    def _settings(self, prompt: Prompt) -> Any:
        """The SDK's form of one question's settings, for a request inside the job."""
        from google.genai import types

        body = self.gemini.request(prompt)
        about = {**body["generationConfig"], "systemInstruction": prompt.system}
        return types.GenerateContentConfig.model_validate(about)

    def labels(self, client: Any) -> Iterator[tuple[str, str]]:
        yield from ((job.display_name, job.name) for job in client.batches.list(config={"page_size": 100}))

    def results(self, client: Any, name: str) -> Iterator[tuple[str, Response]] | None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the SDK's, about a state that it does not know
            job = client.batches.get(name=name)
        if job.state is None or job.state.name.removeprefix("JOB_STATE_").removeprefix("BATCH_STATE_") not in _ENDED:
            return None
        body = client.files.download(file=job.dest.file_name) if job.dest is not None and job.dest.file_name else b""
        return self._read_all(body, (job.dest.inlined_responses if job.dest is not None else None) or [])

    def _read_all(self, body: bytes, inlined: Any) -> Iterator[tuple[str, Response]]:
        for line in body.decode("utf-8", "replace").splitlines():
            try:
                item = json.loads(line)
                key, reply = item.get("key"), item.get("response")
                yield str(key or ""), self._read(reply, item.get("error"))
            except (ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError):
                continue  # a line that does not read answers nothing; its question is asked again
        for item in inlined:
            key = (item.metadata or {}).get("key", "")  # never by position: without a key it answers nothing
            reply = item.response and item.response.model_dump(mode="json", by_alias=True, exclude_none=True)
            yield key, self._read(reply, item.error)

    def _read(self, reply: Any, error: Any) -> Response:
        if not reply:
            code = error.get("code") if isinstance(error, dict) else getattr(error, "code", None)
            text = f"batch request failed{f' (code {code})' if isinstance(code, int) else ''}"
            return Response("", self.gemini.model, finish="error", error=text)
        return read_gemini(reply, self.gemini.model)

    def stop_job(self, client: Any, name: str) -> None:
        client.batches.cancel(name=name)

    def failure(self, error: Exception) -> Failed | None:
        return self.gemini.failure(error)
