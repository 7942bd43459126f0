"""One vocabulary: every option that a page, a message or a hint names is one of its verb; older names lead there."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from flows.cli import main as cli
from flows.cli.flags import OLDER, known_options, spelled_out
from flows.config import AblateJob, AdviceJob, CollectJob, DemoJob, RefreshJob, SeedsJob, renamed_job
from lore.main import Flags, full_names, option_names
from lore_datasets.errors import BadInput, ConfigError

ROOT = Path(__file__).parents[3]
PAGES = [
    path for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("*.toml"), *ROOT.glob("*.yaml"), *ROOT.glob("docs/**/*.md"),
                             *ROOT.glob("datasets/*.md")])
    if path.name != "CHANGELOG.md"
]  # fmt: skip
SOURCES = [path for package in ("datasets/lore_datasets", "pipeline", "lore", "flows", "examples")
           for path in sorted((ROOT / package).rglob("*.py"))]  # fmt: skip
FLAG = re.compile(r"(?<![\w-])--[a-z][\w.-]*[a-z0-9]")
SPAN = re.compile(r"(?:lore|python -m (?:flows|lore\.main)) [a-z-][^`\n;]*")
FOREIGN = {
    "tensorboard": {"--logdir", "--host", "--port", "--reload_interval", "--load_fast"},
    "prefect": {"--type", "--no-prompt", "--all", "--pool", "--host", "--port", "--ui", "--no-ui"},
    "uv": {"--all-extras", "--python-version"},
    "pip": {"--no-deps", "--only-binary", "--no-input", "--disable-pip-version-check", "--dest"},
    "dask": {"--host", "--dashboard-address", "--nthreads", "--nworkers", "--resources", "--memory-limit", "--port"},
    "slurm": {"--gres"},
    "benchmarks": {
        flag for path in sorted((ROOT / "benchmarks").glob("*.py"))
        for flag in re.findall(r'add_argument\(\s*"(--[a-z][\w-]*)"', path.read_text())
    },
    "tests": {"--strict-markers", "--import-mode", "--dist", "--no-cache", "--fix"},
    "lore": {"--help", "--version"},
}  # fmt: skip
"""Options of other programs that pages and messages name."""


def verbs() -> dict[str, Callable[..., Any]]:
    found = {verb: target for verb, (target, _) in cli.VERBS.items()}
    found |= {f"{group} {verb}": target for group, (_, vs) in cli.GROUPS.items() for verb, (target, _) in vs.items()}
    return {
        verb: getattr(import_module(target.partition(":")[0]), target.partition(":")[2])
        for verb, target in found.items()
    }


VERBS = verbs()
OPTIONS = {verb: known_options(function)[0] for verb, function in VERBS.items()}


def is_known(flag: str, known: list[str]) -> bool:
    """Today's name, whole or its end, that one option alone has."""
    name = flag.removeprefix("--").replace("-", "_")
    return name in known or sum(each.endswith(f".{name}") for each in known) == 1


def texts() -> Iterator[tuple[str, str]]:
    """(where, text): pages line by line, lines that end in a backslash joined; every string of the sources."""
    for path in PAGES:
        for line in path.read_text().replace("\\\n", " ").splitlines():
            yield path.name, line
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield path.name, "".join(str(v.value) if isinstance(v, ast.Constant) else "X" for v in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield path.name, node.value


def verb_of(words: list[str]) -> str:
    """The verb that a command line calls; "" when it calls none."""
    return next((verb for verb in (" ".join(words[:2]), words[0]) if verb in VERBS), "")


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_every_option_under_one_positive_name(verb, capsys):
    with pytest.raises(SystemExit):
        cli.main([*verb.split(), "--help"])
    shown = set(re.findall(r"^\W*?(--[a-z][\w.-]*)", capsys.readouterr().out, flags=re.M)) - {"--help"}
    assert shown == {f"--{name}".replace("_", "-") for name in OPTIONS[verb]}
    assert not [flag for flag in shown if re.search(r"(--|\.)(no|without|not)-", flag)]
    assert not {"folder", "dataset", "steps"} & {old for old in OLDER if old in OPTIONS[verb]}


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_has_an_option_that_was_renamed(verb):
    today = {new for old, new in OLDER.items()}
    assert not [name for name in OPTIONS[verb] if name in OLDER and OLDER[name] in today and name != "name"]


def test_every_option_that_a_text_names_exists():
    foreign = set().union(*FOREIGN.values())
    unknown = [
        (where, flag)
        for where, text in texts()
        for flag in FLAG.findall(text)
        if flag not in foreign and not any(is_known(flag, known) for known in OPTIONS.values())
    ]
    assert not unknown


def test_every_command_that_a_text_shows_has_the_options_of_its_verb():
    seen, wrong = 0, []
    for where, text in texts():
        for span in SPAN.findall(text):
            words = span.split()[1:] if span.startswith("lore ") else span.split()[3:]
            verb = "train" if "lore.main" in span else verb_of(words) if words else ""
            if not verb:
                continue
            flags = FLAG.findall(re.split(r" (?:->|\||#) ?|, or |\)", span)[0])
            seen += bool(flags)
            wrong += [(where, verb, f) for f in flags if f != "--help" and not is_known(f, OPTIONS[verb])]
    assert not wrong and seen > 25


@pytest.mark.parametrize(
    ("verb", "old", "new"),
    [
        ("train", "--total_frames 5 --log_dir x --use_llm", "--train.steps 5 --folder x --gate.enabled"),
        ("train", "--run-dir=x --advice.no_only_informative", "--folder=x --advice.accept_uninformative"),
        ("demo", "--frames 5 --name a --no-prefect", "--steps 5 --dataset a --direct"),
        ("collect", "--name a --collect.budget 3", "--dataset a --collect.budget 3"),
        ("advise", "--name a --no-distil --budget 7 --model m",
         "--dataset a --rows_only --select.budget 7 --ask.model m"),
        ("advise", "--kinds program --program-drafts=2", "--advise.kinds program --advise.program_drafts=2"),
        ("refresh", "--frames 9 --max-cost 1", "--steps 9 --ask.max_cost 1"),
        ("ablate", "--frames 9 --name a --config.env.area 9 9 --use_llm",
         "--steps 9 --dataset a --env.area 9 9 --gate.enabled"),
        ("up", "--runs r --no-tensorboard", "--folder r --server_only"),
        ("eval", "--folder runs/x --episodes 3", "runs/x --episodes 3"),
        ("report", "--folder runs/x --out y", "runs/x --out y"),
        ("datasets import", "x.h5 --name copy", "x.h5 --dataset copy"),
        ("advise", "--seed 3 --hold 2", "--seed 3 --hold 2"),  # two have a seed, none a hold: tyro says so
    ],
)  # fmt: skip
def test_older_names_and_ends_of_names_lead_to_today_s(verb, old, new):
    function = VERBS[verb]
    if hasattr(function, "flags"):
        assert full_names(shlex.split(old), option_names(function.flags)) == shlex.split(new)
    else:
        assert [w.replace("-", "_") if w[:2] == "--" else w for w in spelled_out(function, shlex.split(old))] == [
            w.replace("-", "_") if w[:2] == "--" else w for w in shlex.split(new)
        ]


def test_fields_of_a_schedule_under_older_names_are_understood():
    assert renamed_job(CollectJob, {"name": "x"}) == {"dataset": "x"}
    assert renamed_job(AdviceJob, {"states": "s", "name": "x", "distil": False}) == {
        "states": "s", "dataset": "x", "rows_only": True,
    }  # fmt: skip
    assert renamed_job(RefreshJob, {"frames": 3, "folder": "f"}) == {"steps": 3, "folder": "f"}
    assert renamed_job(SeedsJob, {"seeds": 2, "first_seed": 4, "config": {"train": {"total_frames": 3}}}) == {
        "seeds": [4, 5], "config": {"train": {"steps": 3}},
    }  # fmt: skip
    assert renamed_job(SeedsJob, {"seeds": [4], "nonsense": 1}) == {"seeds": [4], "nonsense": 1}


@pytest.mark.parametrize("job", [CollectJob, AdviceJob, DemoJob, AblateJob])
def test_a_dataset_s_name_is_checked_before_any_work(job):
    with pytest.raises(BadInput, match="not a dataset"):
        job(dataset="Not a name")


@pytest.mark.parametrize("seeds", [(), (1, 1), (-1,), 3, (True,)])
def test_seeds_are_a_list_of_different_numbers(seeds):
    for job in (AblateJob, SeedsJob):
        with pytest.raises(ConfigError, match="seeds"):
            job(seeds=seeds)


def test_a_setting_that_a_study_sets_itself_is_refused_among_the_shared_ones():
    with pytest.raises(ConfigError, match=r"train\.seed is set for each run"):
        cli._dispatch(["ablate", "--train.seed", "3"])


def test_the_learner_alone_has_the_options_of_train():
    assert set(option_names(Flags)) <= set(OPTIONS["train"])
