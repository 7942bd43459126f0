"""Studies that have a name: what they compare, at which budget, and where their figures are kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flows.config import AblateJob
from lore.config import replace as configured
from lore.presets import MACHINE
from lore_datasets.environments import DEFAULT
from lore_datasets.errors import ConfigError

__all__ = ["PRESETS", "resolved"]

_CLAUDE = f"claude={DEFAULT}-claude@v2"
_ARMS, _KICKED = "none,prefill,C+all,C,B", "BC+kick,BC+kick+budget,BC+kick+end,ABC+kick,BCD+kick"
_PARTS, _PRACTICE = "B+kick,BC+all", "BC+kick+episodes,BC+kick+blocks"
_LASTING = "BC+kick+end+numbers+skills"
_SYMBOLIC: dict[str, Any] = {
    "advisers": f"{_CLAUDE},rows,rules={DEFAULT}-rules@v2,uniform",
    "control_arms": "BC+kick",
}
_MISSION: dict[str, Any] = {
    "arms": "none,BC+kick", "advisers": "program,uniform", "steps": 50_000, "episodes": 20,
}  # fmt: skip
_GRIDS = {"train.train_ratio": 16.0}
_PIXELS = {"env.observation": "pixels", "model.size": "1m", "train.train_ratio": 32.0}
_LEARNERS: dict[str, dict[str, Any]] = {
    "paper": _PIXELS,
    "doorkey": _GRIDS | {"env.name": "minigrid:MiniGrid-DoorKey-8x8-v0"},
    "keycorridor": _GRIDS | {"env.name": "minigrid:MiniGrid-KeyCorridorS3R2-v0"},
}
"""Preset -> settings of its learner beside those of every study."""
PRESETS: dict[str, dict[str, Any]] = {
    "quick": _SYMBOLIC | {"arms": f"{_ARMS},{_PARTS},{_KICKED},{_PRACTICE}", "steps": 5_000, "episodes": 10},
    "laptop": _SYMBOLIC
    | {
        "arms": f"{_ARMS},{_KICKED},BC+kick+blocks,C+all+numbers+skills,BC+kick+numbers+skills,BC+kick+end+numbers,"
        f"BC+kick+end+skills,{_LASTING}",
        "control_arms": f"BC+kick,{_LASTING}",
        "steps": 50_000,
        "episodes": 20,
    },
    "doorkey": _MISSION | {"dataset": "doorkey-ablate"},
    "keycorridor": _MISSION | {"dataset": "keycorridor-ablate"},
    "paper": {"arms": "none,BC+kick", "advisers": _CLAUDE, "steps": 30_000, "episodes": 20},
}
"""Preset -> what it sets of a job. ``quick`` and ``laptop``: symbolic, ``tiny``, train ratio 64, full Crafter.
``paper``: pixels, size ``1m``, train ratio 32. ``doorkey``, ``keycorridor``: the rule book's program in MiniGrid,
train ratio 16."""


def resolved(job: AblateJob) -> AblateJob:
    """The job with its preset's values and folders filled in; ConfigError where the caller set one of them as well."""
    if not job.preset:
        return job
    made, plain = dict(PRESETS[job.preset]), AblateJob()
    fixed = sorted({*made, "control_arms", "dataset", "states", "rows", "epochs"})
    given = [f"--{n.replace('_', '-')}" for n in fixed if getattr(job, n) != getattr(plain, n)]
    own = {name: _value(job.config, name) for name in MACHINE}
    if configured(plain.config, **own) != job.config:
        given.append("a setting of the learner")
    if given:
        raise ConfigError(
            f"{given[0]} beside --preset {job.preset}, which fixes it",
            hint="leave one of the two away; --only CELL --seeds S runs a part of the preset",
        )
    made["config"] = configured(plain.config, **own, **_LEARNERS.get(job.preset, {}))
    for name, value in (("folder", f"runs/ablate-{job.preset}"), ("results", f"docs/studies/runs/{job.preset}")):
        if getattr(job, name) == getattr(plain, name):
            made[name] = value
    return replace(job, **made)


def _value(config: Any, name: str) -> Any:
    section, leaf = name.split(".")
    return getattr(getattr(config, section), leaf)
