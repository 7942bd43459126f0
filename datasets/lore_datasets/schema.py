"""The arrays of each kind of dataset: names, dtypes, shapes and what their values must satisfy.

A path is ``round-NNN/<array>`` for rows, ``round-NNN/<group>/<array>`` for the other groups, and
``model/<array>`` or ``calibration/<array>`` in an ``advice_model``. Axis letters: N rows of a group, S bytes of a
packed state, E = actions + skills known to that round, K skills known to that round, P plans, L steps of a plan,
F scalars of the environment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lore_datasets.environments import Environment
from lore_datasets.errors import BadInput, CorruptArtifact, shown
from lore_datasets.keys import fine_keys, goal_keys
from lore_datasets.types import SymbolicState

__all__ = [
    "CLIP",
    "FREE_DTYPES",
    "KINDS",
    "MAX_ROUNDS",
    "SCHEMA",
    "STATE_SOURCES",
    "ArrayField",
    "array_path",
    "check_group",
    "check_layout",
    "check_links",
    "dimension_names",
    "fill_keys",
    "round_name",
    "split_path",
]

SCHEMA = 2
"""Version of the on-disk format this program writes; it reads this and older ones."""
CLIP = 5.0
"""Largest absolute advice logit."""
STATE_SOURCES = ("random", "rules", "half_and_half", "agent")
"""Who may have played a state. What ``source`` indexes stands in the version's own provenance, ``sources``."""
FREE_DTYPES = ("float32", "float64", "int64", "int32", "uint8")
"""Dtypes allowed in an ``advice_model``."""
_FREE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}(/[A-Za-z0-9][A-Za-z0-9_.-]{0,99}){0,3}")
MAX_ROUNDS = 1000
"""Rounds of one dataset; their number has three digits."""
_ROUND = re.compile(r"round-([0-9]{3})")


@dataclass(frozen=True)
class ArrayField:
    """One array: numpy dtype name (``str`` = text of any length), axis letters, what it means, in which unit ("" for
    none), and whether a group may lack it."""

    dtype: str
    axes: str
    meaning: str
    unit: str = ""
    optional: bool = False


def _texts(**meanings: str) -> dict[str, ArrayField]:
    return {name: ArrayField("str", "N", meaning) for name, meaning in meanings.items()}


_STATE = ArrayField(
    "uint8", "NS",
    "what the player sees or has lived through, packed: view (kinds of cells, row by row from the top left, the player "
    "in the centre), inventory, vitals, facing, sleeping (0 or 1), daylight (0 night to 255 noon), unlocked (0 or 1)",
)  # fmt: skip
_MORE = {
    "scalars": ArrayField("float32", "NF", "numbers of a state beside its packed bytes", optional=True),
    "mission": ArrayField("str", "N", "what is to be done, in words", optional=True),
}
"""What a state has beside its packed bytes, in environments whose vocabulary says so."""
KINDS: dict[str, dict[str, dict[str, ArrayField]]] = {
    "states": {
        "rows": {
            "state": _STATE,
            "episode": ArrayField("int32", "N", "number of the episode that was played"),
            "step": ArrayField("int32", "N", "time since the episode began", "environment steps"),
            "source": ArrayField("uint8", "N", "who played: index into values"),
            "uncertainty": ArrayField(
                "float32", "N", "how unsure the agent was that played; NaN: unknown", "share, 0..1", optional=True
            ),
            **_MORE,
        }
    },
    "advice": {
        "rows": {
            "state": _STATE,
            "key_fine": ArrayField("int64", "N", "hash of the whole state"),
            "key_goal": ArrayField("int64", "N", "hash of what matters for goals; similar states share it"),
            "logits": ArrayField(
                "float32", "NE", "advice over options: actions, then skills; 0 where unknown", "logit, -5..5"
            ),
            "mask": ArrayField("uint8", "NE", "1 where the adviser spoke about the option", "0 or 1"),
            "confidence": ArrayField("float32", "N", "how sure the advice is", "share, 0..1"),
            "plans": ArrayField("int16", "NPL", "options to take in turn: index into options, -1 after the end"),
            "plan_lengths": ArrayField("int16", "NP", "length of each plan, 0 for none", "options"),
            "plan_scores": ArrayField("float32", "NP", "how much the adviser thinks of each plan; 0 for none"),
            "applicable": ArrayField("uint8", "NK", "1 where the skill can start in this state", "0 or 1"),
            "reason": ArrayField("str", "N", "why, in the adviser's words"),
            **_MORE,
        },
        "answers": {
            **_texts(
                kind="what was asked for: prior, plan, skills, program", prompt_hash="SHA-256 of the question",
                prompt="the question", response="the answer as it came", model="who answered",
            ),
            "tokens_in": ArrayField("int32", "N", "length of the question", "tokens"),
            "tokens_out": ArrayField("int32", "N", "length of the answer", "tokens"),
            "latency_s": ArrayField("float32", "N", "time to the answer", "seconds"),
            "price_usd": ArrayField("float32", "N", "price of the answer", "US dollars"),
            "row": ArrayField(
                "int32", "N", "row of this round that the answer helped to make, -1 for none", optional=True
            ),
        },
        "rejects": _texts(
            reason="why it could not be used", where="what it was part of", text="the words that were refused"
        ),
        "skills": _texts(name="name of the skill", json="the skill as data", origin="who wrote it"),
        "programs": _texts(json="the priority program as data, in canonical form", origin="who wrote it"),
    },
    "advice_model": {"model": {}, "calibration": {}},
    "play": {
        "rows": {
            **_texts(player="who played: advice, or the control", life="what happened, as JSON"),
            "number": ArrayField("int32", "N", "number of the world"),
            "reward": ArrayField("float32", "N", "sum of the rewards of the life"),
            "length": ArrayField("int32", "N", "length of the life", "environment steps"),
        }
    },
}  # fmt: skip
"""Kind -> group -> array name -> field. Groups without fields take any numeric array of a safe name."""


_ROWS = {"skills": "stored_skill"}  # a round may store fewer skills, or one twice
_DIMENSIONS = {"S": "byte", "E": "option", "K": "skill", "P": "plan", "L": "step", "F": "scalar"}


def dimension_names(kind: str, path: str, rank: int) -> tuple[str, ...]:
    """A name for each axis of the array at ``path``: ``row``, ``byte``, ``option``, ...; in a model one of its own.

    Within a version one name has one size per round, as :func:`xarray.open_datatree` needs it.
    """
    _, group, name = split_path(kind, path)
    field = KINDS[kind][group].get(name)
    if field is None:
        return tuple(f"{name}_{i}".replace("/", "_") for i in range(rank))
    rows = _ROWS.get(group, group.removesuffix("s"))
    return tuple(rows if axis == "N" else _DIMENSIONS[axis] for axis in field.axes)


def round_name(index: int) -> str:
    """Group of round ``index``: ``round-000``, ``round-001``, ..."""
    return f"round-{index:03d}"


def array_path(kind: str, index: int, group: str, name: str) -> str:
    """Path of one array of round ``index`` inside a version."""
    if kind == "advice_model":
        return f"{group}/{name}"
    return f"{round_name(index)}/{name}" if group == "rows" else f"{round_name(index)}/{group}/{name}"


def split_path(kind: str, path: str) -> tuple[int, str, str]:
    """The inverse of :func:`array_path`: (round, group, array name); CorruptArtifact on an unknown path."""
    head, _, rest = path.partition("/")
    if kind == "advice_model":
        if head in KINDS[kind] and _FREE_NAME.fullmatch(rest):
            return 0, head, rest
    elif kind in KINDS and (match := _ROUND.fullmatch(head)):
        group, _, name = rest.rpartition("/")
        group = group or "rows"
        if group in KINDS[kind] and name in KINDS[kind][group] and (group != "rows" or "/" not in rest):
            return int(match[1]), group, name
    raise CorruptArtifact(f"unknown array {shown(path)!r} in a dataset of kind {shown(kind)!r}")


def check_layout(
    kind: str, shapes: Mapping[str, tuple[tuple[int, ...], str]], environment: Environment, actions: int, skills: int
) -> None:
    """Check declared (shape, dtype) of every path before anything is read; CorruptArtifact names the array."""
    if kind not in KINDS:
        raise CorruptArtifact(f"unknown kind {shown(kind)!r}", hint=f"one of: {', '.join(KINDS)}")
    axes: dict[tuple[int, str], dict[str, int]] = {}
    present: dict[tuple[int, str], set[str]] = {}
    for path, (shape, dtype) in shapes.items():
        index, group, name = split_path(kind, path)
        present.setdefault((index, group), set()).add(name)
        if kind == "advice_model":
            if dtype not in FREE_DTYPES:
                raise CorruptArtifact(
                    f"array {path} has dtype {shown(dtype)}", hint=f"one of: {', '.join(FREE_DTYPES)}"
                )
            continue
        field = KINDS[kind][group][name]
        if dtype != field.dtype or len(shape) != len(field.axes) or min(shape) < 0:
            raise CorruptArtifact(
                f"array {path} is {shown(dtype)}{list(shape)}, expected {field.dtype}[{', '.join(field.axes)}]"
            )
        known = axes.setdefault((index, group), {"S": environment.layout.size, "F": len(environment.vocab.scalars)})
        for axis, size in zip(field.axes, shape, strict=True):
            if known.setdefault(axis, size) != size:
                raise CorruptArtifact(
                    f"array {path} has shape {list(shape)}, axis {axis} is {known[axis]} elsewhere in its round"
                )
    for (index, group), names in present.items():
        missing = sorted(name for name, field in KINDS[kind][group].items() if not field.optional and name not in names)
        if missing:
            raise CorruptArtifact(f"group {group} of {round_name(index)} lacks {', '.join(missing)}")
        if "scalars" in KINDS[kind][group]:
            has = {"scalars": bool(environment.vocab.scalars), "mission": environment.vocab.has_mission}
            if odd := [name for name, needed in has.items() if (name in names) != needed]:
                raise CorruptArtifact(f"{round_name(index)}: {environment.name} and {odd[0]} do not go together")
        sizes = axes.get((index, group), {})
        if kind == "advice" and group == "rows" and not (sizes["E"] == actions + sizes["K"] and sizes["K"] <= skills):
            raise CorruptArtifact(
                f"{round_name(index)}: logits have {sizes['E']} columns and {sizes['K']} skills, "
                f"the version names {actions} actions and {skills} skills"
            )
    rounds = sorted({index for index, _ in present})
    if kind != "advice_model" and rounds != list(range(len(rounds))):
        raise CorruptArtifact(f"rounds {rounds} are not consecutive from 0")


def fill_keys(arrays: dict[str, np.ndarray], environment: Environment) -> None:
    """Add ``key_fine`` and ``key_goal`` of ``arrays["state"]`` where missing; BadInput where given and different."""
    states = SymbolicState.unpack(arrays["state"], environment.layout)
    for name, make in (("key_fine", fine_keys), ("key_goal", goal_keys)):
        right = make(states, environment)
        if not np.array_equal(arrays.setdefault(name, right), right):
            raise BadInput(f"{name} does not hold the keys of its states", hint="leave it out: the writer fills it in")


def check_group(kind: str, group: str, arrays: Mapping[str, np.ndarray], actions: int, skills: int) -> None:
    """Check the values of one group before it is written; BadInput names the array, the value and the rule."""
    if kind == "states" and "uncertainty" in arrays:
        unsure = arrays["uncertainty"]
        if not ((unsure >= 0) & (unsure <= 1) | np.isnan(unsure)).all():
            raise BadInput(f"array {group}/uncertainty holds values outside 0..1", hint="NaN stands for unknown")
        arrays = {name: array for name, array in arrays.items() if name != "uncertainty"}
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise BadInput(
                f"array {group}/{name} holds NaN or infinity", hint="nothing was written; mask what is unknown"
            )
    if kind != "advice" or group != "rows":
        return
    entries = actions + skills
    _within(arrays["mask"], "mask", 0, 1)
    _within(arrays["applicable"], "applicable", 0, 1)
    _within(arrays["confidence"], "confidence", 0.0, 1.0)
    _within(arrays["logits"], "logits", -CLIP, CLIP)
    _within(arrays["plans"], "plans", -1, entries - 1)
    _within(arrays["plan_lengths"], "plan_lengths", 0, arrays["plans"].shape[-1])
    if (arrays["logits"][arrays["mask"] == 0] != 0).any():
        raise BadInput("array rows/logits is not 0 where mask is 0")
    inside = np.arange(arrays["plans"].shape[-1]) < arrays["plan_lengths"][..., None]
    if ((arrays["plans"] >= 0) != inside).any():
        raise BadInput("array rows/plans must hold ids up to plan_lengths and -1 after it")


def check_links(arrays: Mapping[tuple[str, str], np.ndarray]) -> None:
    """BadInput unless ``answers/row`` of a round, keyed (group, name), names rows of that round or -1 for none."""
    row = arrays.get(("answers", "row"))
    if row is not None:
        _within(row, "row", -1, len(arrays.get(("rows", "state"), ())) - 1, "answers")


def _within(array: np.ndarray, name: str, low: float, high: float, group: str = "rows") -> None:
    if array.size and (array.min() < low or array.max() > high):
        raise BadInput(f"array {group}/{name} holds {array.min():g}..{array.max():g}, allowed {low:g}..{high:g}")
