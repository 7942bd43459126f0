"""Google Gemini through google-genai, interactively; the SDK's own retries stay off, ours are inside a total deadline.

The key is read from ``GOOGLE_API_KEY`` or ``GEMINI_API_KEY`` for each connection pool and kept nowhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import AsyncIterator
from typing import Any, Unpack

from lore_datasets.errors import UsageError, shown
from pipeline.llm.backends.file_formats import read_gemini
from pipeline.llm.base import DRAFT_TEMPERATURE, Prompt, Response
from pipeline.llm.http.pace import retry_after
from pipeline.llm.http.service import RETRIED, THINKING_ROOM, Failed, Limits, Service, unanswered
from pipeline.llm.http.transport import TooLarge, connections, trust

__all__ = ["Gemini"]

_SERVICE = "https://generativelanguage.googleapis.com"
_NETWORK = ("aiohttp", "httpx", "httpx2", "httpcore", "httpcore2", "builtins")


class Gemini(Service):
    """Structured JSON answers of a Gemini model.

    ``thinking``: tokens that it may think, beside those of the answer; -1 switches thinking off where the model lets it
    be, and gives it :data:`THINKING_ROOM` where not.
    """

    def __init__(
        self,
        model: str = "gemini-2.5-flash-lite",
        *,
        base_url: str = "",
        temperature: float = 0.0,
        thinking: int = -1,
        **limits: Unpack[Limits],
    ) -> None:
        import google.genai  # noqa: F401  (named as missing here, not at the first question)

        self.temperature, (self.thinking, room) = temperature, _thinking(model, thinking)
        parameters = {"temperature": temperature, "thinking": room if self.thinking is not None else None}
        super().__init__("gemini", model, base_url, parameters, thinking_room=room, **limits)

    def check(self) -> None:
        """UsageError without a key; ServiceError when no server listens at ``base_url``."""
        _key()
        super().check()

    def connect(self, session: Any = None) -> Any:
        """An SDK client; UsageError without a key. Close it after use, never store or log it: it holds the key.

        ``session``: what it sends asynchronous requests with.
        """
        from google import genai
        from google.genai import types

        trusted = trust(self.base_url or _SERVICE)
        common = {"trust_env": not self.is_free, "follow_redirects": False, "verify": trusted}
        options = types.HttpOptions(
            base_url=self.base_url or None,
            api_version="v1beta",
            timeout=int(self.timeout_s * 1000),
            client_args=common,
            async_client_args={**common, "ssl": trusted, "allow_redirects": False},
            aiohttp_client=session,
        )
        return genai.Client(api_key=_key(), http_options=options)

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Any]:
        """What sends requests in an SDK client of its own for one stream; closed with it."""
        async with connections(self.base_url or _SERVICE, self.is_free) as session:
            client = self.connect(session)
            try:
                yield client.aio._api_client
            finally:
                await client.aio.aclose()
                client.close()

    async def attempt(self, client: Any, prompt: Prompt) -> Response:
        """generateContent once, by the function of the SDK that sends a single request, which is private.

        The public ``client.aio.models.generate_content`` takes 2.5 to 2.8 ms of CPU time a question, this 0.7 to 0.8.
        On the same busy machine it had 29 to 35 % of the ideal rate of ``benchmarks.http_backends``, this 57 to 73 %.
        """
        try:
            request = client._build_request("post", f"{self.path}:generateContent", self.request(prompt), None)
            reply = await client._async_request_once(request, implicit_retry=False)
            return read_gemini(json.loads(reply.response_stream[0]), self.model)
        except Exception as error:
            failed = self.failure(error)
            if failed is None:
                raise
            raise failed from None

    @property
    def path(self) -> str:
        """The model as the service's addresses name it."""
        return self.model if "/" in self.model else f"models/{self.model}"

    def failure(self, error: Exception) -> Failed | None:
        """What an exception of the SDK means; None where it is none of the service's or the network's."""
        from google.genai import errors

        if isinstance(error, errors.APIError):
            code = error.code if isinstance(error.code, int) else 0
            status = error.status if isinstance(error.status, str) else ""
            code = 401 if _is_refused_key(error) else code
            return Failed(f"HTTP {code} {shown(status, 40)}".strip(), code in RETRIED, _wait(error), code)
        if isinstance(error, (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError)):
            return Failed(f"the server's answer does not read: {type(error).__name__}", again=True)
        if isinstance(error, TooLarge) or type(error).__module__.split(".")[0] in _NETWORK:
            return unanswered(error)
        return None

    def request(self, prompt: Prompt) -> dict[str, Any]:
        """The REST body of one question."""
        settings: dict[str, Any] = {"temperature": DRAFT_TEMPERATURE if prompt.draft else self.temperature}
        settings |= {"seed": prompt.draft} if prompt.draft else {}
        settings["maxOutputTokens"] = prompt.max_tokens + self.thinking_room
        if prompt.schema is not None:
            settings["responseMimeType"] = "application/json"
            if prompt.kind != "skills":  # the skill language is deeper than the service's schemas may be
                settings["responseJsonSchema"] = prompt.schema
        if self.thinking is not None:
            settings["thinkingConfig"] = self.thinking
        return {
            "contents": [{"role": "user", "parts": [{"text": prompt.user}]}],
            "systemInstruction": {"parts": [{"text": prompt.system}]},
            "generationConfig": settings,
        }


def _key() -> str:
    key = os.environ.get("GOOGLE_API_KEY") or os.environ.get("GEMINI_API_KEY")
    if not key:
        raise UsageError("backend gemini needs a key", hint="set GEMINI_API_KEY, or take another backend")
    return key


def _thinking(model: str, wanted: int) -> tuple[dict[str, Any] | None, int]:
    """(thinkingConfig of a request or None, tokens of room for it) of a model."""
    if model.startswith("gemini-2.5-flash"):
        room = max(wanted, 0)
        return {"thinkingBudget": room}, room
    room = wanted if wanted >= 0 else THINKING_ROOM
    if model.startswith("gemini-2.5"):  # cannot do without: at least 128 tokens
        return {"thinkingBudget": max(room, 128)}, max(room, 128)
    if model.startswith("gemini-3"):
        return {"thinkingLevel": "LOW"}, room
    return None, max(wanted, 0)


def _is_refused_key(error: Any) -> bool:
    """Whether a 400 of the service means that it does not know the key; it says so in ``error.details``."""
    body = error.details if isinstance(error.details, dict) else {}
    found = body.get("error", body)
    details = found.get("details", []) if isinstance(found, dict) else []
    reasons = [each.get("reason") for each in details if isinstance(each, dict)] if isinstance(details, list) else []
    return "API_KEY_INVALID" in reasons


def _wait(error: Any) -> float:
    """Seconds that the service asks to wait: its Retry-After header, else the RetryInfo in its error."""
    seconds = retry_after(getattr(getattr(error, "response", None), "headers", None) or {})
    found = re.search(r"'retryDelay': '(\d{1,5})(?:\.\d{1,9})?s'", repr(getattr(error, "details", ""))[:10_000])
    return seconds or (min(float(found[1]) + 1, 3600.0) if found else 0.0)
