"""Path A's memory: states that advised plans reached inside the world model. They train actor and critic, never the
model."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from lore.dreamer.types import Latent

__all__ = ["SyntheticBatch", "SyntheticBuffer"]


class SyntheticBatch(NamedTuple):
    """States along plan roll-outs."""

    latent: Latent  # [R, ...]
    action: Tensor  # int64 [R], primitive action of the plan here
    skill: Tensor  # int64 [R], goal that is pursued, -1 = the action itself is the plan's
    begins: Tensor  # bool [R], the goal is taken up here
    plan_return: Tensor  # float32 [R], predicted discounted return of the rest of the plan
    weight: Tensor  # float32 [R], w_synth


_PLAIN = ("action", "skill", "begins", "plan_return", "weight")


class SyntheticBuffer:
    """Ring of synthetic states on the training device.

    Args:
        capacity: states kept. deter, stoch, classes: sizes of the latent.
    """

    def __init__(self, capacity: int, deter: int, stoch: int, classes: int, device: torch.device | str = "cpu") -> None:
        self.capacity, self.classes = capacity, classes
        self.deter = torch.zeros(capacity, deter, device=device)
        self.stoch = torch.zeros(capacity, stoch, dtype=torch.uint8, device=device)
        self.action = torch.zeros(capacity, dtype=torch.int64, device=device)
        self.skill = torch.full((capacity,), -1, device=device)
        self.begins = torch.zeros(capacity, dtype=torch.bool, device=device)
        self.plan_return = torch.zeros(capacity, device=device)
        self.weight = torch.zeros(capacity, device=device)
        self.next = 0
        self.size = 0

    def add(self, batch: SyntheticBatch) -> None:
        """Append states, overwriting the oldest; what is not finite teaches nothing and is left out."""
        whole = torch.isfinite(batch.plan_return) & torch.isfinite(batch.latent.deter).all(-1)
        latent = Latent(*(x[whole] for x in batch.latent))
        batch = SyntheticBatch(latent, *(getattr(batch, name)[whole] for name in _PLAIN))
        n = min(len(batch.action), self.capacity)
        if n == 0:
            return
        at = (torch.arange(n, device=self.deter.device) + self.next) % self.capacity
        self.deter[at] = batch.latent.deter[:n]
        self.stoch[at] = batch.latent.stoch[:n].argmax(-1).to(torch.uint8)
        for name in _PLAIN:
            getattr(self, name)[at] = getattr(batch, name)[:n]
        self.next = (self.next + n) % self.capacity
        self.size = min(self.capacity, self.size + n)

    def decay(self, factor: float) -> None:
        """The world model has moved on: everything in here is worth ``factor`` of what it was."""
        self.weight[: self.size] *= factor

    def sample(self, n: int, generator: Generator | None) -> SyntheticBatch:
        """``n`` states, uniformly with replacement."""
        at = (torch.rand(n, device=self.deter.device, generator=generator) * self.size).long()
        stoch = torch.nn.functional.one_hot(self.stoch[at].long(), self.classes).float()
        return SyntheticBatch(Latent(self.deter[at], stoch), *(getattr(self, name)[at] for name in _PLAIN))

    def tensors(self) -> dict[str, Tensor]:
        """Contents for a checkpoint."""
        return {name: getattr(self, name) for name in ("deter", "stoch", *_PLAIN)}

    def state_dict(self) -> dict[str, int]:
        """Cursors for a checkpoint."""
        return {"next": self.next, "size": self.size}

    def load(self, tensors: dict[str, Tensor], state: dict[str, int]) -> None:
        """Inverse of :meth:`tensors` and :meth:`state_dict`."""
        for name, value in tensors.items():
            getattr(self, name).copy_(value)
        self.next, self.size = state["next"], state["size"]
