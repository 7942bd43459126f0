"""Rows of advice by their key: sorted keys, one mean answer for the rows that share one."""

from __future__ import annotations

import numpy as np

__all__ = ["KeyTable"]


class KeyTable:
    """Sorted unique keys with the mean advice of the rows that share them, kept at the first of these rows.

    ``row`` is the first row of each key; ``logits``, ``known`` and ``confidence`` are indexed by rows as :meth:`find`
    returns them. Where no two rows share a key they are the arrays that were given.
    """

    def __init__(self, keys: np.ndarray, logits: np.ndarray, known: np.ndarray, confidence: np.ndarray) -> None:
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        starts = np.flatnonzero(np.concatenate([np.ones(min(1, len(keys)), bool), ordered[1:] != ordered[:-1]]))
        self.keys, self.row = ordered[starts], order[starts]
        self.logits, self.known, self.confidence = logits, known, confidence
        sizes = np.diff(np.append(starts, len(keys)))
        if not (sizes > 1).any():
            return
        shared, at = order[np.repeat(sizes > 1, sizes)], self.row[sizes > 1]
        sizes = sizes[sizes > 1]
        starts = np.cumsum(sizes) - sizes
        speaking = np.add.reduceat(known[shared].astype(np.int64), starts)
        mean = np.add.reduceat(logits[shared] * known[shared].astype(np.float64), starts) / np.maximum(speaking, 1)
        best = np.where(speaking > 0, mean, -np.inf).argmax(-1)
        agree = np.where(known[shared], logits[shared], -np.inf).argmax(-1) == np.repeat(best, sizes)
        self.logits, self.known, self.confidence = logits.copy(), known.copy(), confidence.copy()
        self.logits[at] = mean
        self.known[at] = np.logical_or.reduceat(known[shared], starts)
        # Rows of one key that contradict each other are worth less than their own confidence.
        self.confidence[at] = np.add.reduceat(confidence[shared] * agree.astype(np.float64), starts) / sizes

    def find(self, keys: np.ndarray) -> np.ndarray:
        """First row with each key, -1 where it is absent; binary search over the sorted keys."""
        if len(self.keys) == 0:
            return np.full(len(keys), -1, np.int64)
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[at] == keys, self.row[at], -1)
