"""The table of speeds in docs/speed.md, made from the JSON under benchmarks/results alone.

``python -m benchmarks --table`` writes it between two marks of the page, so that the page cannot say anything else than
the files; what is left of a missed target is the one column that is written by hand, here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS

__all__ = ["PAGE", "ROWS", "Row", "markdown", "put_between", "update_page"]

PAGE = Path(__file__).parents[1] / "docs" / "speed.md"
BEGIN, END = "<!-- speeds: made by `python -m benchmarks --table` -->", "<!-- end of speeds -->"


@dataclass(frozen=True)
class Row:
    """One target.

    Attributes:
        what: what is measured, with its unit.
        command: arguments of ``python -m benchmarks...``.
        result: name of the JSON.
        at: keys in it to a number or to {median, min, max}.
        target: at most this, or at least this where ``more``.
        scale: factor from the JSON's unit to the row's.
        peer: the peer of the same run, from (this JSON, the JSON ``peers`` or {}).
        left: what the profile says is left where the target is missed.
    """

    what: str
    command: str
    result: str
    at: tuple[str, ...]
    target: float
    more: bool = False
    scale: float = 1.0
    peer: Callable[[dict[str, Any], dict[str, Any]], str] = lambda own, peers: "-"
    left: str = ""


def _median(found: Any) -> float:
    return float(found["median"] if isinstance(found, dict) else found)


def _peer(row: str) -> Callable[[dict[str, Any], dict[str, Any]], str]:
    """The peer's CPU time and its ratio to ours, both of the run of ``peers``."""

    def say(own: dict[str, Any], peers: dict[str, Any]) -> str:
        if not peers:
            return "not run"
        found = peers["rows"][row]
        ours, theirs = (found[side]["cpu_s"]["median"] for side in ("ours", "peer"))
        unit, scale = ("s", 1.0) if ours >= 0.5 else ("ms", 1000.0)
        name = peers["peer"].split(",")[0]
        return f"{name} {theirs * scale:.3g} {unit}, ours {ours * scale:.3g}: {theirs / ours:.1f}x"

    return say


def _package(part: str) -> Callable[[dict[str, Any], dict[str, Any]], str]:
    def say(own: dict[str, Any], peers: dict[str, Any]) -> str:
        mine, theirs = _median(own[part]["steps_per_cpu_s"]), _median(own["package"]["steps_per_cpu_s"])
        return f"crafter 1.8.3 with numba {theirs:,.0f}: {mine / theirs:.0f}x"

    return say


def _package_reset(part: str) -> Callable[[dict[str, Any], dict[str, Any]], str]:
    def say(own: dict[str, Any], peers: dict[str, Any]) -> str:
        mine, theirs = (1000 * own[name]["reset"]["cpu_s"]["median"] for name in (part, "package"))
        return f"crafter 1.8.3 with numba {theirs:.0f}: {theirs / mine:.0f}x"

    return say


def _torchrl(part: str) -> Callable[[dict[str, Any], dict[str, Any]], str]:
    def say(own: dict[str, Any], peers: dict[str, Any]) -> str:
        found = own[part].get("torchrl")
        if found is None:
            return "not run"
        return f"TorchRL's buffer {1000 * found['cpu_s']['median']:.3g}: {found['over_ours']:.0f}x"

    return say


def _bare(own: dict[str, Any], peers: dict[str, Any]) -> str:
    bare = own["backends"].get("bare")
    return f"bare sockets {100 * _median(bare['of_ideal']):.1f}" if bare else "not run"


GAME, UPDATE = "speed game", "update 1m pixels"
_HTTP_LEFT = (
    "the server shares the two cores, which costs bare sockets 2 points; the rest is the HTTP library, the SDK and "
    "the journal, in a burst of 64 answers at a time"
)


ROWS = (
    Row("Crafter, random policy with resets, symbolic, steps per CPU s", GAME, "speed_game",
        ("symbolic", "steps_per_cpu_s"), 3000, True, peer=_package("symbolic")),
    Row("the same with 64x64 frames", GAME, "speed_game", ("pixels", "steps_per_cpu_s"), 3000, True,
        peer=_package("pixels")),
    Row("Crafter reset, symbolic, CPU ms", GAME, "speed_game", ("symbolic", "reset", "cpu_s"), 25, scale=1000,
        peer=_package_reset("symbolic")),
    Row("Crafter reset with a frame, CPU ms", GAME, "speed_game", ("pixels", "reset", "cpu_s"), 25, scale=1000,
        peer=_package_reset("pixels")),
    Row("one update, `1m`, pixels, 16x64, 2 threads, CPU s", "speed update", "speed_update",
        ("1m pixels 16x64", "cpu_s"), 2.5, peer=_peer("update 16x64")),
    Row("policy step, `1m`, pixels, batch 1, CPU ms", "speed policy", "speed_policy", ("batch 1", "cpu_s"), 1.2,
        scale=1000, peer=_peer("policy step, batch 1"),
        left="the least of the calls meets it"),
    Row("policy step, `1m`, pixels, batch 8, CPU ms", "speed policy", "speed_policy", ("batch 8", "cpu_s"), 3,
        scale=1000, peer=_peer("policy step, batch 8"),
        left="by profile the image encoder 31 %, the recurrent step 7 %"),
    Row("whole loop, `tiny`, symbolic, train ratio 64, 2 threads, steps/s", "speed train", "speed_train",
        ("steps_per_s",), 150, True,
        left="by profile imagination and its way back take 56 %, 22 % keep one core alone busy"),
    Row("A+B+C, not kickstarted, over the plain update, `tiny`", "speed overhead", "speed_overhead",
        ("update tiny symbolic", "A+B+C", "over_base"), 1.30),
    Row("B, not kickstarted, over the plain update, `tiny`", "speed overhead", "speed_overhead",
        ("update tiny symbolic", "B", "over_base"), 1.05),
    Row("A+B+C, not kickstarted, over the plain update, `1m`, pixels", "speed overhead", "speed_overhead",
        ("update 1m pixels", "A+B+C", "over_base"), 1.30),
    Row("B, not kickstarted, over the plain update, `1m`, pixels", "speed overhead", "speed_overhead",
        ("update 1m pixels", "B", "over_base"), 1.05),
    Row("look-up of 1,024 keys in 1M rows, CPU ms", "speed lookup", "speed_lookup", ("1024 of 1M", "cpu_s"), 0.2,
        scale=1000),
    Row("open 1M rows for look-up, s", "storage --repeats 3", "storage", ("open", "wall_s"), 2),
    Row("commit 100,000 rows, s", "storage --repeats 3", "storage", ("commit", "wall_s"), 5),
    Row("rule book, states to committed rows per CPU s", "speed rules", "speed_rules", ("states_per_cpu_s",), 2000,
        True,
        left="by profile asking and parsing 40 %, wording 22 %, the commit 20 %"),
    Row("backend `openai`, 64 in flight, % of ideal", "http_backends", "http_backends",
        ("backends", "openai", "of_ideal"), 95, True, 100, peer=_bare,
        left=_HTTP_LEFT),
    Row("backend `gemini`, 64 in flight, % of ideal", "http_backends", "http_backends",
        ("backends", "gemini", "of_ideal"), 95, True, 100, peer=_bare,
        left=_HTTP_LEFT),
    Row("replay, 16x65 of 1M symbolic records, CPU ms", "speed replay", "speed_replay",
        ("symbolic, tiny, 1M", "ours", "cpu_s"), 1.5, scale=1000, peer=_torchrl("symbolic, tiny, 1M")),
    Row("replay, 16x65 of 100k frames, CPU ms", "speed replay", "speed_replay",
        ("pixels, 1m, 100k", "ours", "cpu_s"), 1.5, scale=1000, peer=_torchrl("pixels, 1m, 100k"),
        left="one copy of 12.8 MB; the least is at the target"),
    Row("update `12m`, bf16, one H200, ms", "gpu --all", "gpu", ("rows", "update_12m_graph_bf16", "ms"), 8,
        left="no GPU was at hand"),
    Row("4 seeds on one GPU, updates/s over one", "gpu --all", "gpu", ("rows", "seeds_4", "speedup"), 3, True,
        left="no GPU was at hand"),
)  # fmt: skip


def _read(name: str) -> dict[str, Any]:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _line(row: Row) -> str:
    own, sign = _read(row.result), ">=" if row.more else "<="
    cells = [row.what, f"`{row.command}`", f"{sign} {_number(row.target)}"]
    found: Any = own
    for key in row.at:
        found = found.get(key) if isinstance(found, dict) else None
    if found is None:
        return f"| {' | '.join([*cells, 'not measured', '', '', '-', row.left])} |"
    low_high = ""
    if isinstance(found, dict):
        low_high = f" ({_number(row.scale * found['min'])} to {_number(row.scale * found['max'])})"
    value = row.scale * _median(found)
    met = value >= row.target if row.more else value <= row.target
    machine = own["machine"]
    load = f"{max(machine['load'][0], machine.get('load_before', [0.0])[0]):.1f}"
    load += ", real-time" if machine.get("priority") == "real-time" else ""
    left = "" if met else row.left
    cells += [f"{_number(value)}{low_high}", "yes" if met else "no", load, row.peer(own, _read("peers")), left]
    return f"| {' | '.join(cells)} |"


def markdown() -> str:
    """The table."""
    head = "| what | `python -m benchmarks.` | target | median (least to most) | met | load | peer, same run | left |"
    return "\n".join([head, "|---" * 8 + "|", *(_line(row) for row in ROWS)])


def update_page(page: Path = PAGE) -> str:
    """Put the table between the marks of ``page``; returns the table."""
    put_between(page, BEGIN, END, made := markdown())
    return made


def put_between(page: Path, begin: str, end: str, made: str) -> None:
    """Put ``made`` between two marks of a page in place of what stands there."""
    before, _, rest = page.read_text().partition(begin)
    _, _, after = rest.partition(end)
    page.write_text(f"{before}{begin}\n{made}\n{end}{after}")
