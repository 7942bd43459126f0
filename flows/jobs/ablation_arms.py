"""What a study compares: arms, advisers, and the configuration and advice version of each of their pairs."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.config import AblateJob, AdviceJob, CollectJob, asking
from lore.config import Config
from lore.config import replace as configured
from lore_datasets.errors import ConfigError, shown

if TYPE_CHECKING:
    from lore_datasets.types import ArtifactRef

__all__ = ["GOAL_BONUS", "AblationRun", "Cell", "cells", "check_advisers", "make_advice", "planned_runs", "shuffle"]

_MODEL = r"(\+numbers)?(\+skills)?"
_KICK = rf"\+kick(\+budget)?(\+episodes|\+blocks)?(\+end)?{_MODEL}"
_ARM = re.compile(rf"none|prefill|(?=[ABC])A?(B1?)?C?|(?=A?B)A?B1?(CD?)?{_KICK}|A?B?C\+all{_MODEL}")
_OF_THE_FIRST = ("shuffled", "rows", "uniform")
"""Advisers that are made of the first one's version."""
_PROGRAM = "program"
"""The adviser that is the rule book's program alone, without rows."""
_ALL_SLOTS = {"options.max_options": 0}
_ADDED: dict[str, dict[str, Any]] = {
    "all": _ALL_SLOTS,
    "kick": _ALL_SLOTS,
    "budget": {
        "gate.beta_max": 4.0, "gate.beta_max_end": 0.3, "gate.delta_target": 1.5, "gate.delta_target_end": 0.02,
    },
    "episodes": {"gate.guided": "episodes"},
    "blocks": {"gate.guided": "blocks"},
    "end": {"gate.beta_max_end": 0.0, "gate.kickstart_floor": 0.0},
    "numbers": {"model.numbers_as_classes": 3.0},
    "skills": {"options.imagine_only_skills": True},
}  # fmt: skip
"""What a word behind the paths of an arm adds: all skills in slots, with kickstarting or without path B; a budget that
falls; guidance in a falling share of the episodes, or in one stretch of each of these; an end of all guidance; a world
model of exact numbers; imagination that chooses among skills. Path B without ``kick`` is not kickstarted."""
PREFILL_STEPS = 5_000
"""Environment steps that the arm ``prefill`` lets the version play; half of the budget of shorter runs."""
GOAL_BONUS = 0.5
"""What a goal pays at the start in arms with path D: half of an achievement."""


@dataclass(frozen=True)
class Cell:
    """One arm under one adviser; ``none`` has no adviser."""

    arm: str
    adviser: str

    @property
    def label(self) -> str:
        """``ABC rules``."""
        return f"{self.arm} {self.adviser}".strip()

    @property
    def folder(self) -> str:
        """The label as a folder's name."""
        return re.sub(r"[^A-Za-z0-9_-]+", "-", self.label)

    def config(self, job: AblateJob, seed: int, advice: str) -> Config:
        """Settings of one run."""
        settings: dict[str, Any] = {"train.steps": job.steps, "train.seed": seed}
        off = {"gate.enabled": False, "synthetic.enabled": False}
        settings |= off | {"options.enabled": False, "advice.dataset": ""}
        paths, *added = self.arm.split("+")
        if self.arm == "prefill":
            settings |= {"advice.dataset": advice, "advice.prefill_steps": max(1, min(PREFILL_STEPS, job.steps // 2))}
        elif self.arm != "none":
            settings["advice.dataset"] = advice
            settings["gate.enabled"] = "B" in paths
            settings["synthetic.enabled"] = "A" in paths
            settings["options.enabled"] = "C" in paths
        if "B" in paths and "kick" not in added:
            settings["gate.kickstart"] = 0.0
        if "D" in paths:
            settings["gate.goal_bonus"] = GOAL_BONUS
        if "B1" in paths:
            settings["gate.hold"] = 1
        for word in added:
            settings |= _ADDED[word]
        if "budget" in added:
            settings["gate.budget_steps"] = max(1, 2 * job.steps // 5)
        if "episodes" in added or "blocks" in added:
            settings["gate.guided_steps"] = max(1, 2 * job.steps // 5)
        if "end" in added:
            settings |= dict.fromkeys(("gate.budget_steps", "gate.kickstart_steps"), max(1, job.steps // 2))
        if self.adviser == "uniform" and self.arm != "none":
            settings["advice.prior"] = "uniform"
        return configured(job.config, **settings)


def _words(text: str, what: str) -> list[str]:
    words = list(dict.fromkeys(w.strip() for w in text.split(",") if w.strip()))
    if not words:
        raise ConfigError(f"{what} is empty", hint=f"--{what} with one name or more, separated by commas")
    return words


def cells(job: AblateJob) -> list[Cell]:
    """Every pair to run, ``none`` once and first; ConfigError for an arm that does not exist."""
    arms = _words(job.arms, "arms")
    few = _words(job.control_arms, "control_arms") if job.control_arms else arms
    wrong = [arm for arm in [*arms, *few] if not _ARM.fullmatch(arm)]
    if wrong:
        raise ConfigError(
            f"unknown arm {shown(wrong[0])!r}",
            hint="arms: none, prefill, A, B, B1, C and their unions in this order, as ABC; with B also BC+kick,"
            " BC+kick+budget, BC+kick+episodes, BC+kick+blocks, BC+kick+end, BC+kick+numbers, BC+kick+skills (several"
            " in this order); with C also C+all, C+all+numbers+skills, with both BCD+kick",
        )
    words = _words(job.advisers, "advisers")
    names = [text.partition("=")[0] for text in words]
    if len(set(names)) < len(names):
        raise ConfigError("two advisers have one name", hint="give each NAME=DATASET another NAME")
    for text in words:
        name, given, _ = text.partition("=")
        if given and (not re.fullmatch(r"[A-Za-z0-9_-]+", name) or name in (*_OF_THE_FIRST, _PROGRAM)):
            raise ConfigError(
                f"{shown(name)!r} cannot be the name of a dataset among the advisers",
                hint=f"letters, digits, - and _, none of {', '.join((*_OF_THE_FIRST, _PROGRAM))}",
            )
    out = [Cell("none", "")] if "none" in arms else []
    return out + [Cell(arm, name) for name in names for arm in (arms if name == names[0] else few) if arm != "none"]


@dataclass(frozen=True)
class AblationRun:
    """One run of an ablation study: arm and adviser, seed, folder."""

    cell: Cell
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        """``ABC-rules-s0``, as its file of results is called."""
        return f"{self.cell.folder}-s{self.seed}"


def planned_runs(job: AblateJob) -> list[AblationRun]:
    """Every run, seed by seed, so that a study that is stopped early has whole seeds; ConfigError for a cell that it
    does not have."""
    root, pairs = Path(job.folder), cells(job)
    if job.only:
        known = {pair.label: pair for pair in pairs}
        wanted = _words(job.only, "only")
        if strange := [label for label in wanted if label not in known]:
            raise ConfigError(f"no cell {shown(strange[0])!r} in this study", hint=f"its cells: {', '.join(known)}")
        pairs = [known[label] for label in wanted]
    return [AblationRun(pair, seed, root / pair.folder / f"seed-{seed}") for seed in job.seeds for pair in pairs]


def check_advisers(job: AblateJob) -> None:
    """Raise what is wrong with the advisers before the first of them is asked: names, versions, backends, datasets."""
    from flows.jobs.collect import check_kinds
    from lore_datasets.advice import load_advice
    from pipeline.llm import backend_from

    made: dict[str, str] = {}
    for number, text in enumerate(_words(job.advisers, "advisers")):
        name, _, dataset = text.partition("=")
        if dataset.endswith((".h5", ".hdf5")):
            raise ConfigError(
                f"{shown(dataset)} is a file, which may change between two runs",
                hint=f"lore datasets import {shown(dataset)}, and give the name of that dataset",
            )
        if dataset:
            load_advice(dataset, texts=False)
        elif name in _OF_THE_FIRST:
            if not number:
                raise ConfigError(
                    f"{name} comes first among the advisers", hint="name the one whose skills it has before"
                )
        else:
            AdviceJob(dataset=f"{job.dataset}-{name}")
            backend_from(asking(job.config, "rules" if name == _PROGRAM else name))
            made[f"{job.dataset}-{name}"] = "advice"
    check_kinds(made | ({f"{job.dataset}-states": "states"} if made else {}))


def make_advice(job: AblateJob) -> dict[str, str]:
    """Adviser -> the one advice version that all of its runs read; made from one set of states, or found."""
    from flows.jobs.advise import advise_states
    from flows.jobs.collect import play_states
    from flows.jobs.distil import distil_model
    from pipeline.config import AdviseConfig, CollectConfig, SelectConfig

    check_advisers(job)
    out: dict[str, str] = {}
    states = ""
    for text in _words(job.advisers, "advisers"):
        name, _, dataset = text.partition("=")
        if dataset:
            from lore_datasets.advice import load_advice

            out[name] = str(load_advice(dataset).ref)
            continue
        if name in _OF_THE_FIRST:
            first = next(iter(out.values()))
            if name == "uniform":  # the first one's skills; the learner makes the prior itself, in every state
                out[name] = first
                continue
            ref = (shuffle if name == "shuffled" else rows_alone)(first, f"{job.dataset}-{name}")
        elif name == _PROGRAM:
            ask = AdviceJob(dataset=f"{job.dataset}-{name}", environment=job.config.env.name)
            ref = advise_states(replace(ask, advise=AdviseConfig(kinds="program")))
        else:
            if not states:
                collect = CollectConfig(environment=job.config.env.name, budget=job.states)
                states = str(play_states(CollectJob(f"{job.dataset}-states", collect)))
            ask = AdviceJob(states, f"{job.dataset}-{name}", select=SelectConfig(budget=job.rows))
            ask = replace(ask, ask=asking(job.config, name), advise=AdviseConfig())
            ref = advise_states(ask)
        if name != _PROGRAM:  # it speaks in every state
            distil_model(ref, job.epochs)
        out[name] = str(ref)
    return out


def shuffle(dataset: str, name: str, seed: int = 0) -> ArtifactRef:
    """A version whose advice is that of ``dataset`` permuted over its states: the same words, the wrong places."""
    return _moved(dataset, name, seed)


def rows_alone(dataset: str, name: str) -> ArtifactRef:
    """A version with the rows of ``dataset`` and without its program, so that a model is distilled from them."""
    return _moved(dataset, name, None)


def _moved(dataset: str, name: str, seed: int | None) -> ArtifactRef:
    """The rows of ``dataset`` as a version of their own, the advice permuted over the states where there is a seed."""
    import numpy as np

    from lore_datasets.advice import load_advice
    from lore_datasets.exchange.shipped import ShippedStore

    store = ShippedStore()
    data = load_advice(dataset)
    for version in store.versions(name) if name in store.names() else ():
        if str(data.ref) in store.manifest(f"{name}@v{version}").parents:
            return store.resolve(f"{name}@v{version}")
    rows = data.rows
    order = np.arange(len(rows)) if seed is None else np.random.default_rng(seed).permutation(len(rows))
    what = "rows" if seed is None else "shuffled"
    writer = store.writer(
        name, "advice", environment=data.environment, parents=(str(data.ref),), skills=data.skills,
        config={} if seed is None else {"seed": seed}, provenance={"adviser": what, "of": str(data.ref)},
    )  # fmt: skip
    moved = ("logits", "mask", "confidence", "plans", "plan_lengths", "plan_scores")
    writer.append(
        "rows", state=rows.state, applicable=rows.applicable, reason=[str(rows.reason[i]) for i in order],
        **{field: getattr(rows, field)[order] for field in moved},
    )  # fmt: skip
    return writer.commit(f"{what} of {data.ref}" if seed is None else f"advice of {data.ref}, permuted over its states")
