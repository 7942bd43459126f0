"""Answers by file: questions go out as batch files and Markdown packs, answers come back in any service's own form.

In the folder: ``questions.jsonl`` (every question ever asked, with its system part beside it), for those without an
answer ``openai-NNN.jsonl`` (OpenAI Batch, vLLM run-batch), ``gemini-NNN.jsonl`` (Gemini batch), ``anthropic-NNN.json``
(Message Batches) and ``pack-NNN.md`` (for a chat window or people). Results are put into ``answers/``, in any number of
files, order and form; a question is known by its id alone, the question's SHA-256.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lore_datasets.atomic import write_text
from lore_datasets.errors import BadInput, ConfigError, shown
from lore_datasets.json_text import parsed
from pipeline.llm.backends.file_formats import LIMITS, REQUESTS, answer_of, pack
from pipeline.llm.base import Capabilities, Completing, Prompt, Response

__all__ = ["FileAdviser", "json_lines"]

_LINE = 8 * 2**20
"""Longest line of a result file in bytes; a longer one is named and passed over."""
_ID = re.compile(r"[0-9a-f]{64}")
_PACK = 30


class FileAdviser(Completing):
    """Reads what is answered in ``folder``; what is not is remembered as waiting and written by :meth:`write`.

    Args:
        folder: where questions and answers lie; made when missing.
        model: who answers, where the results do not say.
        pack_size: questions in one Markdown pack.

    Attributes:
        waiting: question id -> prompt, without an answer so far. notes: what is wrong with the result files, in lines.
    """

    def __init__(self, folder: str | Path, model: str = "", pack_size: int = _PACK) -> None:
        if not str(folder).strip():
            raise ConfigError("the backend file has no folder", hint="give --ask.folder DIR")
        self.folder, self.model, self.pack_size = Path(folder), model, pack_size
        self.name = f"file:{model}" if model else "file"
        self.waiting: dict[str, Prompt] = {}
        self.notes: list[str] = []
        self._asked = {record["key"]: record for record in self._records()}
        self._answers = self._read()
        self.used: set[str] = set()
        self.capabilities = Capabilities(
            answers_once=True, rereads=True, one_shard=True, chunk=256, where=f"files in {self.folder}",
            waits=self._waits, about=self._told(),
        )  # fmt: skip

    def _told(self) -> dict[str, Any]:
        """What ``about.json`` in the folder says of who answers; BadInput when it is no object."""
        path = self.folder / "about.json"
        try:
            told = parsed(path.read_text()) if path.exists() else {}
        except ValueError as error:
            raise BadInput(f"{path.name} is not JSON: {shown(error)}") from None
        if not isinstance(told, dict):
            raise BadInput(f"{path.name} is a {type(told).__name__}, not an object")
        return told

    def complete(self, prompts: Sequence[Prompt]) -> list[Response]:
        """The stored answer per prompt; one that waits is an error."""
        missing = Response("", finish="error", error="no answer yet")
        return [self._answers.get(prompt.question, missing) for prompt in prompts]

    def _waits(self, prompt: Prompt) -> bool:
        if prompt.question in self._answers:
            self.used.add(prompt.question)
            return False
        self.waiting[prompt.question] = prompt
        return True

    @property
    def said(self) -> str:
        """``612 of 1,904 answered, 1,292 waiting``."""
        done = len(self.used)
        return f"{done:,} of {done + len(self.waiting):,} answered, {len(self.waiting):,} waiting"

    def write(self) -> list[Path]:
        """Write the waiting questions in every form, split at each service's limits; the files that were written."""
        (self.folder / "answers").mkdir(parents=True, exist_ok=True)
        fresh = [self._record(prompt) for key, prompt in self.waiting.items() if key not in self._asked]
        if fresh:
            self._asked |= {record["key"]: record for record in fresh}
            lines = [json.dumps(record) for record in self._asked.values()]
            write_text(self.folder / "questions.jsonl", "\n".join(lines) + "\n")
        made: list[Path] = []
        for service, request in REQUESTS.items():
            most, size, suffix = LIMITS[service]
            lines = [json.dumps(request(prompt, key, self.model)) for key, prompt in self.waiting.items()]
            for number, part in enumerate(_parts(lines, most, size), 1):
                body = "\n".join(part) if suffix == "jsonl" else '{"requests": [\n' + ",\n".join(part) + "\n]}"
                made.append(self.folder / f"{service}-{number:03d}.{suffix}")
                write_text(made[-1], body + "\n")
        for number, group in enumerate(_packs(self.waiting, self.pack_size), 1):
            made.append(self.folder / f"pack-{number:03d}.md")
            write_text(made[-1], pack(group))
        for path in self.folder.glob("*-[0-9][0-9][0-9].*"):
            if path not in made and path.stem.rpartition("-")[0] in (*REQUESTS, "pack"):
                path.unlink()
        return made

    def _record(self, prompt: Prompt) -> dict[str, Any]:
        """The question as it is kept; its system part goes into a file of its own, shared by many."""
        import hashlib

        system = hashlib.sha256(prompt.system.encode()).hexdigest()[:16]
        path = self.folder / "systems" / f"{system}.md"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, prompt.system)
        return {
            "key": prompt.question, "kind": prompt.kind, "system": system, "user": prompt.user,
            "options": list(prompt.options), "state": prompt.state.hex(), "template": prompt.template_hash,
            "draft": prompt.draft,
        }  # fmt: skip

    def _records(self) -> Iterator[dict[str, Any]]:
        path = self.folder / "questions.jsonl"
        for where, line in json_lines(path) if path.exists() else ():
            try:
                record = parsed(line)
                if _ID.fullmatch(record["key"]) and isinstance(record["user"], str) and isinstance(record["kind"], str):
                    yield record
                    continue
            except (ValueError, KeyError, TypeError):
                pass
            self.notes.append(f"{where}: no question")

    def _read(self) -> dict[str, Response]:
        """Question id -> answer of all result files. What cannot be used is noted, nothing is changed."""
        found: dict[str, Response] = {}
        twice, bad = 0, 0
        files = sorted(p for p in (self.folder / "answers").glob("**/*") if p.is_file() and p.name[0] != ".")
        read = [path for path in files if path.suffix.lower() in (".jsonl", ".json")]
        if others := [path.name for path in files if path not in read]:
            named = ", ".join(shown(name, 40) for name in others[:4])
            self.notes.append(f"{len(others)} files end neither in .jsonl nor in .json and are not read: {named}")
        for path in read:
            for where, line in json_lines(path):
                try:
                    if line is None:
                        raise ValueError(f"a line of more than {_LINE} bytes")
                    key, response = answer_of(parsed(line), self.model)
                except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
                    bad += 1
                    if bad <= 5:
                        self.notes.append(f"{where}: no result of a known form ({shown(error, 80)})")
                    continue
                if response.error is not None:
                    self.notes.append(f"{where}: {key[:12]}: {shown(response.error, 120)}")
                elif key in found:
                    twice += 1
                    if twice <= 5:
                        self.notes.append(f"{where}: {key[:12]} is answered twice; the first answer counts")
                else:
                    found[key] = response
        for what, count in (("results of no known form", bad), ("questions answered twice", twice)):
            if count > 5:
                self.notes.append(f"{count:,} {what} in all")
        return found

    def unknown(self) -> list[str]:
        """Ids that are answered and belong to no question of this folder or this round."""
        return sorted(self._answers.keys() - self._asked.keys() - self.waiting.keys() - self.used)


def json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """(place, line) of a file, one at a time; None for a line that is too long."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(_LINE):
            number += 1
            if not line.endswith(b"\n") and len(line) == _LINE:
                while (rest := file.readline(_LINE)) and not rest.endswith(b"\n"):
                    pass
                yield f"{path.name}:{number}", None
            elif line.strip():
                yield f"{path.name}:{number}", line


def _parts(lines: Sequence[str], most: int, size: int) -> Iterator[list[str]]:
    """Lines in order, at most ``most`` and about ``size`` bytes a part."""
    part: list[str] = []
    held = 0
    for line in lines:
        if part and (len(part) >= most or held + len(line) + 2 > size):
            yield part
            part, held = [], 0
        part.append(line)
        held += len(line) + 2
    if part:
        yield part


def _packs(waiting: dict[str, Prompt], size: int) -> Iterator[list[tuple[str, Prompt]]]:
    """Questions of one system part together, at most ``size`` a pack."""
    by_system: dict[str, list[tuple[str, Prompt]]] = {}
    for key, prompt in waiting.items():
        by_system.setdefault(prompt.system, []).append((key, prompt))
    for group in by_system.values():
        yield from (group[i : i + size] for i in range(0, len(group), size))
