"""``python -m lore.main``: the learner alone, with the original's flags beside every dotted setting."""

from __future__ import annotations

import dataclasses
import signal
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_type_hints

from lore.aliases import setting_name
from lore.config import Config, load_config
from lore.presets import PRESETS
from lore_datasets.errors import UsageError
from lore_datasets.places import local_path

__all__ = ["OLDER", "Flags", "full_names", "main", "option_names", "parse", "prepare"]

OLDER = {"log_dir": "folder", "run_dir": "folder"}
"""Options that were called otherwise; settings have their own table in :mod:`lore.aliases`."""


@dataclass(frozen=True)
class Flags(Config):
    """Train DreamerV3 with stored advice; continues where it was when the folder holds a checkpoint."""

    folder: str = "runs/train"
    """Folder of the run: configuration, checkpoint, metrics, TensorBoard events."""
    preset: Literal["", "smoke", "laptop", "crafter-12m", "crafter-paper"] = ""
    """Settings by name, which other options change: ``smoke`` takes a minute, ``laptop`` under an hour on one core;
    ``crafter-12m`` and ``crafter-paper`` (200m, the published one) are a million steps of pixels for a GPU."""
    resume: str = ""
    """Go on with the run in this folder under its own settings; ``--steps`` raises its budget."""
    fork: str = ""
    """Begin the run in ``--folder`` from the checkpoint in this folder: its settings, but for those that are given."""
    quiet: bool = False
    """Print nothing but errors."""

    def config(self) -> Config:
        """The configuration alone."""
        return Config(**{f.name: getattr(self, f.name) for f in dataclasses.fields(Config)})


def option_names(of: Any) -> list[str]:
    """Dotted names of the options that tyro makes of a dataclass, or of a function's parameters."""
    names: list[str] = []
    for own, hint in get_type_hints(of, include_extras=True).items():
        kind, marks = getattr(hint, "__origin__", hint), getattr(hint, "__metadata__", ())
        name = next((mark.name for mark in marks if getattr(mark, "name", None) is not None), own)
        if dataclasses.is_dataclass(kind):
            names += [f"{name}.{each}" if name else each for each in option_names(kind)]
        elif own != "return":
            names.append(name)
    return names


def full_names(words: Sequence[str], known: Collection[str], older: Mapping[str, str] = OLDER) -> list[str]:
    """``words`` with every option under its full name, ``~`` and ``file://`` of paths spelled out; what is no option,
    or no single one, stays as it is.

    An option may be given by the end of its name, where that belongs to one alone (``--seed`` for ``--train.seed``), by
    the name that it had before (``older``), and by those of the original (:mod:`lore.aliases`).
    """
    return [_full_name(word, known, older) if word.startswith("--") else local_path(word) for word in words]


def _full_name(word: str, known: Collection[str], older: Mapping[str, str]) -> str:
    flag, equals, value = word.removeprefix("--").partition("=")
    value = local_path(value)
    given = flag.replace("-", "_")
    negated = ".no_" in f".{given}"  # --advice.no_only_informative: on by default then, its opposite off now
    was = f".{given}".replace(".no_", ".", 1)[1:] if negated else given
    setting, is_inverted = setting_name(was)
    setting = setting if is_inverted == negated else given
    if given in known:
        return f"--{flag}{equals}{value}"
    if older.get(given) in known:
        return f"--{older[given]}{equals}{value}"
    for name in (given, setting, older.get(given, given)):
        found = [each for each in known if f".{each}".endswith(f".{name}")]
        if len(found) == 1:
            return f"--{found[0]}{equals}{value}"
    return word


def parse(words: list[str], prog: str = "python -m lore.main", kind: type[Flags] = Flags) -> Flags:
    """Command line -> flags, of a ``kind`` that may have more of them; UsageError names tyro where it is missing."""
    try:
        import tyro
    except ImportError:
        raise UsageError(
            "the command line needs tyro", hint="pip install tyro, or call lore.training.loop.train(config, dir)"
        ) from None
    args = full_names(words, option_names(kind))
    default = _defaults(kind, args)
    return tyro.cli(kind, args=args, default=default, prog=prog, config=(tyro.conf.FlagCreatePairsOff,))


def _defaults(kind: type[Flags], words: Sequence[str]) -> Flags:
    """Flags with the settings of the preset or run that ``words`` name, which the other words change."""
    given = {name: value for name in ("preset", "resume", "fork") if (value := _value_of(words, name))}
    if len(given) > 1:
        raise UsageError(f"--{' and --'.join(given)} exclude each other", hint="give one of them")
    if not given:
        return kind()
    (name, value), *_ = given.items()
    if name == "preset":
        config = load_config(**PRESETS.get(value, {}))
    else:
        from lore.training.folder import read_config

        config = read_config(value)
    flags = dataclasses.replace(kind(), **{f.name: getattr(config, f.name) for f in dataclasses.fields(Config)})
    return dataclasses.replace(flags, folder=value) if name == "resume" else flags


def _value_of(words: Sequence[str], option: str) -> str:
    """What the option is given last, after it or after its equals sign; "" where it is not there."""
    given = ""
    for word, following in pairwise([*words, ""]):
        flag, equals, value = word.partition("=")
        if flag == f"--{option}":
            given = value if equals else following
    return given


def prepare(flags: Flags, say: Callable[[str], None]) -> Config:
    """The configuration of the flags; a fork is made, and what differs from the run that is gone on with is said."""
    from lore.training.folder import CONFIG, read_config
    from lore.training.fork import check_steps, differences, fork

    config, folder = flags.config(), flags.resume or flags.fork
    if flags.resume:
        if flags.folder != flags.resume:
            raise UsageError("--resume goes on in its own folder", hint="--fork RUN --folder NEW begins beside it")
        check_steps(folder, config)
        changed = differences(read_config(folder), config)
    elif flags.fork and not (Path(flags.folder) / CONFIG).exists():
        changed = fork(folder, flags.folder, config)
    else:
        return config
    for name, (old, new) in changed.items():
        say(f"{name}: {old} -> {new}")
    return config


def _show(row: dict) -> None:
    from lore.training.progress import waits

    mean = "-" if row["episode_return"] is None else f"{row['episode_return']:.2f}"
    left = f"{row['eta_s']:.0f} s left" if row["eta_s"] is not None else waits(row) or "the end"
    counts = f"{row['step']}/{row['total']} steps, {row['updates']} updates, return {mean}"
    line = f"{row['phase']} {counts}, {row['fps']:.0f} steps/s, {left}"
    print(line, flush=True)


def main(words: list[str] | None = None) -> int:
    """Entry point: prints progress, or one line per error on stderr; returns the exit code."""
    from lore.training.loop import train
    from lore_datasets.errors import LoreError
    from lore_datasets.places import named

    try:
        flags = parse(sys.argv[1:] if words is None else words)
        config = prepare(flags, lambda line: None if flags.quiet else print(line))
        summary = train(config, flags.folder, None if flags.quiet else _show)
    except KeyboardInterrupt:  # a second one: the first saves and ends the run in order
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        print("\nlore: stopped at once; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    except (LoreError, OSError) as error:
        said = named(error) if isinstance(error, OSError) else error
        print(f"lore: {said}", file=sys.stderr)
        return said.exit_code
    if summary["interrupted"]:
        print(f"lore: stopped at step {summary['step']}; the same command goes on from there", file=sys.stderr)
        return 128 + summary["signal"]
    if not flags.quiet:
        print(f"done: {flags.folder}; next: tensorboard --logdir {flags.folder}")
        if summary["unused_advice"]:
            print(summary["unused_advice"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
