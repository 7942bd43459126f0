"""Opening the folder of a run: a fresh one is begun, one with a checkpoint goes on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from lore.config import to_dict
from lore.presets import MACHINE
from lore.training import checkpoint
from lore.training.advice_versions import is_same_dataset
from lore.training.advice_versions import record as record_version
from lore.training.folder import CHECKPOINT, CONFIG, machine, read_config, recorded_advice
from lore.training.records import read_json
from lore.training.sinks import FILES
from lore_datasets.atomic import write_json
from lore_datasets.errors import BadInput, ConfigError, CorruptArtifact

if TYPE_CHECKING:
    from pathlib import Path

    from lore.training.run import Training

__all__ = ["open_folder"]

_LOG = logging.getLogger("lore")


def open_folder(run: Training) -> tuple[bool, bool]:
    """Restore when there is a checkpoint; refuse a folder that belongs to another configuration.

    Another version of the same advice dataset is no other configuration. (resumed, with another version than before).
    """
    policy, path = run.policy, run.folder / CONFIG
    checkpoint.clean(run.folder / CHECKPOINT)
    renewed = False
    resumed = (run.folder / CHECKPOINT).exists() or checkpoint.previous_path(run.folder / CHECKPOINT).exists()
    before = read_json(path)
    if before is None and resumed:  # it was lost: the checkpoint knows its settings too
        meta = checkpoint.load(run.folder / CHECKPOINT, fall_back=True)[1]
        before = {"config": meta["config"], "advice": meta["advice"], "is_saved": True}
        write_json(path, before)
        _LOG.warning("%s had lost its %s; it is made anew from the checkpoint", run.folder, CONFIG)
    if before is not None:
        _check_same(run)
    if not resumed:
        _check_new(run.folder, before)
    if resumed:
        meta = run.restore()
        saved, renewed = meta["machine"], meta["advice"] != policy.reference
        if saved != machine():
            _LOG.warning("resume is statistical, not bit-exact: saved on %s, now %s", saved, machine())
    about = {"advice": policy.reference, "unused_advice": policy.unused_advice}
    kept = {name: before[name] for name in ("forked_from",) if before is not None and name in before}
    write_json(path, {"config": to_dict(run.config), **about, "machine": machine(), "is_saved": resumed, **kept})
    if policy.advice is not None:
        record_version(run.folder, run.env_steps, run.learner.updates, policy.reference)
    if policy.unused_advice:
        _LOG.warning(policy.unused_advice)
    return resumed, renewed


def _check_new(folder: Path, before: dict[str, Any] | None) -> None:
    """CorruptArtifact where a run had a checkpoint and has none now; BadInput where another program's rows lie."""
    if before is not None and before.get("is_saved"):
        raise CorruptArtifact(
            f"{folder} has lost its checkpoint", kept="everything else in it",
            hint=f"put {CHECKPOINT} back, or begin again in another --folder",
        )  # fmt: skip
    foreign = [name for name in FILES if (folder / name).exists()]
    if before is None and foreign:
        raise BadInput(
            f"{folder} holds {foreign[0]} and no run", kept="everything in it", hint="choose another --folder"
        )


def _check_same(run: Training) -> None:
    """ConfigError when the folder was started with other settings."""
    before, now = to_dict(read_config(run.folder)), to_dict(run.config)
    free = {"train.steps", *MACHINE}
    if is_same_dataset(recorded_advice(run.folder), run.policy.reference):
        free.add("advice.dataset")
    changed = [
        f"{section}.{name}" for section, body in now.items() for name, value in body.items()
        if before[section][name] != value and f"{section}.{name}" not in free
        and (body.get("enabled", True) or before[section].get("enabled", True)  # a path that stays off has no say
             or ((section, name) == ("gate", "hold") and now["advice"]["prefill_steps"]))
    ]  # fmt: skip
    if changed:
        raise ConfigError(
            f"{run.folder} was started with another {', '.join(changed[:4])}", kept="the run as it was",
            hint=f"--resume {run.folder} takes its settings; or begin beside it: --fork RUN --folder NEW",
        )  # fmt: skip
