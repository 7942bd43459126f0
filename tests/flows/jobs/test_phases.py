"""Finished phases are skipped, unfinished ones run again, other settings are refused."""

from __future__ import annotations

import io
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tyro

from flows.cli import main as cli
from flows.config import DemoJob
from flows.jobs.demo import _commands
from flows.jobs.phases import Phases, hold
from flows.terminal import PlainTerminal, clock, use
from lore_datasets.errors import Busy, ConfigError, UsageError


def test_a_finished_phase_is_skipped_and_says_so(tmp_path):
    calls, out = [], io.StringIO()

    def work():
        calls.append(1)
        return {"made": "x"}

    with use(PlainTerminal(out)):
        for _ in range(2):
            assert Phases(tmp_path, {"seed": 0}).run("one", {"a": (1, 2)}, work) == {"made": "x"}
    assert len(calls) == 1 and "one: done before, skipped" in out.getvalue()


def test_other_inputs_or_a_vanished_result_run_the_phase_again(tmp_path):
    phases, calls = Phases(tmp_path, {}), []

    def work():
        calls.append(1)
        return {}

    phases.run("one", {"a": 1}, work)
    phases.run("one", {"a": 2}, work)
    phases.run("one", {"a": 2}, work, holds=lambda result: False)
    assert len(calls) == 3


def test_a_phase_that_raised_leaves_no_trace(tmp_path):
    phases = Phases(tmp_path, {})
    with pytest.raises(ZeroDivisionError):
        phases.run("one", {}, lambda: {"x": 1 // 0})
    assert phases.done("one", {}) is None and phases.run("one", {}, lambda: {"x": 1}) == {"x": 1}


def test_a_folder_begun_with_other_settings_is_refused_by_name(tmp_path):
    Phases(tmp_path, {"seed": 0, "rows": 5})
    with pytest.raises(ConfigError, match=r"was begun with seed 0.*--fresh"):
        Phases(tmp_path, {"seed": 1, "rows": 5})


def test_forgetting_removes_what_the_job_made_and_nothing_else(tmp_path):
    Phases(tmp_path, {"seed": 0}).run("one", {}, lambda: {"x": 1})
    for name in ("prefect", "none", "datasets", ".git"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "abc").symlink_to(tmp_path / "elsewhere")
    Phases.forget(tmp_path, ("seed",), ("none", "abc", "report.html"))
    kept = [".git", "datasets", "elsewhere", "notes.txt", "prefect", "state"]
    assert sorted(p.name for p in tmp_path.iterdir()) == kept and not list((tmp_path / "state").iterdir())
    assert Phases(tmp_path, {"seed": 1}).done("one", {}) is None


@pytest.mark.parametrize("mark", [None, "{", '{"run": "x", "round": 1}', "[]"])
def test_without_the_mark_of_the_same_kind_of_job_nothing_is_removed(tmp_path, mark):
    Phases.forget(tmp_path / "absent", ("seed",), ("none",))
    (tmp_path / "none").mkdir()
    if mark is not None:
        (tmp_path / "state").mkdir()
        (tmp_path / "state" / "begun.json").write_text(mark)
    with pytest.raises(UsageError, match="finds no such job"):
        Phases.forget(tmp_path, ("seed",), ("none",))
    assert (tmp_path / "none").is_dir() and (tmp_path / "state").is_dir() == (mark is not None)


@pytest.fixture
def short_wait(monkeypatch):
    monkeypatch.setattr("flows.jobs.phases._WAIT_S", 0.2)


def test_a_folder_in_which_somebody_trains_is_not_removed(tmp_path, short_wait):
    Phases(tmp_path, {"seed": 0})
    code = (
        "import sys\nfrom pathlib import Path\nfrom flows.jobs.phases import hold\n"
        "with hold(Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "abc")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline().strip() == "in"
        (tmp_path / "none").mkdir()
        with pytest.raises(Busy, match="another process works in"):
            Phases.forget(tmp_path, ("seed",), ("none", "abc"))
        other.kill()
    assert (tmp_path / "none").is_dir() and (tmp_path / "abc").is_dir() and Phases(tmp_path, {"seed": 0})


def test_a_fresh_demo_in_a_folder_of_other_things_or_under_a_bad_name_deletes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bought.icechunk").mkdir()
    for words in (("--folder", "."), ("--folder", ".", "--dataset", "Bad Name"), ("--dataset", "Bad Name")):
        assert cli.main(["demo", "--fresh", "--quick", "--direct", *words]) in (2, 3)
        said = capsys.readouterr().err
        assert "not a dataset" in said if "Bad Name" in words else "finds no such job begun in ." in said
    assert (tmp_path / "bought.icechunk").is_dir() and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("text", ['{"inputs": {', "{}", "[1]"])
def test_a_state_file_torn_by_a_crash_counts_as_absent(tmp_path, text):
    phases = Phases(tmp_path, {})
    (tmp_path / "state" / "one.json").write_text(text)
    assert phases.done("one", {}) is None
    (tmp_path / "state" / "begun.json").write_text("[]")
    Phases(tmp_path, {"a": 1})
    with pytest.raises(ConfigError, match="begun with a 1"):
        Phases(tmp_path, {"a": 2})


def test_a_second_process_in_the_same_folder_is_told_that_it_is_busy(tmp_path, short_wait):
    code = (
        "import sys\nfrom pathlib import Path\nfrom flows.jobs.phases import hold\n"
        "with hold(Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline().strip() == "in"
    with pytest.raises(Busy, match="another process works in"), hold(tmp_path):
        raise AssertionError("two holders")
    other.kill()
    other.communicate()
    with hold(tmp_path):
        pass


def test_the_time_left_reads_as_a_clock():
    assert [clock(s) for s in (0, 59.6, 61, 3600)] == ["0:00", "1:00", "1:01", "1:00:00"]


def test_without_a_terminal_a_bar_ends_in_one_line():
    out = io.StringIO()
    with use(PlainTerminal(out)) as terminal, terminal.bars() as add:
        bar = add("ask", 10)
        for n in range(11):
            bar.update(n, note="fine")
    assert out.getvalue().strip() == "ask                 100 %  10/10  fine"


def test_without_a_terminal_what_is_done_is_not_told_again_and_again(monkeypatch):
    for name in ("_PLAIN_SECONDS", "WAIT_S"):
        monkeypatch.setattr(f"flows.terminal.{name}", 0.0)  # every look is due
    out = io.StringIO()
    with use(PlainTerminal(out)) as terminal, terminal.bars() as add:
        done, open_ = add("done", 10), add("open", 10)
        done.update(10)
        open_.update(5)
        for bar in 3 * [done, open_]:
            bar.tick()
    lines = [line.split()[0] for line in out.getvalue().splitlines()]
    assert lines.count("done") == 1 and lines.count("open") >= 5


def test_the_commands_of_a_demo_are_those_that_it_was_called_with_and_a_shell_takes_them():
    job = DemoJob(quick=True, dataset="foo", epochs=3, folder="my runs/x").resolved()
    told, _, heading, *phases = _commands(job, Path(job.folder), "foo-states@v1#ab", "foo@v1#cd")
    assert shlex.split(told) == [
        "lore", "demo", "--quick", "--folder", "my runs/x", "--dataset", "foo", "--epochs", "3"
    ]  # fmt: skip
    assert tyro.cli(DemoJob, args=shlex.split(told)[2:]).resolved() == job and "the same" not in heading
    assert shlex.split(phases[-1]) == ["lore", "report", "my runs/x/none", "my runs/x/abc"]
