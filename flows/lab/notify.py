"""Who is told when a run of ``lore up`` fails: a command of the user's, or a page that listens on loopback."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from flows.jobs.machine import LOOPBACK, keep_loopback_direct
from lore_datasets.errors import ConfigError, shown

__all__ = ["FAILED", "Notify"]

FAILED = ("FAILED", "CRASHED")
"""Types of the states that somebody is told of; a cancelled run is none of them."""
_SECONDS = 20.0


@dataclass(frozen=True)
class Notify:
    """A command and its words, or a URL on loopback; exactly one of them is given."""

    command: tuple[str, ...] = ()
    url: str = ""

    @staticmethod
    def of(value: Any) -> Notify:
        """``["program", "word", ...]`` or ``"http://127.0.0.1:PORT/path"``; ConfigError otherwise."""
        if isinstance(value, list) and value and all(isinstance(word, str) and word for word in value):
            return Notify(command=tuple(value))
        if isinstance(value, str) and _is_loopback(value):
            return Notify(url=value)
        raise ConfigError(
            f"notify = {shown(value, 60)}", hint='["program", "word"], or an http address of this machine'
        )

    def tell(self, run: Mapping[str, Any]) -> str:
        """Hand over a failed run of the API as JSON, by standard input or POST; what went wrong with that, or ""."""
        state = run.get("state") or {}
        about = {"run": run["name"], "id": run["id"], "state": run["state_type"], "message": state.get("message") or ""}
        try:
            return self._post(about) if self.url else self._call(json.dumps(about))
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{type(error).__name__}: {shown(error)}"

    def _call(self, text: str) -> str:
        done = subprocess.run(self.command, input=text, text=True, capture_output=True, timeout=_SECONDS, check=False)
        return f"code {done.returncode}: {shown(done.stderr.strip())}" if done.returncode else ""

    def _post(self, about: Mapping[str, str]) -> str:
        import httpx

        keep_loopback_direct()
        try:
            answer = httpx.post(self.url, json=about, timeout=_SECONDS)
        except httpx.HTTPError as error:
            return type(error).__name__
        return "" if answer.status_code < 400 else f"status {answer.status_code}"


def _is_loopback(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and parts.hostname in LOOPBACK and (parts.port or 80) > 0
    except ValueError:
        return False
