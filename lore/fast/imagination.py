"""Imagination shared between threads: each takes some of the starts through all steps, and their gradients back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lore.dreamer.actor_critic import ActorCritic, Policy
from lore.dreamer.imagination import Imagination
from lore.dreamer.optim import total_loss
from lore.dreamer.types import Starts, Trajectories
from lore.dreamer.world_model import WorldModel
from lore.fast.parallel import run_together, shares

__all__ = ["SharedImagination"]

_TRAINED = ("log_prob", "entropy", "value_error")
"""Fields of :class:`lore.dreamer.types.Trajectories` that have a gradient."""
_OWN = ("policy", "value")
"""Losses that are made of those fields alone."""


class SharedImagination(Imagination):
    """:class:`lore.dreamer.imagination.Imagination` with its rows divided between the threads of a CPU.

    Args:
        beside_model: whether gradients of the world model are taken by one thread while others take those of
            imagination.
    """

    def __init__(self, beside_model: bool) -> None:
        self.beside_model = beside_model
        self.pieces: list[Trajectories] = []
        self.whole: Trajectories | None = None
        self.trained: list[torch.nn.Parameter] = []

    def imagine_and_judge(self, model: WorldModel, critic: ActorCritic, policy: Policy, starts: Starts) -> Trajectories:
        """As the plain form."""
        cuts = shares(len(starts.latent.deter), starts.latent.deter.device)
        plain = super().imagine_and_judge
        self.pieces = run_together([partial(plain, model, critic, policy, starts.cut(cut)) for cut in cuts])
        whole = self.pieces[0] if len(cuts) == 1 else Trajectories(*map(_joined, zip(*self.pieces, strict=True)))
        self.trained = [parameter for parameter in critic.parameters() if parameter.requires_grad]
        # The losses end at these copies; backward takes their gradients on, piece by piece.
        copies = {name: getattr(whole, name).detach().requires_grad_() for name in _TRAINED}
        self.whole = whole._replace(**copies)
        return self.whole

    def backward(self, losses: Mapping[str, Tensor], scales: Mapping[str, float | Tensor]) -> None:
        """As the plain form, for losses of the last :meth:`imagine_and_judge`."""
        assert self.whole is not None, "imagine first"
        own = {name: losses[name] for name in _OWN}
        ends = [getattr(self.whole, name) for name in _TRAINED]
        slopes = torch.autograd.grad(total_loss(own, scales), ends)
        parts = zip(*(slope.split([len(p.returns) for p in self.pieces]) for slope in slopes), strict=True)
        works: list[Callable[[], Any]] = [
            partial(self._gradients, piece, part) for piece, part in zip(self.pieces, parts, strict=True)
        ]
        rest = total_loss({name: value for name, value in losses.items() if name not in own}, scales).backward
        if self.beside_model:
            found = run_together([rest, *works])[1:]
        else:
            rest()
            found = run_together(works)
        for gradients in found:
            for parameter, gradient in zip(self.trained, gradients, strict=True):
                if gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        self.pieces, self.whole = [], None

    def _gradients(self, piece: Trajectories, slopes: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
        ends = [getattr(piece, name) for name in _TRAINED]
        live = [(end, slope) for end, slope in zip(ends, slopes, strict=True) if end.requires_grad]
        outputs, given = zip(*live, strict=True)
        return torch.autograd.grad(outputs, self.trained, given, allow_unused=True)


def _joined(parts: tuple[Any, ...]) -> Any:
    return None if parts[0] is None else torch.cat(parts)
