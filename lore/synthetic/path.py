"""Path A in an update: when plans are rolled out, which synthetic states join the starts, and their weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from lore.config import Config
from lore.dreamer.types import Latent, Observed
from lore.synthetic.buffer import SyntheticBatch, SyntheticBuffer
from lore.synthetic.calibration import Calibration, open_loop
from lore.synthetic.plan_policy import PlanPolicy
from lore.synthetic.rollout import capped_share, roll_out

if TYPE_CHECKING:
    from lore.advice.plans import Plans
    from lore.dreamer.actor_critic import ActorCritic
    from lore.training.agent import Agent

__all__ = ["SyntheticPath"]

CLONE_CEILING = 0.5
"""Probability of a plan's action from which on it is not cloned any more: a few plans, many of them one action
repeated, must not make the policy certain everywhere (and so close the gate of path B)."""
MAX_ROLLOUTS = 64
"""Plans rolled out at once at most."""
ROLL_EVERY = 4
"""Updates between two times that plans are rolled out."""


class SyntheticPath:
    """Rolls stored plans out in the world model and lends the states they reach to the actor-critic.

    World-model losses never see these states. A row weighs ``w = (1 - is_synth) + is_synth * w_synth``, and synthetic
    rows are at most ``synthetic.ratio_max`` of the starts.

    Args:
        plans: those of the advice version; replay names them by number.
    """

    def __init__(self, agent: Agent, config: Config, plans: Plans, device: torch.device) -> None:
        self.agent, self.config = agent, config
        self.entries = torch.from_numpy(plans.entries).to(device)
        self.lengths = torch.from_numpy(plans.lengths).to(device)
        self.calibration = Calibration(device)
        size = agent.world_model.size
        self.buffer = SyntheticBuffer(config.synthetic.capacity, size.deter, size.stoch, size.classes, device)
        self.batch: SyntheticBatch | None = None
        self.best_error: float = float("inf")
        self.error: float = float("inf")
        self.open_loop = 0.0  # before the first check nothing is known against the model
        self.rollouts = 0
        self.share = self.planned = 0.0

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
        error = self.calibration.add(open_loop(ensemble, rssm, seen, batch["action"], batch["is_first"], generator))
        if math.isfinite(error):  # no sequence is long enough, or the batch is not finite: what was measured stands
            self.open_loop = error

    def extend(
        self, starts: Latent, plans: Tensor, error: Tensor, updates: int, generator: Generator | None
    ) -> tuple[Latent, Tensor | None]:
        """Real starts [N, ...] with synthetic ones appended, and the weight of each (None when there are none).

        Args:
            plans: int64 [N], plan of each real start or -1. error: 0-d reconstruction loss of this update.
        """
        synthetic = self.config.synthetic
        self.batch, self.share = None, 0.0
        if math.isfinite(found := float(error)):  # a batch that is not finite says nothing of the model
            self.error = found if self.error == float("inf") else 0.95 * self.error + 0.05 * found
            self.best_error = min(self.best_error, self.error)
        if updates % synthetic.refresh_updates == 0:  # the world model moves on, whether plans are rolled out or not
            self.buffer.decay(synthetic.weight_decay)
        if not self.ready(updates):
            return starts, None
        if updates % ROLL_EVERY == 0:
            self._roll_out(starts, plans.long(), generator)
        real = len(starts.deter)
        n = min(capped_share(real, synthetic.ratio_max), self.buffer.size)
        if n == 0:
            return starts, None
        self.batch = self.buffer.sample(n, generator)
        self.share = n / (n + real)
        both = Latent(
            torch.cat([starts.deter, self.batch.latent.deter]), torch.cat([starts.stoch, self.batch.latent.stoch])
        )
        return both, torch.cat([both.deter.new_ones(real), self.batch.weight])

    def _roll_out(self, starts: Latent, plans: Tensor, generator: Generator | None) -> None:
        has_plan = (plans >= 0) & (self.lengths[plans.clamp(min=0)] > 0)
        self.planned = float(has_plan.float().mean())
        chance = torch.rand(len(plans), device=plans.device, generator=generator)
        drawn = torch.nonzero(has_plan & (chance < self.config.synthetic.execution_prob))[:, 0]
        at = drawn[chance[drawn].argsort()[:MAX_ROLLOUTS]]
        if len(at) == 0:
            return
        agent, chosen = self.agent, plans[at]
        policy = PlanPolicy(self.entries[chosen], self.lengths[chosen], agent.num_actions, agent.clones)
        trusted = None if agent.ensemble is None else (agent.ensemble, self.calibration)
        start = Latent(starts.deter[at], starts.stoch[at])
        self.buffer.add(roll_out(agent.world_model, agent.actor_critic.value, start, policy, generator, trusted))
        self.rollouts += len(at)

    def forget(self) -> None:
        """The advice has changed: what its plans reached is not of these any more."""
        self.buffer.size = self.buffer.next = 0

    def clone_loss(self, critic: ActorCritic, slots: Tensor, own: Tensor | None = None) -> Tensor | None:
        """-ln pi(plan's choice) [R], weighted by how far (0..1, in units of the return scale) the plan's predicted
        return beats the policy's there; 0 where the policy gives that choice :data:`CLONE_CEILING` already; None = no
        rows.

        A goal that sits in an option slot (``slots`` int64 [M], skill of each or -1) is cloned as the call of the slot
        where it begins, and nothing is cloned while it lasts; any other as the primitive actions that it takes. The
        policy's value is the higher of the critic's and ``own`` [R], its imagined return from the same state: both
        returns come from one world model, so that an error that it makes everywhere is no gain.
        """
        if self.batch is None:
            return None
        entry, chooses = self._choices(slots)
        features = self.batch.latent.features()
        log_probs = critic.log_probs(features).gather(-1, entry[:, None])[:, 0]
        with torch.no_grad():
            value = critic.value(features)
            value = value if own is None else torch.maximum(value, own)
            gain = (self.batch.plan_return - value) / critic.norm.scale()
            better = gain.clamp(0.0, 1.0) * (log_probs < math.log(CLONE_CEILING)) * chooses
        return -log_probs * better * self.batch.weight

    def _choices(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        """(entry int64 [R] over A + M that the plan chooses at each sampled state, bool [R] does it choose there)."""
        batch = self.batch
        assert batch is not None
        if not len(slots):
            return batch.action, torch.ones_like(batch.begins)
        sits = (slots[None] == batch.skill[:, None]) & (batch.skill >= 0)[:, None]
        in_slot = sits.any(-1)
        called = self.agent.num_actions + sits.float().argmax(-1)
        return torch.where(in_slot, called, batch.action), ~in_slot | batch.begins

    def metrics(self) -> dict[str, Tensor | float]:
        """``synthetic/ratio`` (measured share of this update's starts), ``synthetic/planned`` (share of the real starts
        that have a plan), ``synthetic/weight`` and counts."""
        weight = float(self.batch.weight.mean()) if self.batch is not None else 0.0
        return {
            "synthetic/ratio": self.share,
            "synthetic/planned": self.planned,
            "synthetic/disagreement_limit": float(self.calibration.limits[0]),
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
            "planned": self.planned,
            "calibrated": self.calibration.count,
            "error": self.error if known else None,
            "best_error": self.best_error if known else None,
        }

    def tensors(self) -> dict[str, Tensor]:
        """Buffer and calibration for a checkpoint."""
        calibration = {f"calibration/{name}": value for name, value in self.calibration.tensors().items()}
        return self.buffer.tensors() | calibration

    def load(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Inverse of :meth:`tensors` and :meth:`state_dict`."""
        own = {n.removeprefix("calibration/"): v for n, v in tensors.items() if n.startswith("calibration/")}
        self.calibration.load(own, state["calibrated"])
        self.buffer.load({n: v for n, v in tensors.items() if not n.startswith("calibration/")}, state)
        self.rollouts, self.open_loop, self.planned = state["rollouts"], state["open_loop"], state["planned"]
        error, best = state["error"], state["best_error"]
        if error is None or not math.isfinite(error):  # older runs saved NaN
            error = best = float("inf")
        self.error, self.best_error = error, best
