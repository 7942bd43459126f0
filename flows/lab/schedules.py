"""``schedules.toml``: which flow runs when, with which parameters. Read and checked whole, errors by line."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.config import AblateJob, AdviceJob, CollectJob, EvaluateJob, RefreshJob, SeedsJob, renamed_job
from flows.lab.notify import Notify
from lore_datasets.errors import ConfigError, LoreError, NotFound, shown
from lore_datasets.places import local_path

__all__ = ["BY_HAND", "FLOWS", "Schedule", "check_datasets", "read_notify", "read_schedules"]

BY_HAND = "by-hand"
"""Name of the deployment that every flow has for whoever starts it from its form."""

FLOWS: dict[str, tuple[str, type]] = {
    "collect": ("flows.prefect_flows.collect:collect", CollectJob),
    "advice-batch": ("flows.prefect_flows.advise:advise", AdviceJob),
    "train": ("flows.prefect_flows.train:train_seeds", SeedsJob),
    "evaluate": ("flows.prefect_flows.evaluate:evaluate_run", EvaluateJob),
    "refresh-round": ("flows.prefect_flows.refresh:refresh_round", RefreshJob),
    "ablate": ("flows.prefect_flows.ablate:ablate", AblateJob),
}
"""Flow -> (``module:function``, what its parameter ``job`` is made of)."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LEAST_S = 30
_CRON = re.compile(r"(?:[0-9*/, -]|[a-z]{3})+", re.IGNORECASE | re.ASCII)
"""What Prefect reads too: no L, W, #, R or H."""
_KEYS = ("flow", "cron", "interval", "timezone", "active", "job")


@dataclass(frozen=True)
class Schedule:
    """One deployment. ``cron`` or ``interval_s`` (seconds) or neither: then it waits for somebody to start it."""

    name: str
    flow: str
    cron: str = ""
    interval_s: float = 0.0
    timezone: str = "UTC"
    active: bool = True
    job: Any = None
    line: int = 0
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def when(self) -> str:
        """``cron 0 3 * * * (UTC)``, ``every 6h``, or ``by hand``."""
        if self.cron:
            return f"cron {self.cron} ({self.timezone})"
        if not self.interval_s:
            return "by hand"
        unit = next(u for u in ("d", "h", "m", "s") if self.interval_s % _UNITS[u] == 0)
        return f"every {self.interval_s / _UNITS[unit]:g}{unit}"


def read_schedules(path: Path) -> list[Schedule]:
    """The deployments of a file, in its order; NotFound, or ConfigError with file and line."""
    source, tables = _read(path)
    return [_schedule(name, body, source) for name, body in tables.items() if name != "notify"]


def read_notify(path: Path) -> Notify | None:
    """Whom the file's ``notify`` tells of a failed run; NotFound, or ConfigError with file and line."""
    source, tables = _read(path)
    if "notify" not in tables:
        return None
    try:
        return Notify.of(tables["notify"])
    except ConfigError as error:
        raise source.error(error.message, "notify", hint=error.hint) from None


def _read(path: Path) -> tuple[_Source, dict[str, Any]]:
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise NotFound(f"no file {path}", hint="copy schedules.toml of the repository and change it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {type(error).__name__}") from None
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+)", str(error))
        where = f", line {found[1]}" if found else ""
        raise ConfigError(f"{path}{where}: {shown(error, 200)}", hint="the file must be TOML") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply", hint="a setting holds values or one table of them") from None
    return _Source(path, text), tables


class _Source:
    """The text of the file, to say in which line something stands."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.places: list[tuple[tuple[str, ...], int]] = []
        header: tuple[str, ...] = ()
        for number, raw in enumerate(text.splitlines(), 1):
            line = raw.strip()
            if match := re.fullmatch(r"\[\s*([^\[\]]+?)\s*\]\s*(#.*)?", line):
                header = _words(match[1])
                self.places.append((header, number))
            elif match := re.match(r"([\w.\"' -]+?)\s*=", line):
                self.places.append(((*header, *_words(match[1])), number))

    def line(self, *words: str) -> int:
        """Line of the longest part of this path that the file names."""
        fits = [(len(p), -n) for p, n in self.places if p == words[: len(p)]]
        return -max(fits)[1] if fits else 1

    def error(self, message: str, *words: str, hint: str = "") -> ConfigError:
        """A ConfigError that names file and line."""
        return ConfigError(f"{self.path}, line {self.line(*words)}: {message}", hint=hint)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip().strip("\"'") for word in text.split("."))


def _schedule(name: str, body: Any, source: _Source) -> Schedule:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,59}", name):
        raise source.error(f"{shown(name, 40)!r} is no name", name, hint="lower case letters, digits and dashes")
    if name == BY_HAND:
        hint = "every flow has a deployment of that name already, which nothing starts but its form"
        raise source.error(f"[{name}] is taken", name, hint=hint)
    if not isinstance(body, dict):
        raise source.error(f"{name} is not a table", name, hint=f"write [{name}] and its settings below")
    for key in body:
        if key not in _KEYS:
            raise source.error(f"unknown setting {shown(key, 40)!r}", name, key, hint=f"one of: {', '.join(_KEYS)}")
    flow = body.get("flow", "")
    if not isinstance(flow, str) or flow not in FLOWS:
        raise source.error(f"flow = {shown(flow, 40)!r} is no flow", name, "flow", hint=f"one of: {', '.join(FLOWS)}")
    if "cron" in body and "interval" in body:
        raise source.error("cron and interval exclude each other", name, "interval", hint="keep one of them")
    active = body.get("active", True)
    if not isinstance(active, bool):
        raise source.error(f"active = {shown(active, 40)}", name, "active", hint="true or false")
    parameters = body.get("job", {})
    if isinstance(parameters, dict):
        parameters = renamed_job(FLOWS[flow][1], parameters)
        parameters = {key: local_path(value) if isinstance(value, str) else value for key, value in parameters.items()}
    return Schedule(
        name=name, flow=flow, cron=_cron(name, body, source), interval_s=_interval(name, body, source),
        timezone=_timezone(name, body, source), active=active, job=_job(name, flow, parameters, source),
        line=source.line(name), parameters=parameters,
    )  # fmt: skip


def _cron(name: str, body: Mapping[str, Any], source: _Source) -> str:
    if "cron" not in body:
        return ""
    from cronsim import CronSim, CronSimError

    text, hint = body["cron"], "minute hour day month weekday, such as '0 3 * * *' for every night at three"
    if not isinstance(text, str) or len(text.split()) != 5 or not _CRON.fullmatch(text):
        raise source.error(f"cron = {shown(text, 60)!r} is no cron line", name, "cron", hint=hint)
    from datetime import UTC, datetime

    try:
        next(CronSim(text, datetime.now(UTC)))
    except (CronSimError, StopIteration) as error:
        raise source.error(f"cron = {shown(text, 60)!r}: {shown(error)}", name, "cron", hint=hint) from None
    return text


def _interval(name: str, body: Mapping[str, Any], source: _Source) -> float:
    if "interval" not in body:
        return 0.0
    value = body["interval"]
    match = re.fullmatch(r"([0-9]{1,6})\s*([smhd])", value) if isinstance(value, str) else None
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not _LEAST_S <= seconds <= 366 * 86400:
        raise source.error(
            f"interval = {shown(value, 40)!r} is out of range", name, "interval", hint="30s to 366d: 90s, 30m, 6h, 1d"
        )
    return float(seconds)


def _timezone(name: str, body: Mapping[str, Any], source: _Source) -> str:
    from zoneinfo import ZoneInfo

    zone = body.get("timezone", "UTC")
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, TypeError, OSError):
        raise source.error(
            f"timezone = {shown(zone, 40)!r} is unknown", name, "timezone", hint="UTC, Europe/Zurich, Asia/Tokyo, ..."
        ) from None
    return zone


def _job(name: str, flow: str, values: Any, source: _Source) -> Any:
    """``values`` as the flow's job; an unknown key, a wrong type or a value out of range is named with its line."""
    kind = FLOWS[flow][1]
    if not isinstance(values, dict):
        raise source.error("job is not a table", name, "job", hint=f"write [{name}.job] and its settings below")
    _known(kind, values, (name, "job"), source)
    from pydantic import TypeAdapter, ValidationError

    from flows.jobs.ablation_arms import planned_runs
    from flows.jobs.presets import resolved

    try:
        job = TypeAdapter(kind).validate_python(values)
        if isinstance(job, AblateJob):
            planned_runs(resolved(job))  # its arms, its cells, and what its preset fixes
        return job
    except ValidationError as error:
        first = error.errors()[0]
        at = tuple(str(word) for word in first["loc"])
        raise source.error(f"job.{'.'.join(at)}: {shown(first['msg'])}", name, "job", *at) from None
    except LoreError as error:
        words = [w for w in re.findall(r"[a-z_]+", error.message) if w in _leaves(values)]
        at = next((path for path in _paths(values) if words and path[-1] == words[0]), ())
        raise source.error(error.message, name, "job", *at, hint=error.hint) from None


def _known(kind: type, values: Mapping[str, Any], path: tuple[str, ...], source: _Source) -> None:
    from typing import get_type_hints

    hints = get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]
    for key, value in values.items():
        if key not in names:
            from difflib import get_close_matches

            near = get_close_matches(key, names, 1)
            hint = f"did you mean {near[0]}?" if near else f"one of: {', '.join(names)}"
            raise source.error(f"unknown setting {shown('.'.join((*path[1:], key)), 80)!r}", *path, key, hint=hint)
        if dataclasses.is_dataclass(hints[key]) and isinstance(value, dict):
            _known(hints[key], value, (*path, key), source)  # type: ignore[arg-type]


def _paths(values: Mapping[str, Any]) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for key, value in values.items():
        found += [(key, *rest) for rest in _paths(value)] if isinstance(value, dict) else [(key,)]
    return found


def _leaves(values: Mapping[str, Any]) -> set[str]:
    return {path[-1] for path in _paths(values)}


def check_datasets(schedules: Sequence[Schedule], path: Path) -> None:
    """NotFound with the line when a deployment reads a run or a dataset that neither exists nor is made by another."""
    from flows.jobs.ablation_arms import check_advisers
    from flows.jobs.presets import resolved
    from flows.jobs.rounds import dataset_of
    from lore.training.folder import read_config
    from lore_datasets.exchange.shipped import ShippedStore
    from lore_datasets.types import ArtifactRef

    store = ShippedStore()
    made = {s.job.dataset for s in schedules if isinstance(s.job, (CollectJob, AdviceJob))}
    studies = {s.name: resolved(s.job) for s in schedules if isinstance(s.job, AblateJob)}
    runs = [s.job.folder for s in schedules if isinstance(s.job, SeedsJob)] + [s.folder for s in studies.values()]
    for each in schedules:
        job = each.job
        asked = [job.dataset] if isinstance(job, SeedsJob) else []
        if isinstance(job, AdviceJob) and not job.revise and job.advise.wanted != {"program"}:
            asked = [job.states]
        try:
            if each.name in studies:
                check_advisers(studies[each.name])
            if isinstance(job, RefreshJob):
                dataset_of(Path(job.folder))
            if isinstance(job, EvaluateJob) and not any(Path(job.folder).is_relative_to(folder) for folder in runs):
                read_config(job.folder)
            for text in filter(None, asked):
                if "@" in text or "#" in text or ArtifactRef.parse(text)[0] not in made:
                    store.resolve(text)
        except LoreError as error:
            said = type(error)(
                f"{path}, line {each.line}: {each.name}: {error.message}", kept=error.kept, hint=error.hint
            )
            raise said from None
