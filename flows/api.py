"""LoRe from Python, for notebooks and other programs: the steps of the flows with typed results, without Prefect.

Each function takes the settings of its command as keywords (``budget=300``, or dotted: ``**{"ask.backend": "rules"}``),
says how far it is on standard output (``quiet=True``: nothing), and can be interrupted and called again: what was
finished is kept. Datasets lie where the commands have them (``LORE_DATASETS``, else ``runs/datasets``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from flows.config import AdviceJob, CollectJob
from flows.terminal import Terminal, current, open_terminal, use
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
        folder: of the run. steps, updates, episodes: so far. is_interrupted: it was stopped; the same call goes on.
        training_score: Crafter score over all training episodes in per cent, None before the first ended.
        unused_advice: why nothing of the advice is followed, empty where it is.
    """

    folder: Path
    steps: int
    updates: int
    episodes: int
    is_interrupted: bool
    training_score: float | None
    unused_advice: str


@dataclass(frozen=True)
class Evaluation:
    """Fresh episodes of a trained agent: as trained, alone without advice, and with primitive actions only."""

    folder: Path
    as_trained: Figure
    agent_alone: Figure
    primitives_only: Figure


def collect(dataset: str = "states", *, quiet: bool = False, **settings: Any) -> ArtifactRef:
    """Play and store the states worth asking about; returns the version. Settings: :class:`flows.config.CollectJob`."""
    from flows.jobs.tasks import play_states

    job = _job(CollectJob, {"dataset": dataset, **settings})
    with _said(quiet):
        return play_states(job)


def advise(
    states: ArtifactRef | str = "", dataset: str = "advice", *, quiet: bool = False, **settings: Any
) -> ArtifactRef:
    """Ask an adviser, store the checked answers as the next version of ``dataset``; returns the version.

    Without ``states`` one question buys a priority program. Settings: :class:`flows.config.AdviceJob`, among them
    ``backend`` (rules, gemini, openai, local, file, ...), ``kinds``, ``max_cost``, ``select.budget``.
    """
    from flows.jobs.tasks import advise_and_distil

    given = {"states": str(states)} if states else {"kinds": "program"}
    job = _job(AdviceJob, {"dataset": dataset, **given, **settings})
    with _said(quiet):
        return advise_and_distil(job)["advice"]


def open_advice(ref: ArtifactRef | str) -> AdviceData:
    """The rows, skills and program of a version (its name alone: the newest), checked against its digest."""
    from lore_datasets.advice import load_advice

    return load_advice(str(ref))


def play(
    ref: ArtifactRef | str, episodes: int = 40, against: str = "uniform", *, workers: int = 0, quiet: bool = False,
    **settings: Any,
) -> Worth:  # fmt: skip
    """What a version is worth with no learner, beside a control on the same fresh worlds.

    Settings: :class:`lore.evaluation.play.PlaySettings` (``seed``, ``hold``, ``sampled``, ``length``, ``area``).
    """
    from flows.jobs.play import PlayJob
    from flows.jobs.play import play as run
    from flows.report.play import play_text
    from lore.evaluation.play import PlaySettings

    job = PlayJob(str(ref), episodes, against, _job(PlaySettings, settings), workers)
    with _said(quiet):
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
    folder: str | Path, *, preset: str = "laptop", advice: ArtifactRef | str = "", quiet: bool = False, **settings: Any
) -> Trained:
    """Train a run, or go on with the one in ``folder``; an interrupted kernel saves it.

    ``preset``: smoke, laptop, crafter-12m, crafter-paper, or "" for the plain defaults (:mod:`lore.presets`).
    ``advice`` names the version to learn from and opens path B; settings: :mod:`lore.config`, such as ``steps=2000``
    or ``**{"gate.kickstart": 1.0, "options.enabled": True}``.
    """
    from lore.config import load_config, replace
    from lore.presets import PRESETS
    from lore.training.loop import train as run
    from lore.training.progress import waits

    if preset and preset not in PRESETS:
        raise ConfigError.out_of_range("preset", preset, f"one of {', '.join(PRESETS)}, or '' for none")
    paths = {"advice.dataset": str(advice), "gate.enabled": True} if advice else {}
    config = replace(replace(load_config(**(PRESETS[preset] if preset else {})), **paths), **settings)
    with _said(quiet), current().bar("train", config.train.steps) as bar:

        def show(row: dict[str, Any]) -> None:
            mean = "" if row["episode_return"] is None else f"return {row['episode_return']:.2f}, "
            bar.update(row["step"], row["total"], f"{mean}{row['updates']:,} updates", waits(row))

        found = run(config, folder, show)
    return Trained(
        Path(folder), found["step"], found["updates"], found["episodes"], found["interrupted"], found["training_score"],
        found["unused_advice"],
    )  # fmt: skip


def evaluate(
    run: Trained | str | Path, episodes: int = 10, *, seed: int = 10_000, record: int = 0, quiet: bool = False
) -> Evaluation:
    """Fresh episodes with the agent of a run: with its advice, without it, and without its skills too.

    ``record``: keep this many of the first kind frame by frame, from the worst to the best; the report plays them.
    """
    from lore.evaluation.evaluate import evaluate as judge

    folder = _folder(run)
    with _said(quiet), current().bar("evaluate", None) as bar:
        done: dict[str, int] = {}

        def show(mode: str, count: int) -> None:
            done[mode] = count
            bar.update(sum(done.values()), note=mode)

        found = judge(folder, episodes, seed=seed, on_progress=show, record=record)["final_policy"]
    return Evaluation(folder, *(_figure(found[mode]) for mode in ("as_trained", "agent_alone", "primitives_only")))


def report(runs: Trained | str | Path | Sequence[Trained | str | Path], out: str | Path | None = None) -> Path:
    """Write one self-contained HTML page about one or more runs; returns its path."""
    from flows.jobs.tasks import report_advice
    from flows.report.build import build_report, labelled

    several = [runs] if isinstance(runs, (Trained, str, Path)) else list(runs)
    folders = [_folder(run) for run in several]
    named = labelled(folders)
    return build_report(named, Path(out) if out else folders[0] / "report.html", advice=report_advice(named, ""))


def _folder(run: Trained | str | Path) -> Path:
    return run.folder if isinstance(run, Trained) else Path(run)


def _figure(found: dict[str, Any]) -> Figure:
    """A mode of ``evaluation.json``."""
    low, high = found["return_interval"]
    rates = {name: each["rate"] for name, each in found["achievements"].items()}
    return Figure(found["episodes"], found["return_mean"], (low, high), found["score"], rates)


@contextmanager
def _said(quiet: bool) -> Iterator[Terminal]:
    with use(Terminal() if quiet else open_terminal()) as terminal:
        yield terminal


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
