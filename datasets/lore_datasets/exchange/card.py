"""What a version says of itself: one screen for people, a Markdown card for hubs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from lore_datasets.errors import shown
from lore_datasets.exchange.played import play_section, safe
from lore_datasets.store.advisers import advisers_of, rounds_of
from lore_datasets.store.manifest import ref_of
from lore_datasets.types import Manifest

__all__ = ["description", "markdown", "round_groups", "summary"]

_BY_SOURCE = (
    ("states", "states"), ("row_coverage", "own row"), ("goal_coverage", "goal key"), ("held_out", "held-out rows"),
    ("goal_agreement", "table agrees"), ("model_agreement", "model agrees"), ("model_confidence", "model is sure of"),
)  # fmt: skip


def summary(manifest: Manifest) -> str:
    """ASCII card of a manifest: identity, environment, counts, adviser, cost, parents, arrays; no last newline."""
    ref = ref_of(manifest)
    size = sum(math.prod(s.shape) * _width(s.dtype) for s in manifest.arrays.values())
    lines = [f"{ref}  ({manifest.kind})"]
    if manifest.message:
        lines.append(f"  {shown(manifest.message, 200)}")
    fields: list[tuple[str, Any]] = [
        ("created", manifest.created),
        ("environment", f"{manifest.environment}, keys {manifest.key_scheme}, schema {manifest.schema}"),
        ("words", f"{len(manifest.actions)} actions, {len(manifest.skills)} skills"),
        ("counts", _pairs(manifest.counts)),
        ("made by", _pairs(manifest.provenance)),
        ("cost", _pairs(manifest.cost)),
        ("parents", ", ".join(manifest.parents)),
        ("arrays", f"{len(manifest.arrays)}, {size / 2**20:.1f} MiB of numbers"),
        ("sha256", ref.digest),
    ]
    lines += [f"  {name:<12} {shown(text, 300)}" for name, text in fields if text]
    return "\n".join(lines)


def _object(value: Any) -> dict[str, Any]:
    """``value`` where it is a JSON object: provenance may hold anything under any name."""
    return value if isinstance(value, dict) else {}


def _pairs(values: Any) -> str:
    parts = []
    if not isinstance(values, dict):
        return _short(values)
    for name, value in values.items():
        if isinstance(value, dict):
            parts += [f"{name}.{inner} {_short(v)}" for inner, v in value.items()]
        else:
            parts.append(f"{name} {_short(value)}")
    return ", ".join(parts)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _width(dtype: str) -> int:
    return {"uint8": 1, "int16": 2, "int32": 4, "float32": 4, "int64": 8, "float64": 8}.get(dtype, 0)


def markdown(
    manifest: Manifest,
    *,
    model: Manifest | None = None,
    play: Manifest | None = None,
    parents: Sequence[Manifest] = (),
    license: str = "mit",
) -> str:
    """The card for people and for the Hugging Face hub: YAML front matter, then what the version is and how to load it.

    ``model`` is the version's newest advice model, ``play`` its newest play without learning, ``parents`` the manifests
    of the versions it was made from.
    """
    rounds, adviser = rounds_of(manifest), advisers_of(manifest)
    lines = [*_front_matter(manifest, license), f"# {safe(ref_of(manifest))}", "", description(manifest), ""]
    if adviser == "rules" or adviser.startswith("degraded:rules"):
        lines += ["The adviser is a hand-written rule book, not a language model.", ""]
    facts = _facts(manifest, license)
    lines += ["| | |", "|---|---|", *(f"| {name} | {safe(text)} |" for name, text in facts.items() if text), ""]
    if rounds:
        lines += ["## Advised by", "| round | adviser | models | rows | USD |", "|---|---|---|---|---|"]
        for i, each in enumerate(rounds):
            models = safe(", ".join(each.models))
            lines.append(f"| {i + 1} | {safe(each.adviser)} | {models} | {each.rows:,} | {each.price_usd:.4f} |")
        lines.append("")
    lines += _table("Counts", _flat(manifest.counts)) + _table("Cost", _flat(manifest.cost))
    for parent in parents:
        if parent.kind == "states":
            lines += _table(f"States by source ({ref_of(parent)})", _flat(_object(parent.counts.get("by_source"))))
    if play is not None:
        lines += play_section(play)
    if model is not None:
        lines += _reach(model)
    templates = _object(manifest.provenance.get("templates"))
    hashes = {k: f"v{t.get('version')} {t.get('sha256')}" for k, t in templates.items() if isinstance(t, dict)}
    lines += _table("Prompts", hashes)
    lines += _table("New skills, tried in real worlds", _flat(_object(manifest.provenance.get("skill_trials"))))
    lines += ["## Arrays", "| path | dtype | shape |", "|---|---|---|"]
    lines += [f"| `{safe(p)}` | {s.dtype} | {list(s.shape)} |" for p, s in sorted(manifest.arrays.items())]
    return "\n".join([*lines, "", *_loading(manifest), *_page(manifest)])


def _page(manifest: Manifest) -> list[str]:
    """Where to read more, of a version that has a page."""
    if manifest.kind != "advice":
        return []
    name, file = f"{manifest.name}@v{manifest.version}", f"{manifest.name}-v{manifest.version}.html"
    made = f"`lore datasets report {name} --out {file}`"
    return ["## To look at", f"[Samples, skills, rules and figures]({file}) on one page that {made} writes here.", ""]


def _front_matter(manifest: Manifest, license: str) -> list[str]:
    """The YAML block that the Hugging Face hub reads."""
    front = {
        "license": license,
        "pretty_name": f"{manifest.name} v{manifest.version}",
        "language": ["en"],
        "task_categories": ["reinforcement-learning"],
        "size_categories": [_size_category(_rows(manifest))],
        "tags": ["lore", manifest.environment, manifest.kind],
    }
    return ["---", *(f"{key}: {json.dumps(value)}" for key, value in front.items()), "---"]


def _facts(manifest: Manifest, license: str) -> dict[str, str]:
    """Name -> text of the table at the top of a card; empty where nothing is known."""
    about = manifest.provenance
    return {
        "environment": f"{manifest.environment}, keys {manifest.key_scheme}, schema {manifest.schema}",
        "made": f"{manifest.created} {manifest.message}".strip(),
        "adviser": advisers_of(manifest),
        "models": _short(about.get("models", "")),
        "model": _pairs(about.get("model", "")),
        "parameters": _pairs(about.get("parameters", "")),
        "parents": ", ".join(manifest.parents),
        "words": f"{len(manifest.actions)} actions, {len(manifest.skills)} skills",
        "rows": f"{_rows(manifest):,} in {len(round_groups(manifest))} round(s)",
        "license": license,
        "sha256": ref_of(manifest).digest,
    }


def _reach(model: Manifest) -> list[str]:
    """How far the advice of a version reaches: held-out figures of its advice model, in all and by who visited."""
    about = model.provenance
    figures = {k: v for k, v in about.items() if type(v) in (int, float)}
    lines = _table(f"Coverage and agreement on held-out rows ({ref_of(model)})", figures)
    found = {k: v for k, v in _object(about.get("by_source")).items() if isinstance(v, dict)}
    if not found:
        return lines
    lines += [
        "## Coverage and agreement by who visited the states",
        "Shares of all visited states that have a row of their own, or a row with their goal key; agreement with the "
        "adviser on held-out rows, of the goal table where it answers and of the advice model everywhere.",
        "",
        f"| visited by | {' | '.join(title for _, title in _BY_SOURCE)} |",
        "|---" * (1 + len(_BY_SOURCE)) + "|",
    ]
    for name, values in sorted(found.items()):
        lines.append(f"| {safe(name)} | {' | '.join(_cell(values.get(key)) for key, _ in _BY_SOURCE)} |")
    return [*lines, ""]


def _cell(value: Any) -> str:
    if type(value) is float:
        return f"{100 * value:.0f} %"
    return f"{value:,}" if type(value) is int else "-"


def description(manifest: Manifest) -> str:
    """What a version is, in a sentence or two."""
    adviser = safe(advisers_of(manifest))
    what = {
        "advice": f"Advice on game states of {manifest.environment}{f' by {adviser}' if adviser else ''}: logits over "
        f"{len(manifest.actions)} actions and {len(manifest.skills)} skills, plans, confidence, every answer."
        + "".join(f" Round {i}: {safe(each)}." for i, each in enumerate(rounds_of(manifest), 1)),
        "states": f"Game states of {manifest.environment}: what the player sees or has lived through.",
        "advice_model": f"A small model distilled from advice on {manifest.environment}.",
        "play": f"Lives in {manifest.environment} that followed an advice version without learning.",
    }
    return what.get(manifest.kind, f"{manifest.kind} of {manifest.environment}")


def _loading(manifest: Manifest) -> list[str]:
    group = (round_groups(manifest) or ["round-000"])[-1]
    main = {"advice": "logits", "states": "state", "play": "reward"}.get(manifest.kind, "")
    if not main:
        return []
    name, version, path = manifest.name, manifest.version, f"{group}/{main}"
    return [
        "## How to load it",
        f"zarr, from the folder that holds `{name}.icechunk` (xarray and dask go on from there):",
        "```python file=zarr",
        "import icechunk, zarr",
        "",
        f'repository = icechunk.Repository.open(icechunk.local_filesystem_storage("{name}.icechunk"))',
        f'version = zarr.open_group(repository.readonly_session(tag="v{version}").store, mode="r")',
        f'array = version["{path}"]',
        "```",
        "```python file=xarray",
        "import xarray",
        "",
        f'rows = xarray.open_zarr(version.store, group="{group}", consolidated=False)',
        "```",
        "```python file=dask",
        "import dask.array",
        "",
        "lazy = dask.array.from_array(array, chunks=array.chunks)",
        "```",
        f"h5py (after `lore datasets export {name}@v{version} {name}.h5`):",
        "```python file=h5py",
        "import h5py",
        "",
        f'with h5py.File("{name}.h5") as version:',
        f'    array = version["{path}"][:]',
        "```",
        f'LoRe: `lore_datasets.advice.load_advice("{name}@v{version}")`.'
        if manifest.kind == "advice"
        else f'LoRe: `lore_datasets.store.store.Store().open("{name}@v{version}")`.',
        "",
    ]


def round_groups(manifest: Manifest) -> list[str]:
    """Groups of the rounds, oldest first."""
    return sorted({path.split("/")[0] for path in manifest.arrays if path.startswith("round-")})


def _rows(manifest: Manifest) -> int:
    return sum(s.shape[0] for path, s in manifest.arrays.items() if path.endswith("/state") and s.shape)


def _size_category(rows: int) -> str:
    limits = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return next((name for limit, name in limits if rows < limit), "1M<n<10M")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in values.items():
        out |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return out


def _table(title: str, values: Mapping[str, Any]) -> list[str]:
    """A Markdown table under a heading; nothing when there are no values."""
    if not values:
        return []
    return [
        f"## {safe(title)}",
        "| | |",
        "|---|---|",
        *(f"| {safe(k)} | {safe(_short(v))} |" for k, v in values.items()),
        "",
    ]
