"""One update: replayed records -> the loss of :mod:`lore.dreamer.losses` with the advice paths that are on -> one
optimiser step."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from lore.advice.plans import Plans
from lore.config import Config
from lore.dreamer.actor_critic import Policy
from lore.dreamer.losses import Paths, as_starts, loss
from lore.dreamer.optim import LaProp, total_loss
from lore.dreamer.returns import LAMBDA
from lore.dreamer.types import Latent, Observed, Starts
from lore.gate.gate import Gate
from lore.gate.goals import advised_goals, goal_weight
from lore.gate.kickstart import kickstart_loss, kickstart_weight
from lore.options.heads import Charges, OptionPolicy, Use, recorded_uses
from lore.synthetic.path import SyntheticPath
from lore.training.agent import SLOT_BIAS, Agent
from lore.training.folder import set_generator

__all__ = ["Learner"]


class Learner:
    """Owns the optimiser and everything that changes with an update.

    Args:
        agent: networks, trained in place. plans: those of the advice version (path A).
        generator: of all sampling inside updates. gate: the acting one, whose schedules weigh what is learned.
    """

    def __init__(
        self, agent: Agent, config: Config, generator: Generator, device: torch.device,
        plans: Plans | None = None, gate: Gate | None = None,
    ) -> None:  # fmt: skip
        self.agent, self.config, self.generator, self.device = agent, config, generator, device
        train = config.train
        self.optimiser = LaProp(agent.trainable(), train.learning_rate, warmup=train.warmup)
        self.synthetic = SyntheticPath(agent, config, plans, device) if plans is not None else None
        self.slots = torch.full((config.options.max_options,), -1, dtype=torch.int64, device=device)
        self.gate = gate
        self.updates = 0

    def set_slots(self, skills: np.ndarray) -> None:
        """Which skill sits in each option slot from the next update on."""
        self.slots = torch.from_numpy(skills.copy()).to(self.device)

    def restart_slots(self, slots: list[int]) -> None:
        """Forget what the actor learned for the skills that were in these slots before: its rows and their moments."""
        if slots:
            rows = [self.agent.num_actions + slot for slot in slots]
            self.agent.actor_critic.restart_entries(rows, SLOT_BIAS)
            for name in ("weight", "bias"):
                self.optimiser.restart_rows(f"actor_critic.actor.out.{name}", rows)

    def update(self, records: Mapping[str, np.ndarray | Tensor]) -> tuple[Latent, dict[str, Any]]:
        """One gradient step on records [B, 1+T, ...]; returns the posterior latents [B, T, ...] and 0-d metrics.

        Where a gradient is not finite the step is skipped and everything that moves with an update stays as it was.
        """
        agent, train = self.agent, self.config.train
        more: dict[str, Any] = {}
        tensors = {k: torch.as_tensor(v).to(self.device) for k, v in records.items() if k != "indices"}
        batch, start = agent.world_model.split_context(tensors)
        if agent.heads is not None:  # at the step that calls it a skill does not go on yet
            batch["charge"] = torch.where(batch["held"] > 0, batch["skill"].long(), -1)
        paths = Paths(self.policy(), self._starts, partial(self._terms, more), self._scales())
        is_cut = self.gate is not None and self.gate.config.cut_traces
        replay_lam = LAMBDA * (~batch["advised"]).float() if is_cut else LAMBDA
        slow = agent.actor_critic.slow_critic.parameters()
        kept = [(value, value.detach().clone()) for value in (*agent.buffers(), *slow)]
        self.optimiser.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.model.bf16):
            losses, scales, posterior, metrics = loss(
                agent.world_model, agent.actor_critic, agent.imagination, batch, start,
                paths=paths, horizon=train.horizon, entropy=train.entropy, replay_lam=replay_lam,
                generator=self.generator,
            )  # fmt: skip
        agent.imagination.backward(losses, scales)
        self.optimiser.step()
        agent.actor_critic.update_slow()
        with torch.no_grad():
            for value, before in kept:  # decided on the device, which nobody waits for
                value.copy_(torch.where(self.optimiser.finite, value, before))
        self.updates += 1
        losses = {name: value.detach() for name, value in losses.items()}
        metrics |= more | {f"loss/{name}": value.mean() for name, value in losses.items()}
        metrics |= {"opt/loss": total_loss(losses, scales), "opt/grad_norm": self.optimiser.grad_norm}
        return posterior, metrics

    def policy(self) -> Policy:
        """Who acts in imagination: the actor, with option slots (C) where they are on."""
        heads, critic = self.agent.heads, self.agent.actor_critic
        return critic.policy_step if heads is None else OptionPolicy(critic.actor, heads, self.slots, critic.unimix)

    def _starts(self, batch: dict[str, Tensor], seen: Observed, losses: dict[str, Tensor]) -> Starts:
        """The posterior states, and the synthetic ones of path A behind them, with the weight of each."""
        latent, weight = as_starts(seen), None
        if self.synthetic is not None:
            self.synthetic.check(seen, batch, self.updates, self.generator)
            error = losses[self.agent.world_model.key].detach().mean()
            plans = batch["plan"].flatten()
            latent, weight = self.synthetic.extend(latent, plans, error, self.updates, self.generator)
        pays = 0.0 if self.gate is None else goal_weight(self.gate)
        if not pays:
            return Starts(latent, weight)
        goals = pays * advised_goals(batch, self.agent.num_actions)
        return Starts(latent, weight, Charges.none(F.pad(goals, (0, 0, 0, len(latent.deter) - len(goals)))))

    def _scales(self) -> dict[str, float]:
        """Weights of the losses that :meth:`_terms` gives."""
        agent = self.agent
        heads = {"options": agent.clones, "ensemble": agent.ensemble}
        scales = {name: 1.0 for name, head in heads.items() if head is not None}
        if self.gate is not None and self.gate.config.kickstart:
            scales["kickstart"] = kickstart_weight(self.gate)
        return scales | ({} if self.synthetic is None else {"clone": self.config.synthetic.clone_scale})

    def _terms(
        self, metrics: dict[str, Any], batch: dict[str, Tensor], seen: Observed, returns: Tensor
    ) -> dict[str, Tensor]:
        """Losses of the paths that are on; adds to ``metrics``."""
        agent, losses = self.agent, {}
        features = seen.latent.features().detach().flatten(0, 1)
        if agent.clones is not None:
            proposals = batch["proposals"].flatten(0, 1).long()
            use = recorded_uses(batch) if agent.heads is not None else Use.none(len(features), self.device)
            losses["options"], more = agent.clones.loss(features, proposals, use)
            metrics |= more
        if self.gate is not None and self.gate.config.kickstart:
            slots = self.slots if agent.heads is not None else self.slots[:0]
            losses["kickstart"], more = kickstart_loss(agent.actor_critic, features, batch, slots, agent.num_actions)
            metrics |= more
        if agent.ensemble is not None:
            losses["ensemble"], more = agent.ensemble.loss(seen, batch["action"], batch["is_first"])
            metrics |= more
        if self.synthetic is not None:
            slots = self.slots if agent.heads is not None else self.slots[:0]
            clone = self.synthetic.clone_loss(agent.actor_critic, slots, returns[len(features) :, 0])
            losses["clone"] = returns.new_zeros(1) if clone is None else clone
            metrics |= self.synthetic.metrics()
        return losses

    @property
    def bad_updates(self) -> int:
        """Non-finite updates in a row."""
        return int(self.optimiser.bad)

    def tensors(self) -> dict[str, Tensor]:
        """Everything an exact resume needs besides the agent's own state."""
        out = {f"optimiser/{k}": v for k, v in self.optimiser.state_dict().items()}
        if self.synthetic is not None:
            out |= {f"synthetic/{k}": v for k, v in self.synthetic.tensors().items()}
        return out | {"generator": self.generator.get_state()}

    def state_dict(self) -> dict[str, Any]:
        """JSON-able part of the state."""
        return {"updates": self.updates, "synthetic": self.synthetic.state_dict() if self.synthetic else None}

    def load(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Inverse of :meth:`tensors` and :meth:`state_dict`."""
        self.optimiser.load_state_dict(
            {k.removeprefix("optimiser/"): v for k, v in tensors.items() if k.startswith("optimiser/")}
        )
        set_generator(self.generator, tensors["generator"], self.config.train.seed + state["updates"])
        self.updates = state["updates"]
        if self.synthetic is not None and state["synthetic"] is not None:
            buffers = {k.removeprefix("synthetic/"): v for k, v in tensors.items() if k.startswith("synthetic/")}
            self.synthetic.load(buffers, state["synthetic"])
