"""The ``lore`` command: help, exit codes, one-line errors."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import time

import pytest

from flows.cli import main as cli
from lore_datasets.errors import LoreError, NoSpace


@pytest.fixture(autouse=True)
def no_datasets(tmp_path, monkeypatch):
    monkeypatch.setenv("LORE_DATASETS", str(tmp_path / "datasets"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "afile").write_text("somebody's")
    (tmp_path / "bad.json").write_text("{")
    return tmp_path / "datasets"


def failed(capsys, *words):
    """Exit code and the one line on stderr."""
    code = cli.main(list(words))
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith("lore: ") and "next: " in err
    return code, err


def test_help_names_every_verb_in_under_a_second():
    began = time.monotonic()
    out = subprocess.run([sys.executable, "-m", "flows", "--help"], capture_output=True, text=True, check=True).stdout
    assert time.monotonic() - began < 5  # a loaded machine; 0.1 s on a quiet one
    for verb in (*cli.VERBS, *cli.GROUPS, *cli.GROUPS["datasets"][1]):
        assert verb in out


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom flows.cli.main import main\nmain(['--help'])\nprint(*{m.split('.')[0] for m in sys.modules})"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = out.splitlines()[-1].split()
    heavy = ("torch", "prefect", "zarr", "icechunk", "h5py", "matplotlib", "tyro", "crafter", "numpy")
    assert not set(heavy) & set(loaded)


@pytest.mark.parametrize("verb", [*cli.VERBS, *(f"{g} {v}" for g, (_, vs) in cli.GROUPS.items() for v in vs)])
def test_every_verb_explains_itself(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*verb.split(), "--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0 and f"usage: lore {verb}" in out and len(out.splitlines()) > 5


def test_no_words_show_the_help_and_fail(capsys):
    assert cli.main([]) == 2 and "usage: lore VERB" in capsys.readouterr().out
    assert cli.main(["datasets"]) == 2 and "verify" in capsys.readouterr().out


def test_an_unknown_verb_is_corrected(capsys):
    assert failed(capsys, "trian") == (2, "lore: usage: lore has no verb 'trian'; next: did you mean `lore train`?\n")
    assert failed(capsys, "datasets", "vrify")[1].endswith("did you mean `lore datasets verify`?\n")


def test_a_verb_with_hostile_characters_is_shown_escaped(capsys):
    _, err = failed(capsys, "\x1b[31mred\nsecond")
    assert "\x1b" not in err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("datasets", "show", "nope"), 3, "no dataset 'nope'"),
        (("datasets", "verify", "../x"), 3, "not a dataset reference"),
        (("datasets", "import", "nope.h5"), 3, "no file nope.h5"),
        (("datasets", "export", "nope", "out.txt"), 2, "does not end in .h5"),
        (("advise", "--states", "nope"), 3, "no dataset 'nope'"),
        (("collect", "--budget", "0"), 3, "collect.budget = 0 is out of range"),
        (("train", "--batch_size", "7"), 3, "train.batch_size = 7 is out of range"),
        (("train", "--gate.enabled"), 3, "advice.dataset is empty"),
        (("train", "--gate.enabled", "--advice.dataset", "nope@v1"), 3, "no dataset 'nope"),
        (("eval", "nope"), 3, "no folder nope"),
        (("eval", "nope", "--seed", "-5"), 3, "seed = -5 is out of range"),
        (("skills", "run", "collect_wood", "--seed", "-1"), 2, "--seed -1 is out of range"),
        (("watch", ".", "--out", "x.avi"), 2, "x.avi is neither .mp4 nor .gif"),
        (("datasets", "play", "bad.json"), 3, "bad.json holds no advice"),
        (("report",), 2, "at least one run"),
        (("report", "nope"), 3, "no folder nope"),
        (("skills", "show", "fly"), 3, "no skill 'fly'"),
        (("demo", "--seed", "-1"), 3, "seed = -1 is out of range"),
        (("eval", "afile"), 3, "no folder afile"),
        (("train", "--log_dir", "afile", "--steps", "5"), 3, "afile: File exists"),
        (("train", "--device", "mps", "--steps", "5"), 3, "train.device = mps is out of range"),
        (("report", "afile", "--out", "/proc/x"), 3, "no folder afile"),
        (("datasets", "show", "--card", "md", "nope"), 3, "no dataset 'nope'"),
    ],
)
def test_bad_input_is_one_line_with_the_class_s_exit_code(words, code, said, capsys):
    found, err = failed(capsys, *words)
    assert found == code and said in err


def raising(error):
    def verb(words):
        raise error

    verb.flags = None
    return verb


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (LoreError("a\nb", kept="all", hint="go"), 1, "lore: error: a b; kept: all; next: go\n"),
        (NoSpace("disk"), 7, "lore: no_space: disk\n"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), 7, "no space left for runs/x"),
        (KeyboardInterrupt(), 130, "go on with `lore doctor --x`"),
    ],
)
def test_errors_become_one_line_and_a_code(error, code, said, capsys, monkeypatch):
    monkeypatch.setattr("flows.cli.doctor.doctor", raising(error))
    assert cli.main(["doctor", "--x"]) == code
    assert said in capsys.readouterr().err


def test_the_doctor_finds_this_installation_sound(capsys):
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "FAIL" not in out and "ok    fastapi" in out and "lore demo" in out


def test_the_doctor_goes_on_where_the_datasets_are_no_folder(monkeypatch, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LORE_DATASETS", str(tmp_path / "file"))
    assert cli.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "FAIL  datasets" in out and "loopback" in out and "1 to mend" in out


def test_the_doctor_names_what_is_missing_too_old_or_too_new(monkeypatch, capsys):
    wanted = ["numpy>=99", "torch>=2", "h5py>=3,<3.1", "no-such-package>=1", "no-such-either; extra == 'dev'"]
    monkeypatch.setattr("flows.cli.doctor.requires", lambda name: wanted)
    assert cli.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "is not >=99; next: make setup" in out and "is not <3.1,>=3" in out and "ok    torch" in out
    assert "no-such-package not installed" in out and "no-such-either" not in out and "3 to mend" in out


def test_the_doctor_tells_what_a_run_with_these_flags_will_need(capsys):
    flags = "--size tiny --observation symbolic --device cpu --steps 1000 --batch_size 64 --sequence_length 16"
    assert cli.main(["doctor", *flags.split(), "--env.area", "24", "24"]) == 0
    out = capsys.readouterr().out
    assert "501,320 parameters" in out and " GiB (tensor)" in out and " hours for 1,000 steps" in out
    assert "lore train with the same flags" in out


def test_a_skill_plays_and_its_outcome_is_told(capsys):
    assert cli.main(["skills", "run", "collect_wood", "--episodes", "2", "--seed", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["world 1", "world 2"]
    assert all(" after " in line and "reward" in line for line in lines)


def test_a_file_of_skills_is_linted_entry_by_entry(tmp_path, capsys):
    assert cli.main(["skills", "show", "collect_wood"]) == 0
    shown = capsys.readouterr().out
    assert json.loads(shown)["name"] == "collect_wood"
    (tmp_path / "good.json").write_text(shown)
    (tmp_path / "bad.json").write_text(f'[{shown}, {{"version": 1, "name": "x"}}]')
    assert cli.main(["skills", "lint", "good.json"]) == 0
    assert cli.main(["skills", "lint", "bad.json"]) == 3
    out, err = capsys.readouterr()
    assert out.count("ok    collect_wood") == 2 and "bad   entry 1" in out and "1 skills do not hold" in err


def test_a_second_interrupt_of_the_learner_is_one_line(monkeypatch, capsys):
    import signal

    from lore import main as learner

    def interrupted(*_):
        raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("lore.training.loop.train", interrupted)
    try:
        assert learner.main(["--steps", "5"]) == 130
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL, "a third one prints no traceback either"
    finally:
        signal.signal(signal.SIGINT, handler)
    said = capsys.readouterr().err
    assert said == "\nlore: stopped at once; the same command goes on from the last checkpoint\n"
