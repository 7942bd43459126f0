"""A version as a Parquet table, one row a state, in words: for pandas, polars, DuckDB, spreadsheets and Croissant.

For reading alone: the way back into a store is the HDF5 export. Needs pyarrow (the extra ``data``).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lore_datasets.atomic import clear_drafts, write_bytes
from lore_datasets.attributes import options
from lore_datasets.environments import Environment, get_environment
from lore_datasets.errors import BadInput, NotFound, UsageError, shown
from lore_datasets.schema import round_name
from lore_datasets.store.advisers import rounds_of
from lore_datasets.store.manifest import Artifact
from lore_datasets.store.repository import check_space, guarded
from lore_datasets.store.store import Store
from lore_datasets.types import ArtifactRef, SymbolicState

if TYPE_CHECKING:
    import pyarrow

__all__ = ["SUFFIX", "export_parquet", "read_schema"]

SUFFIX = ".parquet"
_REF, _FORM = b"lore.dataset", b"lore.table"
_VERSION = b"1"
_ABOUT = {
    "round": "round of the version",
    "row": "row of that round",
    "view": "kinds of cells, rows from the top, the player in the centre",
    "facing": "direction that the player looks in",
    "sleeping": "whether the player sleeps",
    "daylight": "0 (night) to 1 (noon)",
    "achievements": "unlocked in this episode so far",
    "mission": "what is to be done",
    "source": "who played",
    "episode": "number of the episode",
    "step": "environment steps since the episode began",
    "uncertainty": "how unsure the agent was that played, 0 to 1",
    "advice": "options that the adviser spoke about, most likely first",
    "probabilities": "of these options, summing to 1",
    "confidence": "how sure the advice is, 0 to 1",
    "plans": "options to take in turn",
    "plan_scores": "of these plans",
    "can_start": "skills that can start in this state",
    "reason": "why, in the adviser's words",
    "adviser": "who advised",
    "cost_usd": "price of the answers about this state in US dollars, null where nobody noted which these were",
    "key_fine": "hash of the whole state",
    "key_goal": "hash of what matters for goals",
}


def export_parquet(store: Store, ref: ArtifactRef | str, path: Path | str) -> int:
    """Write the states of a version of kind ``advice`` or ``states`` to one file, at once or not at all; rows written.

    BadInput for another kind, NotFound without the folder, UsageError without pyarrow, NoSpace keeps the old file.
    """
    pyarrow, parquet = _pyarrow()
    path = Path(path)
    artifact = store.open(ref)
    if artifact.manifest.kind not in ("advice", "states"):
        raise BadInput(f"{artifact.ref} is of kind {artifact.manifest.kind}", hint="tables are of advice and states")
    if not path.parent.is_dir():
        raise NotFound(f"no folder {path.parent}", hint="make it first")
    kept = f"{path} as it was" if path.exists() else "the dataset in the store"
    check_space(path.parent, sum(a.nbytes for a in artifact.arrays.values()) // 4, kept)
    parts = [pyarrow.table(columns) for columns in _rounds(artifact)]
    table = pyarrow.concat_tables(parts) if parts else pyarrow.table({"round": [], "row": []})
    about = {_REF: str(artifact.ref).encode(), _FORM: _VERSION}
    fields = [field.with_metadata({"description": _about(field.name)}) for field in table.schema]
    table = table.cast(pyarrow.schema(fields, metadata=about))
    with guarded(f"writing {path}", kept):
        clear_drafts(path, alone=False)
        image = io.BytesIO()
        parquet.write_table(table, image, compression="zstd")
        write_bytes(path, image.getbuffer())
    return table.num_rows


def read_schema(path: Path | str) -> tuple[str, pyarrow.Schema]:
    """(reference of the version, columns) of a table that :func:`export_parquet` wrote; BadInput for any other file."""
    _, parquet = _pyarrow()
    path = Path(path)
    if not path.is_file():
        raise NotFound(f"no file {path}", hint=f"lore datasets export NAME {path}")
    hint = f"lore datasets export NAME {path.name} writes one that can be read"
    try:
        schema = parquet.read_schema(path)
    except Exception as error:  # whatever pyarrow makes of it
        raise BadInput(f"{path} is not a Parquet file: {shown(error)}", kept="the file as it is", hint=hint) from None
    about = schema.metadata or {}
    if about.get(_FORM) != _VERSION or _REF not in about:
        columns = shown(", ".join(schema.names), 120)
        raise BadInput(
            f"{path} has an unknown schema, not that of a table of LoRe: {columns}", kept="the file as it is", hint=hint
        )
    return about[_REF].decode(errors="replace"), schema


def _about(column: str) -> str:
    group, _, word = column.partition("_")
    if column not in _ABOUT and group in ("inventory", "vitals"):
        return f"{word} in the inventory" if group == "inventory" else f"{word}, a vital sign"
    return _ABOUT.get(column, f"{column}, a number of the state")


def _rounds(artifact: Artifact) -> Iterator[dict[str, Any]]:
    """The columns of each round that has rows."""
    manifest, arrays = artifact.manifest, artifact.arrays
    environment = get_environment(manifest.environment)
    advised = rounds_of(manifest)
    for index in range(1 + max((int(path[6:9]) for path in arrays), default=-1)):
        prefix = f"{round_name(index)}/"
        rows = {path.removeprefix(prefix): array for path, array in arrays.items() if path.startswith(prefix)}
        if "state" not in rows:
            continue
        n = len(rows["state"])
        columns: dict[str, Any] = {"round": np.full(n, index, np.int32), "row": np.arange(n, dtype=np.int32)}
        columns |= _state_columns(rows["state"], environment)
        columns |= {name: rows["scalars"][:, i] for i, name in enumerate(environment.vocab.scalars)}
        columns |= {"mission": _texts(rows["mission"])} if "mission" in rows else {}
        if manifest.kind == "states":
            sources = [*map(str, manifest.provenance.get("sources", []))]
            sources += [f"source {i}" for i in range(len(sources), 256)]
            columns |= {"source": _words(sources, rows["source"]), "episode": rows["episode"], "step": rows["step"]}
            columns |= {"uncertainty": rows["uncertainty"]} if "uncertainty" in rows else {}
        else:
            named = options(manifest, rows["applicable"].shape[1])
            columns |= _advice_columns(rows, named, len(manifest.actions))
            adviser = advised[index].adviser if index < len(advised) else "unknown"
            columns |= {"adviser": _texts([adviser] * n), "cost_usd": _cost(rows)}
        yield columns


def _state_columns(packed: np.ndarray, environment: Environment) -> dict[str, Any]:
    """The fields of packed states uint8[N, S] in words."""
    import pyarrow

    state, vocab = SymbolicState.unpack(packed, environment.layout), environment.vocab
    n, height, width = state.view.shape
    cells = _words(vocab.targets, state.view)
    lines = pyarrow.ListArray.from_arrays(np.arange(0, n * height * width + 1, width, dtype=np.int32), cells)
    columns: dict[str, Any] = {
        "view": pyarrow.ListArray.from_arrays(np.arange(0, n * height + 1, height, dtype=np.int32), lines),
        "facing": _words([direction[0] for direction in vocab.directions], state.facing),
        "sleeping": state.sleeping.astype(bool),
        "daylight": (state.daylight / 255).astype(np.float32),
        "achievements": _flagged(vocab.achievements, state.unlocked),
    }
    if vocab.mission_length:
        columns["mission"] = _texts([vocab.mission_text(ids) for ids in state.mission.tolist()])
    columns |= {f"vitals_{name}": state.vitals[:, i].astype(np.int16) for i, name in enumerate(vocab.vitals)}
    return columns | {f"inventory_{name}": state.inventory[:, i].astype(np.int16) for i, name in enumerate(vocab.items)}


def _advice_columns(rows: dict[str, np.ndarray], named: list[str], actions: int) -> dict[str, Any]:
    """Names and probabilities of the known options, most likely first; plans and skills by name."""
    import pyarrow

    known = rows["mask"].astype(bool)
    logits = np.where(known, rows["logits"], -np.inf)
    order = np.argsort(-logits, axis=1, kind="stable")
    sure = np.take_along_axis(known, order, 1)
    weights = np.exp(np.take_along_axis(logits, order, 1) - np.max(logits, 1, initial=-99, keepdims=True))
    chances = (weights / np.maximum(weights.sum(1, keepdims=True), 1e-30)).astype(np.float32)
    ends = _ends(sure.sum(1))
    lengths, (n, most, _) = rows["plan_lengths"], rows["plans"].shape
    steps = pyarrow.ListArray.from_arrays(_ends(lengths[lengths > 0]), _words(named, rows["plans"][rows["plans"] >= 0]))
    plans = _ends((lengths > 0).sum(1)) if most else np.zeros(n + 1, np.int32)
    return {
        "advice": pyarrow.ListArray.from_arrays(ends, _words(named, order[sure])),
        "probabilities": pyarrow.ListArray.from_arrays(ends, pyarrow.array(chances[sure])),
        "confidence": rows["confidence"],
        "plans": pyarrow.ListArray.from_arrays(plans, steps),
        "plan_scores": pyarrow.ListArray.from_arrays(plans, pyarrow.array(rows["plan_scores"][lengths > 0])),
        "can_start": _flagged(named[actions:], rows["applicable"]),
        "reason": _texts(rows["reason"]),
        "key_fine": rows["key_fine"],
        "key_goal": rows["key_goal"],
    }  # fmt: skip


def _cost(rows: dict[str, np.ndarray]) -> Any:
    """float64[N] US dollars of the answers that name each row; nulls in rounds whose answers name none."""
    import pyarrow

    n = len(rows["state"])
    if "answers/row" not in rows:
        return pyarrow.nulls(n, pyarrow.float64())
    row, price = rows["answers/row"], rows["answers/price_usd"].astype(np.float64)
    paid = np.bincount(row[row >= 0], weights=price[row >= 0], minlength=n)
    return pyarrow.array(paid.astype(np.float64))  # of no rows numpy makes whole numbers


def _flagged(words: Any, flags: np.ndarray) -> Any:
    """The words whose flag is set, a list per row of uint8[N, W]."""
    import pyarrow

    return pyarrow.ListArray.from_arrays(_ends((flags > 0).sum(1)), _words(words, np.nonzero(flags)[1]))


def _ends(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)


def _words(words: Any, indices: np.ndarray) -> Any:
    import pyarrow

    return _texts(words).take(pyarrow.array(np.ascontiguousarray(indices).reshape(-1)))


def _texts(values: Any) -> Any:
    import pyarrow

    return pyarrow.array(list(values), pyarrow.string())


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UsageError(
            "Parquet tables need pyarrow", hint="pip install -e '.[data]' in LoRe's folder, or export to .h5"
        ) from None
    return pyarrow, pyarrow.parquet
