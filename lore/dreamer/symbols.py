"""Symbolic observations for the world model: packed uint8 states -> tokens, and features -> their reconstruction.

The state is what the player sees: one-hot planes of the view's cells plus a vector (inventory and vitals in units of
``max_count``, one-hot facing, sleeping, daylight in 0..1, unlocked achievements).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from lore.dreamer.dists import symlog
from lore.dreamer.nets import MLP, Head, NormAct, init_weight
from lore_datasets.environments import Environment

__all__ = ["OneHotLinear", "StateCodec", "SymbolicDecoder", "SymbolicEncoder"]


DAYLIGHT_STEPS = 10
"""Classes that daylight has where numbers are classes."""


class StateCodec(nn.Module):
    """Splits packed states (uint8 [..., layout.size]) into cell ids and a vector; owns no parameters."""

    daylight: Tensor
    directions_index: Tensor

    def __init__(self, environment: Environment) -> None:
        super().__init__()
        vocab, at = environment.vocab, environment.layout.offsets()
        self.targets, self.directions, self.max_count = len(vocab.targets), len(vocab.directions), vocab.max_count
        self.cells, self.counts = at["view"].stop, slice(at["inventory"].start, at["vitals"].stop)
        self.facing, self.rest = at["facing"].start, slice(at["sleeping"].start, at["unlocked"].stop)
        self.count_width, self.rest_width = self.counts.stop - self.counts.start, self.rest.stop - self.rest.start
        self.vector_width = self.count_width + self.directions + self.rest_width
        self.daylight_at = at["daylight"].start - self.rest.start
        scale = torch.ones(self.rest_width)
        scale[self.daylight_at] = 1.0 / 255.0
        self.register_buffer("daylight", scale, persistent=False)  # unit scale but for daylight
        self.register_buffer("directions_index", torch.arange(self.directions), persistent=False)

    def cell_ids(self, state: Tensor) -> Tensor:
        """int64 [..., H*W] target ids; ids that the vocabulary lacks count as 0 (nothing)."""
        ids = state[..., : self.cells].long()
        return ids * (ids < self.targets)

    def facing_id(self, state: Tensor) -> Tensor:
        """int64 [...] direction ids."""
        return state[..., self.facing].long().clamp(max=self.directions - 1)

    def scalars(self, state: Tensor) -> Tensor:
        """float32 [..., I + V + 2 + K]: raw counts and vitals, then sleeping, daylight in 0..1, unlocked."""
        return torch.cat([state[..., self.counts].float(), state[..., self.rest].float() * self.daylight], -1)

    def classes(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Numbers as classes: counts and vitals int64 [..., I + V], step of the daylight int64 [...], and flags float32
        [..., 1 + K] (sleeping, unlocked)."""
        rest, at = state[..., self.rest], self.daylight_at
        light = rest[..., at].long() * DAYLIGHT_STEPS // 256
        flags = torch.cat([rest[..., :at], rest[..., at + 1 :]], -1).float()
        return state[..., self.counts].long().clamp(max=self.max_count), light, flags

    def vector(self, state: Tensor) -> Tensor:
        """float32 [..., vector_width]: counts and vitals / max_count, facing one-hot, sleeping, daylight, unlocked."""
        facing = (self.facing_id(state).unsqueeze(-1) == self.directions_index).float()
        rest = state[..., self.rest].float() * self.daylight
        return torch.cat([state[..., self.counts].float() / self.max_count, facing, rest], -1)


class OneHotLinear(nn.Module):
    """Linear layer on concat(one-hot cells, vector), its one-hot part as a sum of gathered rows: the same function."""

    offsets: Tensor

    def __init__(self, cells: int, targets: int, vector: int, outputs: int, generator: Generator | None) -> None:
        super().__init__()
        self.planes = cells * targets
        inputs = self.planes + vector
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        init_weight(self.weight, inputs, generator)
        self.register_buffer("offsets", torch.arange(cells) * targets, persistent=False)

    def forward(self, ids: Tensor, vector: Tensor) -> Tensor:
        """ids int64 [N, cells], vector [N, V] -> [N, outputs]."""
        rows = F.embedding_bag(ids + self.offsets, self.weight[: self.planes], mode="sum")
        return torch.addmm(self.bias, vector, self.weight[self.planes :]) + rows


class SymbolicEncoder(nn.Module):
    """Packed states -> tokens: one-hot cells and vector through an MLP of three layers."""

    def __init__(self, codec: StateCodec, units: int, generator: Generator | None = None) -> None:
        super().__init__()
        self.codec = codec
        self.first = OneHotLinear(codec.cells, codec.targets, codec.vector_width, units, generator)
        self.norm = NormAct(units)
        self.mlp = MLP(units, 2, units, generator)
        self.tokens = units

    def forward(self, state: Tensor) -> Tensor:
        """uint8 [..., layout.size] -> float [..., units]."""
        flat = state.reshape(-1, state.shape[-1])
        x = self.first(self.codec.cell_ids(flat), self.codec.vector(flat))
        return self.mlp(self.norm(x)).reshape(*state.shape[:-1], -1)


class SymbolicDecoder(nn.Module):
    """Features -> logits of every cell and of the facing, and the numbers beside them.

    Args:
        class_weight: of the cross-entropies of numbers as classes (:meth:`StateCodec.classes`) in the loss; 0: numbers
        are the symlog of every scalar, with squared errors of weight 1.
    """

    def __init__(
        self, codec: StateCodec, features: int, units: int, generator: Generator | None = None,
        class_weight: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.codec, self.class_weight = codec, class_weight
        self.parts = [codec.count_width * (codec.max_count + 1), DAYLIGHT_STEPS, codec.rest_width - 1]
        numbers = sum(self.parts) if class_weight else codec.count_width + codec.rest_width
        self.split = [codec.cells * codec.targets, codec.directions, numbers]
        self.head = Head(features, sum(self.split), 3, units, generator)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """features [..., F] -> logits of cells [..., H*W, targets] and facing [..., 4], numbers [..., V]."""
        cells, facing, numbers = self.head(features).split(self.split, -1)
        return cells.unflatten(-1, (self.codec.cells, self.codec.targets)), facing, numbers

    def loss(self, features: Tensor, state: Tensor) -> Tensor:
        """Loss [...] against packed states: cross-entropies of cells and facing plus the loss of the numbers."""
        cells, facing, numbers = self(features)
        lead = state.shape[:-1]
        ids = self.codec.cell_ids(state)
        view = F.cross_entropy(cells.flatten(0, -2), ids.flatten(), reduction="none").view(*lead, -1).sum(-1)
        turned = self.codec.facing_id(state).flatten()
        turn = F.cross_entropy(facing.flatten(0, -2), turned, reduction="none").view(lead)
        return view + turn + self._number_loss(numbers, state)

    def _number_loss(self, numbers: Tensor, state: Tensor) -> Tensor:
        if not self.class_weight:
            return (numbers - symlog(self.codec.scalars(state))).square().sum(-1)
        said, true, lead = numbers.split(self.parts, -1), self.codec.classes(state), state.shape[:-1]
        rows = said[0].reshape(-1, self.codec.max_count + 1)
        counts = F.cross_entropy(rows, true[0].flatten(), reduction="none").view(*lead, -1).sum(-1)
        light = F.cross_entropy(said[1].flatten(0, -2), true[1].flatten(), reduction="none").view(lead)
        flags = F.binary_cross_entropy_with_logits(said[2], true[2], reduction="none").sum(-1)
        return self.class_weight * (counts + light + flags)

    def unlocked(self, features: Tensor) -> Tensor:
        """bool [..., K]: achievements that the reconstruction of features tells to be unlocked."""
        half = 0.0 if self.class_weight else math.log1p(1.0) / 2.0
        return self(features)[2][..., -(self.codec.rest_width - 2) :] > half

    def reconstruct(self, features: Tensor) -> Tensor:
        """Most likely cell ids int64 [..., cells] of features, for open-loop reports."""
        return self(features)[0].argmax(-1)
