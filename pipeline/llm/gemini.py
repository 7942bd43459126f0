"""Google Gemini through google-genai, interactively; the SDK's own retries stay off, ours are inside a total deadline.

The key is read from ``GOOGLE_API_KEY`` or ``GEMINI_API_KEY`` for each connection pool and kept nowhere.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import AsyncIterator
from typing import Any, Unpack

from lore_datasets.errors import UsageError, shown
from pipeline.llm.base import Prompt, Response
from pipeline.llm.pace import retry_after
from pipeline.llm.service import RETRIED, Failed, Limits, Service

__all__ = ["Gemini"]

_NETWORK = ("httpx", "httpx2", "httpcore", "httpcore2", "aiohttp", "builtins")


class Gemini(Service):
    """Structured JSON answers of a Gemini model; thinking is switched off where the model lets it be."""

    def __init__(
        self,
        model: str = "gemini-2.5-flash-lite",
        *,
        base_url: str = "",
        temperature: float = 0.0,
        thinking: int | None = None,
        **limits: Unpack[Limits],
    ) -> None:
        import google.genai  # noqa: F401  (named as missing here, not at the first question)

        if thinking is None and model.startswith("gemini-2.5-flash"):
            thinking = 0
        super().__init__("gemini", model, base_url, {"temperature": temperature, "thinking": thinking}, **limits)
        self.temperature, self.thinking = temperature, thinking

    def connect(self) -> Any:
        """An SDK client; UsageError without a key. Close it after use, never store or log it: it holds the key."""
        from google import genai
        from google.genai import types

        key = os.environ.get("GOOGLE_API_KEY") or os.environ.get("GEMINI_API_KEY")
        if not key:
            raise UsageError("backend gemini needs a key", hint="set GEMINI_API_KEY, or take another backend")
        options = types.HttpOptions(
            base_url=self.base_url or None,
            api_version="v1beta",
            timeout=int(self.timeout_s * 1000),
            client_args={"trust_env": not self.is_free},
            async_client_args={"trust_env": not self.is_free},
        )
        return genai.Client(api_key=key, http_options=options)

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Any]:
        """An SDK client of its own for one stream; closed with it."""
        client = self.connect()
        try:
            yield client.aio
        finally:
            await client.aio.aclose()
            client.close()

    async def attempt(self, client: Any, prompt: Prompt) -> Response:
        """generate_content once."""
        try:
            reply = await client.models.generate_content(
                model=self.model, contents=prompt.user, config=self.settings(prompt)
            )
        except Exception as error:
            failed = self.failure(error)
            if failed is None:
                raise
            raise failed from None
        return self.read(reply)

    def failure(self, error: Exception) -> Failed | None:
        """What an exception of the SDK means; None where it is none of the service's or the network's."""
        from google.genai import errors

        if isinstance(error, errors.APIError):
            code = error.code if isinstance(error.code, int) else 0
            status = error.status if isinstance(error.status, str) else ""
            return Failed(f"HTTP {code} {shown(status, 40)}".strip(), code in RETRIED, _wait(error))
        if isinstance(error, (ValueError, TypeError, KeyError, AttributeError)):
            return Failed(f"the server's answer does not read: {type(error).__name__}", again=True)
        if type(error).__module__.split(".")[0] in _NETWORK:
            return Failed(type(error).__name__, again=True)
        return None

    def settings(self, prompt: Prompt) -> Any:
        """The SDK's GenerateContentConfig for a question."""
        from google.genai import types

        more: dict[str, Any] = {}
        if prompt.schema is not None:
            more["response_mime_type"] = "application/json"
            if prompt.kind != "skills":  # the skill language is deeper than the service's schemas may be
                more["response_json_schema"] = prompt.schema
        if self.thinking is not None:
            more["thinking_config"] = types.ThinkingConfig(thinking_budget=self.thinking)
        return types.GenerateContentConfig(
            system_instruction=prompt.system,
            temperature=self.temperature,
            max_output_tokens=prompt.max_tokens,
            **more,
        )

    def read(self, reply: Any) -> Response:
        """The Response in an SDK reply, without time and price."""
        usage = reply.usage_metadata
        count = lambda name: int(getattr(usage, name, None) or 0)  # noqa: E731
        candidate = (reply.candidates or [None])[0]
        reason = getattr(getattr(candidate, "finish_reason", None), "name", "STOP" if candidate else "BLOCKED")
        finish = {"STOP": "stop", "MAX_TOKENS": "length"}.get(reason, "blocked")
        parts = getattr(getattr(candidate, "content", None), "parts", None) or []
        text = "".join(p.text for p in parts if getattr(p, "text", None) and not getattr(p, "thought", None))
        return Response(
            text,
            model=str(reply.model_version or self.model)[:200],
            tokens_in=count("prompt_token_count"),
            tokens_out=count("candidates_token_count") + count("thoughts_token_count"),
            finish=finish,
        )


def _wait(error: Any) -> float:
    """Seconds that the service asks to wait: its Retry-After header, else the RetryInfo in its error."""
    seconds = retry_after(getattr(getattr(error, "response", None), "headers", None) or {})
    found = re.search(r"'retryDelay': '(\d{1,5})(?:\.\d{1,9})?s'", repr(getattr(error, "details", ""))[:10_000])
    return seconds or (min(float(found[1]) + 1, 3600.0) if found else 0.0)
