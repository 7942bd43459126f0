"""Texts and bytes a little wrong: what a model, a user or a disk makes of something that was right."""

from __future__ import annotations

from hypothesis import strategies as st

PIECES = (
    "NaN", "-Infinity", "1e999", "-1", "0", "9" * 400, "true", "null", '""', "[]", "{}", "[" * 3000, "{\"a\":" * 3000,
    "\\ud800", "\u0000", "\u202e", "é" * 40, "\n", "\t", ",", ":", "}", "]", '"', "'", "#", "=", "<think>{}</think>",
    "```json", "```", "../x", "__class__", "1.5", "[[", "]]", "\\u0000", "/*", "@v1", "0x10",
)  # fmt: skip
_changes = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 40), st.sampled_from(PIECES) | st.text(max_size=6)), max_size=4
)


def texts(samples: list[str]) -> st.SearchStrategy[str]:
    """One of ``samples`` with up to four places cut out or overwritten, or any text."""

    def mutated(sample: str, changes: list[tuple[float, int, str]]) -> str:
        for at, length, piece in changes:
            start = int(at * len(sample))
            sample = sample[:start] + piece + sample[start + length :]
        return sample

    return st.builds(mutated, st.sampled_from(samples), _changes) | st.text(max_size=60)


Damage = tuple[list[tuple[int | float, int]], float | None]
"""Changed places (a byte's number, or a share of the length) with their new bytes, and the share that a cut leaves."""


def damages(header: int) -> st.SearchStrategy[Damage]:
    """Up to six bytes changed, in the first ``header`` bytes or anywhere, and perhaps a cut; see :func:`damaged`."""
    at = st.integers(0, header - 1) | st.floats(0, 1, exclude_max=True)
    changes = st.lists(st.tuples(at, st.sampled_from([0, 1, 127, 128, 255]) | st.integers(0, 255)), max_size=6)
    return st.tuples(changes, st.none() | st.none() | st.floats(0, 1))


def damaged(sample: bytes, damage: Damage) -> bytes:
    """``sample`` after ``damage``."""
    changes, end = damage
    out = bytearray(sample)
    for place, byte in changes:
        out[min(place, len(out) - 1) if isinstance(place, int) else int(place * len(out))] = byte
    return bytes(out if end is None else out[: round(end * len(out))])
