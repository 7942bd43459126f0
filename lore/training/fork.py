"""Going on with a run under its own settings, or beside it under changed ones."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lore.config import Config, to_dict
from lore.training import checkpoint, segments
from lore.training.advice_versions import VERSIONS
from lore.training.agent import needs_disagreement
from lore.training.folder import CHECKPOINT, CONFIG, lock_run, machine, read_config, recorded_advice
from lore.training.records import read_jsonl
from lore.training.sinks import FILES
from lore_datasets.atomic import write_json
from lore_datasets.errors import BadInput, ConfigError, CorruptArtifact, NotFound

__all__ = ["check_steps", "differences", "fork"]

_LOG = logging.getLogger("lore")
_SHAPES = ("env", "model.size", "model.numbers_as_classes", "train.seed", "train.sequence_length",
           "train.replay_capacity", "options.enabled", "options.max_options", "gate.enabled", "synthetic.enabled",
           "synthetic.capacity", "advice.prior", "advice.prefill_steps", "advice.min_agreement",
           "advice.accept_uninformative")  # fmt: skip
"""Settings, or sections of them, that networks and replay were laid out for, or by which replay was filled with advice:
a fork keeps them."""


def differences(before: Config, now: Config) -> dict[str, tuple[object, object]]:
    """``section.name`` -> (before, now) of every setting that differs."""
    old, new = to_dict(before), to_dict(now)
    return {
        f"{section}.{name}": (old[section][name], value)
        for section, body in new.items() for name, value in body.items() if old[section][name] != value
    }  # fmt: skip


def check_steps(folder: Path | str, config: Config) -> None:
    """ConfigError when a run has more steps behind it than ``config`` asks for in all."""
    done = max((int(row["step"]) for row in read_jsonl(Path(folder) / "progress.jsonl")), default=0)
    if config.train.steps < done:
        raise ConfigError(
            f"--steps {config.train.steps:,} is the whole budget, and {folder} has done {done:,}",
            kept="the run", hint=f"ask for more than {done:,}",
        )  # fmt: skip


def _check_goes_on(meta: dict[str, Any], config: Config, source: Path) -> None:
    """ConfigError when a fork would have nothing left to do."""
    if config.train.steps <= meta["frames"]:
        raise ConfigError(
            f"--steps {config.train.steps:,} counts from the beginning of {source}, and its checkpoint is at step"
            f" {meta['frames']:,}: nothing would be left to do",
            kept="the run", hint=f"ask for more than {meta['frames']:,}",
        )  # fmt: skip


def fork(source: Path | str, target: Path | str, config: Config) -> dict[str, tuple[object, object]]:
    """Make a run in ``target`` that goes on from the checkpoint of ``source`` under ``config``; returns what differs.

    Schedules, step sizes and weights may change. ConfigError names a setting that networks or replay were laid out for;
    BadInput when ``target`` holds anything; NotFound without a checkpoint. Segments are linked where the disk can.
    """
    source, target = Path(source), Path(target)
    before = read_config(source)
    changed = differences(before, config)
    fixed = [name for name in changed if name.startswith(tuple(f"{s}." for s in _SHAPES)) or name in _SHAPES]
    if before.keeps_advice != config.keeps_advice:  # by which replay was filled
        fixed += [name for name in changed if name in ("gate.kickstart", "gate.goal_bonus")]
    if needs_disagreement(before) != needs_disagreement(config):
        fixed += [name for name in changed if name.startswith("gate.weights")]
    if fixed:
        old, new = changed[fixed[0]]
        raise ConfigError(
            f"a fork cannot change {fixed[0]} ({old} -> {new}): networks and replay are laid out for it",
            kept="both folders", hint="train a run of its own",
        )  # fmt: skip
    if target.exists() and any(target.iterdir()):
        raise BadInput(f"{target} is not empty", kept="everything in it", hint="choose another --folder for the fork")
    with lock_run(source):  # its files do not change meanwhile
        whole, meta = _whole_checkpoint(source)
        _check_goes_on(meta, config, source)
        try:
            _copy(source, target, whole, segments.files_of(meta))
            told = {
                "config": to_dict(config), "advice": recorded_advice(source), "unused_advice": "", "machine": machine(),
                "is_saved": True,
                "forked_from": {"run": str(source.absolute()), "step": meta["frames"], "changes": changed},
            }  # fmt: skip
            write_json(target / CONFIG, told)
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)  # it was empty or absent, see above
            raise
    return changed


def _whole_checkpoint(source: Path) -> tuple[Path, dict[str, Any]]:
    """The newest checkpoint of a run that can be read, and its meta: of a crashed run it may be the one before."""
    newest = source / CHECKPOINT
    before = checkpoint.previous_path(newest)
    if not newest.exists() and not before.exists():
        raise NotFound(f"{source} has no checkpoint to fork from", kept="the run", hint="train it first")
    try:
        return newest, checkpoint.load(newest, has_replay=True)[1]
    except (CorruptArtifact, NotFound) as error:
        if not before.exists():
            raise
        meta = checkpoint.load(before, has_replay=True)[1]
        _LOG.warning("%s: forked from the one before it, of step %s", error.message, meta.get("frames", "?"))
        return before, meta


def _copy(source: Path, target: Path, whole: Path, files: Sequence[str] | set[str]) -> None:
    (target / segments.FOLDER).mkdir(parents=True, exist_ok=True)
    for name in sorted(files):
        here, there = source / segments.FOLDER / name, target / segments.FOLDER / name
        try:
            os.link(here, there)
        except OSError:  # another disk, or one without hard links
            shutil.copyfile(here, there)
    shutil.copyfile(whole, target / CHECKPOINT)
    for name in (VERSIONS, *FILES):
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)
