"""The pages that the flows leave in Prefect's UI, as Markdown and table rows. Plain data in, plain data out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.config import with_advice
from flows.prefect_flows.artifacts import key, links, markdown, report_link, shares_table, table, told
from lore_datasets.errors import LoreError

__all__ = ["ablation_page", "advice_page", "evaluation_page", "round_page", "states_page", "training_page"]


def _lines(title: str, rows: Mapping[str, object], commands: Sequence[str], report: str = "") -> str:
    body = [f"# {title}", "", "| | |", "|---|---|"]
    body += [f"| {name} | {value} |" for name, value in rows.items() if value not in ("", None)]
    if commands:
        body += ["", "## Next", "```", *commands, "```"]
    told(f"{title}: " + ", ".join(f"{name} {value}" for name, value in rows.items() if value not in ("", None)))
    where = " · ".join(filter(None, [f"[report]({report})" if report else "", links()]))
    return "\n".join([*body, *(["", where] if where else [])])


def _report(folders: Sequence[str]) -> str:
    """Write the report about runs into the first one's folder; its address where ``lore up`` serves it, else empty.

    A run whose report cannot be written has ended all the same: its log says why.
    """
    from flows.report.read import report_advice
    from flows.report.sections import build_report, labelled

    path = Path(folders[0]) / "report.html"
    if not os.environ.get("LORE_REPORTS_URL"):
        return ""
    try:
        named = labelled([Path(folder) for folder in folders])
        build_report(named, path, title=f"LoRe report: {', '.join(named)}", advice=report_advice(named, ""))
    except (LoreError, OSError) as error:
        told(f"no report was written: {error}")
        return ""
    return report_link(path, " and ".join(named))


def _cost(cost: Mapping[str, Any]) -> str:
    if not cost:
        return "nothing: no question was asked"
    asked = (
        f"{cost.get('requests', 0):,.0f} answers ({cost.get('asked_now', 0):,.0f} asked now, the rest from the journal)"
    )
    tokens = f"{cost.get('tokens_in', 0):,.0f} tokens in, {cost.get('tokens_out', 0):,.0f} out"
    before, after = cost.get("journal_usd_before", 0.0), cost.get("journal_usd_after", 0.0)
    paid = f"the journal had paid {before:.4f} USD before, {after:.4f} after"
    return f"{asked}; {tokens}; {cost.get('price_usd', 0.0):.4f} USD; {paid}"


def _manifest(ref: str) -> Any:
    from lore_datasets.exchange.shipped import ShippedStore

    return ShippedStore().manifest(ref)


def states_page(ref: str) -> str:
    """Of a collected states version."""
    manifest = _manifest(ref)
    by = ", ".join(f"{count:,} {who}" for who, count in manifest.counts.get("by_source", {}).items())
    rows = {"version": f"`{ref}`", "states": f"{manifest.counts.get('rows', 0):,}", "players": by}
    return markdown(
        f"states {manifest.name}", _lines(f"States {ref}", rows, [f"lore advise --states '{ref}' --dataset NAME"])
    )


def advice_page(made: Mapping[str, str]) -> str:
    """Of an advice version: what it holds, cost, and the quality of its answers as a table."""
    from flows.jobs.distil import coverage
    from lore_datasets.exchange.shipped import ShippedStore
    from lore_datasets.store.advisers import advisers_of

    ref = made["advice"]
    manifest = _manifest(ref)
    rows: dict[str, object] = {
        "version": f"`{ref}`", "advice model": f"`{made['model']}`" if "model" in made else "none",
        "advisers": advisers_of(manifest), "rows": f"{manifest.counts.get('rows', 0):,}",
        "rounds": manifest.counts.get("rounds", 1), "cost of the last round": _cost(manifest.cost),
        "parents": ", ".join(f"`{p}`" for p in manifest.parents),
    }  # fmt: skip
    about = coverage(ShippedStore().resolve(ref))
    learn = f"lore train --preset smoke {with_advice(manifest.skills)} --dataset '{ref}'"
    next_ = [f"lore datasets show '{ref}'", learn]
    counts = manifest.provenance.get("round_counts", {})
    quality = [{"figure": k, "value": v} for k, v in counts.get("rates", {}).items()]
    quality += [{"figure": f"refused: {k}", "value": v} for k, v in counts.get("rejected", {}).items()]
    quality += [{"figure": k, "value": round(v, 4)} for k, v in about.items()]
    table(f"advice quality {manifest.name}", quality, f"Quality of {ref}")
    return markdown(f"advice {manifest.name}", _lines(f"Advice {ref}", rows, next_))


def round_page(record: Mapping[str, Any]) -> str:
    """Of a finished refresh round; the same key for every round of a run."""
    run, ref = record["run"], record["advice"]
    before, after = record["before"], record["after"]
    rows = {
        "run": f"`{run}`", "round": record["round"], "from": f"`{record['base']}`", "to": f"`{ref}`",
        "new rows": f"{record['rows']:,}", "visited states": f"{before['states']:,} (`{record['visits']}`)",
        "cost": _cost(record["cost"]),
        "states with advice": f"{100 * (1 - before['none']):.1f} % before, {100 * (1 - after['none']):.1f} % after",
        "mean confidence": f"{before['confidence']:.3f} before, {after['confidence']:.3f} after",
        "training": f"step {record['from']:,} to {record['to']:,}",
    }  # fmt: skip
    name = ref.split("@")[0]
    commands = [
        f"lore refresh --folder {run}", f"lore eval {run}",
        f"lore datasets rollback '{record['base'].split('#')[0]}'   # take {name} back to the version before",
    ]  # fmt: skip
    shares = {
        when: {k: v for k, v in found.items() if k != "states"}
        for when, found in (("before", before), ("after", after))
    }
    table(f"coverage {run}", shares_table(shares), "Share of the visited states by where their advice comes from, in %")
    text = _lines(f"Refresh round {record['round']} of {run}", rows, commands, _report([run]))
    return markdown(f"refresh {run}", text, f"{name}: {ref}")


def training_page(runs: Sequence[tuple[str, Mapping[str, Any]]], dataset: str) -> str:
    """Of training runs: (folder, last progress) each."""
    rows = {
        "advice": f"`{dataset}`" if dataset else "none",
        **{f"`{folder}`": _progress(row) for folder, row in runs},
    }
    folders = " ".join(folder for folder, _ in runs)
    commands = [f"lore report {folders}", *(f"lore eval {folder}" for folder, _ in runs[:3])]
    parent = str(Path(runs[0][0]).parent) if runs else "runs"
    table(
        f"achievements {parent}", _achievements([folder for folder, _ in runs]), "Training-time rates, in % of episodes"
    )
    report = _report([folder for folder, _ in runs])
    return markdown(f"train {parent}", _lines(f"Training in {parent}", rows, commands, report))


def _progress(row: Mapping[str, Any]) -> str:
    mean = row.get("episode_return")
    return (
        f"step {row.get('step', 0):,} of {row.get('total', 0):,}, {row.get('episodes', 0):,} episodes"
        + (f", mean return of the last 20 {mean:.2f}" if mean is not None else "")
    )  # fmt: skip


def _achievements(folders: Sequence[str]) -> list[dict[str, Any]]:
    """One row per achievement, one column per run: per cent of the training episodes that reached it."""
    from lore.training.records import read_jsonl

    found: dict[str, dict[str, Any]] = {}
    for folder in folders:
        path = Path(folder) / "episodes.jsonl"
        episodes = read_jsonl(path) if path.is_file() else []
        for name in episodes[0]["achievements"] if episodes else []:
            rate = 100 * sum(row["achievements"][name] > 0 for row in episodes) / len(episodes)
            found.setdefault(name, {"achievement": name})[Path(folder).name] = round(rate, 2)
    return list(found.values())


def evaluation_page(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Of evaluations: (folder, content of ``evaluation.json``) each."""
    rows = [
        {
            "run": Path(folder).name, "mode": mode.replace("_", " "), "return": round(found["return_mean"], 3),
            "from": round(found["return_interval"][0], 3), "to": round(found["return_interval"][1], 3),
            "score %": round(found["score"], 3), "episodes": found["episodes"],
        }
        for folder, each in runs for mode, found in each["final_policy"].items()
    ]  # fmt: skip
    for folder, each in runs:
        facts = {"advice": each.get("advice", ""), "steps": f"{each.get('frames', 0):,}"}
        facts |= {
            r["mode"]: f"return {r['return']} ({r['from']} to {r['to']})" for r in rows if r["run"] == Path(folder).name
        }
        text = _lines(f"Final policy of {folder}", facts, [f"lore report {folder}"], _report([folder]))
        markdown(f"evaluate {folder}", text)
    parent = str(Path(runs[0][0]).parent) if runs else "runs"
    table(f"final policy {key(parent)}", rows, "Final policy: fresh episodes, as trained and alone")


def ablation_page(folder: str) -> None:
    """Of a study: its Markdown table."""
    path = Path(folder) / "ablation.md"
    if path.is_file():
        report = report_link(Path(folder) / "ablation.html", f"study {folder}")
        told(f"study {folder}: {len(path.read_text().splitlines())} lines in {path}")
        where = " · ".join(filter(None, [f"[report]({report})" if report else "", links()]))
        markdown(f"study {folder}", f"{path.read_text()}\n{where}", f"Report: {Path(folder) / 'ablation.html'}")
