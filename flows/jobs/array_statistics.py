"""Statistics over the rows of a version, chunk by chunk with dask.array: here on threads, or on a cluster.

Workers read the chunks themselves, from the disk or bucket of the datasets; only counts travel, never the arrays.
"""

from __future__ import annotations

from contextlib import nullcontext
from math import isfinite
from pathlib import Path
from typing import Any

from flows.terminal import aligned
from lore_datasets.errors import BadInput, ServiceError, shown

__all__ = ["BINS", "array_statistics", "statistics_text"]

BINS = 10
"""Equal bins of confidence and uncertainty in 0..1."""

_ROWS = {
    "advice": ("key_goal", "logits", "mask", "confidence", "plan_lengths", "applicable"),
    "states": ("source", "uncertainty"),
}


def array_statistics(ref: str, root: Path | None = None, dask: str = "") -> dict[str, Any]:
    """Counts over all rounds of a version of advice or states, as plain JSON.

    Advice: rows, rows with plans, goal keys, confidence (mean and a histogram of :data:`BINS`), and per option how
    often it is known, can start and is the first choice. States: rows by who visited them, uncertainty where they carry
    one. BadInput for another kind; ServiceError when ``dask`` names no cluster that answers.
    """
    from flows.cluster.cluster import check_address, cluster
    from lore_datasets.exchange.shipped import ShippedStore

    check_address("dask", dask)
    store = ShippedStore(root)
    full = store.resolve(ref)
    manifest = store.manifest(full)
    if manifest.kind not in _ROWS:
        raise BadInput(f"{full} is of kind {manifest.kind}", hint="statistics are of advice and states")
    names = _ROWS[manifest.kind]
    _, arrays = store.stored(full, lambda path: path.count("/") == 1 and path.endswith(names))
    rows = {name: _joined([arrays[path] for path in sorted(arrays) if path.endswith(f"/{name}")]) for name in names}
    rows = {name: array for name, array in rows.items() if array is not None}
    made = _of_advice(rows) if manifest.kind == "advice" else _of_states(rows)
    with cluster(dask) if dask else nullcontext():
        found = _computed(made, f"statistics of {full}", bool(dask))
    options = [*manifest.actions, *manifest.skills]
    return {"ref": str(full), **_named(found, options, list(manifest.provenance.get("sources", [])))}


def _computed(made: dict[str, Any], what: str, on_cluster: bool) -> dict[str, Any]:
    """``made`` with numbers for what dask has yet to compute, on the cluster whose client is open or on threads."""
    import dask

    from lore_datasets.store.repository import guarded

    if not on_cluster:
        with guarded(f"reading {what}", "the other versions"):
            return dask.compute(made, scheduler="threads")[0]
    try:
        return dask.compute(made)[0]
    except Exception as error:
        raise ServiceError(
            f"{what} failed on the cluster: {type(error).__name__}: {shown(error, 160)}",
            hint="workers need this LoRe and the datasets under the same path; see docs/clusters.md",
        ) from None


def _joined(parts: list[Any]) -> Any:
    import dask.array as da

    return da.concatenate([da.from_zarr(part) for part in parts]) if parts else None


def _histogram(values: Any) -> Any:
    import dask.array as da

    return da.histogram(values, bins=BINS, range=(0.0, 1.0))[0]


def _of_advice(rows: dict[str, Any]) -> dict[str, Any]:
    import dask.array as da

    known, logits = rows["mask"].astype(bool), rows["logits"]
    known, logits = known.rechunk((known.chunks[0], -1)), logits.rechunk((known.chunks[0], -1))
    first, advised = da.where(known, logits, -da.inf).argmax(axis=1), known.any(axis=1)
    confidence = rows["confidence"]
    return {
        "rows": known.shape[0],
        "advised": advised.sum(),
        "with_plans": (rows["plan_lengths"] > 0).any(axis=1).sum(),
        "goal_keys": da.unique(rows["key_goal"]),
        "confidence": {"mean": confidence.mean(), "histogram": _histogram(confidence)},
        "first": da.bincount(first, weights=advised.astype(int), minlength=known.shape[1]),
        "known": known.sum(axis=0),
        "can_start": rows["applicable"].astype(bool).sum(axis=0),
    }


def _of_states(rows: dict[str, Any]) -> dict[str, Any]:
    import dask.array as da

    source, unsure = rows["source"], rows.get("uncertainty")
    made: dict[str, Any] = {"rows": source.shape[0], "sources": da.bincount(source.astype(int), minlength=1)}
    if unsure is not None:
        made["uncertainty"] = {
            "mean": da.nanmean(unsure),
            "histogram": _histogram(da.where(da.isnan(unsure), -1.0, unsure)),
        }
    return made


def _named(found: dict[str, Any], options: list[str], sources: list[str]) -> dict[str, Any]:
    """Plain JSON of what was computed, counts under the names of options and sources."""
    out: dict[str, Any] = {"rows": int(found["rows"])}
    for key in ("confidence", "uncertainty"):
        if key in found:
            histogram = [int(n) for n in found[key]["histogram"]]
            mean = round(float(found[key]["mean"]), 6)
            out[key] = {"mean": mean if isfinite(mean) else None, "histogram": histogram}
    if "sources" in found:
        names = [*sources, *(f"source {i}" for i in range(len(sources), len(found["sources"])))]
        out["sources"] = {name: int(n) for name, n in zip(names, found["sources"], strict=False)}
    if "first" in found:
        out |= {key: int(found[key]) for key in ("advised", "with_plans")}
        out["goal_keys"] = len(found["goal_keys"])
        actions = len(options) - len(found["can_start"])
        out["options"] = [  # an action and a skill may have one name
            {
                "name": name,
                "first": int(found["first"][i]),
                "known": int(found["known"][i]),
                **({"can_start": int(found["can_start"][i - actions])} if i >= actions else {}),
            }
            for i, name in enumerate(options)
        ]
    return out


def statistics_text(found: dict[str, Any]) -> str:
    """What :func:`array_statistics` found as lines and a table for people."""
    rows = found["rows"]
    lines = [f"{found['ref']}: {rows:,} rows"]
    if "advised" in found:
        lines += [f"advised {found['advised']:,}, with plans {found['with_plans']:,}, goal keys {found['goal_keys']:,}"]
    for name in ("confidence", "uncertainty"):
        if name in found:
            histogram = found[name]["histogram"]
            bars = "  ".join(f"{i / BINS:.1f}: {n:,}" for i, n in enumerate(histogram) if n)
            mean = "-" if found[name]["mean"] is None else f"{found[name]['mean']:.3f}"
            lines.append(f"{name} mean {mean}; rows from  {bars}")
    if "sources" in found:
        lines += ["", *_table(("visited by", "rows", "share"), [(n, c, c) for n, c in found["sources"].items()], rows)]
    if "options" in found:
        named = sorted(found["options"], key=lambda option: -option["first"])
        cells = [(o["name"], o["first"], o["first"], o["known"], o.get("can_start", "-")) for o in named]
        lines += ["", *_table(("option", "first choice", "share", "known", "can start"), cells, rows)]
    return "\n".join(lines)


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]], whole: int) -> list[str]:
    """Aligned columns; that of the share holds counts, told in per cent of ``whole``."""
    share = head.index("share")
    told = [head] + [
        tuple(f"{100 * cell / max(1, whole):.1f} %" if i == share else f"{cell:,}" if isinstance(cell, int) else cell
              for i, cell in enumerate(row)) for row in rows
    ]  # fmt: skip
    return aligned(told, "<>")
