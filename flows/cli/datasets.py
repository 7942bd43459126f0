"""``lore datasets ...``: each verb is one call into the store, printed."""

from __future__ import annotations

import json as _json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from flows.cli import cards
from lore_datasets.errors import BadInput, LoreError, UsageError

if TYPE_CHECKING:
    from lore_datasets.exchange.shipped import ShippedStore
    from lore_datasets.language.programs import Program
    from lore_datasets.types import ArtifactRef, Manifest

__all__ = ["diff", "export", "gc", "import_file", "lineage", "list_datasets", "rollback", "show", "tag", "verify"]

Name = Annotated[str, tyro.conf.Positional]
File = Annotated[Path, tyro.conf.Positional]


def _store(root: Path | None) -> ShippedStore:
    from lore_datasets.exchange.shipped import ShippedStore

    return ShippedStore(root)


def _dump(value: Any) -> None:
    print(_json.dumps(value, indent=2, sort_keys=True))


def _safe(text: object) -> str:
    """Text of an artifact without control characters: what is stored must not steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in str(text))


def _rows(manifest: Manifest) -> int:
    if manifest.kind in ("advice_model", "play"):  # the rows it was distilled from, the lives
        return int(manifest.counts.get("rows", 0))
    return sum(spec.shape[0] for path, spec in manifest.arrays.items() if path.endswith("/state") and spec.shape)


def _adviser(manifest: Manifest) -> str:
    from lore_datasets.store.advisers import advisers_of

    return _safe(advisers_of(manifest))


def list_datasets(root: Path | None = None, json: bool = False) -> int:
    """List every dataset version: kind, rows, adviser, date.

    Args:
        root: Folder of datasets; default $LORE_DATASETS or runs/datasets.
        json: Print JSON.
    """
    from lore_datasets.places import shipped_files
    from lore_datasets.store.manifest import ref_of

    store = _store(root)
    found, damage = [], []
    for name in store.names():
        try:
            survey = store.survey(name)
        except LoreError as error:
            damage.append({"dataset": name, "damage": str(error)})
            continue
        damage += [{"dataset": name, "damage": sentence} for sentence in survey.damage]
        for manifest in survey.manifests:
            found.append({
                "ref": str(ref_of(manifest)), "kind": manifest.kind, "rows": _rows(manifest),
                "adviser": _adviser(manifest), "rounds": manifest.provenance.get("rounds", []),
                "created": manifest.created[:19], "message": manifest.message,
                "programs": manifest.counts.get("programs", 0), "current": manifest.version == survey.current,
            })  # fmt: skip
    if json:
        _dump([*found, *damage])
        return 0
    for row in damage:
        print(f"damaged: {_safe(row['damage'])}")
    if lying := sorted(set(shipped_files()) - set(store.names())):
        print(f"come with LoRe, by name: {', '.join(lying)}")
    if not found:
        print(f"no datasets in {store.root}; make one: lore demo, or lore collect")
        return 0
    width = max(len(row["ref"]) for row in found)
    newest = set({row["ref"].partition("@")[0]: row["ref"] for row in found}.values())
    by = min(max(len("adviser"), *(len(row["adviser"]) for row in found)), 40)
    print(f"{'dataset':<{width}}  {'kind':<13}{'rows':>8}  {'adviser':<{by}} made")
    for row in found:
        made = _safe(row["created"]).replace("T", " ")
        back = row["current"] and row["ref"] not in newest
        note = ("  + a program" if row["programs"] else "") + ("  <- rolled back to this one" if back else "")
        print(f"{row['ref']:<{width}}  {row['kind']:<13}{row['rows']:>8,}  {row['adviser'][:by]:<{by}} {made}{note}")
    return 0


def show(
    ref: Name,
    root: Path | None = None,
    json: bool = False,
    card: Literal["", "md", "croissant"] = "",
    license: str = "",
    file: tuple[Path, ...] = (),
    statistics: bool = False,
    dask: str = "",
) -> int:
    """Show what one version holds, where it came from and what it cost.

    Args:
        ref: name, name@vN, name@label or name@vN#digest.
        root: Folder of datasets.
        json: Print the whole manifest, or the statistics, as JSON.
        card: Print a dataset card instead: md (for the Hugging Face hub) or croissant (1.1 JSON-LD).
        license: The card's licence; default mit (croissant: the address of the MIT licence).
        file: Exports that a croissant card describes, .h5 and .parquet; records load from the latter.
        statistics: Print counts over the rows instead: options, confidence, goal keys, plans; states by who visited.
        dask: Count on a Dask cluster: the scheduler's address (tcp://host:8786), or local for workers here.
    """
    store = _store(root)
    if statistics or dask:
        from flows.jobs.array_statistics import array_statistics, statistics_text

        counted = array_statistics(ref, root, dask)
        print(_json.dumps(counted, indent=2) if json else statistics_text(counted))
        return 0
    if card:
        print(cards.card(store, ref, card, license, file))
        return 0
    found = store.show(ref)
    if json:
        _dump(found)
        return 0
    manifest = found["manifest"]
    lines = _about(found, store.manifest(found["ref"]))
    if (play := cards.newest_of(store, store.resolve(ref))) is not None:
        from lore_datasets.exchange.played import in_one_line

        lines["played"] = in_one_line(play)
    for title, text in lines.items():
        print(textwrap.fill(f"{title:<12} {text}", 118, subsequent_indent=" " * 13, break_on_hyphens=False))
    if (program := _program(store, found["ref"])) is not None:
        goals = list(dict.fromkeys(rule.goal for rule in program.rules))
        print(f"program      {len(program)} rules, digest {program.digest[:12]}, {len(goals)} goals")
        for number, rule in enumerate(program.rules):
            print(f"  rule {number:<3} {rule.goal:<20} {_safe(rule.why)}"[:118].rstrip())
    print("arrays")
    width = max((len(path) for path in manifest["arrays"]), default=0)
    for path, spec in sorted(manifest["arrays"].items()):
        shape = "x".join(map(str, spec["shape"])) or "scalar"
        print(f"  {path:<{width}}  {spec['dtype']:<8} {shape:<14} sha256 {spec['sha256'][:12]}")
    print(f"\nnext: lore datasets verify {found['ref']}")
    return 0


def _program(store: ShippedStore, ref: str) -> Program | None:
    """The program that speaks in a version; None where it holds none."""
    from lore_datasets.environments import get_environment
    from lore_datasets.language.programs import parse_program

    manifest = store.manifest(ref)
    if not any(path.endswith("/programs/json") for path in manifest.arrays):
        return None
    arrays = store.open(ref, wanted=lambda path: path.endswith("/programs/json")).arrays
    text = arrays[max(arrays)].tolist()[-1]
    return parse_program(text, get_environment(manifest.environment).vocab, manifest.skills)


def _about(found: dict[str, Any], whole: Manifest) -> dict[str, str]:
    """What ``show`` says of a version before its arrays, by title."""
    from lore_datasets.store.advisers import rounds_of

    manifest = found["manifest"]
    lines = {
        "dataset": found["ref"],
        "labels": ", ".join(found["labels"]) or "none",
        "kind": f"{manifest['kind']} (schema {manifest['schema']})",
        "environment": f"{manifest['environment']}, keys {manifest['key_scheme']}",
        "made": f"{_safe(manifest['created'][:19]).replace('T', ' ')}  {_safe(manifest['message'])}",
        "parents": ", ".join(manifest["parents"]) or "none",
        "actions": f"{len(manifest['actions'])} primitive, {len(manifest['skills'])} skills",
        "skills": ", ".join(manifest["skills"]) or "none",
    }
    about = dict(manifest["provenance"])
    # The counts of the last round, the texts, the figures of a play: see --json.
    for known in ("round_counts", "system_prompts", "rounds", "report"):
        about.pop(known, None)
    rounds = [f"{i}. {each}" for i, each in enumerate(rounds_of(whole), 1)]
    lines["advised by"] = _safe("; ".join(rounds)) or "nobody"
    templates = about.pop("templates", {}) if isinstance(about.get("templates"), dict) else {}
    told = [(kind, template) for kind, template in sorted(templates.items()) if isinstance(template, dict)]
    prompts = [f"{_safe(k)} v{_safe(t.get('version'))} {_safe(t.get('sha256'))[:12]}" for k, t in told]
    lines["prompts"] = ", ".join(prompts) or "none"
    for title, values in (*((t, manifest[t]) for t in ("counts", "cost", "config")), ("provenance", about)):
        lines[title] = ", ".join(f"{k} {_short(v)}" for k, v in _flat(values).items() if v != "") or "none"
    return lines


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            out.update(_flat(item, f"{prefix}{key}."))
        else:
            out[f"{prefix}{key}"] = item
    return out


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else _safe(value)
    return text if len(text) <= 60 else text[:57] + "..."


def verify(ref: Name, root: Path | None = None) -> int:
    """Recompute every digest of a version and compare it with the manifest.

    Args:
        ref: name, name@vN or name@vN#digest.
        root: Folder of datasets.
    """
    store = _store(root)
    full = store.verify(ref)
    print(f"{full}: {len(store.manifest(full).arrays)} arrays, every digest holds")
    return 0


def diff(a: Name, b: Name, root: Path | None = None, json: bool = False) -> int:
    """Say what changed between two versions.

    Args:
        a: The older version.
        b: The newer one.
        root: Folder of datasets.
        json: Print JSON.
    """
    found = _store(root).diff(a, b)
    if json:
        _dump(found)
        return 0
    rules = found.pop("program", [])
    changes = {key: value for key, value in _flat(found).items() if value not in ([], None, "")}
    for key, value in changes.items():
        print(f"{key:<32} {_short(value)}")
    for line in rules:
        print(f"program: rule {_safe(line)}")
    if not changes and not rules:
        print("no difference")
    return 0


def lineage(ref: Name, root: Path | None = None, mermaid: bool = False) -> int:
    """Show the versions that a version was made from.

    Args:
        ref: name, name@vN or name@vN#digest.
        root: Folder of datasets.
        mermaid: Print a Mermaid diagram.
    """
    from lore_datasets.store import lineage as _lineage

    store = _store(root)
    full = store.resolve(ref)
    lines = _lineage.lineage(store, full)
    if mermaid:
        print(_lineage.mermaid(lines))
        return 0
    for each, manifest, depth in lines:
        about = f"{manifest.kind}  {_safe(manifest.message)}" if manifest else "not in this store"
        print(f"{'  ' * depth}{each}  {about}")
    return 0


def export(ref: Name, path: File, root: Path | None = None) -> int:
    """Write a version into a single file: HDF5, with its advice model, which the learner reads without a store; or a
    Parquet table with one row a state, in words.

    Args:
        ref: name, name@vN or name@vN#digest.
        path: The file to write, ending in .h5 or .parquet.
        root: Folder of datasets.
    """
    from lore_datasets.exchange.hdf5 import export_hdf5
    from lore_datasets.exchange.table import SUFFIX, export_parquet

    if path.suffix not in (".h5", ".hdf5", SUFFIX):
        raise UsageError(
            f"{path} does not end in .h5 or .parquet", hint="the learner tells an export from a name by its ending"
        )
    store = _store(root)
    full: ArtifactRef = store.resolve(ref)
    if path.suffix == SUFFIX:
        rows = export_parquet(store, full, path)
        print(f"{full} -> {path} ({rows:,} rows, {path.stat().st_size / 1e6:.1f} MB)")
        print(f"next: lore datasets show '{full}' --card croissant --file {path}")
        return 0
    export_hdf5(store, full, path)
    print(f"{full} -> {path} ({path.stat().st_size / 1e6:.1f} MB)")
    from flows.config import with_advice

    manifest = store.manifest(full)
    after = f"lore train --preset smoke {with_advice(manifest.skills)} --dataset {path}"
    print(f"next: {after if manifest.kind == 'advice' else f'lore datasets import {path}'}")
    return 0


def import_file(path: File, dataset: str = "", root: Path | None = None) -> int:
    """Bring an exported HDF5 file into the store as a new version; its digest is checked and stays the same.

    Args:
        path: The HDF5 file.
        dataset: Name in this store; default the one in the file.
        root: Folder of datasets.
    """
    from lore_datasets.exchange.hdf5 import import_hdf5
    from lore_datasets.exchange.table import SUFFIX, read_schema

    if path.suffix == SUFFIX:
        was = read_schema(path)[0]
        raise BadInput(
            f"{path} is a table of {was} for reading, and nothing can be made of it", kept="the file as it is",
            hint=f"lore datasets export '{was}' FILE.h5 where the version lies, and import that",
        )  # fmt: skip
    full = import_hdf5(path, _store(root), dataset or None)
    print(f"{path} -> {full}\nnext: lore datasets show {full}")
    return 0


def tag(ref: Name, label: Name, root: Path | None = None) -> int:
    """Point a label at a version; labels move, versions never change.

    Args:
        ref: name@vN or name@vN#digest.
        label: Lower case word such as good.
        root: Folder of datasets.
    """
    full = _store(root).tag(ref, label)
    print(f"{full.name}@{label} -> {full}")
    return 0


def rollback(ref: Name, root: Path | None = None) -> int:
    """Let a dataset go on from an earlier version: what its bare name means, and the parent of the next round.

    No version is deleted or changed. The next commit ends the rollback; so does rolling back to the newest version.

    Args:
        ref: name@vN, name@label or name@vN#digest.
        root: Folder of datasets.
    """
    if "@" not in ref and "#" not in ref:
        raise UsageError(f"{ref} names no version", hint=f"lore datasets rollback {ref}@v1")
    store = _store(root)
    full = store.rollback(ref)
    newest = store.versions(full.name)[-1]
    if full.version == newest:
        print(f"{full.name} goes on from its newest version, {full}")
    else:
        print(f"{full.name} goes on from {full}; the next round will be {full.name}@v{newest + 1}, its child")
        print(f"undo: lore datasets rollback {full.name}@v{newest}")
    print(f"next: the same lore train command with --dataset '{full}' goes on from a run's checkpoint")
    return 0


def gc(name: Annotated[str, tyro.conf.Positional] = "", root: Path | None = None) -> int:
    """Delete files that no version needs, such as those of killed writers.

    Args:
        name: One dataset; default all.
        root: Folder of datasets.
    """
    for each, freed in _store(root).gc(name or None).items():
        print(f"{each}: {freed / 1e6:.2f} MB freed, every version kept")
    return 0
