"""The request and result forms of services, as JSON values; documented by each service, November 2026."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.llm.base import Prompt, Response

__all__ = ["LIMITS", "REQUESTS", "answer_of", "pack", "read_gemini", "read_openai"]

LIMITS = {
    "openai": (50_000, 200 * 10**6, "jsonl"),
    "gemini": (200_000, 2 * 10**9, "jsonl"),
    "anthropic": (100_000, 256 * 10**6, "json"),
}
"""Service -> (most requests, most bytes, suffix) of one file."""


def _openai(prompt: Prompt, key: str, model: str) -> dict[str, Any]:
    """One line of an OpenAI Batch file (``/v1/chat/completions``); vLLM's run-batch reads the same."""
    body: dict[str, Any] = {
        "model": model or "MODEL",
        "messages": [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}],
        "max_completion_tokens": prompt.max_tokens,
    }
    if prompt.schema is not None:
        shape = {"name": prompt.kind, "schema": prompt.schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": shape}
    return {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}


def _gemini(prompt: Prompt, key: str, model: str) -> dict[str, Any]:
    """One line of a Gemini batch file: key and GenerateContentRequest."""
    config: dict[str, Any] = {"max_output_tokens": prompt.max_tokens}
    if prompt.schema is not None:
        config |= {"response_mime_type": "application/json", "response_json_schema": prompt.schema}
    request = {
        "system_instruction": {"parts": [{"text": prompt.system}]},
        "contents": [{"role": "user", "parts": [{"text": prompt.user}]}],
        "generation_config": config,
    }
    return {"key": key, "request": request}


def _anthropic(prompt: Prompt, key: str, model: str) -> dict[str, Any]:
    """One request of an Anthropic message batch; the shared system part is marked for its cache."""
    params = {
        "model": model or "MODEL",
        "max_tokens": prompt.max_tokens,
        "system": [{"type": "text", "text": prompt.system, "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": prompt.user}],
    }
    return {"custom_id": key, "params": params}


REQUESTS = {"openai": _openai, "gemini": _gemini, "anthropic": _anthropic}
"""Service -> one request for (prompt, id, model)."""


def pack(group: Sequence[tuple[str, Prompt]]) -> str:
    """A Markdown pack of questions that share their system part, for a chat window or for people."""
    lines = [
        "# What you are asked",
        group[0][1].system,
        "# How to answer",
        'Answer each question below with one line of JSON: {"key": the id of the question, "text": your answer as a '
        "JSON string}. Nothing else; the order does not matter. Save the lines in a file answers/NAME.jsonl.",
    ]
    for key, prompt in group:
        lines += [f"## {key}", prompt.user]
    return "\n\n".join(lines) + "\n"


def answer_of(row: dict[str, Any], model: str = "") -> tuple[str, Response]:
    """(question id, Response) of one result row of any known form; ValueError, KeyError or TypeError for another.

    ``model``: who answered, where the row does not say.
    """
    if "result" in row:
        return str(row["custom_id"]), _from_anthropic(row["result"], model)
    if "custom_id" in row:
        return str(row["custom_id"]), _from_openai(row, model)
    key = row["key"] if "key" in row else row["metadata"]["key"]
    if "text" in row:
        if not isinstance(row["text"], str):
            raise ValueError("text is not text")
        return str(key), Response(row["text"], model=str(row.get("model") or model))
    return str(key), _failed(row["error"], model) if row.get("error") else read_gemini(row["response"], model)


def _count(value: Any) -> int:
    """A number of tokens as a service gave it; 0 for anything but a count."""
    return value if type(value) is int and 0 <= value < 2**31 else 0


def _said(choice: dict[str, Any]) -> tuple[str, str]:
    """(text, finish) of a choice: its content may be a text or a list of parts; a refusal counts as blocked."""
    message = choice["message"]
    content, refused = message.get("content") or "", bool(message.get("refusal"))
    if isinstance(content, list):
        refused = refused or any(part.get("type") == "refusal" for part in content)
        content = "".join(part.get("text") or "" for part in content if part.get("type") in ("text", "output_text"))
    if not isinstance(content, str):
        raise TypeError("content of an unknown form")
    finish = {"length": "length", "content_filter": "blocked"}.get(str(choice.get("finish_reason")), "stop")
    return content, "blocked" if refused and not content else finish


def _failed(error: Any, model: str) -> Response:
    told = error.get("message") or error.get("type") or error if isinstance(error, dict) else error
    return Response("", model=model, finish="error", error=str(told)[:200])


def _from_openai(row: dict[str, Any], model: str) -> Response:
    response = row.get("response") or {}
    body = response.get("body") or {}
    if row.get("error") or response.get("status_code", 200) != 200:
        return _failed(row.get("error") or body.get("error") or f"status {response.get('status_code')}", model)
    return read_openai(body, model)


def read_openai(reply: dict[str, Any], model: str = "") -> Response:
    """The Response in a chat completion, without time and price; ValueError or a kin when it is none."""
    (text, finish), usage = _said(reply["choices"][0]), reply.get("usage") or {}
    return Response(
        text,
        model=str(reply.get("model") or model)[:200],
        tokens_in=_count(usage.get("prompt_tokens")),
        tokens_cached=_count((usage.get("prompt_tokens_details") or {}).get("cached_tokens")),
        tokens_out=_count(usage.get("completion_tokens")),
        finish=finish,
    )


def _from_anthropic(result: dict[str, Any], model: str) -> Response:
    if result["type"] != "succeeded":
        error = result.get("error") or {}
        return _failed(error.get("error") or error or result["type"], model)
    message = result["message"]
    usage = message.get("usage") or {}
    text = "".join(part["text"] for part in message["content"] if part.get("type") == "text")
    ends = {"max_tokens": "length", "refusal": "blocked"}
    return Response(
        text, model=str(message.get("model") or model), tokens_in=_count(usage.get("input_tokens")),
        tokens_out=_count(usage.get("output_tokens")), finish=ends.get(str(message.get("stop_reason")), "stop"),
    )  # fmt: skip


def read_gemini(reply: dict[str, Any], model: str = "") -> Response:
    """The Response in a REST reply, without time and price; ValueError or a kin when it is none."""
    usage, candidates = reply.get("usageMetadata") or {}, reply.get("candidates") or []
    candidate: dict[str, Any] = candidates[0] if candidates else {"finishReason": "BLOCKED"}
    finish = {"STOP": "stop", "MAX_TOKENS": "length"}.get(candidate.get("finishReason", "STOP"), "blocked")
    parts = (candidate.get("content") or {}).get("parts") or []
    return Response(
        "".join(part["text"] for part in parts if part.get("text") and not part.get("thought")),
        model=str(reply.get("modelVersion") or model)[:200],
        tokens_in=_count(usage.get("promptTokenCount")),
        tokens_cached=_count(usage.get("cachedContentTokenCount")),
        tokens_out=_count(usage.get("candidatesTokenCount")) + _count(usage.get("thoughtsTokenCount")),
        finish=finish,
    )
