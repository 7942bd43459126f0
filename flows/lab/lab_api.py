"""A few calls of the Prefect API over plain HTTP: for the supervisor, which need not import Prefect."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from flows.jobs.machine import keep_loopback_direct
from lore_datasets.errors import ServiceError, shown

__all__ = ["BEGUN", "Api"]

_LIVE = ("RUNNING", "PENDING", "CANCELLING")
BEGUN = ("RUNNING", "COMPLETED", "FAILED", "CRASHED", "CANCELLED")
"""State types of runs that somebody may want to hear of; hundreds of scheduled ones lie ahead of them."""


class Api:
    """The API at ``url`` (``http://127.0.0.1:4200/api``); ``auth`` is ``user:password`` or empty. ServiceError."""

    def __init__(self, url: str, auth: str = "") -> None:
        import httpx

        keep_loopback_direct()
        headers = {"Authorization": f"Basic {base64.b64encode(auth.encode()).decode()}"} if auth else {}
        self.url = url
        self._client = httpx.Client(base_url=url, headers=headers, timeout=20.0)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One request; the JSON of the answer. A server that is busy (no answer in time, 5xx) is asked four times."""
        import httpx

        for left in (3, 2, 1, 0):
            try:
                answer = self._client.request(method, path, json=body)
            except httpx.HTTPError as error:
                if left and isinstance(error, httpx.TimeoutException):
                    continue
                raise ServiceError(
                    f"no answer from {self.url}: {type(error).__name__}", hint="is lore up running there?"
                ) from None
            if answer.status_code < 500 or not left:
                break
            time.sleep(1.0)
        if answer.status_code >= 400:
            raise ServiceError(f"{method} {self.url}{path}: {answer.status_code} {shown(answer.text, 200)}")
        return answer.json() if answer.content else None

    def runs(self, types: Sequence[str] = BEGUN, **chosen: Any) -> list[dict[str, Any]]:
        """Flow runs in states of these ``types``, latest expected first; ``chosen``: more of Prefect's filter."""
        chosen["state"] = {"type": {"any_": list(types)}}
        body = {"flow_runs": chosen, "sort": "EXPECTED_START_TIME_DESC", "limit": 200}
        return self.call("POST", "/flow_runs/filter", body)

    def set_state(self, run: str, kind: str, message: str) -> None:
        """Put a run into a state (CRASHED, CANCELLED), whatever it was in."""
        state = {"type": kind, "name": kind.capitalize(), "message": message}
        self.call("POST", f"/flow_runs/{run}/set_state", {"state": state, "force": True})

    def settle(self) -> tuple[int, int]:
        """After a stop: live runs become Crashed, runs that were due meanwhile Cancelled; how many of each.

        Only for a server whose runs all belonged to the process that stopped.
        """
        live = self.runs(_LIVE)
        for run in live:
            self.set_state(run["id"], "CRASHED", "its process ended with the last lore up; the next run goes on")
        due = self.runs(("SCHEDULED",), expected_start_time={"before_": datetime.now(UTC).isoformat()})
        for run in due:
            self.set_state(run["id"], "CANCELLED", "was due while lore up did not run")
        for limit in self.call("POST", "/v2/concurrency_limits/filter", {"limit": 200}):
            if limit["active_slots"] and limit["name"].startswith("deployment:"):  # held by runs that are gone
                self.call("PATCH", f"/v2/concurrency_limits/{limit['id']}", {"active_slots": 0})
        return len(live), len(due)
