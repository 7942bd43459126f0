"""What a waiting user sees: no time left before it can be told, and a clock in every wait."""

from __future__ import annotations

import contextvars
import io
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from flows import terminal
from flows.cli.train import SeedFlags, summary_of
from flows.terminal import Pace, PlainTerminal, RichTerminal
from lore.config import load_config
from lore.main import parse
from lore.training.loop import train
from lore.training.progress import waits


@pytest.fixture
def now(monkeypatch):
    at = [50.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: at[0])
    return at


def test_no_time_is_left_before_units_flow_and_waits_show_a_clock(now):
    pace = Pace(1500)
    assert pace.text() == ""
    now[0] += 7
    assert pace.text() == "7 s so far"
    pace.update(1, None, "compiling, once")
    now[0] += 25
    assert pace.text() == "compiling, once: 25 s so far"  # and not 215 hours, which the first step would foretell
    pace.update(400, None, "compiling, once")
    now[0] += 100
    pace.update(404, None)
    now[0] += 3
    assert pace.text() == "3 s so far"
    now[0] += 7
    pace.update(504, None)
    assert pace.text() == "left 1:40"  # 10 steps a second, the compilation left out
    now[0] += 5
    assert pace.text() == "left 1:35"
    pace.update(1500, None)
    assert pace.text() == ""


def test_a_wait_without_reports_is_told_in_a_log(now):
    out = io.StringIO()
    bar = terminal._PlainBar(PlainTerminal(out).say, "start Prefect", None)
    for _ in range(30):
        now[0] += 1
        bar.tick()
    bar.end()
    lines = [re.split(r"\s{2,}", line) for line in out.getvalue().strip().splitlines()]
    assert [words[-1] for words in lines] == ["2 s so far", "12 s so far", "22 s so far", "30 s"]


def test_a_short_wait_leaves_no_line():
    out = io.StringIO()
    with PlainTerminal(out).bar("start Prefect"):
        pass
    assert out.getvalue() == ""


def test_live_bars_show_the_same_text(now):
    from rich.console import Console

    live = RichTerminal()
    live.console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with live.bars() as add:
        bar = add("train", 1500)
        bar.update(1, note="[red]", waits="compiling, once")
        now[0] += 25
    shown = live.console.file.getvalue()
    assert "compiling, once: 25 s so far" in shown and "1/1,500" in shown and "[red]" in shown


def test_a_run_names_no_time_before_its_second_update(tmp_path):
    config = load_config(
        observation="symbolic", size="tiny", batch_size=32, sequence_length=8, train_ratio=4.0, steps=120, threads=1,
        horizon=5, replay_capacity=500, device="cpu", **{"env.area": (16, 16), "env.length": 60},
    )  # fmt: skip
    rows: list[dict] = []
    train(config, tmp_path / "run", rows.append, tensorboard=False)
    phases = [row["phase"] for row in rows]
    assert phases.count("compiling") == 1 and phases[-1] == "done"
    at = phases.index("compiling")
    assert all(row["eta_s"] is None and row["updates"] == 0 for row in rows[: at + 1])
    assert waits(rows[0]) == "before updates flow" and waits(rows[at]) == "compiling, once"
    assert rows[-1]["eta_s"] == 0 and waits(rows[-1]) == ""


def test_a_run_begins_with_what_it_is(tmp_path):
    flags = parse(["--preset", "smoke", "--folder", str(tmp_path / "mine"), "--gate.enabled", "--dataset", "a@v1"],
                  kind=SeedFlags)  # fmt: skip
    assert isinstance(flags, SeedFlags)
    said = "\n".join(summary_of(flags.config(), flags))
    for part in ("cpu, 1 thread", "tiny", "symbolic", "1,500", "375 updates", "a@v1 (B, policy prior)", "a minute"):
        assert part in said, part
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "progress.jsonl").write_text('{"step": 700}\n')
    assert re.search(r"mine, goes on from step 700$", summary_of(flags.config(), flags)[0])


def test_a_notebook_gets_one_bar_that_changes_in_place_and_threads_have_terminals_of_their_own(monkeypatch):
    shown = []

    class Handle:
        def update(self, bundle, raw):
            shown.append(bundle)

    monkeypatch.setattr("IPython.display.display", lambda bundle, raw, display_id: shown.append(bundle) or Handle())
    with terminal.use(terminal.NotebookTerminal(io.StringIO())) as mine:
        with mine.bar("train", 40) as bar:
            bar.update(10, note="return <1>")
            bar.update(40)
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(terminal.current).result() is not mine
            assert pool.submit(contextvars.copy_context().run, terminal.current).result() is mine
    assert len(shown) == 2 and shown[-1]["text/plain"].startswith("train  100 %  40/40")
    assert '<progress value="1.0000"' in shown[-1]["text/html"]
    assert terminal.current() is not mine
