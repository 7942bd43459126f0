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


def blobs(sample: bytes, header: int) -> st.SearchStrategy[bytes]:
    """``sample`` with up to six bytes changed, in its first ``header`` bytes or anywhere, and perhaps cut off."""
    at = st.integers(0, header - 1) | st.integers(0, len(sample) - 1)
    changes = st.lists(st.tuples(at, st.sampled_from([0, 1, 127, 128, 255]) | st.integers(0, 255)), max_size=6)
    ends = st.none() | st.none() | st.integers(0, len(sample))

    def mutated(changes: list[tuple[int, int]], end: int | None) -> bytes:
        out = bytearray(sample)
        for place, byte in changes:
            out[place] = byte
        return bytes(out[:end])

    return st.builds(mutated, changes, ends)
