"""The world model: encoder, RSSM, decoder, reward and continue heads, and the loss that trains them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from lore.dreamer.dists import categorical_entropy, categorical_kl, unimix_probs
from lore.dreamer.nets import Head, ImageDecoder, ImageEncoder, TwoHotHead
from lore.dreamer.returns import CONTINUE_SCALE
from lore.dreamer.rssm import RSSM, UNIMIX
from lore.dreamer.symbols import StateCodec, SymbolicDecoder, SymbolicEncoder
from lore.dreamer.types import Latent, Observed
from lore.sizes import Size
from lore_datasets.environments import Environment

__all__ = ["FREE_NATS", "WorldModel", "unpack_latent"]

FREE_NATS = 1.0
"""Floor of each KL term per step, applied to the sum over the categoricals."""


def unpack_latent(deter: Tensor, stoch: Tensor, classes: int) -> Latent:
    """Stored latents (deter float16 [..., D], stoch uint8 [..., S] class indices) -> float32 Latent."""
    index = torch.arange(classes, device=stoch.device)
    return Latent(deter.float(), (stoch.long().unsqueeze(-1) == index).float())


class WorldModel(nn.Module):
    """Learns p(observation, reward, continue | history).

    Args:
        observation: ``pixels`` (batch key ``image``, uint8 [.., size, size, 3]) or ``symbolic`` (key ``state``, packed
            uint8 [.., layout.size]).
        environment: its vocabulary gives the actions and, for ``symbolic``, the layout; None with ``actions`` given.
        size: row of the size table.
        actions: primitive actions A; default those of the environment.
        image_size, mults: side of the frame and channel multiples of the CNN stages (each halves the side).
        generator: draws the initial weights. class_weight: as :class:`lore.dreamer.symbols.SymbolicDecoder` takes it.
    """

    def __init__(
        self, observation: Literal["pixels", "symbolic"], environment: Environment | None, size: Size, *,
        actions: int | None = None, image_size: int = 64, mults: Sequence[int] = (2, 3, 4, 4),
        generator: Generator | None = None, class_weight: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        if actions is None:
            assert environment is not None, "without an environment the number of actions must be given"
            actions = len(environment.vocab.actions)
        flat = size.stoch * size.classes
        self.observation, self.size, self.actions = observation, size, actions
        self.features = size.deter + flat
        if observation == "pixels":
            self.key = "image"
            self.encoder: ImageEncoder | SymbolicEncoder = ImageEncoder(size.depth, image_size, mults, generator)
        else:
            assert environment is not None, "symbolic observations need the environment's layout"
            self.key, codec = "state", StateCodec(environment)
            self.encoder = SymbolicEncoder(codec, size.units, generator)
        self.rssm = RSSM(size, actions, self.encoder.tokens, generator)
        if observation == "pixels":
            self.decoder: ImageDecoder | SymbolicDecoder = ImageDecoder(
                size.deter, flat, size.depth, size.units, size.blocks, image_size, mults, generator
            )
        else:
            self.decoder = SymbolicDecoder(codec, self.features, size.units, generator, class_weight)
        self.reward = TwoHotHead(self.features, 1, size.units, generator)
        self.cont = Head(self.features, 1, 1, size.units, generator)

    def encode(self, observation: Tensor) -> Tensor:
        """Observation (see ``key``) with any leading axes -> tokens [..., E]."""
        return self.encoder(observation)

    def predict(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Expected reward [...] and continue probability [...] (the discount included) of features [..., F]."""
        return self.reward.mean(self.reward(features)), self.cont(features).squeeze(-1).sigmoid()

    def split_context(self, records: dict[str, Tensor]) -> tuple[dict[str, Tensor], Latent]:
        """Replayed records [B, 1+T, ...] -> training batch [B, T, ...] with ``prev_action``, and the start latent.

        Record 0 gives only its stored latent and its action. A step before an episode start counts as last.
        """
        batch = {name: value[:, 1:] for name, value in records.items() if name not in ("deter", "stoch")}
        batch["prev_action"] = records["action"][:, :-1].long()
        batch["is_first"], last = batch["is_first"].bool(), batch["is_last"].bool()
        follows = F.pad(batch["is_first"][:, 1:], (0, 1))
        batch["is_last"], batch["is_terminal"] = last | follows, batch["is_terminal"].bool()
        return batch, unpack_latent(records["deter"][:, 0], records["stoch"][:, 0], self.size.classes)

    def loss(
        self, batch: dict[str, Tensor], start: Latent, uniform: Tensor
    ) -> tuple[dict[str, Tensor], Observed, dict[str, Tensor]]:
        """Losses float32 [B, T] by name (unscaled), the posterior sequence with gradient, and detached metrics.

        ``batch``: the observation, ``prev_action`` int64, ``reward`` float, ``is_first``, ``is_terminal`` bool, all
        [B, T, ...]; see :meth:`split_context`. ``uniform`` [T, B, S] draws the posteriors. The
        reconstruction's loss has the observation's name.
        """
        observation = batch[self.key]
        seen = self.rssm.observe(self.encode(observation), batch["prev_action"], batch["is_first"], start, uniform)
        features = seen.latent.features()
        losses, metrics = self.kl_losses(seen)
        label = (~batch["is_terminal"]).float() * CONTINUE_SCALE
        losses["con"] = F.binary_cross_entropy_with_logits(self.cont(features).squeeze(-1), label, reduction="none")
        losses["rew"] = self.reward.loss(self.reward(features), batch["reward"].float())
        losses[self.key] = self.decoder.loss(features, observation)
        shape = batch["prev_action"].shape
        assert all(value.shape == shape for value in losses.values()), {k: v.shape for k, v in losses.items()}
        return losses, seen, metrics

    def kl_losses(self, seen: Observed) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """``dyn`` teaches the prior, ``rep`` the posterior, both at least :data:`FREE_NATS` [B, T]; and metrics."""
        post, prior = unimix_probs(seen.post_logits, UNIMIX), unimix_probs(seen.prior_logits, UNIMIX)
        dyn, rep = categorical_kl(post.detach(), prior), categorical_kl(post, prior.detach())
        metrics = {name: categorical_entropy(p.detach()).mean() for name, p in (("dyn_ent", prior), ("rep_ent", post))}
        return {"dyn": dyn.clamp(min=FREE_NATS), "rep": rep.clamp(min=FREE_NATS)}, metrics
