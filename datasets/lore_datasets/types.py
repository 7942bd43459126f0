"""Everything that crosses a folder or the disk, defined once."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from lore_datasets.errors import BadInput, shown
from lore_datasets.vocab import Vocab

__all__ = [
    "ArraySpec",
    "ArtifactRef",
    "Manifest",
    "StateLayout",
    "SymbolicState",
    "layout_of",
    "layout_table",
    "vocabulary_of",
]

_REF = re.compile(r"(?P<name>[a-z0-9][a-z0-9._-]{0,63})(@v(?P<version>[1-9][0-9]*))?(#(?P<digest>[0-9a-f]{8,64}))?")
_RESERVED = {"con", "prn", "aux", "nul"}


@dataclass(frozen=True)
class ArtifactRef:
    """Identity of one immutable dataset version, written ``name@vN#digest`` everywhere."""

    name: str
    version: int
    digest: str

    def __str__(self) -> str:
        return f"{self.name}@v{self.version}#{self.digest[:12]}"

    @staticmethod
    def parse(text: str) -> tuple[str, int | None, str | None]:
        """Split ``name[@vN][#digest]``; BadInput when it is not of that form."""
        match = _REF.fullmatch(text)
        if not match or match["name"] in _RESERVED or ".." in match["name"]:
            raise BadInput(
                f"{shown(text)!r} is not a dataset reference",
                hint="write name, name@vN or name@vN#digest; names are lower case letters, digits, . _ -",
            )
        version = int(match["version"]) if match["version"] else None
        return match["name"], version, match["digest"]


@dataclass(frozen=True)
class ArraySpec:
    """Shape, dtype and SHA-256 (of decoded little-endian bytes) of one stored array."""

    shape: tuple[int, ...]
    dtype: str
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a version says of itself; stored inside the commit and checked when it is opened.

    Attributes:
        schema: version of the on-disk format (an integer that only grows).
        kind: ``states``, ``advice``, ``advice_model`` or ``play``.
        name, version: identity inside a store.
        parents: references this version was made from (``name@vN#digest``).
        environment, key_scheme: which vocabulary and which hash of states the arrays speak of.
        actions, skills: names of the extended action space that logits and plans index.
        counts: rows per array group, rejects by reason, and what else was counted.
        cost: requests, tokens, price in USD, seconds.
        config: the resolved configuration that made it.
        provenance: adviser, model, template hashes, round, code version and what else is known.
        arrays: path -> ArraySpec for every array of the version.
        vocabulary, layout: the environment's words and where they stand in a packed state (:func:`vocabulary_of`,
            :func:`layout_table`), so that a state is read without LoRe; both outside the digest, for ``environment``
            and ``key_scheme`` imply them.
        message, created: free text and ISO time; both outside the digest.
    """

    schema: int
    kind: str
    name: str
    version: int
    parents: tuple[str, ...] = ()
    environment: str = ""
    key_scheme: str = ""
    actions: tuple[str, ...] = ()
    skills: tuple[str, ...] = ()
    counts: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, ArraySpec] = field(default_factory=dict)
    vocabulary: dict[str, Any] = field(default_factory=dict)
    layout: dict[str, Any] = field(default_factory=dict)
    message: str = ""
    created: str = ""


@dataclass(frozen=True)
class StateLayout:
    """Where each field of a packed state lies: byte offsets into the last axis of ``uint8[..., size]``."""

    height: int
    width: int
    items: int
    vitals: int
    achievements: int
    mission: int = 0

    @property
    def sizes(self) -> tuple[tuple[str, int], ...]:
        """Field names with their byte counts, in storage order."""
        return (
            ("view", self.height * self.width),
            ("inventory", self.items),
            ("vitals", self.vitals),
            ("facing", 1),
            ("sleeping", 1),
            ("daylight", 1),
            ("unlocked", self.achievements),
            ("mission", self.mission),
        )

    @property
    def size(self) -> int:
        """Bytes of one packed state."""
        return sum(n for _, n in self.sizes)

    def offsets(self) -> dict[str, slice]:
        """Field name -> slice of the packed axis."""
        out, start = {}, 0
        for name, n in self.sizes:
            out[name] = slice(start, start + n)
            start += n
        return out


def layout_of(vocab: Vocab) -> StateLayout:
    """The packed layout that a vocabulary implies."""
    width, height = vocab.view
    counts = (len(vocab.items), len(vocab.vitals), len(vocab.achievements))
    return StateLayout(height, width, *counts, vocab.mission_length)


def vocabulary_of(vocab: Vocab) -> dict[str, Any]:
    """The words of an environment as plain JSON: what a cell id, a count or a flag of a state means."""
    return {
        "targets": list(vocab.targets),
        "items": list(vocab.items),
        "vitals": list(vocab.vitals),
        "achievements": list(vocab.achievements),
        "directions": [list(direction) for direction in vocab.directions],
        "scalars": list(vocab.scalars),
    } | ({"mission_words": list(vocab.mission_words)} if vocab.mission_length else {})


def layout_table(vocab: Vocab) -> dict[str, Any]:
    """The packed state as plain JSON: ``size`` in bytes, and per field ``name``, ``offset``, ``shape`` and its words.

    ``values``: the list of the vocabulary that each byte is an index into; ``names``: the list that names the bytes.
    """
    layout = layout_of(vocab)
    words: dict[str, dict[str, Any]] = {
        "view": {"shape": [layout.height, layout.width], "values": "targets"},
        "inventory": {"names": "items"},
        "vitals": {"names": "vitals"},
        "facing": {"values": "directions"},
        "unlocked": {"names": "achievements"},
        "mission": {"values": "mission_words"},
    }
    fields = []
    for name, where in layout.offsets().items():
        if name == "mission" and not layout.mission:
            continue
        field = {"name": name, "offset": where.start, "shape": [where.stop - where.start]}
        fields.append({**field, **words.get(name, {})})
    return {"size": layout.size, "fields": fields}


@dataclass(frozen=True, eq=False)
class SymbolicState:
    """What the player can see or has lived through: one state or a batch of them (any leading axes).

    Nothing of the hidden map is in it. Shapes, with ``...`` for the leading axes:

    Attributes:
        view: uint8[..., H, W] cell ids of the visible crop, row = y, column = x, player in the centre.
        inventory: uint8[..., I] counts.
        vitals: uint8[..., V] values.
        facing: uint8[...] index into ``vocab.directions``.
        unlocked: uint8[..., K] 0 or 1, achievements of this episode so far.
        sleeping: uint8[...] 0 or 1; 0 where nobody sleeps.
        daylight: uint8[...] 0 (night) to 255 (noon); 255 where there is no night.
        mission: uint8[..., M] words of the mission (:meth:`lore_datasets.vocab.Vocab.mission_ids`).
    """

    view: np.ndarray
    inventory: np.ndarray
    vitals: np.ndarray
    facing: np.ndarray
    sleeping: np.ndarray = None  # type: ignore[assignment] - filled in below
    daylight: np.ndarray = None  # type: ignore[assignment]
    unlocked: np.ndarray = None  # type: ignore[assignment]
    mission: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        lead = np.shape(self.view)[:-2]
        plain = {
            "sleeping": (lead, 0),
            "daylight": (lead, 255),
            "unlocked": ((*lead, 0), 0),
            "mission": ((*lead, 0), 0),
        }
        for name, (shape, value) in plain.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, np.full(shape, value, np.uint8))

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes: () for a single state."""
        return self.view.shape[:-2]

    def __len__(self) -> int:
        if not self.batch_shape:
            raise TypeError("a single state has no length")
        return self.batch_shape[0]

    def __getitem__(self, index: Any) -> SymbolicState:
        return SymbolicState(**{f.name: np.asarray(getattr(self, f.name))[index] for f in fields(self)})

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SymbolicState):
            return NotImplemented
        return all(np.array_equal(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))

    def __hash__(self) -> int:
        return hash(self.pack().tobytes())

    def pack(self) -> np.ndarray:
        """All fields side by side: uint8[..., layout.size]."""
        lead = self.batch_shape
        parts = [np.asarray(getattr(self, f.name), np.uint8) for f in fields(self)]
        return np.concatenate([p.reshape(*lead, math.prod(p.shape[len(lead) :])) for p in parts], axis=-1)

    @staticmethod
    def unpack(packed: np.ndarray, layout: StateLayout) -> SymbolicState:
        """The inverse of :meth:`pack`; BadInput when the last axis does not fit the layout."""
        packed = np.asarray(packed)
        if packed.dtype != np.uint8 or packed.shape[-1] != layout.size:
            raise BadInput(f"packed state is {packed.dtype}{list(packed.shape)}, expected uint8[..., {layout.size}]")
        lead, at = packed.shape[:-1], layout.offsets()
        flat = {name: packed[..., where] for name, where in at.items()}
        return SymbolicState(
            view=flat["view"].reshape(*lead, layout.height, layout.width),
            inventory=flat["inventory"],
            vitals=flat["vitals"],
            facing=flat["facing"][..., 0],
            sleeping=flat["sleeping"][..., 0],
            daylight=flat["daylight"][..., 0],
            unlocked=flat["unlocked"],
            mission=flat["mission"],
        )

    @staticmethod
    def stack(states: Sequence[SymbolicState]) -> SymbolicState:
        """Single states -> one batch with a leading axis."""
        return SymbolicState(
            **{
                f.name: np.stack([np.asarray(getattr(s, f.name), np.uint8) for s in states])
                for f in fields(SymbolicState)
            }
        )
