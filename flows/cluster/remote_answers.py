"""Questions answered by the workers of a Dask cluster, for advisers that compute: a local model, rule book, controls.

A worker makes the adviser from the settings, answers a chunk of questions and hands the responses back; it writes
nothing. The process that asks owns the journal and alone sends requests of network services.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING

from flows.cluster.cluster import result_of
from lore_datasets.errors import BadInput
from pipeline.config import AskConfig
from pipeline.llm.base import LLM, Prompt, Response, Stop, Take

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["OnCluster"]

_CHUNK = 64
_AHEAD = 2  # chunks per thread of the cluster, so that none waits for the next one


class OnCluster:
    """``inner`` by name and capabilities, answered on a cluster.

    Args:
        ask, environment, seed: what a worker makes the adviser from (:func:`pipeline.llm.backend_from`).
        at_a_time: threads that answer.
    """

    def __init__(self, inner: LLM, client: Client, ask: AskConfig, environment: str, seed: int, at_a_time: int) -> None:
        self.name, self.capabilities = inner.name, inner.capabilities
        self._client, self._settings, self._at_a_time = client, (ask, environment, seed), at_a_time

    def answer(self, prompts: Sequence[Prompt], take: Take, stop: Stop) -> None:
        """:meth:`pipeline.llm.base.LLM.answer`, chunk by chunk; a chunk whose worker dies is begun anew elsewhere."""
        size = max(1, min(_CHUNK, self.capabilities.chunk, -(-len(prompts) // self._at_a_time)))
        left = iter(range(0, len(prompts), size))
        running: deque = deque()
        try:
            while True:
                while (
                    len(running) < _AHEAD * self._at_a_time and not stop() and (begin := next(left, None)) is not None
                ):
                    chunk = list(prompts[begin : begin + size])
                    work = (_answers, *self._settings, chunk, version("lore-rl"))
                    running.append((begin, self._client.submit(*work, pure=False)))
                if not running:
                    return
                begin, future = running.popleft()
                take(list(enumerate(result_of(future, "a chunk of questions"), begin)))
        finally:
            for _, future in running:
                future.cancel()


def _answers(ask: AskConfig, environment: str, seed: int, prompts: list[Prompt], wanted: str) -> list[Response]:
    """One Response per prompt; runs on a worker. BadInput where its LoRe is another version."""
    from pipeline.llm.base import complete

    if wanted != version("lore-rl"):
        raise BadInput(f"this worker has LoRe {version('lore-rl')}, the flow {wanted}", hint="install the same version")
    return complete(_adviser(ask, environment, seed), prompts)


@lru_cache(maxsize=1)
def _adviser(ask: AskConfig, environment: str, seed: int) -> LLM:
    """Kept for the next chunk, for a local model takes long to load."""
    from lore_datasets.environments import get_environment
    from pipeline.llm import backend_from

    return backend_from(ask, get_environment(environment), seed)
