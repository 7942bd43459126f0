"""Requests for better skills: what a training run says of the skills that failed it, for the next round of advice.

A run rewrites ``revisions.jsonl`` whenever a skill is retired; a round of questions reads it and asks once about each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from lore_datasets.atomic import write_text
from lore_datasets.errors import BadInput, shown
from lore_datasets.json_text import parsed
from lore_datasets.vocab import NAME_PATTERN

__all__ = ["REVISIONS", "Revision", "read_revisions", "write_revisions"]

REVISIONS = "revisions.jsonl"
"""File of a run: one request per line."""
_MAX_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Revision:
    """A skill that was retired, how it fared, and the last use that failed.

    Attributes:
        skill: its name. skill_json: its definition. uses, success_rate, steps_per_use: how it fared.
        outcomes: how often each way a use ended. actions: names of the primitive actions of the last use that failed.
        state: packed state where that use began, in hex. outcome: how it ended. frame: environment step of the request.
        advice: the version ``name@vN#digest`` that the run learned from.
    """

    skill: str
    skill_json: str
    uses: int = 0
    success_rate: float = 0.0
    steps_per_use: float = 0.0
    outcomes: dict[str, int] = field(default_factory=dict)
    actions: tuple[str, ...] = ()
    state: str = ""
    outcome: str = ""
    frame: int = 0
    advice: str = ""


_KINDS: dict[str, type | tuple[type, ...]] = {
    "skill": str, "skill_json": str, "uses": int, "success_rate": (int, float), "steps_per_use": (int, float),
    "outcomes": dict, "actions": list, "state": str, "outcome": str, "frame": int, "advice": str,
}  # fmt: skip


def write_revisions(folder: Path | str, revisions: Sequence[Revision]) -> Path:
    """Write ``revisions.jsonl`` of a run, at once or not at all."""
    path = Path(folder) / REVISIONS
    write_text(path, "".join(json.dumps(asdict(each), sort_keys=True) + "\n" for each in revisions))
    return path


def read_revisions(where: Path | str) -> list[Revision]:
    """Requests of a run's folder or of the file itself, none when there is no file; BadInput names a bad line."""
    path = Path(where)
    path = path / REVISIONS if path.is_dir() else path
    if not path.is_file():
        return []
    if path.stat().st_size > _MAX_BYTES:
        raise BadInput(f"{path} is larger than {_MAX_BYTES} bytes", hint="a run writes a few kB")
    return [_parse(line, f"{path} line {i}") for i, line in enumerate(path.read_bytes().splitlines(), 1)]


def _parse(line: bytes, where: str) -> Revision:
    try:
        body: Any = parsed(line)
    except ValueError:
        raise BadInput(f"{where} is not JSON", hint="let the run write it again, or remove the file") from None
    if not isinstance(body, Mapping) or not {"skill", "skill_json"} <= set(body) <= {f.name for f in fields(Revision)}:
        raise BadInput(f"{where} is not a request for a revision")
    for name, value in body.items():
        if not isinstance(value, _KINDS[name]) or isinstance(value, bool):
            raise BadInput(f"{where}: {name} is {shown(value)!r}")
    if not NAME_PATTERN.fullmatch(body["skill"]):
        raise BadInput(f"{where}: {shown(body['skill'])!r} is not the name of a skill")
    counts = {str(k): v for k, v in body.get("outcomes", {}).items() if type(v) is int}
    return Revision(**{**body, "outcomes": counts, "actions": tuple(map(str, body.get("actions", [])))})
