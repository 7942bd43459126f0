"""Secrets of the environment, so that no answer that repeats one is ever stored."""

from __future__ import annotations

import json
import os
from dataclasses import replace

from pipeline.llm.base import Response

__all__ = ["VARIABLES", "without_key"]

VARIABLES = ("OPENAI_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
"""Environment variables whose values are secret."""
_SHORTEST = 8


def without_key(response: Response) -> Response:
    """``response``, or a failure in its place when its text or model holds a key, as it is or in JSON's escapes."""
    keys = [value for name in VARIABLES if len(value := os.environ.get(name, "")) >= _SHORTEST]
    if not keys:
        return response
    texts = [response.text, response.model]
    if "\\" in response.text:
        texts.append(_unescaped(response.text).replace("\\/", "/"))
    if not any(key in text for key in keys for text in texts):
        return response
    about = "the answer holds an API key of this machine and was dropped"
    return replace(response, text="", model="", probabilities=None, finish="leaked", error=about)


def _unescaped(text: str) -> str:
    """Every ``\\uXXXX`` of ``text`` as its character, whether the text is JSON or not."""
    parts = text.split("\\u")
    out = [parts[0]]
    for part in parts[1:]:
        try:
            out.append(json.loads(f'"\\u{part[:4]}"') + part[4:])
        except ValueError:
            out.append(part)
    return "".join(out)
