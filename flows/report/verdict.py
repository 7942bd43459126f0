"""What runs showed, in sentences made from their numbers and intervals, and what in the data explains it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flows.report.read import RunData, Subject, is_number
from flows.report.results import MODES, guidance_end
from lore.config import from_dict
from lore.evaluation.statistics import mean_of_runs, nested_bootstrap
from lore.presets import MACHINE
from lore_datasets.errors import LoreError

__all__ = ["Figure", "banners", "explanations", "figure_of", "verdict"]

_OF_A_RUN = ("seed", "steps", *(name.removeprefix("train.") for name in MACHINE))
LAST = 20
"""Training episodes that speak for a run that was not evaluated."""


@dataclass(frozen=True)
class Figure:
    """A mean return with its 95 % interval (NaN where nobody knows it)."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        interval = f" ({self.low:.1f} to {self.high:.1f})" if np.isfinite(self.low) else ""
        return f"{self.mean:.1f}{interval}"

    def is_apart_from(self, other: Figure) -> bool:
        """Whether the two intervals have no point in common; False where one of them is not known."""
        return self.low > other.high or other.low > self.high


@dataclass(frozen=True)
class _Arm:
    """Runs that differ by seed alone: what they followed, and their figures by mode (``training`` without any)."""

    runs: tuple[RunData, ...]
    follows: str
    figures: dict[str, Figure]

    @property
    def steps(self) -> int:
        return max(run.step for run in self.runs)


def figure_of(runs: Sequence[RunData], mode: str) -> Figure | None:
    """Mean return of the final policy over the episodes of all runs, drawn again by run, then by episode."""
    bodies = [(run.evaluation or {}).get("final_policy", {}).get(mode) for run in runs]
    found = [body for body in bodies if isinstance(body, dict) and body.get("episodes")]
    if not found or len(found) < len(runs):
        return None
    if len(found) == 1:
        known = found[0].get("return_interval") if found[0]["episodes"] > 1 else None  # one episode has no spread
        low, high = (np.nan if end is None else float(end) for end in known or (None, None))
        return Figure(float(found[0]["return_mean"]), low, high)
    returns = [np.array(body.get("returns", [body["return_mean"]]), np.float64) for body in found]
    return Figure(mean_of_runs(returns), *nested_bootstrap(mean_of_runs, returns))


def _late(runs: Sequence[RunData]) -> Figure | None:
    returns = [np.array([e["return"] for e in run.episodes[-LAST:]], np.float64) for run in runs if run.episodes]
    if not returns:
        return None
    is_one = sum(map(len, returns)) == 1
    return Figure(mean_of_runs(returns), *((np.nan, np.nan) if is_one else nested_bootstrap(mean_of_runs, returns)))


def _follows(run: RunData, subject: Subject) -> str:
    """Whose advice a run followed, in words; empty where it followed none."""
    config = run.config
    paths = any(config.get(section, {}).get("enabled") for section in ("gate", "synthetic", "options"))
    if run.unused_advice or not (run.advice or config.get("advice", {}).get("dataset")):
        return ""
    if not paths and not config.get("advice", {}).get("prefill_steps"):
        return ""
    if config.get("advice", {}).get("prior") == "uniform":
        return f"no preference among the skills of {run.advice or config['advice']['dataset']}"
    if subject.advice is None or str(subject.advice.ref) != run.advice:
        return f"the advice of {run.advice or config['advice']['dataset']}"
    if subject.advice.programs:
        return "the program's advice"
    return "the rule book's advice" if subject.adviser == "rules" else f"the advice of {subject.adviser}"


def _settings(run: RunData) -> str:
    """The settings of a run but its seed, its budget and what its machine asks for."""
    train = {name: value for name, value in run.config.get("train", {}).items() if name not in _OF_A_RUN}
    return json.dumps(run.config | {"train": train}, sort_keys=True, default=str)


def _arms(runs: Sequence[RunData], subject: Subject) -> list[_Arm]:
    groups: dict[tuple[str, ...], list[RunData]] = {}
    for run in runs:
        key = (_follows(run, subject), run.paths, run.advice, str(run.step), _settings(run))
        groups.setdefault(key, []).append(run)
    named = Counter((follows, paths) for follows, paths, *_ in groups)
    arms = []
    for (follows, paths, *_), group in groups.items():
        if named[follows, paths] > 1:  # they differ by other settings
            paths += f", {group[0].name}"
        if follows and (len(groups) > 2 or "," in paths):
            follows += f" (paths {paths})"
        figures = {mode: found for mode in MODES if (found := figure_of(group, mode)) is not None}
        if not figures and (late := _late(group)) is not None:
            figures["training"] = late
        arms.append(_Arm(tuple(group), follows, figures))
    return arms


def verdict(subject: Subject) -> list[str]:
    """Paragraphs: one for each environment and observation, then what is never compared; one at least."""
    out = []
    for setting in subject.settings:
        text = _of_setting([run for run in subject.runs if run.setting == setting], subject)
        out.append(f"{setting}: {text}" if len(subject.settings) > 1 else text)
    if len(subject.settings) > 1:
        out.append("Runs of different environments or observations stand beside each other and are never compared.")
    return out or ["No run to speak of."]


def _of_setting(runs: Sequence[RunData], subject: Subject) -> str:
    arms = [arm for arm in _arms(runs, subject) if arm.figures]
    if not arms:
        return "No episode has finished yet, so there is nothing to say."
    key = "as_trained" if all("as_trained" in arm.figures for arm in arms) else "training"
    if key == "training":
        arms = [_Arm(arm.runs, arm.follows, {"training": late} if (late := _late(arm.runs)) else {}) for arm in arms]
        arms = [arm for arm in arms if arm.figures]
        if not arms:
            return "No episode has finished yet, so there is nothing to say."
    guided = [arm for arm in arms if arm.follows]
    plain = next((arm for arm in arms if not arm.follows), None)
    said = [_makes(guided[:4], plain, key)]
    for arm in guided[:1] if len(guided) == 1 else []:
        said += _compared(arm, plain, key)
    if len(guided) > 4:
        said.append(f"{len(guided) - 4} more arms stand in the table.")
    if key == "training":
        said.append(f"Not every run was evaluated (lore eval RUN): means of the last {LAST} training episodes.")
    seeds = {len(arm.runs) for arm in arms}
    if len(arms) > 1:
        few = f"{min(seeds)} seeds" if min(seeds) > 1 else "One seed"
        said.append(f"{few} an arm: this tells of these runs, not yet of the method." if min(seeds) < 5 else "")
    return " ".join(each for each in said if each)


def _makes(guided: Sequence[_Arm], plain: _Arm | None, key: str) -> str:
    """The first sentence."""
    if not guided:
        assert plain is not None
        return f"Without advice the agent makes a return of {plain.figures[key]} after {plain.steps:,} steps."
    parts = []
    for i, arm in enumerate(guided):
        made = f"the agent makes a return of {arm.figures[key]} after {arm.steps:,} steps" if i == 0 else ""
        parts.append(f"With {arm.follows} {made}" if made else f"with {arm.follows} {arm.figures[key]}")
    if plain is not None:
        after = f" after {plain.steps:,}" if plain.steps != guided[0].steps else ""
        parts.append(f"without advice {plain.figures[key]}{after}")
    if len(guided) == 1 and (alone := guided[0].figures.get("agent_alone")) is not None:
        return f"{', '.join(parts)}; with the advice switched off it keeps {alone}."
    return f"{', '.join(parts)}."


def _compared(arm: _Arm, plain: _Arm | None, key: str) -> list[str]:
    """What the intervals allow to say of one guided arm."""
    out, ours, alone = [], arm.figures[key], arm.figures.get("agent_alone")
    if plain is None:
        if alone is not None and not ours.is_apart_from(alone):
            out.append("The intervals overlap: these episodes show no difference between advice on and off.")
        return out
    theirs = plain.figures[key]
    if plain.steps != arm.steps:
        return ["The budgets differ, so the two are not compared."]
    if not np.isfinite([ours.low, theirs.low]).all():
        return ["One episode has no interval: play more of them to compare (lore eval RUN --episodes 20)."]
    if not ours.is_apart_from(theirs):
        out.append("The intervals with and without advice overlap: these episodes do not tell the two apart.")
    elif ours.mean < theirs.mean:
        out.append("The advice cost return: its interval lies below the one without advice.")
    else:
        out.append("The intervals with and without advice lie apart.")
    if alone is not None and ours.is_apart_from(theirs) and ours.mean > theirs.mean:
        if not alone.is_apart_from(theirs):
            out.append("With the advice switched off it is not told apart from the agent that never had any.")
        elif alone.mean > theirs.mean:
            out.append("With the advice switched off it still makes more than the agent that never had any.")
    return out


def banners(subject: Subject) -> list[tuple[str, str]]:
    """(what, details) of what comes first: unused advice, runs that did not end, files that did not read."""
    out = []
    for run in subject.runs:
        if run.unused_advice:
            out.append(("Advice unused", f"{run.name}: {run.unused_advice}"))
        total = (run.progress or {}).get("total") or run.config.get("train", {}).get("steps")
        if is_number(total) and run.step < total and (run.progress or {}).get("phase") != "done":
            out.append(
                ("Not finished", f"{run.name} stands at step {run.step:,} of {int(total):,}; the same command goes on")
            )
        at = (run.evaluation or {}).get("frames", run.step)
        if is_number(at) and at < run.step:
            said = f"{run.name}: at step {at:,} of its {run.step:,}; lore eval evaluates it anew"
            out.append(("Evaluated earlier", said))
        out += [("Left out", f"{run.name}: {each}") for each in run.damage]
    if subject.advice is None and (lost := next((run.advice for run in subject.runs if run.advice), "")):
        out.append(("Left out", f"{lost} is not in the store here, so the page shows nothing of what it says"))
    return out + [("Left out", note) for note in subject.notes]


def explanations(subject: Subject) -> list[str]:
    """What in a run's own rows explains its result: one sentence each, none where nothing stands out."""
    out = []
    for run in subject.runs:
        name = f"{run.name}: " if len(subject.runs) > 1 else ""
        out += [name + each for each in (*_of_gate(run), *_of_paths(run))]
    return out


def _of_gate(run: RunData) -> list[str]:
    out = []
    kappa, bound = run.series.get("uncertainty_gate/kappa"), run.config.get("gate", {}).get("delta_target")
    if kappa and min(kappa[1]) < 0.98:
        spent = sum(k < 0.98 for k in kappa[1]) / len(kappa[1])
        budget = f" of {bound:g} nats a decision" if is_number(bound) else ""
        out.append(
            f"the KL budget{budget} was reached: in {100 * spent:.0f} % of the rows the advice was held back, at the "
            f"end to {100 * kappa[1][-1]:.0f} % of its weight"
        )
    trust = run.series.get("uncertainty_gate/trust")
    if trust and min(trust[1]) < 0.98:
        at = trust[0][int(np.argmin(trust[1]))]
        out.append(
            f"trust in the advice fell to {min(trust[1]):.2f} by step {at:,}, because decisions that followed it "
            f"returned less than the policy's own; at the end it stood at {trust[1][-1]:.2f}"
        )
    end = _guidance_end(run)
    if end is not None and end <= run.step:
        out.append(f"the guidance ended at step {end:,}: what came after is the agent's own play")
    beta = run.series.get("uncertainty_gate/beta")
    if beta and max(beta[1]) == 0:
        out.append("the advice never had any weight (beta 0 in every row)")
    none = run.mean("llm_adapter/coverage_none")
    if none is not None and none > 0.2:
        out.append(f"in {100 * none:.0f} % of the visited states nobody had advice to give")
    return out


def _guidance_end(run: RunData) -> int | None:
    try:
        return guidance_end(from_dict(run.config))
    except (LoreError, TypeError, AttributeError):  # settings of another schema
        return None


def _of_paths(run: RunData) -> list[str]:
    out = []
    if (retired := run.last("options/retired") or 0) > 0:
        active = run.last("options/active") or 0
        what = "skill" if retired == 1 else "skills"
        out.append(f"{retired:.0f} {what} failed too often (revisions.jsonl), {active:.0f} had a slot at the end")
    ratio, allowed = run.last("synthetic/ratio"), run.config.get("synthetic", {}).get("max_open_loop_error")
    error = run.last("synthetic/open_loop_error")
    if ratio == 0 and error is not None and is_number(allowed) and error > allowed:
        out.append(
            f"imagined replay stayed off: the model's open-loop error {error:.2f} is above the bound {allowed:g}"
        )
    failed = sum(run.series.get("llm_adapter/failures", ([], []))[1])  # each row counts since the one before
    broken = run.last("options/broken") or 0
    counts = {"look-ups of advice failed": failed, "skills are out of use after errors": broken}
    out += [f"{count:.0f} {what}" for what, count in counts.items() if count > 0]
    return out
