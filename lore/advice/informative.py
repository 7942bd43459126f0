"""Does the advice depend on the state? What held-out rows say about it.

A state-blind guesser knows which options can start and how the adviser likes them on the whole, nothing else. Advice
that such a guesser foretells as well as the advice model does says nothing about the state: following it is a habit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

__all__ = ["LEAST_GAIN", "blind_scores", "gain_over_blind", "uninformative"]

LEAST_GAIN = 0.1
"""Share of the states in which the advice model has to be right where the state-blind guesser is not, net."""
Z = 1.64
"""Standard errors of the one-sided 95 % bound."""
_RIDGE, _STEPS = 1e-4, 60


def blind_scores(first: np.ndarray, offered: np.ndarray) -> np.ndarray:
    """Scores float64[E] of the state-blind guesser: maximum likelihood of a conditional logit with constants alone.

    McFadden (1974): p(e | offered set O) = exp(s_e) / sum_{o in O} exp(s_o).

    Args:
        first: int64[N], the option that each row advises first. offered: bool[N, E], the options it chose among.
    """
    import torch

    scores = torch.zeros(offered.shape[1], dtype=torch.float64, requires_grad=True)
    barred = torch.where(torch.from_numpy(offered), 0.0, -torch.inf).double()
    chosen = torch.from_numpy(first.astype(np.int64))
    optimiser = torch.optim.LBFGS([scores], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = torch.nn.functional.cross_entropy(scores + barred, chosen) + _RIDGE * scores.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return scores.detach().numpy()


def gain_over_blind(right: np.ndarray, blind_right: np.ndarray) -> tuple[float, float]:
    """(gain, its upper one-sided 95 % bound): how much more often the model names what the adviser said first.

    Args:
        right, blind_right: bool[N], whether the model and the state-blind guesser named it, on the same held-out rows.
    """
    differences = right.astype(np.float64) - blind_right
    mean, error = float(differences.mean()), float(differences.std()) / math.sqrt(len(differences))
    return mean, mean + Z * error


def uninformative(arrays: Mapping[str, np.ndarray]) -> bool:
    """True where the arrays of an advice model say that its gain lies below ``LEAST_GAIN``, bound included.

    Few held-out rows make a wide bound: advice has the benefit of the doubt, and so has a model that does not say.
    """
    most = arrays.get("calibration/most_gain_over_state_blind")
    return most is not None and float(most.reshape(-1)[0]) < LEAST_GAIN
