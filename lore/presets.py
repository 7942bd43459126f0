"""Settings that belong together, by name: what a first run, a laptop or the published benchmark takes."""

from __future__ import annotations

from typing import Any

__all__ = ["DURATIONS", "MACHINE", "PRESETS", "STUDY"]

STUDY: dict[str, Any] = {
    "env.observation": "symbolic", "model.size": "tiny", "train.batch_size": 256, "train.sequence_length": 32,
    "train.train_ratio": 64.0, "train.learning_rate": 4e-4, "train.warmup": 100, "train.entropy": 3e-3,
    "train.log_interval": 500, "train.device": "cpu", "train.threads": 1, "synthetic.warmup_updates": 100,
}  # fmt: skip
"""The learner of a study on a small machine: symbolic observations, the tiny network, one thread."""
_PAPER = {
    "env.observation": "pixels", "model.bf16": True, "model.tf32": True, "train.train_ratio": 512.0,
    "train.steps": 1_000_000, "train.replay_capacity": 1_000_000, "train.learning_rate": 4e-5,
}  # fmt: skip
"""DreamerV3 on Crafter as published (Hafner et al. 2023, table of hyperparameters), but for the size."""

PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {**STUDY, "train.steps": 1_500, "train.log_interval": 100, "train.replay_capacity": 10_000},
    "laptop": {**STUDY, "train.steps": 50_000, "train.replay_capacity": 100_000},
    "crafter-12m": {**_PAPER, "model.size": "12m", "env.num_envs": 8},
    "crafter-paper": {**_PAPER, "model.size": "200m"},
}
"""Name -> settings: ``smoke`` about a minute, ``laptop`` under an hour on one core, the others need a GPU."""
DURATIONS = {"smoke": "about a minute on one core", "laptop": "under an hour on one core"}
"""Preset -> how long it takes, where that was measured on a laptop."""
MACHINE = ("train.device", "train.threads", "train.save_interval_s", "train.log_interval", "train.wandb")
"""Settings that change minutes and logs alone: runs that differ in them are the same run."""
