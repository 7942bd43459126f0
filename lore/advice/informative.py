"""A test on held-out rows of whether advice depends on the state.

A state-blind guesser knows which options can start and how the adviser likes them on the whole, nothing else. Advice
that such a guesser foretells as well as the advice model does says nothing about the state: following it is a habit.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

__all__ = ["LEAST_GAIN", "LEAST_ROWS", "blind_scores", "uninformative"]

LEAST_GAIN = 0.1
"""Share of the states in which the advice model has to be right where the state-blind guesser is not, net."""
LEAST_ROWS = 100
"""Held-out rows that a verdict takes."""
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


def uninformative(arrays: Mapping[str, np.ndarray]) -> bool:
    """True where the arrays of an advice model say that it gains less than ``LEAST_GAIN`` on the state-blind guesser.

    A model that does not say, for want of held-out rows, has the benefit of the doubt.
    """
    gain = arrays.get("calibration/gain_over_state_blind")
    return gain is not None and float(gain.reshape(-1)[0]) < LEAST_GAIN
