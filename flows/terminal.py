"""What the user sees while a job runs: lines, and bars with the time left. Silent unless the command line speaks."""

from __future__ import annotations

import html
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TextIO

__all__ = [
    "Bar", "NotebookTerminal", "Pace", "PlainTerminal", "RichTerminal", "Terminal", "aligned", "clock", "current",
    "open_terminal", "said", "use",
]  # fmt: skip

_NOTEBOOK_SECONDS = 0.25
"""Seconds between two updates of a bar in a notebook."""
_PLAIN_SECONDS = 10.0
"""Without a terminal (a log file, CI) a running bar writes one line in this time."""
WAIT_S = 2.0
"""Seconds after which a wait shows a clock."""


def clock(seconds: float) -> str:
    """``m:ss`` or ``h:mm:ss``."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def said(seconds: float) -> str:
    """``25 s``, from two minutes on ``m:ss``."""
    return f"{round(seconds)} s" if seconds < 120 else clock(seconds)


def aligned(rows: Sequence[Sequence[str]], sides: str = "<") -> list[str]:
    """A table's lines; ``sides``: ``<`` or ``>`` for each column, the last one for all that follow."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = sides.ljust(len(widths), sides[-1])
    cells = [[f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)] for row in rows]
    return ["  ".join(row).rstrip() for row in cells]


class Bar(Protocol):
    """One job's progress."""

    def update(self, done: float, total: float | None = None, note: str = "", waits: str = "") -> None:
        """Report ``done`` of ``total`` units; ``waits``: what has to end before units flow at their own speed."""
        ...


class Pace:
    """How long a bar will still take, from the moment on at which its units flow; before that, how long it has waited.

    Only what was done since then counts: a first update that compiles says nothing about the second.
    """

    def __init__(self, total: float | None = None) -> None:
        self.waits, self.since = "", time.monotonic()
        self.first: tuple[float, float] | None = None  # when units began to flow, and how many were done then
        self.done, self.total, self.seen = 0.0, total, self.since

    def update(self, done: float, total: float | None, waits: str = "") -> None:
        """Take in a report."""
        now = time.monotonic()
        if waits != self.waits:
            self.waits, self.since, self.first = waits, now, None
        if not waits and self.first is None:
            self.first = (now, done)
        if done != self.done:
            self.seen = now
        self.done, self.total = done, total or self.total

    def text(self) -> str:
        """``left 3:20``, or ``compiling, once: 25 s so far`` while nothing can be foretold; empty in the first
        seconds, and at the end."""
        now = time.monotonic()
        if self.total and self.done >= self.total:
            return ""
        if self.first is not None and self.total and (gained := self.done - self.first[1]) > 0:
            per_unit = (max(self.seen, self.first[0]) - self.first[0]) / gained
            return f"left {clock(max(0.0, per_unit * (self.total - self.done) - (now - self.seen)))}"
        waited = now - self.since
        if waited < WAIT_S:
            return self.waits
        return f"{self.waits}{': ' if self.waits else ''}{said(waited)} so far"


class Terminal:
    """The silent one: used by served flows and tests."""

    def say(self, text: str = "") -> None:
        """One line for the user."""

    @contextmanager
    def bars(self) -> Iterator[Any]:
        """A group of bars shown together: ``with terminal.bars() as add: bar = add(label, total)``."""

        class Silent:
            def update(self, done: float, total: float | None = None, note: str = "", waits: str = "") -> None:
                pass

        yield lambda label, total=None: Silent()

    @contextmanager
    def bar(self, label: str, total: float | None = None) -> Iterator[Bar]:
        """A single bar; without a total a clock, for a wait of unknown length."""
        with self.bars() as add:
            yield add(label, total)


class _PlainBar:
    def __init__(self, say, label: str, total: float | None) -> None:
        self.say, self.label = say, label
        self.pace = Pace(total)
        self.shown = self.pace.since + WAIT_S - _PLAIN_SECONDS  # the first line comes as soon as somebody has to wait
        self.note = ""
        self.is_told = False  # what is done was said, and is not said again

    def update(self, done: float, total: float | None = None, note: str = "", waits: str = "") -> None:
        self.note = note
        self.pace.update(done, total, waits)
        self.tick()

    def tick(self) -> None:
        now, is_done = time.monotonic(), bool(self.pace.total) and self.pace.done >= self.pace.total
        if now - self.shown >= _PLAIN_SECONDS and not (is_done and self.is_told):
            self.shown, self.is_told = now, is_done
            self.line()

    def end(self) -> None:
        waited = time.monotonic() - self.pace.since
        if self.pace.total:
            if not self.is_told:
                self.line()
        elif waited >= WAIT_S:
            self.say(f"  {self.label:<18}  {said(waited)}")

    def line(self) -> None:
        pace, parts = self.pace, [f"  {self.label:<18}"]
        if pace.total:
            parts.append(f"{100 * pace.done / pace.total:3.0f} %  {pace.done:,.0f}/{pace.total:,.0f}")
        self.say("  ".join(p for p in (*parts, pace.text(), self.note) if p))


class PlainTerminal(Terminal):
    """Lines of plain text on a stream: logs, CI, pipes."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def say(self, text: str = "") -> None:
        print(text, file=self.stream, flush=True)

    @contextmanager
    def bars(self) -> Iterator[Any]:
        made: list[_PlainBar] = []
        over = threading.Event()

        def add(label: str, total: float | None = None) -> _PlainBar:
            made.append(_PlainBar(self.say, label, total))
            return made[-1]

        def look() -> None:  # whoever waits hears something although nothing is reported
            while not over.wait(1.0):
                for bar in list(made):
                    bar.tick()

        clockwork = threading.Thread(target=look, daemon=True)
        clockwork.start()
        try:
            yield add
        finally:
            over.set()
            clockwork.join()
        for bar in made:
            bar.end()


class _RichBar:
    def __init__(self, progress: Any, task: Any, pace: Pace) -> None:
        self.progress, self.task, self.pace = progress, task, pace

    def update(self, done: float, total: float | None = None, note: str = "", waits: str = "") -> None:
        self.pace.update(done, total, waits)
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
        from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn
        from rich.text import Text

        class Left(ProgressColumn):
            def render(self, task: Any) -> Text:
                return Text(task.fields["pace"].text())

        class Count(ProgressColumn):
            def render(self, task: Any) -> Text:
                return Text(f"{task.completed:,.0f}/{task.total:,.0f}" if task.total else "")

        columns = (
            TextColumn("  {task.description:<18}"), BarColumn(bar_width=28), Count(), TimeElapsedColumn(),
            Left(), TextColumn("{task.fields[note]}", markup=False),
        )  # fmt: skip
        with Progress(*columns, console=self.console) as progress:

            def add(label: str, total: float | None = None) -> _RichBar:
                pace = Pace(total)
                return _RichBar(progress, progress.add_task(label, total=total, note="", pace=pace), pace)

            yield add


class NotebookTerminal(PlainTerminal):
    """Bars that are updated in place below a notebook's cell, without widgets."""

    @contextmanager
    def bars(self) -> Iterator[Any]:
        made: list[_NotebookBar] = []

        def add(label: str, total: float | None = None) -> _NotebookBar:
            made.append(_NotebookBar(label, total))
            return made[-1]

        try:
            yield add
        finally:
            for bar in made:
                bar.show()


class _NotebookBar:
    def __init__(self, label: str, total: float | None) -> None:
        from IPython.display import display

        self.label, self.pace, self.note = label, Pace(total), ""
        self.shown = time.monotonic()
        self.handle: Any = display(self._bundle(), raw=True, display_id=True)

    def update(self, done: float, total: float | None = None, note: str = "", waits: str = "") -> None:
        self.note = note
        self.pace.update(done, total, waits)
        if time.monotonic() - self.shown >= _NOTEBOOK_SECONDS:
            self.show()

    def show(self) -> None:
        self.shown = time.monotonic()
        self.handle.update(self._bundle(), raw=True)

    def _bundle(self) -> dict[str, str]:
        """The bar for a page, and as one line of text for what shows none."""
        pace, share = self.pace, 0.0
        words = [self.label]
        if pace.total:
            share = min(1.0, pace.done / pace.total)
            words.append(f"{100 * share:3.0f} %  {pace.done:,.0f}/{pace.total:,.0f}")
        line = "  ".join(word for word in (*words, pace.text(), self.note) if word)
        bar = f'<progress value="{share:.4f}" max="1" style="width:16em"></progress> ' if pace.total else ""
        return {"text/plain": line, "text/html": f"<div>{bar}<code>{html.escape(line)}</code></div>"}


_SILENT = Terminal()
_current: ContextVar[Terminal] = ContextVar("terminal", default=_SILENT)


def current() -> Terminal:
    """The terminal in use here: of this thread or task, and of those it starts with its context."""
    return _current.get()


def open_terminal() -> Terminal:
    """The right one for standard output: of a notebook, a terminal, or a file."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is not None and getattr(shell, "kernel", None) is not None:
        return NotebookTerminal(sys.stdout)
    return RichTerminal() if sys.stdout.isatty() else PlainTerminal(sys.stdout)


@contextmanager
def use(terminal: Terminal) -> Iterator[Terminal]:
    """Make ``terminal`` the current one inside the block."""
    before = _current.set(terminal)
    try:
        yield terminal
    finally:
        _current.reset(before)
