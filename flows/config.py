"""What the flows are asked to do: one frozen dataclass each; the command line and Prefect's forms are made of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from flows.cluster.cluster import check_address
from lore.aliases import renamed
from lore.config import Config, load_config
from lore.config import replace as configured
from lore.presets import STUDY
from lore_datasets.environments import DEFAULT
from lore_datasets.errors import ConfigError, shown
from pipeline.config import AdviseConfig, AskConfig, CollectConfig, SelectConfig

__all__ = ["AblateJob", "AdviceJob", "CollectJob", "DemoJob", "EvaluateJob", "RefreshJob", "SeedsJob", "TrainJob",
           "asking", "check_pinned", "check_seeds", "renamed_job", "with_advice"]  # fmt: skip


T = TypeVar("T")
Flat = Annotated[T, tyro.conf.arg(name="")]
"""Settings whose options have no prefix on the command line."""


def renamed_job(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    """Fields of a job of ``kind`` under today's names; what has no older name stays as it is."""
    known = {each.name for each in fields(kind)}
    found: dict[str, Any] = {}
    for name, value in values.items():
        new = {"name": "dataset", "frames": "steps"}.get(name, name)
        if name == "distil" and "rows_only" in known:
            found["rows_only"] = not value
        elif name == "config" and isinstance(value, dict):
            found["config"] = renamed(value)
        else:
            found[new if new in known and name not in known else name] = value
    first = found.get("first_seed", 0)
    if "seeds" in known and type(found.get("seeds")) is type(first) is int:  # a number of seeds, from the first on
        found.pop("first_seed", 0)
        found["seeds"] = list(range(first, first + found["seeds"]))
    return found


def _laid(default: Any, given: Any) -> Any:
    """``given``, its tables laid over ``default``: what they leave out stays as there."""
    if not (isinstance(given, dict) and is_dataclass(default)):
        return given
    return vars(default) | {name: _laid(getattr(default, name, None), value) for name, value in given.items()}


class _Job:
    """A job from a file or a form of Prefect: a table in it changes single settings of what the job has by itself."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core.core_schema import no_info_before_validator_function

        return no_info_before_validator_function(lambda given: _laid(cls(), given), handler(source))


@dataclass(frozen=True)
class CollectJob:
    """Play, and store the states as the next version of a dataset."""

    dataset: str = "states"
    """Dataset to write."""
    collect: Flat[CollectConfig] = field(default_factory=CollectConfig)
    """How to play."""

    def __post_init__(self) -> None:
        _check_name(self.dataset)


@dataclass(frozen=True)
class AdviceJob:
    """Ask an adviser about stored states, store the checked answers, distil the advice model."""

    states: str = "states"
    """Dataset of states: name, name@vN or name@vN#digest; not read when a program alone is asked for."""
    dataset: str = "advice"
    """Dataset to write."""
    select: SelectConfig = field(default_factory=SelectConfig)
    """Which states."""
    ask: AskConfig = field(default_factory=AskConfig)
    """Whom."""
    advise: AdviseConfig = field(default_factory=AdviseConfig)
    """What for."""
    journal: str = ""
    """File of all questions and answers; default journal.sqlite beside the datasets."""
    rows_only: bool = False
    """Train no advice model afterwards (the learner's look-up of last resort)."""
    revisions: str = ""
    """Run folders, comma-separated, whose retired skills the adviser is asked to replace, each once."""
    dask: str = ""
    """Cluster that answers for advisers that compute: a Dask scheduler's address (tcp://host:8786), or local."""
    parallel: int = 0
    """Shards on their way at a time, on a cluster threads that answer; 0: 2 for a service, else 1; all its threads."""
    revise: bool = False
    """Ask for a better program in place of the dataset's own, told how that one played, and for nothing else; needs no
    states. It is kept only if it plays better: the paired 95 % interval of its gain in return lies above 0."""
    revise_worlds: int = 40
    """Fresh worlds in which the program before and the better one play a life each."""
    environment: str = DEFAULT
    """Environment of a program that is asked for alone; states bring their own."""

    def __post_init__(self) -> None:
        _check_name(self.dataset)
        check_address("dask", self.dask)
        _at_least(self, revise_worlds=1)
        if type(self.parallel) is not int or not 0 <= self.parallel <= 1024:
            raise ConfigError.out_of_range("parallel", self.parallel, "0..1024")


@dataclass(frozen=True)
class TrainJob:
    """One training run."""

    folder: str = "runs/train"
    """Folder of the run."""
    config: Config = field(default_factory=Config)
    """Settings of the learner; ``advice.dataset`` pins a version."""


@dataclass(frozen=True)
class EvaluateJob:
    """Fresh episodes with a trained agent."""

    folder: str = "runs/train"
    """Folder of the run."""
    episodes: int = 10
    """Episodes per mode."""
    seed: int = 10_000
    """Seed of the worlds, apart from training's."""
    record: int = 0
    """Episodes to keep frame by frame, from the worst to the best."""

    def __post_init__(self) -> None:
        _at_least(self, episodes=1, record=0)
        if not 0 <= self.seed < 2**63:
            raise ConfigError.out_of_range("seed", self.seed, "0 or more")


_FULL = {"states": 3000, "rows": 3000, "steps": 3000, "episodes": 6, "epochs": 20}
_QUICK = {"states": 600, "rows": 400, "steps": 1000, "episodes": 1, "epochs": 8}


@dataclass(frozen=True)
class DemoJob:
    """The whole walk: collect, advise, train two arms side by side, evaluate, report. After a stop: run it again."""

    quick: bool = False
    """A short walk (one to three minutes) that shows every part working; its numbers mean nothing."""
    fresh: bool = False
    """Start over instead of going on: forget the runs of this demo. Dataset versions stay, new ones are added."""
    direct: bool = False
    """Call the phases as plain functions; without this they run as Prefect flows on an embedded server."""
    folder: str = ""
    """Where runs and report go; default runs/demo, or runs/demo-quick."""
    dataset: str = ""
    """Name of the advice dataset; by default the game's, as crafter-demo or crafter-demo-quick."""
    seed: int = 0
    """Seed of play, selection, networks and worlds."""
    states: int = 0
    """Game states to collect; 0 takes 3000 (quick: 600)."""
    rows: int = 0
    """States to ask about; 0 takes 3000 (quick: 400)."""
    steps: int = 0
    """Environment steps per arm; 0 takes 3000 (quick: 1000)."""
    episodes: int = 0
    """Evaluation episodes per arm and mode; 0 takes 6 (quick: 1)."""
    epochs: int = 0
    """Passes of the advice model over the rows; 0 takes 20 (quick: 8)."""

    def __post_init__(self) -> None:
        _at_least(self, seed=0, states=0, rows=0, steps=0, episodes=0, epochs=0)
        if self.dataset:
            _check_name(self.dataset)

    def resolved(self) -> DemoJob:
        """The same job with every default filled in."""
        preset = _QUICK if self.quick else _FULL
        tail = "-quick" if self.quick else ""
        filled = {name: getattr(self, name) or value for name, value in preset.items()}
        folder, dataset = self.folder or f"runs/demo{tail}", self.dataset or f"{DEFAULT}-demo{tail}"
        return replace(self, folder=folder, dataset=dataset, **filled)


def asking(config: Config, backend: str) -> AskConfig:
    """How to ask where a learner's settings say it: ``advice.llm_model`` (of Gemini) and ``advice.llm_timeout_s``."""
    model = config.advice.llm_model if backend == "gemini" else ""
    return replace(AskConfig(), backend=backend, model=model, timeout_s=config.advice.llm_timeout_s)  # type: ignore[arg-type]


def with_advice(skills: Sequence[str]) -> str:
    """Flags of ``lore train`` that follow a version in the agent's decisions and give its skills, if any, slots."""
    return "--gate.enabled" + (" --options.enabled --options.max-options 0" if skills else "")


def _at_least(job: object, **least: int) -> None:
    """ConfigError unless each named field is a whole number, as large as said or larger, below 2**31."""
    for name, low in least.items():
        value = getattr(job, name)
        if type(value) is not int or not low <= value < 2**31:
            raise ConfigError.out_of_range(name, value, f"{low} or more")


def _check_name(dataset: str) -> None:
    """BadInput unless ``dataset`` may name a dataset: said before any work is done for it."""
    from lore_datasets.store.repository import check_name

    check_name(dataset)


def check_seeds(seeds: tuple[int, ...]) -> None:
    """ConfigError unless ``seeds`` are different whole numbers, at least one."""
    listed = seeds if isinstance(seeds, (tuple, list)) else ()
    if not listed or len(set(seeds)) < len(seeds) or any(type(n) is not int or not 0 <= n < 2**31 for n in seeds):
        given = " ".join(map(str, listed)) or seeds
        raise ConfigError.out_of_range("seeds", given, "a list of different numbers, 0 or more")


def _check_shared(config: Config) -> None:
    """ConfigError where settings that the runs share name something that the job sets for each run."""
    plain, own = Config(), ("train.steps", "train.seed", "gate.enabled", "synthetic.enabled", "options.enabled")
    for name in (*own, "advice.dataset"):
        section, leaf = name.split(".")
        if getattr(getattr(config, section), leaf) != getattr(getattr(plain, section), leaf):
            raise ConfigError(
                f"{name} is set for each run by the job itself",
                hint="give steps, seeds, and arms with advisers or paths with a dataset",
            )


def study_config() -> Config:
    """The learner of a study on a small machine: symbolic observations, the tiny network, one thread."""
    return load_config(**STUDY)


@dataclass(frozen=True)
class AblateJob(_Job):
    """Arms x advisers x seeds with equal budgets in environment steps, and one table. After a stop: run it again."""

    preset: Literal["", "quick", "laptop", "paper", "doorkey", "keycorridor"] = ""
    """A study of the docs: fixes arms, advisers, steps, episodes and learner. ``quick``: 5,000 steps a run, one to
    four minutes of one core; ``laptop``: 50,000 steps; ``paper``: pixels, size 1m, 30,000 steps;
    ``doorkey``, ``keycorridor``: MiniGrid, the rule book's program, 50,000 steps."""
    only: str = ""
    """Cells to run now, comma-separated, as the table names them: ``none,BC+kick claude``; empty: all."""
    report: bool = False
    """Run nothing: make table and page of the figures that are there."""
    results: str = ""
    """Where each finished run leaves its figures, one small JSON file; what is there is not run again. Default: results
    in the folder of the study, docs/studies/runs/PRESET for a preset."""

    arms: str = "none,B,A,C,ABC"
    """Comma-separated: none, prefill (the version plays the first 5,000 steps or half of a shorter run, then the policy
    is alone), any of A, B, C together (ABC), and B1 or AB1C: the gate decides anew at every step;
    BC+kick draws the actor to the advice, with all skills in slots, BC+kick+budget under a budget that falls over two
    fifths of the run, BC+kick+episodes and BC+kick+blocks with guidance in a share of the episodes, or in a stretch of
    each of these, that falls to a tenth meanwhile, BC+kick+end until all guidance has fallen to 0 at its half,
    BC+kick+numbers with a world model that tells numbers exactly, BC+kick+skills with imagination that chooses among
    skills; BCD+kick pays for advised goals in imagination; C+all has all skills in slots and nothing else."""
    advisers: str = "rules"
    """Comma-separated: backends (rules, random, blind, local, ...), ``program`` (the rule book's, asked for alone),
    NAME=DATASET for a version that exists,
    ``shuffled`` (the first one's advice permuted over states), ``rows`` (the first one without its program), or
    ``uniform`` (the first one's skills, all that can start equally likely in every state). Every arm with a path runs
    once per adviser."""
    control_arms: str = ""
    """Arms that all advisers but the first run in, comma-separated; empty: all arms."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each runs every arm."""
    steps: int = 20_000
    """Environment steps of every run."""
    episodes: int = 10
    """Evaluation episodes per run and mode; 0 leaves the evaluation out."""
    workers: int = 0
    """Runs at a time, one process each; 0 takes the number of cores, or of the cluster's threads."""
    dask: str = ""
    """Run on a Dask cluster: the scheduler's address (tcp://host:8786), or local for workers on this machine."""
    folder: str = "runs/ablate"
    """Where runs, table and page go."""
    dataset: str = f"{DEFAULT}-ablate"
    """What the names of the datasets that the study makes begin with."""
    states: int = 3000
    """Game states to collect, once for all advisers."""
    rows: int = 2000
    """States to ask each adviser about."""
    epochs: int = 30
    """Passes of each advice model over its rows."""
    config: Flat[Config] = field(default_factory=study_config)
    """Settings that all runs share; steps, seeds, paths and advice are the study's own."""

    def __post_init__(self) -> None:
        _check_name(self.dataset)
        check_address("dask", self.dask)
        _at_least(self, steps=1, episodes=0, workers=0, states=1, rows=20, epochs=1)
        check_seeds(self.seeds)
        _check_shared(self.config)


def _refresh_selection() -> SelectConfig:
    return SelectConfig(budget=500, novelty=0.2, coverage=0.4, unsure=0.2)


@dataclass(frozen=True)
class RefreshJob(_Job):
    """Ask about the states that a trained agent meets without advice or unsure, then train on with the next version."""

    folder: str = "runs/train"
    """Folder of a run that learns with advice and has a checkpoint."""
    rounds: int = 1
    """Rounds to add; after a stop, a repeated call finishes those that are missing."""
    visits: int = 2000
    """Visited states to export per round."""
    steps: int = 5000
    """Environment steps to add per round, from the checkpoint; 0 trains no further."""
    select: SelectConfig = field(default_factory=_refresh_selection)
    """Which of the visited states: shares by missing coverage, by uncertainty, by rarity; the rest by chance."""
    ask: AskConfig = field(default_factory=AskConfig)
    """Whom."""
    advise: AdviseConfig = field(default_factory=AdviseConfig)
    """What for; a run in progress takes new skills over by name."""
    revise_worlds: int = 40
    """Where the version holds a program, ask for a better one too, told how it played, and keep it only if it plays
    better in so many fresh worlds; 0 asks for none."""
    epochs: int = 30
    """Passes of each version's advice model over its rows."""
    journal: str = ""
    """File of all questions and answers; default journal.sqlite beside the datasets."""
    dask: str = ""
    """Ask on a Dask cluster: the scheduler's address (tcp://host:8786), or local for processes on this machine."""

    def __post_init__(self) -> None:
        check_address("dask", self.dask)
        _at_least(self, rounds=1, visits=1, steps=0, epochs=1, revise_worlds=0)


def check_pinned(dataset: str) -> None:
    """ConfigError unless ``dataset`` is empty or a version pinned as ``name@vN#digest``."""
    if dataset and not re.fullmatch(r"[^@#]+@v[0-9]+#[0-9a-f]{8,64}", dataset):
        raise ConfigError(
            f"dataset = {shown(dataset)} names no version exactly, so another version could come next time",
            hint="give name@vN#digest, as lore datasets list prints it",
        )


@dataclass(frozen=True)
class SeedsJob(_Job):
    """Several seeds of one arm from one advice version; each goes on from its checkpoint."""

    dataset: str = ""
    """Advice version, pinned as name@vN#digest; empty trains without advice."""
    paths: str = "ABC"
    """Which ways the advice enters: any of A (synthetic replay), B (policy prior), C (options)."""
    folder: str = "runs/seeds"
    """Where the runs go: one folder ``seed-N`` each."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One run each."""
    steps: int = 20_000
    """Environment steps of every run."""
    workers: int = 0
    """Runs at a time, one process each; 0 takes the number of cores, or of the cluster's threads."""
    dask: str = ""
    """Run on a Dask cluster: the scheduler's address (tcp://host:8786), or local for workers on this machine."""
    config: Flat[Config] = field(default_factory=study_config)
    """Settings that all runs share; steps, seeds, paths and advice come from above."""

    def __post_init__(self) -> None:
        check_address("dask", self.dask)
        _at_least(self, steps=1, workers=0)
        check_seeds(self.seeds)
        _check_shared(self.config)
        check_pinned(self.dataset)
        if not re.fullmatch(r"(?=[ABC])A?B?C?", self.paths):
            raise ConfigError.out_of_range("paths", self.paths, "A, B, C, AB, AC, BC or ABC")

    def jobs(self) -> list[TrainJob]:
        """One training run per seed."""
        on = self.paths if self.dataset else ""
        shared = {
            "train.steps": self.steps, "advice.dataset": self.dataset, "gate.enabled": "B" in on,
            "synthetic.enabled": "A" in on, "options.enabled": "C" in on,
        }  # fmt: skip
        return [
            TrainJob(str(Path(self.folder) / f"seed-{n}"), configured(self.config, **shared, **{"train.seed": n}))
            for n in self.seeds
        ]
