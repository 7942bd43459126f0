"""What the user sees while a job runs: lines, and bars with the time left. Silent unless the command line speaks."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

__all__ = ["Bar", "PlainTerminal", "RichTerminal", "Terminal", "clock", "current", "open_terminal", "use"]

_PLAIN_SECONDS = 10.0
"""Without a terminal (a log file, CI) a running bar writes one line in this time."""


def clock(seconds: float) -> str:
    """``m:ss`` or ``h:mm:ss``."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


class Bar(Protocol):
    """One job's progress."""

    def update(self, done: float, total: float | None = None, note: str = "") -> None:
        """Report ``done`` of ``total`` units."""
        ...


class Terminal:
    """The silent one: used by served flows and tests."""

    def say(self, text: str = "") -> None:
        """One line for the user."""

    @contextmanager
    def bars(self) -> Iterator[Any]:
        """A group of bars shown together: ``with terminal.bars() as add: bar = add(label, total)``."""

        class Silent:
            def update(self, done: float, total: float | None = None, note: str = "") -> None:
                pass

        yield lambda label, total=None: Silent()

    @contextmanager
    def bar(self, label: str, total: float | None = None) -> Iterator[Bar]:
        """A single bar."""
        with self.bars() as add:
            yield add(label, total)


class _PlainBar:
    def __init__(self, say, label: str, total: float | None) -> None:
        self.say, self.label, self.total = say, label, total
        self.began = self.shown = time.monotonic()
        self.first: float | None = None
        self.last: tuple[float, str] = (0.0, "")

    def update(self, done: float, total: float | None = None, note: str = "") -> None:
        self.total = total or self.total
        self.first = done if self.first is None else self.first
        self.last = (done, note)
        now = time.monotonic()
        if now - self.shown >= _PLAIN_SECONDS:
            self.shown = now
            self.line(now)

    def line(self, now: float) -> None:
        done, note = self.last
        parts = [f"  {self.label:<18}"]
        if self.total:
            parts.append(f"{100 * done / self.total:3.0f} %  {done:,.0f}/{self.total:,.0f}")
            gained = done - (self.first or 0)
            if gained > 0 and done < self.total:
                parts.append(f"left {clock((now - self.began) / gained * (self.total - done))}")
        parts.append(note)
        self.say("  ".join(p for p in parts if p))


class PlainTerminal(Terminal):
    """Lines of plain text on a stream: logs, CI, pipes."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def say(self, text: str = "") -> None:
        print(text, file=self.stream, flush=True)

    @contextmanager
    def bars(self) -> Iterator[Any]:
        made: list[_PlainBar] = []

        def add(label: str, total: float | None = None) -> _PlainBar:
            made.append(_PlainBar(self.say, label, total))
            return made[-1]

        yield add
        for bar in made:
            bar.line(time.monotonic())


class _RichBar:
    def __init__(self, progress: Any, task: Any) -> None:
        self.progress, self.task = progress, task

    def update(self, done: float, total: float | None = None, note: str = "") -> None:
        fields = {"total": total} if total else {}
        self.progress.update(self.task, completed=done, note=note, **fields)


class RichTerminal(Terminal):
    """Live bars with the time left, on a real terminal."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(highlight=False, soft_wrap=True)

    def say(self, text: str = "") -> None:
        self.console.print(text, markup=False)

    @contextmanager
    def bars(self) -> Iterator[Any]:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("  {task.description:<18}"), BarColumn(bar_width=28), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
        )  # fmt: skip
        with Progress(*columns, console=self.console, speed_estimate_period=60) as progress:

            def add(label: str, total: float | None = None) -> _RichBar:
                return _RichBar(progress, progress.add_task(label, total=total, note=""))

            yield add


_current: list[Terminal] = [Terminal()]


def current() -> Terminal:
    """The terminal in use."""
    return _current[-1]


def open_terminal() -> Terminal:
    """The right one for standard output."""
    return RichTerminal() if sys.stdout.isatty() else PlainTerminal(sys.stdout)


@contextmanager
def use(terminal: Terminal) -> Iterator[Terminal]:
    """Make ``terminal`` the current one inside the block."""
    _current.append(terminal)
    try:
        yield terminal
    finally:
        _current.remove(terminal)
