"""Playing: observations in, actions and replay records out. Carry in, carry out; acting never trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Generator, Tensor

from lore.dreamer.dists import policy_log_probs
from lore.dreamer.types import Latent
from lore.fast.transfer import Download, upload
from lore.gate.signals import SIGNALS, raw_signals
from lore.options.controller import Controller
from lore.replay.ring import pack_latent
from lore.synthetic.plan_policy import PlanPolicy
from lore.synthetic.rollout import foretells_unlock

if TYPE_CHECKING:
    from lore.envs.base import Step
    from lore.training.agent import Agent
    from lore.training.prefill import Prefill

__all__ = ["Player", "observation_of"]


def observation_of(steps: list[Step], observation: str) -> np.ndarray:
    """uint8 [E, ...]: frames for ``pixels``, packed states for ``symbolic``."""
    return np.stack([np.asarray(s.image) if observation == "pixels" else s.state for s in steps])


class Player:
    """Acts in E environments at once and keeps the recurrent carry of each.

    Args:
        agent: networks. controller: who decides. num_envs: E. generator: of posterior samples.
        prefill: plays the first steps of training in place of the controller.
    """

    def __init__(
        self, agent: Agent, controller: Controller, num_envs: int, device: torch.device, generator: Generator,
        prefill: Prefill | None = None,
    ) -> None:  # fmt: skip
        self.agent, self.controller, self.device, self.generator = agent, controller, device, generator
        self.prefill = prefill
        self.latent = agent.world_model.rssm.initial(num_envs)
        self.previous = torch.zeros(num_envs, dtype=torch.int64)

    @torch.no_grad()
    def act(self, steps: list[Step], env_steps: int) -> tuple[list[int], list[dict[str, Any]]]:
        """(actions, replay records) for the latest step of every environment; the action after ``is_last`` is 0."""
        if self.controller.gate is not None:
            self.controller.gate.env_steps = env_steps
        logits, signals, deter, stoch = self._think(steps)
        actions, records = [], []
        for e, step in enumerate(steps):
            if step.is_last:
                self.controller.reset(e, step.reward)
                choice = self.controller.idle(step.state)
                if self.prefill is not None:
                    self.prefill.reset(e)
            elif self.prefill is not None and env_steps < self.prefill.steps:
                choice, env_steps = self.prefill.act(e, step.state), env_steps + 1
            else:
                choice = self.controller.act(e, step.state, step.reward, logits[e], signals[e], self.foretell)
            actions.append(choice.action)
            records.append(self._record(step, choice, deter[e], stoch[e]))
        self.previous = torch.tensor(actions, dtype=torch.int64)
        return actions, records

    def _think(self, steps: list[Step]) -> tuple[np.ndarray, Tensor, np.ndarray, np.ndarray]:
        """Take the latest step in: (logits float32 [E, A+M], signals float64 [E, 3], and the belief as replay keeps it,
        deter float16 [E, D] and stoch uint8 [E, S]) on the host, by one copy each way."""
        agent, unimix = self.agent, self.agent.actor_critic.unimix
        given = upload({
            "seen": observation_of(steps, agent.observation), "first": np.array([s.is_first for s in steps]),
            "previous": self.previous,
        }, self.device)  # fmt: skip
        tokens, uniform = agent.world_model.encode(given["seen"]), self.latent.numbers(self.generator)
        self.latent = agent.world_model.rssm.observe_step(
            tokens, given["previous"], given["first"], self.latent, uniform
        )
        features = self.latent.features()
        logits = agent.actor_critic.actor(features)
        found = pack_latent(*self.latent)
        if self.controller.gate is not None:
            found["signals"] = self._signals(features, logits)
        found["logits"] = policy_log_probs(logits, None, unimix) if unimix else logits.float()
        host = Download(found).arrays()
        signals = torch.zeros(len(steps), len(SIGNALS), dtype=torch.float64)
        if "signals" in host:
            signals = torch.from_numpy(host["signals"]).double()
        return host["logits"], signals, host["deter"], host["stoch"]

    @torch.no_grad()
    def signals(self) -> Tensor:
        """What a gate reads in the states of the latest decisions: float64 [E, 3] on the host."""
        features = self.latent.features()
        return self._signals(features, self.agent.actor_critic.actor(features)).double().cpu()

    def _signals(self, features: Tensor, logits: Tensor) -> Tensor:
        agent = self.agent
        return raw_signals(agent.actor_critic, agent.ensemble, features, logits, agent.num_actions)

    def _record(self, step: Step, choice, deter: np.ndarray, stoch: np.ndarray) -> dict[str, Any]:
        record = {
            "state": step.state, "reward": step.reward, "is_first": step.is_first, "is_last": step.is_last,
            "is_terminal": step.is_terminal, "action": choice.action, "deter": deter, "stoch": stoch,
        }  # fmt: skip
        if self.agent.observation == "pixels":
            record["image"] = step.image
        if self.controller.source is not None:
            record |= {"proposals": choice.proposals, "skill": choice.skill, "row": choice.row}
        if self.agent.heads is not None:
            record |= {"held": choice.held, "ended": choice.ended}
        if self.controller.plans is not None:
            record["plan"] = choice.plan
        if self.controller.gate is not None:
            record["advised"] = choice.advised
        if choice.advice is not None:
            record |= {"advice": choice.advice, "confidence": choice.confidence}
        return record

    def foretell(self, env: int, plan: list[int]) -> bool:
        """Does the world model promise an unlock if ``plan`` is executed from this environment's present state?"""
        here = Latent(self.latent.deter[env : env + 1], self.latent.stoch[env : env + 1])
        entries = torch.tensor([plan], device=self.device)
        agent, length = self.agent, torch.full((1,), len(plan), device=self.device)
        policy = PlanPolicy(entries, length, agent.num_actions, agent.clones)
        return foretells_unlock(agent.world_model, here, policy, self.generator)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The carry, for a checkpoint."""
        return {"deter": self.latent.deter, "stoch": self.latent.stoch, "previous": self.previous}

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """Inverse of :meth:`tensors`."""
        self.latent = Latent(tensors["deter"].to(self.device), tensors["stoch"].to(self.device))
        self.previous = tensors["previous"].cpu()
