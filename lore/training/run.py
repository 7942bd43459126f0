"""One training run: a policy that plays and everything that trains it, saved to a checkpoint and restored from it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lore.config import Config, replace, to_dict
from lore.envs.base import Step
from lore.options.carry_over import carry_over, digests_of
from lore.options.slots import with_slots
from lore.replay.backends import check_room, make_replay
from lore.replay.ring import Replay, latent_fields
from lore.training import checkpoint
from lore.training.advice_versions import is_same_dataset, relabel
from lore.training.clock import Ratio
from lore.training.folder import CHECKPOINT, CONFIG, machine, read_config, recorded_advice, set_generator
from lore.training.learner import Learner
from lore.training.metrics import Means
from lore.training.policy import Policy, part
from lore.training.saver import Saver
from lore_datasets.errors import ConfigError
from lore_datasets.exchange.revisions import Revision

__all__ = ["Training"]


class Training:
    """A policy, its learner, replay, environments and counters; what :func:`lore.training.loop.train` moves forward.

    Args:
        config: the run's configuration. folder: where it lives.

    Attributes:
        steps: latest step of every environment; empty before the first.
        returns: float64[E] of the episodes under way. recent: returns of the last 20 episodes.
        successes: per finished episode, which achievements it unlocked. seconds: of training before this process.
        rows: rows of metrics and episodes on disk at the checkpoint. saver: writes the checkpoints.
        coming: brings the latents of the last update to replay, while they are on their way there.
    """

    def __init__(self, config: Config, folder: Path) -> None:
        self.folder = Path(folder)
        is_new = not (self.folder / CONFIG).exists()
        if not is_new and not config.options.max_options:  # the number that the run began with
            config = replace(config, **{"options.max_options": read_config(folder).options.max_options})
        self.policy = Policy(config, is_training=True)
        self.config = config = with_slots(self.policy.config, len(self.policy.skills), is_new=is_new)
        policy, train = self.policy, config.train
        self.envs = policy.make_envs()
        generator = torch.Generator(policy.device).manual_seed(int(policy.streams[4]))
        plans = None if policy.plans is None else policy.plans.plans
        self.learner = Learner(policy.agent, config, generator, policy.device, plans, policy.gate)
        self.replay = self._make_replay(int(policy.streams[0]))
        self.ratio = Ratio(train.train_ratio / train.batch_size)
        self.steps: list[Step] = []
        self.episodes = 0
        self.recent: deque[float] = deque(maxlen=20)
        self.returns = np.zeros(config.env.num_envs)
        self.successes: list[list[bool]] = []
        self.means = Means()
        self.seconds = 0.0
        self.rows: dict[str, int] = {}
        self.coming: Callable[[], None] | None = None
        self.saver = Saver(self.folder / CHECKPOINT, train.save_interval_s)

    def _make_replay(self, seed: int) -> Replay:
        policy, config = self.policy, self.config
        size = policy.agent.world_model.size
        fields: dict[str, tuple[tuple[int, ...], Any]] = {
            "state": ((policy.environment.layout.size,), np.uint8), "action": ((), np.int64),
            "reward": ((), np.float32), "is_first": ((), np.bool_), "is_last": ((), np.bool_),
            "is_terminal": ((), np.bool_), **latent_fields(size.deter, size.stoch),
        }  # fmt: skip
        if config.env.observation == "pixels":
            fields["image"] = ((64, 64, 3), np.uint8)
        if policy.controller.source is not None:
            if policy.agent.num_actions > 128:
                raise ConfigError(
                    f"{policy.environment.name} has {policy.agent.num_actions} actions; next actions of skills are kept"
                    " in a byte: at most 128", kept="nothing was started", hint="train it without advice",
                )  # fmt: skip
            fields |= {"proposals": ((len(policy.skills),), np.int8), "skill": ((), np.int16), "row": ((), np.int32)}
        if config.options.enabled:
            fields |= {"held": ((), np.int16), "ended": ((), np.int8)}
        if policy.plans is not None:
            fields["plan"] = ((), np.int32)
        if policy.gate is not None:
            fields["advised"] = ((), np.bool_)
        if config.keeps_advice:
            width = policy.agent.num_actions + len(policy.skills)
            fields |= {"advice": ((width,), np.float16), "confidence": ((), np.float32)}
        length = config.train.sequence_length + 1
        capacity = max(config.train.replay_capacity, length * config.env.num_envs)
        windows = config.env.num_envs * (capacity // config.env.num_envs - length + 1)
        if config.train.train_ratio > 0 and windows < config.train.batch_size:
            raise ConfigError(
                f"replay of {capacity} records holds {windows} windows, and updates begin with "
                f"{config.train.batch_size} (train.batch_size)",
                kept="nothing was started", hint="raise train.replay_capacity, or lower train.batch_size",
            )  # fmt: skip
        check_room(config, fields, self.folder, policy.device)
        return make_replay(
            fields, capacity, config.env.num_envs, seed, length=length, folder=self.folder, device=policy.device
        )

    @property
    def env_steps(self) -> int:
        """Environment steps so far."""
        return self.policy.env_steps

    def advised_skills(self) -> np.ndarray:
        """float[K]: how much the advice speaks for each skill: where the agent has been, and before that on the
        version's rows. Without rows all are alike where there is a slot for each, else nothing is known yet."""
        advice, fit = self.policy.advice, self.policy.controller.accounts.mean_advice
        if fit.any() or advice is None:
            return fit
        rows = advice.rows
        if not len(rows.logits):
            return np.full_like(fit, self.policy.slots is not None and self.policy.slots.active == len(fit))
        weights = np.exp(rows.logits - rows.logits.max(-1, keepdims=True)) * rows.mask
        share = weights / weights.sum(-1, keepdims=True).clip(1e-9)
        return share[:, self.policy.agent.num_actions :].mean(0)

    def fill_slots(self, generation: bool = False) -> None:
        """Fill empty option slots with the skills that advice speaks for. A new ``generation`` also gives those that
        wait another chance, and lets skills go that fit far less, or did worse, than a free one."""
        slots = self.policy.slots
        if slots is None or self.policy.advice is None:
            return
        fit = self.advised_skills()
        if generation:
            slots.recall()
            slots.release(fit)
        slots.fill(fit)
        self.learner.restart_slots(slots.take_over())
        self.learner.set_slots(slots.skill)

    def revisions(self) -> list[Revision]:
        """Requests for better skills: one for each that has failed too often so far."""
        policy = self.policy
        if policy.slots is None:
            return []
        names, out = policy.environment.vocab.actions, []
        for skill, s in zip(policy.skills, policy.slots.statistics, strict=True):
            if s.retired:
                last = s.failure
                out.append(Revision(
                    skill=skill.name, skill_json=skill.to_json(), uses=s.uses, success_rate=round(s.success_rate, 4),
                    steps_per_use=round(s.steps / max(1, s.uses), 2), outcomes=dict(s.outcomes),
                    actions=tuple(names[a] for a in last.get("actions", [])), state=last.get("state", ""),
                    outcome=last.get("outcome", ""), frame=self.env_steps, advice=policy.reference,
                ))  # fmt: skip
        return out

    def _expected(self) -> dict[str, Any]:
        """The policy's identity, without the number of skills where the checkpoint learned from another version of the
        same dataset and says which skills it knew: what it has of them is carried over by name."""
        expected = self.policy.identity()
        if is_same_dataset(recorded_advice(self.folder), self.policy.reference):
            del expected["skills"]
        return expected

    def save(self, *, is_beside: bool = False) -> None:
        """Write the whole run to its checkpoint (atomic, the previous one kept), or begin to, beside the training."""
        policy, player = self.policy, self.policy.player
        cursors = self.replay.cursors()
        tensors: dict[str, Any] = {f"agent/{k}": v for k, v in policy.agent.state_dict().items()}
        tensors |= {f"learner/{k}": v for k, v in self.learner.tensors().items()}
        tensors |= {f"player/{k}": v for k, v in player.tensors().items()}
        tensors["player/generator"] = player.generator.get_state()
        meta = {
            **policy.identity(),
            "config": to_dict(self.config),
            "advice": policy.reference,
            "skill_names": [skill.name for skill in policy.skills], "skill_digests": digests_of(policy.skills),
            "frames": self.env_steps, "episodes": self.episodes, "recent": list(self.recent),
            "returns": self.returns.tolist(), "successes": self.successes, "seconds": self.seconds,
            "rows": self.rows,
            "learner": self.learner.state_dict(), "replay": cursors, "controller": policy.controller.state_dict(),
            "prefill": player.prefill.state_dict() if player.prefill is not None else None,
            "ratio": self.ratio.state_dict(), "means": self.means.state_dict(), "envs": self.envs.state_dict(),
            "steps": [_step_to_json(s) for s in self.steps],
            "machine": machine(), "saved": time.time(),
        }  # fmt: skip
        self.saver.save(tensors, meta, self.replay, is_beside=is_beside)

    def restore(self) -> dict[str, Any]:
        """Continue from the checkpoint; returns its meta data. SchemeMismatch names what does fit."""
        policy = self.policy
        path = self.folder / CHECKPOINT
        tensors, meta = checkpoint.load(path, self._expected(), fall_back=True, has_replay=True, sets_aside=True)
        source = policy.controller.source
        renewed = source is not None and meta["advice"] != policy.reference
        self.saver.restored(meta, is_same=not renewed)
        if source is not None and renewed:
            fresh = {f"agent/{k}": v for k, v in policy.agent.state_dict().items()}
            fresh |= {f"learner/{k}": v for k, v in self.learner.tensors().items()}
            carry_over(tensors, meta, fresh, policy.skills, policy.environment.vocab)
            relabel(tensors, source, policy.plans)
        policy.load(tensors, meta)
        if policy.slots is not None:
            self.learner.set_slots(policy.slots.skill)
        self.learner.load(part(tensors, "learner/"), meta["learner"])
        if self.learner.synthetic is not None and renewed:
            self.learner.synthetic.forget()
        player = part(tensors, "player/")
        set_generator(policy.player.generator, player.pop("generator"), int(policy.streams[3]) + policy.env_steps)
        policy.player.load(player)
        if policy.player.prefill is not None:
            policy.player.prefill.load_state_dict(meta["prefill"])
        kept = {k: v.numpy() for k, v in part(tensors, "replay/").items()}
        for name in [k for k in kept if k.endswith("/is_last") and "advised" in self.replay.fields]:
            kept.setdefault(name.replace("/is_last", "/advised"), np.zeros_like(kept[name]))  # older ones do not say
        self.replay.restore(kept, meta["replay"])
        self.ratio.load_state_dict(meta["ratio"])
        self.means.load_state_dict(meta["means"])
        self.envs.load_state_dict(meta["envs"])
        self.steps = [self._step_from_json(e, s) for e, s in enumerate(meta["steps"])]
        self.episodes, self.seconds = meta["episodes"], meta["seconds"]
        self.recent.extend(meta["recent"])
        self.returns[:] = meta["returns"]
        self.successes = meta["successes"]
        self.rows = meta.get("rows", {})
        return meta

    def _step_from_json(self, env: int, value: dict[str, Any]) -> Step:
        state = np.frombuffer(bytes.fromhex(value.pop("state")), np.uint8).copy()
        info = value.pop("info")
        info["achievements"] = np.array(info["achievements"], np.int16)
        image = self.envs.envs[env].render() if self.config.env.observation == "pixels" else None
        return Step(state=state, image=image, info=info, **value)


def _step_to_json(step: Step) -> dict[str, Any]:
    info = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in step.info.items()}
    return {
        "state": step.state.tobytes().hex(), "reward": float(step.reward), "is_first": bool(step.is_first),
        "is_last": bool(step.is_last), "is_terminal": bool(step.is_terminal), "info": info,
    }  # fmt: skip
