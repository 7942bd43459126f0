"""One update: replayed records -> the loss of :mod:`lore.dreamer.losses` with the advice paths that are on -> one
optimiser step."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from lore.advice.plans import Plans
from lore.config import Config
from lore.dreamer.actor_critic import SLOW_RATE, Policy
from lore.dreamer.losses import Loss, Paths, as_starts, loss
from lore.dreamer.optim import LaProp, total_loss
from lore.dreamer.returns import LAMBDA
from lore.dreamer.types import Latent, Noise, Observed, Starts
from lore.fast.transfer import Download, upload
from lore.gate.gate import Gate
from lore.gate.goals import advised_goals, goal_weight
from lore.gate.kickstart import kickstart_loss, kickstart_weight
from lore.options.heads import Charges, OptionPolicy, Use, recorded_uses
from lore.replay.ring import LATENTS
from lore.synthetic.path import SyntheticPath
from lore.training.agent import SLOT_BIAS, Agent
from lore.training.folder import set_generator

__all__ = ["Inputs", "Learner"]


class Inputs(NamedTuple):
    """Everything that one step reads beside the learner itself, as tensors on its device."""

    records: dict[str, Tensor]  # [B, 1+T, ...]
    weights: dict[str, Tensor]  # 0-d, what the gate's schedules say now
    uniform: Tensor  # [T, B, S], numbers in [0, 1) that draw the posteriors
    noise: Noise | None  # of imagination; None with path A, which finds out on its way how many starts there are


class Learner:
    """Owns the optimiser and everything that changes with an update.

    An update is :meth:`inputs`, in which the host hands over one batch and draws, and :meth:`step`, in which nothing
    comes from the host or goes there: no value is copied, none waited for (but by path A, which decides on the host).

    Args:
        agent: networks, trained in place. plans: those of the advice version (path A).
        generator: draws for updates (None = torch's global one). gate: the acting one, whose schedules weigh what is
        learned.
    """

    def __init__(
        self, agent: Agent, config: Config, generator: Generator | None, device: torch.device,
        plans: Plans | None = None, gate: Gate | None = None,
    ) -> None:  # fmt: skip
        self.agent, self.config, self.generator, self.device = agent, config, generator, device
        train = config.train
        self.optimiser = LaProp(agent.named_parameters(), train.learning_rate, warmup=train.warmup)
        self.synthetic = SyntheticPath(agent, config, plans, device) if plans is not None else None
        slots = config.options.max_options if agent.heads is not None else 0
        self.slots = torch.full((slots,), -1, dtype=torch.int64, device=device)
        self.gate = gate
        self.updates = 0
        self._read = (0, 0)

    def set_slots(self, skills: np.ndarray) -> None:
        """Which skill sits in each option slot from the next update on."""
        self.slots.copy_(torch.from_numpy(skills))

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
        inputs = self.inputs(records)
        self.optimiser.zero_grad()
        found = self.step(inputs)
        self.updates += 1
        return found

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the recorded fields that an update reads."""
        agent, gate = self.agent, None if self.gate is None else self.gate.config
        names = ["action", "reward", "is_first", "is_last", "is_terminal", "deter", "stoch", agent.world_model.key]
        names += ["proposals"] * (agent.clones is not None)
        names += ["skill", "held", "ended"] * (agent.heads is not None)
        names += ["plan"] * (self.synthetic is not None)
        if gate is not None:
            names += ["advised"] * gate.cut_traces + ["advice", "confidence"] * (gate.kickstart + gate.goal_bonus > 0)
        return tuple(dict.fromkeys(names + ["proposals"] * (gate is not None and gate.kickstart > 0)))

    def inputs(self, records: Mapping[str, np.ndarray | Tensor]) -> Inputs:
        """What the next step reads of ``records`` and of the gate's schedules, in one upload, and its random numbers,
        drawn on the device."""
        host = {name: records[name] for name in self.reads}
        for name in LATENTS:  # only that of the step before the trained ones
            host[name] = host[name][:, :1]
        weights: dict[str, float] = {}
        if self.gate is not None:
            weights = {"kickstart": kickstart_weight(self.gate), "goals": goal_weight(self.gate)}
        (batch, length), model = records["action"].shape, self.agent.world_model
        shape = length - 1, batch, model.size.stoch
        uniform = torch.rand(shape, generator=self.generator, device=self.device)
        noise = self._noise(batch * (length - 1)) if self.synthetic is None else None
        there = upload(host | {name: np.float32(value) for name, value in weights.items()}, self.device)
        return Inputs(there, {name: there.pop(name) for name in weights}, uniform, noise)

    def _noise(self, starts: int) -> Noise:
        horizon, numbers = self.config.train.horizon, 1 if self.agent.heads is None else OptionPolicy.NUMBERS
        shapes = (horizon + 1, numbers, starts), (horizon, starts, self.agent.world_model.size.stoch)
        return Noise(*(torch.rand(shape, generator=self.generator, device=self.device) for shape in shapes))

    def step(self, inputs: Inputs) -> tuple[Latent, dict[str, Any]]:
        """:meth:`update` on the device alone; gradients are those of no update before."""
        agent, norm = self.agent, self.agent.actor_critic.norm
        kept = [(value, value.clone()) for value in norm.state_dict().values()]
        losses, scales, posterior, metrics = self.losses(inputs)
        agent.imagination.backward(losses, scales)
        self.move(kept)
        losses = {name: value.detach() for name, value in losses.items()}
        metrics |= {f"loss/{name}": value.mean() for name, value in losses.items()}
        metrics |= {"opt/loss": total_loss(losses, scales), "opt/grad_norm": self.optimiser.grad_norm}
        return posterior, metrics

    def losses(self, inputs: Inputs) -> Loss:
        """The forward half of a step: one graph for a compiler, without path A."""
        agent, more = self.agent, {}
        batch, start = agent.world_model.split_context(inputs.records)
        if agent.heads is not None:  # at the step that calls it a skill does not go on yet
            batch["charge"] = torch.where(batch["held"] > 0, batch["skill"].long(), -1)
        starts = partial(self._starts, inputs.noise, inputs.weights)
        paths = Paths(self.policy(), starts, partial(self._terms, more), self._scales(inputs.weights))
        is_cut = self.gate is not None and self.gate.config.cut_traces
        replay_lam = LAMBDA * (~batch["advised"]).float() if is_cut else LAMBDA
        mixed = torch.autocast(self.device.type, torch.bfloat16) if self.config.model.bf16 else nullcontext()
        with mixed:
            found = loss(
                agent.world_model, agent.actor_critic, agent.imagination, batch, start, inputs.uniform,
                paths=paths, entropy=self.config.train.entropy, replay_lam=replay_lam,
            )  # fmt: skip
        if "kickstart" in paths.scales:
            more["kickstart/weight"] = inputs.weights["kickstart"]
        return found._replace(metrics=found.metrics | more)

    @torch.no_grad()
    def move(self, kept: list[tuple[Tensor, Tensor]]) -> None:
        """The other half, behind the gradients: the optimiser's step and what follows it. Where one is not finite,
        ``kept`` values (now, before) go back; decided on the device, which nobody waits for."""
        self.optimiser.step()
        finite = self.optimiser.finite
        self.agent.actor_critic.update_slow(torch.where(finite, SLOW_RATE, 0.0))
        for value, before in kept:
            value.copy_(torch.where(finite, value, before))

    def policy(self) -> Policy:
        """Who acts in imagination: the actor, with option slots (C) where they are on."""
        heads, critic = self.agent.heads, self.agent.actor_critic
        if heads is None:
            return critic.policy_step
        only_skills = self.config.options.imagine_only_skills
        return OptionPolicy(critic.actor, heads, self.slots, critic.unimix, only_skills)

    def _starts(
        self, noise: Noise | None, weights: dict[str, Tensor],
        batch: dict[str, Tensor], seen: Observed, losses: dict[str, Tensor],
    ) -> Starts:  # fmt: skip
        """The posterior states, and the synthetic ones of path A behind them, with the weight of each."""
        latent, weight = as_starts(seen), None
        if self.synthetic is not None:
            self.synthetic.check(seen, batch, self.updates, self.generator)
            error = losses[self.agent.world_model.key].detach().mean()
            plans = batch["plan"].flatten()
            latent, weight = self.synthetic.extend(latent, plans, error, self.updates, self.generator)
        noise = noise or self._noise(len(latent.deter))
        if self.gate is None or not self.gate.config.goal_bonus:
            return Starts(latent, noise, weight)
        goals = weights["goals"] * advised_goals(batch, self.agent.num_actions)
        return Starts(latent, noise, weight, Charges.none(F.pad(goals, (0, 0, 0, len(latent.deter) - len(goals)))))

    def _scales(self, weights: dict[str, Tensor]) -> dict[str, float | Tensor]:
        """Weights of the losses that :meth:`_terms` gives."""
        agent = self.agent
        heads = {"options": agent.clones, "ensemble": agent.ensemble}
        scales: dict[str, float | Tensor] = {name: 1.0 for name, head in heads.items() if head is not None}
        if self.gate is not None and self.gate.config.kickstart:
            scales["kickstart"] = weights["kickstart"]
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
            critic, actions = agent.actor_critic, agent.num_actions
            losses["kickstart"], more = kickstart_loss(critic, features, batch, self.slots, actions)
            metrics |= more
        if agent.ensemble is not None:
            losses["ensemble"], more = agent.ensemble.loss(seen, batch["action"], batch["is_first"])
            metrics |= more
        if self.synthetic is not None:
            clone = self.synthetic.clone_loss(agent.actor_critic, self.slots, returns[len(features) :, 0])
            losses["clone"] = returns.new_zeros(1) if clone is None else clone
            metrics |= self.synthetic.metrics()
        return losses

    def read(self, metrics: Mapping[str, Tensor | float]) -> tuple[dict[str, float], int]:
        """(metrics of the last update as numbers of the host, how many updates in a row were not finite), fetched at
        once; ``opt/skipped`` is the share of those since the last call that were not finite, and stands alone where the
        last one was not."""
        on_device = {name: value.detach() for name, value in metrics.items() if isinstance(value, Tensor)}
        host: dict[str, float] = {name: value for name, value in metrics.items() if not isinstance(value, Tensor)}
        values = {**on_device, "bad": self.optimiser.bad, "count": self.optimiser.count}
        stacked = torch.stack([value.double() for value in values.values()])
        *numbers, bad, count = Download({"numbers": stacked}).arrays()["numbers"].tolist()
        skipped, since = self.updates - int(count), self.updates - self._read[0]
        found = {"opt/skipped": (skipped - self._read[1]) / max(1, since)}
        self._read = self.updates, skipped
        return found if bad else found | host | dict(zip(on_device, numbers, strict=True)), int(bad)

    def tensors(self) -> dict[str, Tensor]:
        """Everything an exact resume needs besides the agent's own state."""
        out = {f"optimiser/{k}": v for k, v in self.optimiser.state_dict().items()}
        if self.synthetic is not None:
            out |= {f"synthetic/{k}": v for k, v in self.synthetic.tensors().items()}
        return out if self.generator is None else out | {"generator": self.generator.get_state()}

    def state_dict(self) -> dict[str, Any]:
        """JSON-able part of the state."""
        synthetic = self.synthetic.state_dict() if self.synthetic else None
        return {"updates": self.updates, "read": list(self._read), "synthetic": synthetic}

    def load(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Inverse of :meth:`tensors` and :meth:`state_dict`."""
        self.optimiser.load_state_dict(
            {k.removeprefix("optimiser/"): v for k, v in tensors.items() if k.startswith("optimiser/")}
        )
        assert self.generator is not None, "torch's global generator is not saved"
        set_generator(self.generator, tensors["generator"], self.config.train.seed + state["updates"])
        self.updates = state["updates"]
        self._read = tuple(state.get("read") or (self.updates, self.updates - int(self.optimiser.count)))
        if self.synthetic is not None and state["synthetic"] is not None:
            buffers = {k.removeprefix("synthetic/"): v for k, v in tensors.items() if k.startswith("synthetic/")}
            self.synthetic.load(buffers, state["synthetic"])
