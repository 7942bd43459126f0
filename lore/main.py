"""``python -m lore.main``: the learner alone, with the original's flags beside every dotted setting."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass

from lore.aliases import setting_name
from lore.config import Config

__all__ = ["Flags", "dotted", "main", "parse"]


@dataclass(frozen=True)
class Flags(Config):
    """Train DreamerV3 with stored advice; continues where it was when the folder holds a checkpoint."""

    log_dir: str = "runs/train"
    """Folder of the run: configuration, checkpoint, metrics, TensorBoard events."""
    quiet: bool = False
    """Print nothing but errors."""

    def config(self) -> Config:
        """The configuration alone."""
        return Config(**{f.name: getattr(self, f.name) for f in dataclasses.fields(Config)})


def dotted(words: list[str]) -> list[str]:
    """Give bare and old names of settings their section: ``--steps`` -> ``--train.steps``; others stay."""
    owners: dict[str, list[str]] = {}
    for section in dataclasses.fields(Config):
        for leaf in dataclasses.fields(section.default_factory):  # type: ignore[arg-type]
            owners.setdefault(leaf.name, []).append(section.name)
    return [_dotted(word, owners) if word.startswith("--") else word for word in words]


def _dotted(word: str, owners: dict[str, list[str]]) -> str:
    flag, equals, value = word.removeprefix("--").partition("=")
    given = flag.replace("-", "_")
    if len(owners.get(given, [])) == 1:
        return f"--{owners[given][0]}.{given}{equals}{value}"
    negated = ".no_" in f".{given}"  # of a switch that was on by default and is an inverted one now
    name, is_inverted = setting_name(f".{given}".replace(".no_", ".", 1)[1:] if negated else given)
    return f"--{name}{equals}{value}" if name != given and is_inverted == negated else word


def parse(words: list[str], prog: str = "python -m lore.main", kind: type[Flags] = Flags) -> Flags:
    """Command line -> flags, of a ``kind`` that may have more of them; UsageError names tyro where it is missing."""
    try:
        import tyro
    except ImportError:
        from lore_datasets.errors import UsageError

        raise UsageError(
            "the command line needs tyro", hint="pip install tyro, or call lore.training.loop.train(config, dir)"
        ) from None
    return tyro.cli(kind, args=dotted(words), prog=prog, config=(tyro.conf.FlagCreatePairsOff,))


def _show(row: dict) -> None:
    mean = "-" if row["episode_return"] is None else f"{row['episode_return']:.2f}"
    eta = "-" if row["eta_s"] is None else f"{row['eta_s']:.0f} s"
    counts = f"{row['step']}/{row['total']} steps, {row['updates']} updates, return {mean}"
    line = f"{row['phase']} {counts}, {row['fps']:.0f} steps/s, ETA {eta}"
    print(line, flush=True)


def main(words: list[str] | None = None) -> int:
    """Entry point: prints progress, or one line per error on stderr; returns the exit code."""
    from lore.training.loop import train
    from lore_datasets.errors import LoreError

    try:
        flags = parse(sys.argv[1:] if words is None else words)
        summary = train(flags.config(), flags.log_dir, None if flags.quiet else _show)
    except LoreError as error:
        print(f"lore: {error}", file=sys.stderr)
        return error.exit_code
    if summary["interrupted"]:
        print(f"lore: stopped at step {summary['step']}; the same command goes on from there", file=sys.stderr)
        return 130
    if not flags.quiet:
        print(f"done: {flags.log_dir}; next: tensorboard --logdir {flags.log_dir}")
        if summary["unused_advice"]:
            print(summary["unused_advice"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
