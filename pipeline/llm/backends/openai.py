"""Any OpenAI-compatible server (vLLM, llama.cpp, Ollama, a provider), asked over aiohttp.

The key, where a server wants one, is read from ``OPENAI_API_KEY`` for each connection pool and kept nowhere.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any, Unpack
from urllib.parse import urlsplit

from lore_datasets.errors import ConfigError, UsageError
from pipeline.llm.backends.file_formats import read_openai
from pipeline.llm.base import DRAFT_TEMPERATURE, Prompt, Response, request_hash
from pipeline.llm.http.pace import retry_after
from pipeline.llm.http.service import RETRIED, THINKING_ROOM, Failed, Limits, Service, unanswered
from pipeline.llm.http.transport import TooLarge, connections
from pipeline.questions.prompts import LETTERS

__all__ = ["OpenAI", "letter_probabilities"]

_TOP = 20


class OpenAI(Service):
    """Chat completions with a JSON schema, or with one letter and its log-probabilities (``letters=True``).

    ``thinking``: tokens that the model may think, beside those of the answer; -1 gives :data:`THINKING_ROOM` to a model
    that refuses ``max_tokens`` (those that think do), none to others.
    """

    def __init__(
        self,
        model: str = "",
        *,
        base_url: str = "https://api.openai.com/v1",
        temperature: float = 0.0,
        letters: bool = False,
        thinking: int = -1,
        **limits: Unpack[Limits],
    ) -> None:
        if not model:
            raise ConfigError("backend openai needs a model name", hint="give ask.model, as the server calls it")
        parameters: dict[str, Any] = {"temperature": temperature, "letters": letters}
        parameters |= {"thinking": thinking} if thinking > 0 else {}
        room = max(thinking, 0)
        super().__init__("openai", model, base_url, parameters, letters=letters, thinking_room=room, **limits)
        self.temperature, self.letters, self._thinking = temperature, letters, thinking
        self._unknown: set[str] = set()
        self._refused: Counter[str] = Counter()
        self._session = uuid.uuid4().hex[:8]

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Any]:
        """``post(body, headers)`` over one session. The key is in no header of its own: those a proxy is shown."""
        key = os.environ.get("OPENAI_API_KEY", "")
        url = f"{self.base_url}/chat/completions"
        common = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        async with connections(self.base_url, self.is_free) as session:
            yield lambda body, headers: session.post(
                url, data=json.dumps(body).encode(), headers=common | headers, allow_redirects=False
            )

    async def attempt(self, client: Any, prompt: Prompt) -> Response:
        """POST /chat/completions once.

        The request bears its hash as ``Idempotency-Key``: a server that keeps its answers by it gives the one that a
        killed process or a broken connection has lost. After an answer that is of no use the next try is a new request.
        """
        import aiohttp

        sent = set(self._unknown)
        question = request_hash(self.name, prompt, self.capabilities.parameters)
        refused = self._refused.get(question)
        key = f"{question}-{self._session}-{refused}" if refused else question
        try:
            async with client(self.body(prompt), {"Idempotency-Key": f'"{key}"'}) as reply:
                content = await reply.read()
        except (aiohttp.ClientError, OSError) as error:
            raise unanswered(error) from None
        except TooLarge as error:
            self._refused[question] += 1
            raise unanswered(error) from None
        if reply.status != 200:
            self._refused[question] += reply.status != 409
            if reply.status == 400 and self.adapts(content, sent):
                return await self.attempt(client, prompt)
            wait_s = retry_after(reply.headers)
            raise Failed(f"HTTP {reply.status}", reply.status in RETRIED, wait_s, reply.status)
        try:
            return self._read(json.loads(content), prompt)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            self._refused[question] += 1
            raise Failed("the server's answer is not that of a chat completion", again=True) from None

    def body(self, prompt: Prompt) -> dict[str, Any]:
        """The body of one chat completion."""
        messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}]
        body: dict[str, Any] = {"model": self.model, "messages": messages}
        if "temperature" not in self._unknown:
            body["temperature"] = DRAFT_TEMPERATURE if prompt.draft else self.temperature
        if prompt.draft and "seed" not in self._unknown:
            body["seed"] = prompt.draft
        limit = "max_completion_tokens" if "max_tokens" in self._unknown else "max_tokens"
        body[limit] = prompt.max_tokens + self.thinking_room
        if prompt.schema is not None:
            schema = {"name": prompt.kind, "strict": True, "schema": prompt.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif self.letters and prompt.kind == "prior":
            body |= {"logprobs": True, "top_logprobs": _TOP}
        return body

    def adapts(self, content: bytes | str, sent: set[str]) -> bool:
        """Whether a 400 names a parameter that can be left out, such as ``max_tokens`` of a model that thinks; it
        is, from the next request on. ``sent``: what the request lacked already."""
        try:
            name = json.loads(content)["error"]["param"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return False
        if name not in ("max_tokens", "temperature", "seed") or name in sent:
            return False
        if name == "max_tokens" and self._thinking < 0:
            self.thinking_room = THINKING_ROOM
        self._unknown.add(name)
        return True

    def check(self) -> None:
        """UsageError when the public service has no key; ServiceError when no server listens at ``base_url``."""
        if urlsplit(self.base_url).hostname == "api.openai.com" and not os.environ.get("OPENAI_API_KEY"):
            raise UsageError("backend openai needs a key", hint="set OPENAI_API_KEY, or ask.base_url of another server")
        super().check()

    def _read(self, reply: dict[str, Any], prompt: Prompt) -> Response:
        response = read_openai(reply, self.model)
        if not self.letters or prompt.kind != "prior":
            return response
        tops = (reply["choices"][0].get("logprobs") or {}).get("content") or []
        pairs = [(t["token"], t["logprob"]) for t in tops[0]["top_logprobs"]] if tops else []
        finish = "stop" if response.finish == "length" else response.finish  # one token is all that was asked for
        return replace(response, probabilities=letter_probabilities(pairs, len(prompt.options)), finish=finish)


def letter_probabilities(tokens: Sequence[tuple[str, float]], options: int) -> tuple[float, ...] | None:
    """Probability of each option letter from (token, log-probability) pairs, normalised; None under half in all."""
    total = [0.0] * options
    for token, logprob in tokens:
        letter = token.strip().strip("().:")
        at = LETTERS.find(letter) if len(letter) == 1 else -1
        if 0 <= at < options and isinstance(logprob, (int, float)) and logprob <= 0.001:
            total[at] += math.exp(min(logprob, 0.0))
    mass = sum(total)
    return tuple(p / mass for p in total) if 0.5 <= mass <= 1.01 else None
