"""A GGUF model inside this process: xllamacpp's server on a free loopback port, asked like any OpenAI-compatible one.

Goals are asked for as one letter, whose log-probabilities are the whole distribution; plans and skills as JSON. The
beginning that a question shares with the one before it stays in the server's cache, so questions are asked in the order
of their texts and only what differs is read anew.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from lore_datasets.cores import available_cores
from lore_datasets.errors import BadInput, NotFound, ServiceError, shown
from pipeline.llm.backends.fetch import MODELS, model_path
from pipeline.llm.backends.openai import OpenAI
from pipeline.llm.base import Capabilities, Prompt, Response, Stop, Take

__all__ = ["Local"]

_PATIENCE = 600.0  # seconds a question may take at least: no network is waited for, and a busy machine is slow


@lru_cache(maxsize=8)
def _sha256(path: str, size: int, changed: int) -> str:
    del size, changed  # part of the cache's key
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Local:
    """A language model by the path of its GGUF file, or by the name under which it was fetched (the default: the first
    of :data:`pipeline.llm.backends.fetch.MODELS`); named after the file, keyed by the file's SHA-256.

    The model is loaded at the first question. ``sha256`` (optional) is what the file must have; ``threads`` 0 takes one
    per core. On cores that others use too, one thread does more than two that wait for each other.
    """

    def __init__(
        self,
        model: str = "",
        *,
        sha256: str = "",
        threads: int = 0,
        context: int = 8192,
        timeout_s: float = 600.0,
    ) -> None:
        import xllamacpp  # noqa: F401  (named as missing here, not at the first question)

        model = model or next(iter(MODELS))
        path = model_path(model) if model in MODELS else Path(model)
        if not path.is_file():
            how = (
                f"lore llm fetch {model}" if model in MODELS else "give the path of a GGUF file, or see lore llm fetch"
            )
            raise NotFound(f"no model file {shown(path)}", hint=how)
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise BadInput(f"{shown(model)} is not a GGUF file")
        found = _sha256(str(path), path.stat().st_size, path.stat().st_mtime_ns)
        if sha256 and found != sha256:
            raise BadInput(f"{shown(model)} has SHA-256 {found[:16]}..., expected {shown(sha256, 19)}")
        self.path, self.context, self.timeout_s = path, context, max(timeout_s, _PATIENCE)
        self.threads = threads or int(os.environ.get("LORE_THREADS") or 0) or available_cores()
        self.name = f"local:{path.name}"
        known = next((source for source in MODELS.values() if source.sha256 == found), None)
        self.capabilities = Capabilities(
            parameters={"sha256": found, "temperature": 0.0, "letters": True},
            letters=True,
            seconds_per_question=4.0,
            about={"title": known.title, "license": known.license} if known else {},
        )
        self._server: Any = None
        self._inner: OpenAI | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Local:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Unload the model; the next question loads it again."""
        with self._lock:
            self._inner, self._server = None, None

    def answer(self, prompts: Sequence[Prompt], take: Take, stop: Stop) -> None:
        """One after the other, in the order of the texts; the model bears the name of its file."""
        order = sorted(range(len(prompts)), key=lambda i: (prompts[i].system, prompts[i].user))

        def named(part: Sequence[tuple[int, Response]]) -> None:
            take([(order[i], replace(response, model=self.path.name)) for i, response in part])

        self._loaded().answer([prompts[i] for i in order], named, stop)

    def _loaded(self) -> OpenAI:
        with self._lock:
            if self._inner is None:
                self._server = _serve(self.path, self.threads, self.context)
                self._inner = OpenAI(
                    self.path.name,
                    base_url=f"{self._server.listening_address}/v1",
                    timeout_s=self.timeout_s,
                    concurrency=1,
                    attempts=1,
                    letters=True,
                )
            return self._inner


def _serve(path: Path, threads: int, context: int) -> Any:
    """The in-process server with the model loaded; ServiceError when it cannot be."""
    xllamacpp: Any = import_module("xllamacpp")
    wanted = xllamacpp.CommonParams()
    wanted.model.path = str(path)
    wanted.n_ctx, wanted.n_parallel, wanted.port = context, 1, 0
    wanted.cpuparams.n_threads = wanted.cpuparams_batch.n_threads = threads
    wanted.warmup, wanted.offline, wanted.verbosity = False, True, 0
    try:
        return xllamacpp.Server(wanted)
    except Exception as error:
        raise ServiceError(f"model {path.name} does not load: {shown(error, 120)}", hint="try another GGUF") from None
