"""Reading what runs write as JSON: a damaged file is named and left as it is, never taken for an empty one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lore_datasets.errors import CorruptArtifact
from lore_datasets.json_text import parsed

__all__ = ["read_json", "read_jsonl"]


def read_json(path: Path | str) -> dict[str, Any] | None:
    """The object in a JSON file, None where there is no file; CorruptArtifact when it holds anything else."""
    path = Path(path)
    try:
        found = parsed(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        raise _damaged(path, f"{path.name} is not JSON") from None
    if not isinstance(found, dict):
        raise _damaged(path, f"{path.name} is not a JSON object")
    return found


def read_jsonl(path: Path | str) -> list[dict[str, Any]]:
    """Rows of a JSON-lines file, [] where there is no file; a last line that a killed writer cut is left out.

    CorruptArtifact names the first other line that is not an object.
    """
    path = Path(path)
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    lines, rows = text.splitlines(), []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = parsed(line)
        except ValueError:
            if number == len(lines) and not text.endswith("\n"):
                break
            raise _damaged(path, f"{path.name} line {number} is not JSON") from None
        if not isinstance(row, dict):
            raise _damaged(path, f"{path.name} line {number} is not an object")
        rows.append(row)
    return rows


def _damaged(path: Path, what: str) -> CorruptArtifact:
    return CorruptArtifact(what, kept="the file as it is", hint=f"mend or move {path}, then run again")
