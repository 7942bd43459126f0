"""Memory and hours that a configuration will need, from one update and some steps measured on this machine."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lore.config import Config, replace

if TYPE_CHECKING:
    from lore.training.run import Training

__all__ = ["Needs", "measure"]

_STEPS = 40
"""Environment steps that the measurement plays."""
_PATIENCE_S = 8.0
"""Seconds that one timed update may be expected to take."""


@dataclass(frozen=True)
class Needs:
    """Figures of one configuration on this machine.

    Attributes:
        parameters: of all networks. network_bytes: them with gradients, two moments and the slow critic, float32.
        records, record_bytes: replay at its fullest, and one record of it. backend: where replay lives.
        device: where the networks run. device_bytes: peak of its memory in one full update, None on a CPU.
        step_s, update_s: seconds of one environment step and of one update. measured_share: share of a batch that was
        measured (the time of the rest follows from its growth). updates: in the whole run.
    """

    parameters: int
    network_bytes: int
    records: int
    record_bytes: int
    backend: str
    device: str
    device_bytes: int | None
    step_s: float
    update_s: float
    measured_share: float
    updates: float
    env_steps: int

    @property
    def replay_bytes(self) -> int:
        """Bytes of the full replay."""
        return self.records * self.record_bytes

    @property
    def hours(self) -> float:
        """Duration of the whole run at the measured speed."""
        return (self.env_steps * self.step_s + self.updates * self.update_s) / 3600.0


def measure(config: Config) -> Needs:
    """Build the run of ``config`` in a folder that is thrown away, play a little, make one update, and add up.

    The update is timed on one sequence, then on twice as many, and so on while that takes seconds, not minutes.
    """
    import torch

    from lore.replay.backends import backend, records_kept
    from lore.replay.ring import Replay
    from lore.training.run import Training

    train = config.train
    length = train.sequence_length + 1
    capacity = train.batch_size + max(4, config.env.num_envs) * (length + _STEPS)  # updates begin with a batch
    small = replace(config, replay_capacity=capacity)
    with tempfile.TemporaryDirectory() as folder:
        run = Training(small, Path(folder))
        run.steps = run.envs.reset()
        step_s = _play(run, length + _STEPS)
        cuda = run.policy.device.type == "cuda"
        times = _time_updates(run)
        sequences = max(times)
        parameters = sum(p.numel() for p in run.policy.agent.parameters())
        return Needs(
            parameters=parameters,
            network_bytes=16 * parameters,
            records=records_kept(config),
            record_bytes=Replay.bytes_needed(run.replay.fields, 1),
            backend=backend(),
            device=str(run.policy.device),
            device_bytes=int(torch.cuda.max_memory_allocated()) if cuda else None,
            step_s=step_s,
            update_s=_extrapolate(times, train.sequences),
            measured_share=sequences / train.sequences,
            updates=train.steps * train.train_ratio / train.batch_size,
            env_steps=train.steps,
        )


def _time_updates(run: Training) -> dict[int, float]:
    """Sequences in the batch -> seconds of one update, doubling up to the whole batch or :data:`_PATIENCE_S`.

    The quicker of two counts: the first one of a size may have to compile.
    """
    whole, times, n = run.config.train.sequences, {}, 1
    run.learner.update(run.replay.sample(1, only=run.learner.reads))  # the first one warms up
    while True:
        times[n] = min(_update_s(run, n) for _ in range(2))
        if n == whole or 2 * times[n] > _PATIENCE_S:
            return times
        n = min(2 * n, whole)


def _update_s(run: Training, sequences: int) -> float:
    import torch

    records = run.replay.sample(sequences, only=run.learner.reads)
    began = time.perf_counter()
    run.learner.update(records)
    if run.policy.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _extrapolate(times: dict[int, float], whole: int) -> float:
    """Seconds at ``whole`` sequences on the line through the last two measurements; one alone is scaled."""
    (n, last), before = max(times.items()), sorted(times.items())[-2:-1]
    if not before:
        return last * whole / n
    slope = max(0.0, (last - before[0][1]) / (n - before[0][0]))
    return last + slope * (whole - n)


def _play(run: Training, steps: int) -> float:
    """Seconds of one environment step, from the second half of ``steps`` rounds over all environments."""
    times = []
    for _ in range(steps):
        began = time.perf_counter()
        actions, records = run.policy.act(run.steps)
        for env, record in enumerate(records):
            run.replay.add(env, record)
        run.steps = run.envs.step(actions)
        times.append(time.perf_counter() - began)
    return float(np.mean(times[steps // 2 :])) / len(run.steps)
