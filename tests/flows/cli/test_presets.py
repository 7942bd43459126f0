"""Presets of ``lore train``, and what it says of a run that would take days."""

import os
import pty
import signal
import time

import pytest

from flows.cli import train as verb
from flows.cli.train import LongRun, SeedFlags
from flows.config import study_config
from lore.config import load_config
from lore.main import parse
from lore.presets import PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_gives_its_settings_and_other_options_change_them(name):
    flags = parse(["--preset", name, "--folder", "x", "--steps", "77"], kind=SeedFlags)
    assert flags.config() == load_config(**PRESETS[name] | {"train.steps": 77}) and flags.folder == "x"
    assert parse([f"--preset={name}"]).config() == load_config(**PRESETS[name])


def test_the_published_settings_and_the_studys_learner():
    paper = load_config(**PRESETS["crafter-paper"])
    assert (paper.model.size, paper.model.bf16, paper.train.train_ratio, paper.train.steps) == (
        "200m",
        True,
        512,
        10**6,
    )
    assert paper.env.observation == "pixels" and paper.train.batch_size == 1024
    laptop = load_config(**PRESETS["laptop"])
    assert (laptop.model, laptop.env, laptop.train.train_ratio) == (study_config().model, study_config().env, 64.0)


def test_an_unknown_preset_is_refused_by_name(capsys):
    with pytest.raises(SystemExit):
        parse(["--preset", "huge"])
    assert "huge" in capsys.readouterr().err


def row(step, total, updates=5):
    return {"step": step, "total": total, "updates": updates}


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(verb.time, "monotonic", lambda: now[0])
    return now


def test_a_run_of_days_is_said_once_after_a_minute_and_asks_nobody_without_a_terminal(clock, capsys):
    look = LongRun(SeedFlags())
    look(row(0, 10**6, updates=0))
    clock[0] += 300  # compiling does not count
    for _ in range(70):
        look(row(int(clock[0] - 400), 10**6))
        clock[0] += 1.0
    said = capsys.readouterr().err
    assert said.count("the run takes 12 days") == 1 and "--preset laptop" in said and "go on?" not in said


def test_short_runs_presets_and_quiet_ones_say_nothing(clock, capsys):
    for flags, total in ((SeedFlags(), 5000), (SeedFlags(preset="laptop"), 10**6), (SeedFlags(quiet=True), 10**6)):
        look = LongRun(flags)
        for second in range(90):
            clock[0] += 1.0
            look(row(second, total))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("answer", "stops"), [("n", True), ("", False)])
def test_on_a_terminal_it_asks_and_no_stops_the_run_as_ctrl_c_does(clock, monkeypatch, answer, stops):
    here, there = pty.openpty()
    got: list[int] = []
    with open(there, "w") as err, open(os.dup(there)) as typed:
        monkeypatch.setattr(verb.sys, "stdin", typed)
        monkeypatch.setattr(verb.sys, "stderr", err)
        os.write(here, f"{answer}\n".encode())
        before = signal.signal(signal.SIGINT, lambda number, frame: got.append(number))
        try:
            look = LongRun(SeedFlags())
            for second in range(90):
                clock[0] += 1.0
                look(row(second, 10**7))
            time.sleep(0.01)
        finally:
            signal.signal(signal.SIGINT, before)
        assert "go on?" in os.read(here, 10_000).decode()
    assert bool(got) is stops
