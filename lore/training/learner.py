"""One update: replayed records -> world-model losses -> imagination -> actor-critic losses -> one optimiser step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from lore.config import Config
from lore.dreamer.actor_critic import replay_loss
from lore.dreamer.imagination import Dreams
from lore.dreamer.losses import SCALES, total_loss
from lore.dreamer.optim import LaProp
from lore.dreamer.returns import LAMBDA
from lore.dreamer.types import Latent
from lore.gate.advice_head import AdvisedPolicy, advice_targets, held_out
from lore.gate.gate import Gate
from lore.options.heads import OptionPolicy
from lore.synthetic.path import SyntheticPath
from lore.training.agent import Agent

__all__ = ["Learner"]


class Learner:
    """Owns the optimiser and everything that changes with an update.

    Args:
        agent: networks, trained in place. plans: (int64 [N, L] primitive actions, int64 [N] lengths) of the advice
        rows.
        generator: of all sampling inside updates. gate: the acting one, which also measures out the advice in
        imagination (``gate.imagine``).
    """

    def __init__(
        self, agent: Agent, config: Config, generator: Generator, device: torch.device,
        plans: tuple[np.ndarray, np.ndarray] | None = None, gate: Gate | None = None,
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

    def update(self, records: Mapping[str, np.ndarray | Tensor]) -> tuple[Latent, dict[str, Any]]:
        """One gradient step on records [B, 1+T, ...]; returns the posterior latents [B, T, ...] and 0-d metrics."""
        self.optimiser.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.model.bf16):
            losses, scales, dreams, posterior, metrics = self._losses(records)
        backward, entropy = total_loss(losses, scales).backward, self.config.train.entropy
        if self.device.type == "cpu" and self.agent.observation == "symbolic":
            imagined, more = dreams.learn(entropy, backward)
        else:  # a device has its own order, and image networks share each of their stages between all threads
            backward()
            imagined, more = dreams.learn(entropy)
        self.optimiser.step()
        self.agent.actor_critic.update_slow()
        self.updates += 1
        losses |= imagined
        total = total_loss({k: v.detach() for k, v in losses.items()}, scales)
        metrics |= more | {f"loss/{name}": value.detach().mean() for name, value in losses.items()}
        metrics |= {"opt/loss": total, "opt/grad_norm": self.optimiser.grad_norm}
        return posterior, metrics

    def _losses(
        self, records: Mapping[str, np.ndarray | Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, float], Dreams, Latent, dict[str, Any]]:
        """(losses by name, their scales, the imagination, posterior [B, T, ...], metrics) of one batch."""
        agent, config = self.agent, self.config
        tensors = {k: torch.as_tensor(v).to(self.device) for k, v in records.items() if k != "indices"}
        batch, start = agent.world_model.split_context(tensors)
        losses, seen, metrics = agent.world_model.loss(batch, start, self.generator)
        if self.synthetic is not None:
            self.synthetic.check(seen, batch, self.updates, self.generator)
        features = seen.latent.features()
        posterior = Latent(seen.latent.deter.detach(), seen.latent.stoch.detach())
        starts = Latent(posterior.deter.flatten(0, 1), posterior.stoch.flatten(0, 1))
        dreams = self._imagine(starts, batch, losses)
        boot, own = dreams.returns[: len(starts.deter), 0], dreams.returns[len(starts.deter) :, 0]
        losses |= replay_loss(agent.actor_critic, features, boot.view(batch["reward"].shape), batch)
        scales = dict(SCALES)
        if agent.heads is not None:
            losses["options"], clone = agent.heads.loss(features.flatten(0, 1), batch["proposals"].flatten(0, 1).long())
            scales["options"] = 1.0
            metrics |= clone
        if agent.advice_head is not None:
            losses["advice_head"], more = self._advice_loss(features.flatten(0, 1), batch)
            scales["advice_head"] = 1.0
            metrics |= more
        if agent.ensemble is not None:
            losses["ensemble"], more = agent.ensemble.loss(seen, batch["action"], batch["is_first"])
            scales["ensemble"] = 1.0
            metrics |= more
        if self.synthetic is not None:
            term = self.synthetic.clone_loss(agent.actor_critic, own)
            if term is not None:
                losses["clone"], scales["clone"] = term, config.synthetic.clone_scale
            metrics |= self.synthetic.metrics()
        return losses, scales, dreams, posterior, metrics

    def _advice_loss(self, features: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Imitation of the advice that was stored with the replayed steps; features [N, F]."""
        agent, head = self.agent, self.agent.advice_head
        assert head is not None
        proposals = batch["proposals"].flatten(0, 1).long()
        slots = self.slots if agent.heads is not None else self.slots[:0]
        target = advice_targets(batch["advice"].flatten(0, 1).float(), proposals, slots, agent.num_actions)
        held = held_out(batch["state"].flatten(0, 1))
        return head.loss(features, target, batch["confidence"].flatten().float(), held)

    def _imagine(self, starts: Latent, batch: dict[str, Tensor], losses: dict[str, Tensor]) -> Dreams:
        """Imagination from real and synthetic starts under the policy that acts."""
        agent, config, weight = self.agent, self.config, None
        critic = agent.actor_critic
        if self.synthetic is not None:
            error = losses["state" if agent.observation == "symbolic" else "image"].detach().mean()
            starts, weight = self.synthetic.extend(starts, batch["row"].flatten(), error, self.updates, self.generator)
        actor, policy = critic.actor, critic.policy_step
        if agent.advice_head is not None and self.gate is not None:
            advised = AdvisedPolicy(critic, agent.advice_head, self.gate, agent.ensemble, agent.num_actions)
            actor, policy = advised, advised.policy_step
        if agent.heads is not None:
            policy = OptionPolicy(actor, agent.heads, self.slots, critic.unimix)
        # Inside an option nothing is bootstrapped; so that a critic that lags behind does not make long options look
        # better than the same steps one by one, neither is anything else before the horizon (ADR-0008).
        lam, horizon = LAMBDA if agent.heads is None else 1.0, config.train.horizon
        return Dreams(agent.world_model, critic, policy, starts, weight, horizon, self.generator, lam)

    @property
    def bad_updates(self) -> int:
        """Non-finite updates in a row."""
        return int(self.optimiser.bad)

    def tensors(self) -> dict[str, Tensor]:
        """Everything an exact resume needs besides the agent's own state."""
        out = {f"optimiser/{k}": v for k, v in self.optimiser.state_dict().items()}
        if self.synthetic is not None:
            out |= {f"synthetic/{k}": v for k, v in self.synthetic.buffer.tensors().items()}
        return out | {"generator": self.generator.get_state()}

    def state_dict(self) -> dict[str, Any]:
        """JSON-able part of the state."""
        return {"updates": self.updates, "synthetic": self.synthetic.state_dict() if self.synthetic else None}

    def load(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Inverse of :meth:`tensors` and :meth:`state_dict`."""
        self.optimiser.load_state_dict(
            {k.removeprefix("optimiser/"): v for k, v in tensors.items() if k.startswith("optimiser/")}
        )
        self.generator.set_state(tensors["generator"].cpu())
        self.updates = state["updates"]
        if self.synthetic is not None and state["synthetic"] is not None:
            buffers = {k.removeprefix("synthetic/"): v for k, v in tensors.items() if k.startswith("synthetic/")}
            self.synthetic.load(buffers, state["synthetic"])
