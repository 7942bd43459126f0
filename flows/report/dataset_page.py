"""The page of an advice version: what was asked and answered, what it is worth, how far it reaches, what it cost, what
it says, where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.config import with_advice
from flows.report.advice_text import program_rules, skills_with_films
from flows.report.charts import forest, played_dots
from flows.report.page import Section, filled, page
from flows.report.play import play_text
from flows.report.read import Subject
from flows.report.samples import drawn, sample_rows
from flows.report.verdict import Figure
from lore_datasets.advice import load_advice
from lore_datasets.atomic import write_text
from lore_datasets.errors import BadInput, LoreError
from lore_datasets.exchange.played import played
from lore_datasets.exchange.shipped import ShippedStore
from lore_datasets.schema import split_path
from lore_datasets.store.advisers import rounds_of
from lore_datasets.store.lineage import lineage, newest_model
from lore_datasets.types import ArtifactRef, SymbolicState

if TYPE_CHECKING:
    from flows.jobs.skill_trials import Film

__all__ = ["write_dataset_page"]

PER_KIND = {"prior": 4, "plan": 3}
"""Sample questions of a kind; of others one."""
MOST = 8000
"""Characters shown of a question or an answer."""
BINS = 10


def write_dataset_page(
    ref: str, out: Path, root: Path | None = None, films: Mapping[str, Film] | None = None, notes: tuple[str, ...] = ()
) -> Path:
    """Write the page of an advice version to ``out`` and return it; BadInput for a version of another kind.

    Args:
        films: one run of each skill (:class:`flows.jobs.skill_trials.SkillTrials`). notes: what could not be shown.
    """
    store = ShippedStore(root)
    full = store.resolve(ref)
    kind = store.manifest(full).kind
    if kind != "advice":
        raise BadInput(f"{full} is of kind {kind}; the page is about advice", hint=f"lore datasets show '{full}'")
    subject = Subject((), load_advice(full, root), notes=notes, root=root)
    sections = [
        _worth(subject), _asked(subject, store, full), sample_rows(subject), _reach(subject, store, full),
        program_rules(subject), skills_with_films(subject, films or {}), _cost(subject), _origin(store, full),
    ]  # fmt: skip
    write_text(
        out, page(f"{full.name}@v{full.version}", _head(subject), [each for each in sections if each is not None])
    )
    return out


def _head(subject: Subject) -> Any:
    advice = subject.advice
    assert advice is not None
    manifest, (play, without) = advice.manifest, subject.play
    price = sum(each.price_usd for each in rounds_of(manifest))
    said = (
        f"{len(advice.rows):,} states of {manifest.environment} with advice by {subject.adviser}"
        f"{' (a rule book, not a language model)' if subject.adviser == 'rules' else ''}, {len(advice.skills)} skills"
        f"{', a program' if advice.programs else ''}, bought for {price:.2f} USD."
    )
    worth = f"What it is worth without a learner nobody knows: {without}."
    if play is not None:
        found = {who: Figure(*figures["return"]) for who, figures in played(play).items()}
        mine = found.pop("advice", None)
        worth = f"Played without learning it makes a return of {mine}" if mine else "It was played"
        for who, figure in found.items():
            apart = "lie apart" if mine and mine.is_apart_from(figure) else "overlap"
            name = "uniform choice among the same skills" if who == "uniform" else who
            worth += f"; {name} makes {figure}: the intervals {apart}"
        worth += "."
    return filled(
        "dataset_head.html", said=said, worth=worth, notes=subject.notes, ref=advice.ref, about=manifest,
        flags=with_advice(manifest.skills),
    )  # fmt: skip


def _worth(subject: Subject) -> Section | None:
    play = subject.play[0]
    if play is None:
        return None
    found, note = played(play), "Lives that follow the version without learning; mean and 95 % interval over lives."
    titles = {"return": "Return", "score": "Score, %", "length": "Length, steps"}
    charts = [forest(title, played_dots(found, figure), note=note) for figure, title in titles.items()]
    try:
        text = play_text(play.provenance["report"])
    except (KeyError, TypeError, ValueError, IndexError):  # of another version
        text = "The play's report is of another form than this program reads."
    return Section("Played without learning", filled("dataset_play.html", charts=charts, text=text))


def _asked(subject: Subject, store: ShippedStore, ref: ArtifactRef) -> Section | None:
    """Sample questions with their answers, and refused ones with the reason."""
    advice = subject.advice
    assert advice is not None
    arrays = store.open(ref, wanted=lambda path: "/answers/" in path or "/rejects/" in path or _is_state(path)).arrays
    rounds: dict[int, dict[str, dict[str, np.ndarray]]] = {}
    for path, array in arrays.items():
        index, group, name = split_path("advice", path)
        rounds.setdefault(index, {}).setdefault(group, {})[name] = array
    kinds: dict[str, list[tuple[int, int]]] = {}
    for index, groups in sorted(rounds.items()):
        for at, kind in enumerate(groups.get("answers", {}).get("kind", [])):
            kinds.setdefault(str(kind), []).append((index, at))
    samples = []
    for kind, places in kinds.items():
        count = min(PER_KIND.get(kind, 1), len(places))
        for pick in np.unique(np.linspace(0, len(places) - 1, count).round().astype(int)).tolist():
            index, at = places[pick]
            samples.append(_sample(kind, index, at, rounds[index], subject))
    rejects = [
        {"reason": str(reason), "where": str(where), "text": _cut(str(text), 400)}
        for _, groups in sorted(rounds.items()) if (lost := groups.get("rejects"))
        for reason, where, text in list(zip(lost["reason"], lost["where"], lost["text"], strict=True))[:5]
    ]  # fmt: skip
    if not samples and not rejects:
        return None
    counts = {kind: len(places) for kind, places in kinds.items()}
    return Section("What was asked", filled("dataset_asked.html", samples=samples, rejects=rejects, counts=counts))


def _is_state(path: str) -> bool:
    return path.count("/") == 1 and path.endswith("/state")


def _cut(text: str, most: int = MOST) -> str:
    return text if len(text) <= most else f"{text[:most]} ... ({len(text) - most:,} characters more)"


def _sample(
    kind: str, index: int, at: int, groups: dict[str, dict[str, np.ndarray]], subject: Subject
) -> dict[str, Any]:
    answers, advice = groups["answers"], subject.advice
    assert advice is not None
    row = int(answers["row"][at]) if "row" in answers else -1
    states = groups.get("rows", {}).get("state", np.zeros((0, 0)))
    picture = ""
    if 0 <= row < len(states):
        state = SymbolicState.unpack(np.asarray(states[row : row + 1]), advice.environment.layout)[0]
        picture = drawn(state, advice.environment.vocab)
    return {
        "kind": kind, "round": index, "picture": picture, "question": _cut(str(answers["prompt"][at])),
        "answer": _cut(str(answers["response"][at])), "model": str(answers["model"][at]),
        "tokens": f"{int(answers['tokens_in'][at]):,} tokens in, {int(answers['tokens_out'][at]):,} out",
    }  # fmt: skip


def _reach(subject: Subject, store: ShippedStore, ref: ArtifactRef) -> Section:
    """Agreement and coverage of the advice model on held-out rows; confidence and first choices over all rows."""
    advice = subject.advice
    assert advice is not None
    try:
        model = newest_model(store, ref, verify=False)
    except LoreError:
        model = None
    about = model.manifest.provenance if model is not None else {}
    figures = {k.replace("_", " "): f"{v:.3g}" for k, v in about.items() if type(v) in (int, float)}
    by_source = about.get("by_source", {})
    sources = {k: v for k, v in by_source.items() if isinstance(v, dict)} if isinstance(by_source, dict) else {}
    columns = list(dict.fromkeys(name for values in sources.values() for name in values))
    table = [[who, *(_figure(values.get(name)) for name in columns)] for who, values in sorted(sources.items())]
    rows = advice.rows
    counts = np.histogram(rows.confidence, bins=BINS, range=(0.0, 1.0))[0]
    confidence = [
        {"label": f"{i / BINS:.1f} to {(i + 1) / BINS:.1f}", "count": int(n), "share": n / max(1, counts.max())}
        for i, n in enumerate(counts)
    ]
    return Section(
        "Coverage and agreement",
        filled(
            "dataset_reach.html", figures=figures, columns=[c.replace("_", " ") for c in columns], table=table,
            confidence=confidence, choices=_choices(subject), has_program=bool(advice.programs),
        ),
    )  # fmt: skip


def _figure(value: Any) -> str:
    return f"{100 * value:.0f} %" if type(value) is float else f"{value:,}" if type(value) is int else "–"


def _choices(subject: Subject) -> list[dict[str, Any]]:
    """First choices of the rows, most frequent first, as shares of the rows that name any."""
    advice = subject.advice
    assert advice is not None
    known = np.asarray(advice.rows.mask, bool)
    logits = np.where(known, np.asarray(advice.rows.logits, float), -np.inf)
    speaks = known.any(-1)
    if not speaks.any():
        return []
    names = (*advice.actions, *(skill.name for skill in advice.skills))
    counts = np.bincount(logits[speaks].argmax(-1), minlength=len(names))
    order = np.argsort(-counts, kind="stable")[:20]
    return [{"name": names[i], "share": counts[i] / counts.sum()} for i in order.tolist() if counts[i]]


def _cost(subject: Subject) -> Section:
    advice = subject.advice
    assert advice is not None
    rounds = rounds_of(advice.manifest)
    cost = {k.replace("_", " "): f"{v:,.10g}" for k, v in advice.manifest.cost.items() if type(v) in (int, float)}
    return Section("Cost by round", filled("dataset_cost.html", rounds=rounds, cost=cost))


def _origin(store: ShippedStore, ref: ArtifactRef) -> Section:
    """Ancestors, and what changed since the parent of the same kind."""
    lines = lineage(store, ref)
    told = [
        {"ref": text, "depth": depth, "about": f"{m.kind}, {m.message or 'no message'}" if m else "not in this store"}
        for text, m, depth in lines
    ]
    parent = next(
        (text for text, manifest, depth in lines if depth == 1 and manifest and manifest.kind == "advice"), ""
    )
    changes: list[tuple[str, str]] = []
    rules: list[str] = []
    if parent:
        found = store.diff(parent, str(ref))
        rules = found["program"]
        changes += [(f"rows {what}", f"{n:,}") for what, n in found["rows"].items()]
        changes += [(f"skills {what}", ", ".join(names) or "none") for what, names in found["skills"].items()]
        changes += [("settings and facts that differ", ", ".join(found["manifest"]) or "none")]
    html = filled("dataset_origin.html", lines=told, parent=parent, changes=changes, rules=rules)
    return Section("Where it came from", html)
