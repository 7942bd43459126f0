"""What a flow shows in Prefect's pages: Markdown, tables, links, progress; the same key run after run is the history.

Everything here is decoration: outside a run, or when the server does not take it, the job goes on without it.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flows.terminal import Bar, Terminal, current, use

__all__ = [
    "Board", "key", "link", "links", "markdown", "on_the_board", "report_link", "shares_table", "table", "told",
]  # fmt: skip

_EVERY_S = 2.0
"""Seconds between two updates of one progress artifact."""


def key(*parts: object) -> str:
    """``refresh-runs-a-seed-0``: the parts in lower case letters, digits and dashes, at most 200 characters."""
    return re.sub(r"[^a-z0-9]+", "-", " ".join(map(str, parts)).lower()).strip("-")[:200] or "lore"


def _in_a_run() -> bool:
    from prefect.context import FlowRunContext, TaskRunContext

    return FlowRunContext.get() is not None or TaskRunContext.get() is not None


def _made(make: Callable[..., Any], **options: Any) -> Any:
    """The artifact's id, or None where it could not be made."""
    if not _in_a_run():
        return None
    try:
        return make(**options)
    except Exception as error:  # the server may be gone: a page must not cost a round
        logging.getLogger("lore").warning("artifact %s was not made: %s", options.get("key"), type(error).__name__)
        return None


def markdown(name: str, text: str, about: str = "") -> str:
    """A Markdown page under the key of ``name``; returns its text."""
    from prefect.artifacts import create_markdown_artifact

    _made(create_markdown_artifact, key=key(name), markdown=text, description=about or None)
    return text


def table(name: str, rows: Sequence[Mapping[str, Any]], about: str = "") -> None:
    """A table under the key of ``name``; one mapping per row."""
    from prefect.artifacts import create_table_artifact

    if rows:
        _made(create_table_artifact, key=key(name), table=[dict(row) for row in rows], description=about or None)


def link(name: str, url: str, text: str) -> None:
    """A link under the key of ``name``."""
    from prefect.artifacts import create_link_artifact

    _made(create_link_artifact, key=key(name), link=url, link_text=text)


def told(text: str) -> None:
    """One line in the run's log; nothing outside a run."""
    if _in_a_run():
        from prefect.logging import get_run_logger

        get_run_logger().info(text)


def report_link(path: Path, text: str) -> str:
    """The address under which ``lore up`` serves a report, as a link of the run's page too; empty elsewhere."""
    root, base = os.environ.get("LORE_REPORTS_ROOT"), os.environ.get("LORE_REPORTS_URL")
    if not root or not base or not path.resolve().is_relative_to(root):
        return ""
    url = base + quote(path.resolve().relative_to(root).as_posix())
    link(f"report {text}", url, f"Report: {text}")
    told(f"report: {url}")
    return url


def links() -> str:
    """A Markdown line to TensorBoard and the reports, where ``lore up`` serves them; empty elsewhere."""
    known = {"TensorBoard": os.environ.get("LORE_TENSORBOARD_URL"), "reports": os.environ.get("LORE_REPORTS_URL")}
    return " · ".join(f"[{name}]({url})" for name, url in known.items() if url)


def shares_table(rows: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Coverage as table rows: one per label, shares in per cent."""
    return [
        {"": label} | {name: round(100 * value, 2) if value <= 1 else value for name, value in found.items()}
        for label, found in rows.items()
    ]


class _BoardBar:
    """A bar on the terminal that is also a progress artifact, made at its first sign of progress."""

    def __init__(self, inner: Bar, label: str, total: float | None) -> None:
        self.inner, self.label, self.total = inner, label, total
        self.artifact: Any = None
        self.failed = False
        self.shown = 0.0
        self.last = -1.0

    def update(self, done: float, total: float | None = None, note: str = "", waits: str = "") -> None:
        self.inner.update(done, total, note, waits)
        self.total = total or self.total
        if not self.total or self.failed:
            return
        share = min(100.0, 100.0 * done / self.total)
        if share == self.last or (time.monotonic() - self.shown < _EVERY_S and share < 100.0):
            return
        self.shown, self.last = time.monotonic(), share
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        about = f"{self.label}: {done:,.0f} of {self.total:,.0f} {note}".strip()
        if self.artifact is None:
            self.artifact = _made(create_progress_artifact, progress=share, key=key("progress", self.label),
                                  description=about)  # fmt: skip
            self.failed = self.artifact is None
        else:
            _made(update_progress_artifact, artifact_id=self.artifact, progress=share, description=about)


class Board(Terminal):
    """A terminal whose bars are progress artifacts too, and whose lines go into the run's log."""

    def __init__(self, inner: Terminal) -> None:
        self.inner = inner

    def say(self, text: str = "") -> None:
        self.inner.say(text)
        if text:
            told(text)

    @contextmanager
    def bars(self) -> Iterator[Any]:
        with self.inner.bars() as add:
            yield lambda label, total=None: _BoardBar(add(label, total), label, total)


@contextmanager
def on_the_board() -> Iterator[None]:
    """Show the bars and lines of what runs inside on the run's page as well."""
    if isinstance(current(), Board):
        yield
        return
    with use(Board(current())):
        yield
