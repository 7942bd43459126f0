"""What an advice version is worth with no learner: lives in several processes, kept as they end, and figures.

``python -m flows.jobs.play FOLDER PART`` plays one part of the lives that ``FOLDER/todo.json`` asks for and adds each
to ``FOLDER/lives-PART.jsonl`` when it ends. A stop loses the lives in flight; the same call goes on with the others,
and a call that wants more episodes plays the difference.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.jobs.machine import datasets_root
from flows.jobs.phases import hold
from flows.jobs.training_process import run_child, stop_processes
from flows.terminal import current
from lore.evaluation.play import Life, PlaySettings, check_skills, difference, figures, play_life
from lore_datasets.atomic import write_json
from lore_datasets.cores import available_cores
from lore_datasets.environments import get_environment
from lore_datasets.errors import BadInput, ConfigError
from lore_datasets.json_text import parsed
from lore_datasets.language.programs import parse_program
from lore_datasets.language.skills import parse_skill
from lore_datasets.store.manifest import canonical_json

if TYPE_CHECKING:
    from lore.advice.lookup import AdviceSource
    from lore_datasets.advice import AdviceData
    from lore_datasets.environments import Environment
    from lore_datasets.language.programs import Program
    from lore_datasets.language.skills import Skill
    from lore_datasets.types import ArtifactRef

__all__ = ["UNIFORM", "PlayJob", "play", "play_part", "play_programs", "source_of"]

UNIFORM = "uniform"
"""The control: the same skills without preference, every one that can start equally likely."""
_TODO = "todo.json"


@dataclass(frozen=True)
class PlayJob:
    """Play a version without learning, beside a control on the same worlds."""

    dataset: str
    """Advice version: name, name@vN, name@vN#digest or an .h5 file."""
    episodes: int = 40
    """Lives of each."""
    against: str = UNIFORM
    """``uniform``, another advice version, or empty for none."""
    settings: PlaySettings = field(default_factory=PlaySettings)
    """How lives are played."""
    workers: int = 0
    """Processes; 0 takes the number of cores, 1 this one."""

    def __post_init__(self) -> None:
        for name, low in (("episodes", 1), ("workers", 0)):
            value = getattr(self, name)
            if type(value) is not int or not low <= value < 100_000:
                raise ConfigError.out_of_range(name, value, f"{low} or more, under 100,000")


def play(job: PlayJob) -> dict[str, Any]:
    """Play what is missing and return the report; the version's newest play artifact holds it (``artifact``).

    The report: ``ref``, ``against``, ``settings``, ``steps`` (environment steps of all lives), ``players`` (``advice``
    and, by its name, the control: :func:`lore.evaluation.play.figures`), ``difference`` (paired, by world). BadInput
    when the version has no skills, none of them could start in any life, or the control is advice on another game;
    finished lives are kept.
    """
    from lore_datasets.exchange.shipped import ShippedStore

    store, advice = ShippedStore(), _loaded(job.dataset)
    check_skills(advice)
    players, where = {"advice": str(advice.ref)}, {"advice": _where(job.dataset, advice)}
    if job.against == UNIFORM:
        players[UNIFORM], where[UNIFORM] = players["advice"], where["advice"]
    elif job.against:
        other = _loaded(job.against)
        if other.environment.name != advice.environment.name:
            raise BadInput(f"{other.ref} is advice on {other.environment.name}, {advice.ref} on"
                           f" {advice.environment.name}", hint="compare two versions of one game")  # fmt: skip
        players["against"], where["against"] = str(other.ref), _where(job.against, other)
    what = {"players": players, "settings": asdict(job.settings), "where": where}
    folder = store.beside / "plays" / f"{advice.ref.name}-{_key(what)}"
    with hold(folder):
        lives = _played(folder, what, job.episodes, job.workers)
    names = advice.environment.vocab.achievements
    if not any(life.startable for life in lives["advice"]):
        steps = sum(life.length for life in lives["advice"])
        raise BadInput(
            f"none of the {len(advice.skills)} skills of {advice.ref} could start in {steps:,} steps",
            kept=f"the lives in {folder}",
            hint="see their start conditions with lore skills show NAME --dataset",
        )
    report: dict[str, Any] = {
        "ref": str(advice.ref),
        "against": players.get("against", UNIFORM if UNIFORM in players else ""),
        "settings": asdict(job.settings),
        "episodes": job.episodes,
        "steps": sum(life.length for group in lives.values() for life in group),
        "players": {name: figures(group, names) for name, group in lives.items()},
    }
    if len(lives) > 1:
        control = next(name for name in lives if name != "advice")
        report["difference"] = difference(lives["advice"], lives[control], names)
    return report | {"artifact": str(_kept(store, advice, report, lives))}


def source_of(player: str, where: str) -> AdviceSource:
    """The look-up that plays: a version's own, or with ``uniform`` before it the control over its skills."""
    from lore.advice.lookup import AdviceSource
    from lore.advice.uniform import UniformSource

    data = _loaded(where)
    return UniformSource(data) if player == UNIFORM else AdviceSource(data)


def play_programs(
    programs: Sequence[Program],
    skills: Sequence[Skill],
    environment: Environment,
    settings: PlaySettings,
    episodes: int,
    workers: int = 0,
) -> list[list[Life]]:
    """Lives of programs that are in no version, each alone, in the same worlds; kept as they end."""
    from lore_datasets.exchange.shipped import ShippedStore

    told = [json.loads(skill.to_json()) for skill in skills]
    bodies = {
        program.digest[:12]: {"environment": environment.name, "skills": told, "program": json.loads(program.text)}
        for program in programs
    }
    players = {name: hashlib.sha256(canonical_json(body).encode()).hexdigest() for name, body in bodies.items()}
    what: dict[str, Any] = {"players": players, "settings": asdict(settings)}
    folder = ShippedStore().beside / "plays" / f"programs-{_key(what)}"
    what["where"] = {name: str((folder / f"{name}.json").resolve()) for name in players}
    with hold(folder):
        for name, body in bodies.items():
            write_json(folder / f"{name}.json", body)
        lives = _played(folder, what, episodes, workers)
    return [lives[program.digest[:12]] for program in programs]


def _loaded(dataset: str) -> AdviceData:
    from lore_datasets.advice import load_advice, program_alone

    if dataset.endswith(".json"):
        try:
            body = parsed(Path(dataset).read_text())
        except ValueError:
            body = None
        if not isinstance(body, dict) or not {"environment", "skills", "program"} <= set(body):
            raise BadInput(f"{dataset} holds no advice", hint="a dataset's name, or an export (.h5)")
        environment = get_environment(body["environment"])
        skills = [parse_skill(each, environment.vocab) for each in body["skills"]]
        program = parse_program(body["program"], environment.vocab, [skill.name for skill in skills])
        return program_alone(program, skills, environment)
    return load_advice(dataset, texts=False)


def _where(name: str, data: AdviceData) -> str:
    """What a process has to load: the version as it was resolved, or a file's whole path."""
    return str(Path(name).resolve()) if name.endswith((".h5", ".hdf5", ".json")) else str(data.ref)


def _key(what: dict[str, Any]) -> str:
    """Who plays and how, as twelve hexadecimal digits; a file's place does not count."""
    told = {name: value for name, value in what.items() if name != "where"} | {"lore": version("lore-rl")}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


def _played(folder: Path, what: dict[str, Any], episodes: int, workers: int) -> dict[str, list[Life]]:
    """The first ``episodes`` lives of every player; those that are missing are played, here where one process does."""
    wanted = [(player, number) for number in range(episodes) for player in what["players"]]
    found = _read(folder)
    missing = [each for each in wanted if each not in found]
    if missing:
        parts = max(1, min(workers or available_cores(), len(missing)))
        write_json(folder / _TODO, what | {"parts": [missing[part::parts] for part in range(parts)]})
        if parts == 1:
            with current().bar("play", len(wanted)) as bar:
                play_part(folder, 0, lambda played: bar.update(len(wanted) - len(missing) + played, note="lives"))
        else:
            _in_processes(folder, parts, wanted)
        found = _read(folder)
    return {player: [found[player, number] for number in range(episodes)] for player in what["players"]}


def _in_processes(folder: Path, parts: int, wanted: list[tuple[str, int]]) -> None:
    """Play every part of ``todo.json`` in a process of its own, with one bar; an interrupt ends them all."""
    env = {"LORE_DATASETS": datasets_root()}
    with ThreadPoolExecutor(parts) as pool, current().bar("play", len(wanted)) as bar:
        futures = [
            pool.submit(run_child, __name__, [str(folder), str(part)], folder, f"log-{part}.txt", env, "finished lives")
            for part in range(parts)
        ]
        try:
            while True:
                last = not wait_for(futures, timeout=0.5).not_done
                done = _read(folder)
                bar.update(sum(each in done for each in wanted), note="lives")
                if last:
                    break
        except BaseException:
            stop_processes()
            raise
    for future in futures:
        future.result()


def _read(folder: Path) -> dict[tuple[str, int], Life]:
    """(player, number) -> life, of all parts; a line that a kill has cut is no life."""
    found: dict[tuple[str, int], Life] = {}
    for path in sorted(folder.glob("lives-*.jsonl")):
        for line in path.read_text().splitlines():
            try:
                row = parsed(line)
                player = row.pop("player")
                found[player, row["number"]] = Life(**row)
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
    return found


def play_part(folder: Path, part: int, on_life: Callable[[int], object] = lambda played: None) -> int:
    """Play the lives of one part and keep each as it ends; how many there were. ``on_life`` hears the number so far."""
    todo = json.loads((folder / _TODO).read_text())
    settings = PlaySettings(**todo["settings"])
    sources: dict[str, AdviceSource] = {}
    path = folder / f"lives-{part}.jsonl"
    with path.open("a") as file:
        if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            file.write("\n")  # the last line of a killed process
        for played, (player, number) in enumerate(todo["parts"][part], 1):
            if player not in sources:
                sources[player] = source_of(player, todo["where"][player])
            how = PlaySettings(**{**todo["settings"], "sampled": True}) if player == UNIFORM else settings
            life = play_life(sources[player], number, how)
            file.write(json.dumps({"player": player, **asdict(life)}) + "\n")
            file.flush()
            on_life(played)
    return len(todo["parts"][part])


def _kept(store: Any, advice: AdviceData, report: dict[str, Any], lives: dict[str, list[Life]]) -> ArtifactRef:
    """The version's play artifact: the newest, where it says the same, else a new one with all lives."""
    from lore_datasets.store.lineage import newest_play, play_name

    before = newest_play(store, advice.ref)
    if before is not None and before.manifest.provenance.get("report") == report:
        return before.ref
    writer = store.writer(
        play_name(advice.ref.name), "play", environment=advice.environment, parents=(str(advice.ref),),
        skills=tuple(skill.name for skill in advice.skills),
        config={name: report[name] for name in ("settings", "episodes", "against")}, provenance={"report": report},
    )  # fmt: skip
    rows = [(player, life) for player, group in lives.items() for life in group]
    writer.append(
        "rows", player=[player for player, _ in rows], number=[life.number for _, life in rows],
        reward=[life.reward for _, life in rows], length=[life.length for _, life in rows],
        life=[json.dumps(asdict(life), sort_keys=True) for _, life in rows],
    )  # fmt: skip
    writer.spent(environment_steps=report["steps"])
    return writer.commit(f"{report['episodes']} lives of {advice.ref} without learning")


def main(words: Sequence[str]) -> int:
    """``FOLDER PART``, with one thread: the parts are processes side by side."""
    import torch

    torch.set_num_threads(1)
    play_part(Path(words[0]), int(words[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
