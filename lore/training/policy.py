"""A policy that can play: networks, the advice it reads, the controller that decides who acts. It trains nothing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lore.advice.lookup import AdviceSource
from lore.advice.plans import PlanBook
from lore.advice.uniform import UniformSource, uniform_advice
from lore.config import Config, replace
from lore.dreamer.disagreement import HEADS
from lore.envs.base import Step, make_env_fns
from lore.envs.vector import VectorEnv
from lore.evaluation.play import check_skills
from lore.fast.accelerate import accelerate
from lore.gate.gate import Gate
from lore.options.controller import Controller
from lore.options.slots import Slots, with_slots
from lore.training import checkpoint
from lore.training.agent import Agent, device_of
from lore.training.folder import CHECKPOINT, read_config
from lore.training.player import Player
from lore.training.prefill import Prefill
from lore_datasets.advice import AdviceData, shared_advice
from lore_datasets.environments import get_environment
from lore_datasets.errors import SchemeMismatch, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_LOG = logging.getLogger("lore")
__all__ = ["Policy", "is_export", "load_policy", "open_advice", "part", "with_absolute_export", "with_version"]


def open_advice(config: Config) -> AdviceData | None:
    """The advice version of a configuration, None when no path reads one; SchemeMismatch for another game's."""
    if not config.needs_advice:
        return None
    data = shared_advice(config.advice.dataset)
    played = get_environment(config.env.name, named=True)
    if not played.symbolic:
        raise SchemeMismatch(
            f"{played.name} has no symbolic view, so advice {data.ref} cannot be looked up in it",
            hint="switch gate, synthetic and options off: the plain learner needs no view",
        )
    if not played.shares_words_with(data.environment):
        raise SchemeMismatch(
            f"advice {data.ref} is about {data.environment.name}, the run plays {played.name}",
            hint="choose an advice dataset of the same environment, or of its family",
        )
    if data.actions != data.environment.vocab.actions:
        raise SchemeMismatch(
            f"advice {data.ref} speaks of {len(data.actions)} actions, not of the game's"
            f" {len(data.environment.vocab.actions)}",
            hint="make the dataset with this version of the environment",
        )
    return uniform_advice(data) if config.advice.prior == "uniform" else data


def part(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The entries of a checkpoint under one prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


class Policy:
    """Agent, advice source, option slots, controller and player of one configuration.

    Args:
        config: the run's configuration; the attribute names the number of option slots.
        seed_offset: added to the seed of environments and sampling (evaluation uses another stream than training).
        is_training: it plays training's worlds, and tests plans in the game now and then (path A).
        is_advised: False plays with beta 0, the agent alone. has_skills: False masks the option slots.

    Attributes:
        env_steps: environment steps that the agent was trained for.
        plans: those of the advice version, None without path A.
        streams: uint32[5] seeds of replay, environments, controller, player and updates.
    """

    def __init__(
        self, config: Config, *, seed_offset: int = 0, is_training: bool = False, is_advised: bool = True,
        has_skills: bool = True,
    ) -> None:  # fmt: skip
        self.is_training = is_training
        self.device = device_of(config)
        self.environment = get_environment(config.env.name, named=True)
        self.advice = open_advice(config)
        self.skills = self.advice.skills if self.advice is not None else ()
        self.config = config = with_slots(config, len(self.skills))
        self.source = self._make_source()
        self.streams = np.random.SeedSequence((config.train.seed, seed_offset)).generate_state(5)
        init = torch.Generator().manual_seed(int(np.random.SeedSequence(config.train.seed).generate_state(1)[0]))
        self.agent = Agent(config, self.environment, len(self.skills), init).to(self.device)
        if self.agent.clones is not None:
            self.agent.clones.set_limits([skill.max_steps for skill in self.skills])
        accelerate(self.agent, self.device, config.train.threads, tf32=config.model.tf32)
        self.slots = self._make_slots()
        self.gate = Gate(config.gate) if config.gate.enabled and is_advised else None
        self.plans = PlanBook(self.advice) if config.synthetic.enabled and self.advice is not None else None
        self.controller = Controller(
            config, None if config.advice.prefill_steps else self.source, self.slots, self.gate,
            config.env.num_envs, self.agent.num_actions,
            np.random.default_rng(int(self.streams[2])),
            plans=self.plans if is_training else None, is_training=is_training,
            has_skills=has_skills,
        )  # fmt: skip
        generator = torch.Generator(self.device).manual_seed(int(self.streams[3]))
        self.player = Player(
            self.agent, self.controller, config.env.num_envs, self.device, generator, self._make_prefill()
        )
        self.env_steps = 0

    def _make_source(self) -> AdviceSource | None:
        if self.advice is None:
            return None
        config = self.config.advice
        kind = UniformSource if config.prior == "uniform" else AdviceSource
        return kind(
            self.advice, min_confidence=config.min_agreement, only_informative=not config.accept_uninformative,
            cache_size=config.cache_size,
        )  # fmt: skip

    def _make_prefill(self) -> Prefill | None:
        """Who plays the first steps of training, None where nobody does."""
        steps, config = self.config.advice.prefill_steps, self.config
        if not steps or self.source is None or not self.is_training:
            return None
        check_skills(self.source.data)
        rng = np.random.default_rng([int(self.streams[2]), steps])
        return Prefill(self.source, steps, config.gate.hold, config.env.num_envs, rng)

    def _make_slots(self) -> Slots | None:
        options = self.config.options
        if not options.enabled:
            return None
        return Slots(options.max_options, tuple(s.name for s in self.skills), options.confidence_threshold)

    @property
    def unused_advice(self) -> str:
        """Why nothing of the advice version is followed, empty where it is."""
        if self.source is None or not self.source.ignored:
            return ""
        return (
            f"advice {self.reference} is NOT USED: on held-out rows a guesser that never sees the state foretells it as"
            " well (--advice.accept-uninformative uses it all the same)"
        )

    @property
    def reference(self) -> str:
        """``name@vN#digest`` of the advice, empty without."""
        return str(self.advice.ref) if self.advice is not None else ""

    def make_envs(self) -> VectorEnv:
        """The environments of this policy's stream, not yet reset; a policy that does not train gets other worlds than
        any training."""
        return VectorEnv(make_env_fns(self.config.env, int(self.streams[1]), for_evaluation=not self.is_training))

    def act(self, steps: list[Step]) -> tuple[list[int], list[dict[str, Any]]]:
        """(actions, replay records) for the latest step of every environment."""
        return self.player.act(steps, self.env_steps)

    def identity(self) -> dict[str, Any]:
        """What a checkpoint must agree with: sizes, observation, environment, skills."""
        return {
            "size": self.config.model.size,
            "observation": self.config.env.observation,
            "environment": self.config.env.name,
            "entries": self.agent.actor_critic.actions,
            "skills": len(self.skills),
            **({"plans": "of goals"} if self.plans is not None else {}),
            **({"ensemble": HEADS} if self.agent.ensemble is not None else {}),
            **({"option_critic": True} if self.agent.heads is not None else {}),
        }

    def load(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any], *, goes_on: bool = True) -> None:
        """Networks, gate, slots and controller of a checkpoint; not the player's belief, which belongs to its games.

        ``goes_on`` False: other games begin, so nobody is in charge, and sampling keeps its own stream.
        """
        self.agent.load_state_dict(part(tensors, "agent/"))
        self.controller.load_state_dict(meta["controller"], goes_on=goes_on)
        self.env_steps = meta["frames"]


def load_policy(folder: Path | str, seed_offset: int, *, is_advised: bool = True, has_skills: bool = True) -> Policy:
    """The policy of a run's checkpoint, with the advice version that it learned from, for games of no training.

    UsageError before the first checkpoint; SchemeMismatch when the export that the run read holds another version now.
    ``is_advised`` False: with beta 0. ``has_skills`` False: with primitive actions alone.
    """
    path = Path(folder) / CHECKPOINT
    config = read_config(folder)
    if config.train.device.startswith("cuda") and not torch.cuda.is_available():
        _LOG.warning("%s was trained on %s; it plays on the CPU here", folder, config.train.device)
        config = replace(config, **{"train.device": "cpu"})
    if not path.exists():
        raise UsageError(f"{folder} has no checkpoint yet", hint="train it first: lore train --preset smoke")
    tensors, meta = checkpoint.load(path, fall_back=True)
    policy = Policy(
        with_version(config, meta["advice"]), seed_offset=seed_offset, is_advised=is_advised, has_skills=has_skills
    )
    if policy.reference != meta["advice"]:
        raise SchemeMismatch(
            f"{config.advice.dataset} holds {policy.reference or 'no advice'}, the run learned from {meta['advice']}",
            kept="the run", hint="put the export of that version back in its place",
        )  # fmt: skip
    checkpoint.check(path, meta, policy.identity())
    policy.load(tensors, meta, goes_on=False)
    return policy


def with_version(config: Config, reference: str) -> Config:
    """``config`` reading the advice version ``reference``; an export is read where it lies, whatever is in it."""
    if not reference or not config.needs_advice or is_export(config.advice.dataset):
        return config
    return replace(config, **{"advice.dataset": reference})


def with_absolute_export(config: Config) -> Config:
    """``config`` naming its HDF5 export by an absolute path, so that the run can be opened from any folder."""
    if not is_export(config.advice.dataset):
        return config
    return replace(config, **{"advice.dataset": str(Path(config.advice.dataset).absolute())})


def is_export(dataset: str) -> bool:
    """Is an advice dataset given by the path of an HDF5 file?"""
    return dataset.endswith((".h5", ".hdf5"))
