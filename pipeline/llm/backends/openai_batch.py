"""OpenAI's Batch API (``/v1/files``, ``/v1/batches``) for :mod:`pipeline.llm.backends.batch`, over aiohttp.

Any server that speaks it will do. A result file is read from the disk line by line, however large it is.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from lore_datasets.errors import shown
from pipeline.llm.backends.batch import BatchJobs
from pipeline.llm.backends.file import json_lines
from pipeline.llm.backends.file_formats import LIMITS, answer_of
from pipeline.llm.backends.openai import OpenAI
from pipeline.llm.base import Prompt, Response
from pipeline.llm.http.pace import retry_after
from pipeline.llm.http.service import RETRIED, Failed, unanswered
from pipeline.llm.http.transport import TooLarge, connections
from pipeline.llm.journal.journal import Journal

__all__ = ["OpenAIBatch"]

_ENDED = ("completed", "failed", "expired", "cancelled")
_PAGES = 20
_FILE = "application/jsonl"
_SECONDS = 600.0  # of one request, a whole file of results among them


class OpenAIBatch(BatchJobs):
    """Chat completions as jobs of one uploaded file each; ``failed`` ones say why in ``refused``."""

    most_requests, most_bytes, _ = LIMITS["openai"]

    def __init__(self, openai: OpenAI, journal: Journal, **options: Any) -> None:
        super().__init__(openai, journal, **options)
        self.openai = openai

    def connect(self) -> AbstractContextManager[Any]:
        self.openai.check()
        return nullcontext()

    def submit(self, client: Any, wanted: dict[str, Prompt], label: str) -> str:
        lines = [
            json.dumps({"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": self.openai.body(p)})
            for key, p in wanted.items()
        ]
        file = self._ask("POST", "files", upload=(f"{label}.jsonl", "\n".join(lines) + "\n"))["id"]
        job = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        return str(self._ask("POST", "batches", {**job, "metadata": {"lore": label}})["id"])

    def labels(self, client: Any) -> Iterator[tuple[str, str]]:
        after = ""
        for _ in range(_PAGES):
            page = self._ask("GET", f"batches?limit=100{after}")
            for job in page["data"]:
                yield str((job.get("metadata") or {}).get("lore", "")), str(job["id"])
            if not page.get("has_more") or not page["data"]:
                return
            after = f"&after={page['data'][-1]['id']}"

    def results(self, client: Any, name: str) -> Iterator[tuple[str, Response]] | None:
        job = self._ask("GET", f"batches/{name}")
        if job["status"] not in _ENDED:
            return None
        told = [str(each.get("message") or each.get("code")) for each in (job.get("errors") or {}).get("data") or []]
        self.refused = shown(f"{name} {job['status']}: {'; '.join(told)}", 200) if told else ""
        folder = tempfile.TemporaryDirectory(prefix="lore-batch-")
        paths = [Path(folder.name, at) for at in ("output_file_id", "error_file_id") if job.get(at)]
        for path in paths:
            self._ask("GET", f"files/{job[path.name]}/content", into=path)
        return self._lines(folder, paths)

    def _lines(self, folder: AbstractContextManager[Any], paths: list[Path]) -> Iterator[tuple[str, Response]]:
        with folder:
            for _, line in (each for path in paths for each in json_lines(path)):
                try:
                    row = json.loads(line or "")
                    key, response = answer_of({"custom_id": "", **row}, self.openai.model)
                    if (row.get("response") or {}).get("status_code") == 400:
                        self.openai.adapts(json.dumps(row["response"].get("body")), set())
                except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
                    continue  # a line that does not read answers nothing; its question is asked again
                yield key, response

    def stop_job(self, client: Any, name: str) -> None:
        self._ask("POST", f"batches/{name}/cancel")

    def failure(self, error: Exception) -> Failed | None:
        if isinstance(error, Failed):
            return error
        if isinstance(error, (ValueError, KeyError, TypeError, AttributeError)):
            return Failed(f"the server's answer does not read: {type(error).__name__}", again=True)
        return None

    def _ask(
        self, method: str, path: str, body: Any = None, upload: tuple[str, str] | None = None, into: Path | None = None
    ) -> Any:
        """One request, in an event loop of its own; the JSON of the reply, which ``into`` takes as a file instead."""
        import aiohttp

        key = os.environ.get("OPENAI_API_KEY", "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        form: Any = None
        if upload is not None:
            form = aiohttp.FormData()
            form.add_field("purpose", "batch")
            form.add_field("file", upload[1].encode(), filename=upload[0], content_type=_FILE)
        elif body is not None:
            headers["Content-Type"], form = "application/json", json.dumps(body).encode()

        async def ask() -> Any:
            where = self.openai.base_url
            async with (
                asyncio.timeout(_SECONDS),
                connections(where, self.openai.is_free) as session,
                session.request(method, f"{where}/{path}", data=form, headers=headers, allow_redirects=False) as reply,
            ):
                if reply.status != 200:
                    again, wait_s = reply.status in RETRIED, retry_after(reply.headers)
                    raise Failed(f"HTTP {reply.status}", again, wait_s, reply.status)
                if into is None:
                    return json.loads(await reply.read())
                with into.open("wb") as file:
                    async for part in reply.content.iter_any():
                        file.write(part)
                return None

        try:
            return asyncio.run(ask())
        except (aiohttp.ClientError, OSError, TimeoutError, TooLarge) as error:
            raise unanswered(error) from None
