"""Path A in an update: when plans are rolled out, which synthetic states join the starts, and their weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Generator, Tensor

from lore.config import Config
from lore.dreamer.types import Latent, Observed
from lore.synthetic.buffer import SyntheticBatch, SyntheticBuffer
from lore.synthetic.rollout import capped_share, roll_out

if TYPE_CHECKING:
    from lore.dreamer.actor_critic import ActorCritic
    from lore.training.agent import Agent

__all__ = ["SyntheticPath"]

CLONE_CEILING = 0.5
"""Probability of a plan's action from which on it is not cloned any more: a few plans, many of them one action
repeated, must not make the policy certain everywhere (and so close the gate of path B)."""
MAX_ROLLOUTS = 64
"""Plans rolled out in one refresh at most."""


class SyntheticPath:
    """Rolls stored plans out in the world model and lends the states they reach to the actor-critic.

    World-model losses never see these states. A row weighs ``w = (1 - is_synth) + is_synth * w_synth``, and synthetic
    rows
    are at most ``synthetic.ratio_max`` of the starts.

    Args:
        plans: int64 [N, L] primitive actions and int64 [N] lengths of the advice rows (0 = no plan).
    """

    def __init__(
        self, agent: Agent, config: Config, plans: tuple[np.ndarray, np.ndarray], device: torch.device
    ) -> None:
        self.agent, self.config = agent, config
        self.actions = torch.from_numpy(plans[0]).to(device)
        self.lengths = torch.from_numpy(plans[1]).to(device)
        size = agent.world_model.size
        self.buffer = SyntheticBuffer(config.synthetic.capacity, size.deter, size.stoch, size.classes, device)
        self.batch: SyntheticBatch | None = None
        self.best_error = float("inf")
        self.error = float("inf")
        self.open_loop = 0.0  # before the first check nothing is known against the model
        self.rollouts = 0
        self.share = 0.0

    def ready(self, updates: int) -> bool:
        """After the warm-up, and only while the model reconstructs about as well as it ever did and still knows where
        it is after some steps without seeing."""
        config = self.config.synthetic
        sound = self.error <= config.max_model_error * self.best_error and self.open_loop <= config.max_open_loop_error
        return updates >= config.warmup_updates and sound

    def check(self, seen: Observed, batch: dict[str, Tensor], updates: int, generator: Generator | None) -> None:
        """Every ``refresh_updates`` updates: measure the open-loop error on a replayed batch, and with it calibrate the
        disagreement at which roll-outs stop."""
        ensemble = self.agent.ensemble
        if ensemble is None or updates % self.config.synthetic.refresh_updates:
            return
        rssm = self.agent.world_model.rssm
        error = float(ensemble.calibrate(rssm, seen, batch["action"], batch["is_first"], generator))
        if math.isfinite(error):  # no sequence is long enough, or the batch is not finite: what was measured stands
            self.open_loop = error

    def extend(
        self, starts: Latent, rows: Tensor, error: Tensor, updates: int, generator: Generator | None
    ) -> tuple[Latent, Tensor | None]:
        """Real starts [N, ...] with synthetic ones appended, and the weight of each (None when there are none).

        Args:
            rows: int64 [N], advice row of each real start or -1. error: 0-d reconstruction loss of this update.
        """
        synthetic = self.config.synthetic
        self.batch, self.share = None, 0.0
        if math.isfinite(found := float(error)):  # a batch that is not finite says nothing of the model
            self.error = found if self.error == float("inf") else 0.95 * self.error + 0.05 * found
            self.best_error = min(self.best_error, self.error)
        if not self.ready(updates):
            return starts, None
        if updates % synthetic.refresh_updates == 0:
            self.buffer.decay(synthetic.weight_decay)
        self._roll_out(starts, rows, generator)
        real = len(starts.deter)
        # A quarter of what is stored at most: a handful of plans must not be repeated in every update.
        n = min(capped_share(real, synthetic.ratio_max), self.buffer.size // 4)
        if n == 0:
            return starts, None
        self.batch = self.buffer.sample(n, generator)
        self.share = n / (n + real)
        both = Latent(
            torch.cat([starts.deter, self.batch.latent.deter]), torch.cat([starts.stoch, self.batch.latent.stoch])
        )
        return both, torch.cat([both.deter.new_ones(real), self.batch.weight])

    def _roll_out(self, starts: Latent, rows: Tensor, generator: Generator | None) -> None:
        has_plan = (rows >= 0) & (self.lengths[rows.clamp(min=0).long()] > 0)
        chance = torch.rand(len(rows), device=rows.device, generator=generator)
        at = torch.nonzero(has_plan & (chance < self.config.synthetic.execution_prob))[:MAX_ROLLOUTS, 0]
        if len(at) == 0:
            return
        plan = rows[at].long()
        start = Latent(starts.deter[at], starts.stoch[at])
        critic = self.agent.actor_critic
        states = roll_out(
            self.agent.world_model, critic.value, start, self.actions[plan], self.lengths[plan], generator,
            self.agent.ensemble,
        )  # fmt: skip
        self.rollouts += len(at)
        self.buffer.add(states)

    def clone_loss(self, critic: ActorCritic, own: Tensor | None = None) -> Tensor | None:
        """-ln pi(plan action) [R], weighted by how far (0..1, in units of the return scale) the plan's predicted return
        beats the policy's there; 0 where the policy gives the action :data:`CLONE_CEILING` already; None = no rows.

        The policy's value is the higher of the critic's and ``own`` [R], its imagined return from the same state: both
        returns come from one world model, so that an error that it makes everywhere is no gain.
        """
        if self.batch is None:
            return None
        features = self.batch.latent.features()
        log_probs = critic.log_probs(features).gather(-1, self.batch.action[:, None])[:, 0]
        with torch.no_grad():
            value = critic.value(features)
            value = value if own is None else torch.maximum(value, own)
            gain = (self.batch.plan_return - value) / critic.norm.scale()
            better = gain.clamp(0.0, 1.0) * (log_probs < math.log(CLONE_CEILING))
        return -log_probs * better * self.batch.weight

    def metrics(self) -> dict[str, Tensor | float]:
        """``synthetic/ratio`` (measured share of this update's starts), ``synthetic/weight`` and counts."""
        weight = float(self.batch.weight.mean()) if self.batch is not None else 0.0
        return {
            "synthetic/ratio": self.share,
            "synthetic/weight": weight,
            "synthetic/states": float(self.buffer.size),
            "synthetic/rollouts": float(self.rollouts),
            "synthetic/open_loop_error": self.open_loop,
        }

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state (infinities as None)."""
        known = math.isfinite(self.error)
        return self.buffer.state_dict() | {
            "rollouts": self.rollouts,
            "open_loop": self.open_loop,
            "error": self.error if known else None,
            "best_error": self.best_error if known else None,
        }

    def load(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict` and the buffer's tensors."""
        self.buffer.load(tensors, state)
        self.rollouts, self.open_loop = state["rollouts"], state.get("open_loop", 0.0)
        known = state["error"] is not None and math.isfinite(state["error"])  # older runs saved NaN
        self.error = state["error"] if known else float("inf")
        self.best_error = state["best_error"] if known else float("inf")
