"""Imagination from all starts of an update, cut into pieces that run side by side, and what actor and critic learn from
it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from lore.dreamer.actor_critic import ActorCritic, Judged, PolicyStep, imagine, judge, judged_loss, judged_metrics
from lore.dreamer.losses import SCALES
from lore.dreamer.returns import LAMBDA
from lore.dreamer.types import Imagined, Latent
from lore.dreamer.world_model import WorldModel
from lore.fast.parallel import shares, together

__all__ = ["Dreams"]


class _Dream(NamedTuple):
    imagined: Imagined
    judged: Judged


class Dreams:
    """Trajectories from starts [N, ...] under one policy, and the gradients of actor and critic along them.

    Args:
        model, critic: the networks; ``critic`` may be trained by :meth:`learn`, ``model`` never is.
        policy: one imagined step of whoever acts.
        starts: Latent [N, ...]. weight: of each start [N], None = 1. horizon: steps H.
        generator: of the draws; every piece gets one of its own from it where there are several.
        lam: trace of the returns where the actor decides.
    """

    def __init__(
        self, model: WorldModel, critic: ActorCritic, policy: PolicyStep, starts: Latent, weight: Tensor | None,
        horizon: int, generator: Generator, lam: float = LAMBDA,
    ) -> None:  # fmt: skip
        self.critic, self.rows = critic, len(starts.deter)
        cuts = shares(self.rows, starts.deter.device)

        def dream(cut: slice, own: Generator) -> _Dream:
            imagined = imagine(model, policy, Latent(starts.deter[cut], starts.stoch[cut]), horizon, own)
            with torch.no_grad():
                reward, cont = model.predict(imagined.features)
            judged = judge(critic, imagined, reward, cont, lam, None if weight is None else weight[cut, None])
            return _Dream(imagined, judged)

        pieces = zip(cuts, _generators(generator, len(cuts)), strict=True)
        self.parts = together([partial(dream, *piece) for piece in pieces])
        self.returns = torch.cat([part.judged.returns for part in self.parts])
        """Lambda-returns [N, H]."""
        self.scale = critic.norm.update(self.returns)

    def learn(
        self, entropy: float, beside: Callable[[], None] | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Add the gradients of policy and value loss to those of the critic's parameters; (losses [N, H], metrics).

        ``beside``: work for one of the threads meanwhile, which may give the same parameters gradients.
        """
        works: list[Callable[[], Any]] = [partial(self._gradients, part, entropy) for part in self.parts]
        if beside is not None:
            works.insert(0, beside)
        found = together(works)[-len(self.parts) :]
        for i, parameter in enumerate(_trained(self.critic)):
            for gradients, _, _ in found:
                parameter.grad = gradients[i] if parameter.grad is None else parameter.grad + gradients[i]
        names = found[0][1]
        losses = {name: torch.cat([each[name] for _, each, _ in found]) for name in names}
        judged = [part.judged for part in self.parts]
        whole = Judged(
            judged[0].logits, *(torch.cat(columns) for columns in zip(*(j[1:] for j in judged), strict=True))
        )
        spread = torch.cat([each for _, _, each in found])
        return losses, judged_metrics(whole, self.scale, spread, self.critic.actions)

    def _gradients(self, part: _Dream, entropy: float) -> tuple[tuple[Tensor, ...], dict[str, Tensor], Tensor]:
        """(gradients of the trained parameters, losses [n, H], entropy of the policy [n, H]) of one piece."""
        terms, spread = judged_loss(self.critic, part.imagined, part.judged, self.scale, entropy)
        share = len(spread) / self.rows
        total = torch.stack([share * SCALES[name] * term.mean() for name, term in terms.items()]).sum()
        gradients = torch.autograd.grad(total, _trained(self.critic))
        return gradients, {name: term.detach() for name, term in terms.items()}, spread


def _trained(critic: ActorCritic) -> list[torch.nn.Parameter]:
    return [parameter for _, parameter in critic.trainable() if parameter.requires_grad]


def _generators(generator: Generator, count: int) -> list[Generator]:
    if count == 1:
        return [generator]
    seeds = torch.randint(2**63 - 1, (count,), generator=generator, device=generator.device)
    return [Generator(generator.device).manual_seed(seed) for seed in seeds.tolist()]
