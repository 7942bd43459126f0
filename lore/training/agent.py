"""The agent: world model, actor-critic and, with options on, the heads that imitate skills."""

from __future__ import annotations

import torch
from torch import Generator, nn

from lore.config import Config
from lore.dreamer.actor_critic import ActorCritic
from lore.dreamer.disagreement import Ensemble
from lore.dreamer.imagination import Imagination
from lore.dreamer.world_model import WorldModel
from lore.options.heads import OptionHeads
from lore.sizes import SIZES, Size
from lore_datasets.environments import Environment

__all__ = ["SLOT_BIAS", "Agent", "device_of", "needs_disagreement", "resolve_device"]

SLOT_BIAS = -2.0
"""Start of the actor's logits for option slots: eight of them begin with about 6 % of the decisions."""


def device_of(config: Config) -> torch.device:
    """Where a run of ``config`` learns and plays (:func:`resolve_device`)."""
    is_small = config.env.observation == "symbolic" and config.model.size in ("tiny", "1m")
    return resolve_device(config.train.device, is_small=is_small)


def resolve_device(name: str, *, is_small: bool = False) -> torch.device:
    """``auto`` -> cuda when there is one and the networks are not so small that starting their operations would take
    longer than they do, else cpu; ConfigError for a device that is not there."""
    from lore_datasets.errors import ConfigError

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() and not is_small else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError.out_of_range("train.device", name, "auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError.out_of_range("train.device", name, "auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("train.device = cuda, but this machine has no CUDA device", hint="use --train.device cpu")
    return device


def needs_disagreement(config: Config) -> bool:
    """True when somebody reads disagreement: the gate gives it a weight, or path A's stop rule is on."""
    return (config.gate.enabled and config.gate.weights[2] > 0) or config.synthetic.enabled


class Agent(nn.Module):
    """All networks of one run, and how they imagine.

    Args:
        config: sizes, observation, slots. environment: vocabulary and layout. num_skills: K of the advice version (0 =
        none).
        generator: draws the initial weights.
        size: widths in place of the configured row of the table. frame: (side, channel multiples) of other frames than
        64x64, as :class:`lore.dreamer.world_model.WorldModel` takes them.
    """

    heads: OptionHeads | None
    goal_heads: OptionHeads | None
    ensemble: Ensemble | None

    def __init__(
        self,
        config: Config,
        environment: Environment,
        num_skills: int,
        generator: Generator | None = None,
        *,
        size: Size | None = None,
        frame: tuple[int, tuple[int, ...]] = (64, (2, 3, 4, 4)),
    ) -> None:
        super().__init__()
        self.imagination = Imagination()
        size = size or SIZES[config.model.size]
        self.observation = config.env.observation
        self.num_actions = len(environment.vocab.actions)
        self.world_model = WorldModel(
            config.env.observation, environment, size, image_size=frame[0], mults=frame[1], generator=generator,
            class_weight=config.model.numbers_as_classes,
        )  # fmt: skip
        features = self.world_model.features
        with_options = config.options.enabled
        entries = self.num_actions + (config.options.max_options if with_options else 0)
        self.actor_critic = ActorCritic(
            features, entries, size, unimix=config.model.actor_unimix, skills=num_skills if with_options else 0,
            generator=generator,
        )  # fmt: skip
        if with_options:  # a uniform start over A+M would hand most steps to random skills
            with torch.no_grad():
                self.actor_critic.actor.out.bias[self.num_actions :] = SLOT_BIAS
        self.heads = (
            OptionHeads(features, self.num_actions, num_skills, size.units, generator) if with_options else None
        )
        # Drawn last, so that every other network starts the same with and without them.
        self.ensemble = Ensemble(features, self.num_actions, size, generator) if needs_disagreement(config) else None
        with_goals = config.synthetic.enabled and not with_options and num_skills > 0
        self.goal_heads = (
            OptionHeads(features, self.num_actions, num_skills, size.units, generator) if with_goals else None
        )

    @property
    def clones(self) -> OptionHeads | None:
        """The heads that imitate skills: those of the options, or path A's own where options are off."""
        return self.goal_heads if self.heads is None else self.heads
