"""LoRe from Python, for notebooks and other programs: the steps of the flows with typed results, without Prefect.

Each function takes the settings of its command as keywords (``budget=300``, or dotted: ``**{"ask.backend": "rules"}``),
shows how far it is (in a notebook as a bar below the cell; ``quiet=True``: nothing), and can be interrupted and called
again: what was finished is kept, and KeyboardInterrupt says what that is. Nothing is remembered between calls but what
lies in folders. Datasets lie where the commands have them (``LORE_DATASETS``, else ``runs/datasets``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from flows.config import AdviceJob, CollectJob, EvaluateJob
from flows.terminal import Terminal, current, open_terminal, use
from lore.config import Config, load_config, replace
from lore_datasets.errors import ConfigError
from lore_datasets.types import ArtifactRef

if TYPE_CHECKING:
    from lore_datasets.advice import AdviceData

__all__ = [
    "Evaluation", "Trained", "Worth", "advise", "collect", "evaluate", "open_advice", "play", "report", "train",
]  # fmt: skip

Job = TypeVar("Job")


@dataclass(frozen=True)
class Figure:
    """Episodes of one player.

    Attributes:
        episodes: how many. mean: of their returns (sums of rewards). interval: 95 % bootstrap interval of that mean.
        score: Crafter score in per cent, over these episodes. achievements: name -> share of episodes in per cent.
    """

    episodes: int
    mean: float
    interval: tuple[float, float]
    score: float
    achievements: dict[str, float] = field(repr=False)


@dataclass(frozen=True)
class Worth:
    """What a version is worth with no learner.

    Attributes:
        advice: lives that follow the version. against: those of the control on the same worlds, None without one.
        steps: environment steps of all lives.
        text: the whole report. report: the same as data. artifact: the version of NAME-play that holds it.
    """

    advice: Figure
    against: Figure | None
    steps: int
    artifact: str
    text: str = field(repr=False)
    report: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Trained:
    """A run as far as it was trained.

    Attributes:
        folder: of the run. steps: environment steps, updates: of the networks, episodes: that ended; so far.
        is_interrupted: it was stopped; the same call goes on.
        training_score: Crafter score over all training episodes in per cent, None before the first ended.
        unused_advice: why nothing of the advice is followed, empty where it is.
        changes: ``section.name`` -> (before, now) of what differs from the run that was gone on with or forked.
    """

    folder: Path
    steps: int
    updates: int
    episodes: int
    is_interrupted: bool
    training_score: float | None
    unused_advice: str
    changes: dict[str, tuple[object, object]] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """Fresh episodes of a trained agent.

    Attributes:
        runs: folders of the run, or of its seeds; each holds its ``evaluation.json``.
        as_trained: with its advice and its skills. agent_alone: without advice. primitives_only: without skills too.
    """

    runs: tuple[Path, ...]
    as_trained: Figure
    agent_alone: Figure
    primitives_only: Figure


def collect(dataset: str = "states", *, quiet: bool = False, **settings: Any) -> ArtifactRef:
    """Play and store the states worth asking about as the next version of ``dataset``; returns it.

    Settings: :class:`flows.config.CollectJob`, among them ``budget`` (states), ``max_steps`` (environment steps) and
    ``seed``. An interrupt stores the states found so far as a version, from which the same call goes on.
    """
    from flows.jobs.collect import play_states

    job = _job(CollectJob, {"dataset": dataset, **settings})
    with _call("collect", quiet, "the states found so far, as a version"):
        return play_states(job)


def advise(
    states: ArtifactRef | str = "", dataset: str = "advice", *, quiet: bool = False, **settings: Any
) -> ArtifactRef:
    """Ask an adviser, store the checked answers as the next version of ``dataset``; returns the version.

    Without ``states`` one question buys a priority program. Settings: :class:`flows.config.AdviceJob`, among them
    ``backend`` (rules, gemini, openai, local, file, ...), ``kinds``, ``max_cost`` (US dollars), ``select.budget``
    (states). An interrupt keeps every answer in the journal: the same call pays for none of them again.
    """
    from flows.jobs.distil import advise_and_distil

    given = {"states": str(states)} if states else {"kinds": "program"}
    job = _job(AdviceJob, {"dataset": dataset, **given, **settings})
    with _call("advise", quiet, "every answer, in the journal"):
        return advise_and_distil(job)["advice"]


def open_advice(ref: ArtifactRef | str) -> AdviceData:
    """The rows, skills and program of a version (its name alone: the newest), checked against its digest.

    ``rows.state`` uint8[N, S], ``rows.logits`` and ``rows.mask`` [N, A+K] over ``actions`` and then ``skills``,
    ``rows.plans`` int16[N, P, L]; see :class:`lore_datasets.advice.AdviceRows`. For xarray:
    :func:`lore_datasets.exchange.zarr_store.open_zarr_store`.
    """
    from lore_datasets.advice import load_advice

    return load_advice(str(ref))


def play(
    ref: ArtifactRef | str, episodes: int = 40, against: str = "uniform", *, workers: int = 0, quiet: bool = False,
    **settings: Any,
) -> Worth:  # fmt: skip
    """What a version is worth with no learner, over ``episodes`` lives, beside a control on the same fresh worlds.

    ``workers``: processes, 0 for one a core. Settings: :class:`lore.evaluation.play.PlaySettings` (``seed``; ``hold``
    and ``length`` in environment steps; ``area`` in cells; ``sampled``). An interrupt keeps the lives that ended.
    """
    from flows.jobs.play import PlayJob
    from flows.jobs.play import play as run
    from flows.report.play import play_text
    from lore.evaluation.play import PlaySettings

    job = PlayJob(str(ref), episodes, against, _job(PlaySettings, settings), workers)
    with _call("play", quiet, "the lives that ended"):
        found = run(job)
    players = {
        name: Figure(
            each["lives"], each["return"][0], (each["return"][1], each["return"][2]), each["score"][0],
            {key: value[0] for key, value in each["achievements"].items()},
        )
        for name, each in found["players"].items()
    }  # fmt: skip
    control = next((figure for name, figure in players.items() if name != "advice"), None)
    return Worth(players["advice"], control, found["steps"], found["artifact"], play_text(found), found)


def train(
    folder: str | Path, *, preset: str | None = None, advice: ArtifactRef | str = "",
    fork: Trained | str | Path | None = None, quiet: bool = False, **settings: Any,
) -> Trained:  # fmt: skip
    """Train a run, or go on with the one in ``folder`` under its own settings; an interrupted kernel saves it.

    Args:
        folder: of the run.
        preset: smoke, laptop (the default of a new run), crafter-12m, crafter-paper, or "" for the plain defaults
            (:mod:`lore.presets`). Where a run is gone on with, its settings stand unless a preset is given.
        advice: the version to learn from; opens path B.
        fork: another run, from whose checkpoint a new one begins in ``folder`` with its settings; step sizes, weights
            and schedules may change. A fork that is there already is gone on with.
        quiet: show nothing.
        settings: :mod:`lore.config`, such as ``steps=2000`` (environment steps in all), ``learning_rate=1e-4`` or
            ``**{"options.enabled": True, "options.max_options": 0}``.

    ConfigError for fewer steps than are done, and for settings that the run cannot change; the run stays as it was.
    """
    from lore.training.folder import CONFIG, read_config
    from lore.training.fork import check_steps, differences
    from lore.training.fork import fork as begin
    from lore.training.loop import train as run

    folder, source = Path(folder), None if fork is None else _folder(fork)
    is_there = (folder / CONFIG).exists()
    before = _settings(folder if is_there else source, preset)
    paths = {"advice.dataset": str(advice), "gate.enabled": True} if advice else {}
    config = replace(replace(before, **paths), **settings)
    changes: dict[str, tuple[object, object]] = {}
    if is_there:
        check_steps(folder, config)
        changes = differences(read_config(folder), config)
    elif source is not None:
        changes = begin(source, folder, config)
    with _call("train", quiet, "the run up to its last checkpoint"), current().bar("train", config.train.steps) as bar:
        for name, (old, new) in changes.items():
            current().say(f"  {name}: {old} -> {new}")

        def show(row: dict[str, Any]) -> None:
            mean = "" if row["episode_return"] is None else f"return {row['episode_return']:.2f}, "
            bar.update(row["step"], row["total"], f"{mean}{row['updates']:,} updates")

        found = run(config, folder, show)
    return Trained(
        folder, found["step"], found["updates"], found["episodes"], found["interrupted"], found["training_score"],
        found["unused_advice"], changes,
    )  # fmt: skip


def evaluate(
    run: Trained | str | Path, episodes: int = 10, *, seed: int = 10_000, record: int = 0, quiet: bool = False
) -> Evaluation:
    """Fresh episodes with the agent of a run: with its advice, without it, and without its skills too.

    Of a folder of seeds all runs are played, and the figures are those over them: means of the runs' means and scores,
    with an interval of the return over runs and episodes. ``episodes``: per mode and run. ``seed``: of the worlds,
    which no training saw. ``record``: keep so many episodes per run frame by frame, from the worst to the best;
    :func:`report` plays them.
    ConfigError where the runs differ in more than their seeds. An interrupt keeps the evaluations of finished runs.
    """
    from flows.jobs.evaluations import are_seeds, evaluate_runs, over_seeds, runs_of

    runs = runs_of([_folder(run)])
    if not are_seeds(runs):
        raise ConfigError(
            f"the {len(runs)} runs in {_folder(run)} differ in more than their seeds", kept="nothing was played",
            hint="evaluate them one by one; lore runs compare tells in what",
        )  # fmt: skip
    with _call("evaluate", quiet, "the evaluations of finished runs"), current().bar("evaluate", None) as bar:
        job = EvaluateJob(str(runs[0]), episodes, seed, record)
        found = evaluate_runs(runs, job, lambda mode, done, total: bar.update(done, total, mode))
    whole = over_seeds(found) or {}
    return Evaluation(tuple(runs), *(_figure(whole[mode]) for mode in ("as_trained", "agent_alone", "primitives_only")))


def report(
    runs: Trained | str | Path | Sequence[Trained | str | Path], out: str | Path | None = None, *, quiet: bool = False
) -> Path:
    """Write one self-contained HTML page about one or more runs (of a folder of seeds: all in it); returns its path.

    ``out``: default ``report.html`` in the first folder. A page is there wholly or not at all.
    """
    from flows.jobs.evaluations import runs_of
    from flows.report.read import report_advice
    from flows.report.sections import build_report, labelled

    several = [runs] if isinstance(runs, (Trained, str, Path)) else list(runs)
    folders = [_folder(run) for run in several]
    with _call("report", quiet, "the page as it was"):
        named = labelled(runs_of(folders))
        return build_report(named, Path(out) if out else folders[0] / "report.html", advice=report_advice(named, ""))


def _settings(folder: Path | None, preset: str | None) -> Config:
    """Those of a preset, else of the run in ``folder``, else of the preset ``laptop``."""
    from lore.presets import PRESETS
    from lore.training.folder import read_config

    if preset and preset not in PRESETS:
        raise ConfigError.out_of_range("preset", preset, f"one of {', '.join(PRESETS)}, or '' for none")
    if preset is None and folder is not None:
        return read_config(folder)
    return load_config(**({} if preset == "" else PRESETS[preset or "laptop"]))


def _folder(run: Trained | str | Path) -> Path:
    return run.folder if isinstance(run, Trained) else Path(run)


def _figure(found: dict[str, Any]) -> Figure:
    """A mode of ``evaluation.json``."""
    low, high = found["return_interval"]
    rates = {name: each["rate"] for name, each in found["achievements"].items()}
    return Figure(found["episodes"], found["return_mean"], (low, high), found["score"], rates)


@contextmanager
def _call(name: str, quiet: bool, kept: str) -> Iterator[Terminal]:
    """The terminal of one call; an interrupt says what is kept, in place of where in the code it came."""
    with use(Terminal() if quiet else open_terminal()) as terminal:
        try:
            yield terminal
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"{name} was interrupted; kept: {kept}; next: the same call goes on") from None


def _job(kind: type[Job], settings: dict[str, Any]) -> Job:
    """A job of nested dataclasses from settings by name, or by section and name with a dot between them.

    ConfigError for a name that there is not, with the nearest one, and for one that stands in several sections.
    """
    hints = get_type_hints(kind)
    sections = {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}
    own = [each.name for each in dataclasses.fields(kind) if each.name not in sections]  # pyright: ignore[reportArgumentType]
    known = {name: ("", name) for name in own}
    leaves = [(section, each.name) for section, cls in sections.items() for each in dataclasses.fields(cls)]
    for section, name in leaves:
        known[f"{section}.{name}"] = (section, name)
        if [leaf for _, leaf in leaves].count(name) == 1 and name not in own:
            known[name] = (section, name)
    values: dict[str, dict[str, Any]] = {section: {} for section in ("", *sections)}
    for name, value in settings.items():
        if name not in known:
            near = get_close_matches(name, known, 3) or sorted(own)
            raise ConfigError(f"{kind.__name__} has no setting {name!r}", hint=f"did you mean {', '.join(near)}?")
        section, leaf = known[name]
        values[section][leaf] = value
    nested = {section: cls(**values[section]) for section, cls in sections.items()}  # pyright: ignore[reportCallIssue]
    return kind(**values[""], **nested)
