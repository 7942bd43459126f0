"""Every question and answer in one SQLite file, written before it is used: the same question is never paid twice.

The key of an answer is the SHA-256 of model, prompt, schema and parameters (:func:`pipeline.llm.base.request_hash`).
Failures are kept beside the answers, for the record, and are never served.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lore_datasets.errors import BadInput, Busy, CorruptArtifact, NewerSchema, NoSpace, ServiceError, shown
from pipeline.llm.base import LLM, Prompt, Response, request_hash, response_from
from pipeline.llm.http.pace import MAX_FAILURES
from pipeline.llm.http.sender import Sender, Senders

__all__ = ["Budget", "Journal", "JournalStats"]

VERSION = 1
_CHUNK = 16
_TABLES = """
CREATE TABLE IF NOT EXISTS answer (
    hash TEXT PRIMARY KEY, kind TEXT NOT NULL, adviser TEXT NOT NULL, parameters TEXT NOT NULL,
    reads_state INTEGER NOT NULL, system TEXT NOT NULL, user TEXT NOT NULL, response TEXT NOT NULL,
    created REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failure (
    hash TEXT NOT NULL, kind TEXT NOT NULL, adviser TEXT NOT NULL, response TEXT NOT NULL, created REAL NOT NULL);
CREATE TABLE IF NOT EXISTS prefix (sha256 TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batch (
    name TEXT PRIMARY KEY, adviser TEXT NOT NULL, hashes TEXT NOT NULL, state TEXT NOT NULL, created REAL NOT NULL)
    WITHOUT ROWID;
"""


@dataclass
class JournalStats:
    """What one run of questions did; tokens, dollars and seconds are those of what was asked."""

    served: int = 0
    asked: int = 0
    failed: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    price_usd: float = 0.0
    latency_s: float = 0.0
    failed_in_a_row: int = 0
    last_error: str = ""

    def count(self, response: Response) -> None:
        """Count one question that was asked."""
        failed = response.error is not None
        self.asked += 1
        self.failed += failed
        self.failed_in_a_row = self.failed_in_a_row + 1 if failed else 0
        self.last_error = response.error or self.last_error
        self.tokens_in += response.tokens_in
        self.tokens_out += response.tokens_out
        self.price_usd += response.price_usd
        self.latency_s += response.latency_s

    def add(self, other: JournalStats) -> None:
        """Sum ``other`` into this."""
        for name in ("served", "asked", "failed", "tokens_in", "tokens_out", "price_usd", "latency_s"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Budget:
    """Limits on what may still be asked; 0 means no limit. Shared by all shards of a run, safe with threads."""

    def __init__(
        self, max_requests: int = 0, max_cost: float = 0.0, estimate: Callable[[Prompt], float] | None = None
    ) -> None:
        self.max_requests, self.max_cost = max_requests, max_cost
        self.estimate = estimate or (lambda prompt: 0.0)
        self.requests, self.cost = 0, 0.0
        self._lock = threading.Lock()

    def reserve(self, prompts: Sequence[Prompt]) -> int:
        """How many of ``prompts``, from the first on, may be asked now; they count as asked from here on."""
        with self._lock:
            taken = 0
            for prompt in prompts:
                price = self.estimate(prompt)
                over_requests = self.max_requests and self.requests + 1 > self.max_requests
                over_cost = self.max_cost and self.cost + price > self.max_cost
                if over_requests or over_cost:
                    break
                self.requests += 1
                self.cost += price
                taken += 1
            return taken

    def settle(self, prompt: Prompt, response: Response) -> None:
        """Replace the estimate of one asked question by its real price."""
        with self._lock:
            self.cost += response.price_usd - self.estimate(prompt)


class Journal:
    """The answers of one file (``:memory:`` for none); one instance may be shared by threads, one file by processes."""

    _kind = ""
    _settings = ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL", "PRAGMA wal_autocheckpoint=4000")  # of 4 kB

    def __init__(self, path: Path | str = ":memory:") -> None:
        self.path = str(path)
        if self.path != ":memory:":
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._done = threading.Condition()
        self._asking: set[str] = set()
        self._prefixes: set[str] = set()
        self._senders = Senders()
        try:
            self._db = sqlite3.connect(self.path, timeout=60.0, check_same_thread=False, isolation_level=None)
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise NewerSchema(f"journal {self.path} has version {version}, this program reads up to {VERSION}",
                                  hint="install a newer LoRe")  # fmt: skip
            for setting in self._settings:
                self._db.execute(setting)
            self._db.executescript(_TABLES)
            self._db.execute(f"PRAGMA user_version={VERSION}")
        except sqlite3.Error as error:
            raise self._named(error) from None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._query("SELECT COUNT(*) FROM answer")[0][0]

    def close(self) -> None:
        """Close the file; the journal cannot be used after it. What a sender has in flight is still written."""
        self._senders.close()
        with self._lock:
            self._db.close()

    def get(self, key: str) -> Response | None:
        """The answer to the request ``key``, None when it was never answered."""
        rows = self._query("SELECT response FROM answer WHERE hash = ?", (key,))
        return _loaded(rows[0][0], self.path) if rows else None

    def get_many(self, keys: Iterable[str]) -> dict[str, Response]:
        """The answers among ``keys`` that are there."""
        wanted, found = list(dict.fromkeys(keys)), {}
        for i in range(0, len(wanted), 500):
            part = wanted[i : i + 500]
            marks = ",".join("?" * len(part))
            rows = self._query(f"SELECT hash, response FROM answer WHERE hash IN ({marks})", part)
            found.update((key, _loaded(text, self.path)) for key, text in rows)
        return found

    def advisers(self) -> list[tuple[str, str, bool]]:
        """(name, parameters as JSON, reads the state) of every adviser with an answer here, sorted."""
        rows = self._query("SELECT DISTINCT adviser, parameters, reads_state FROM answer")
        return sorted((name, parameters, bool(reads)) for name, parameters, reads in rows)

    def failures(self) -> list[tuple[str, Response]]:
        """(request hash, response) of everything that failed, oldest first."""
        return [
            (h, _loaded(r, self.path)) for h, r in self._query("SELECT hash, response FROM failure ORDER BY created")
        ]

    @staticmethod
    def keys(llm: LLM, prompts: Sequence[Prompt]) -> list[str]:
        """Request hash of each prompt when ``llm`` is asked."""
        parameters = dict(getattr(llm, "parameters", {}))
        return [_key(llm, prompt, parameters) for prompt in prompts]

    def put(self, entries: Iterable[tuple[str, Prompt, Response]], llm: LLM) -> None:
        """Write answers and failures in one transaction; an answer that is there already stays as it is."""
        parameters, reads = _dump(dict(getattr(llm, "parameters", {}))), int(getattr(llm, "reads_state", False))
        now, answers, failures, prefixes = time.time(), [], [], {}
        for key, prompt, response in entries:
            text = _dump(vars(response))
            if response.error is not None:
                failures.append((key, prompt.kind, llm.name, text, now))
                continue
            prefix = _sha(prompt.system)
            if prefix not in self._prefixes:
                prefixes[prefix] = prompt.system
            row = (key, prompt.kind, llm.name, parameters, reads, prefix, prompt.user, text, now)
            answers.append(row)
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany("INSERT OR IGNORE INTO prefix VALUES (?, ?)", prefixes.items())
                self._db.executemany("INSERT OR IGNORE INTO answer VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", answers)
                self._db.executemany("INSERT INTO failure VALUES (?, ?, ?, ?, ?)", failures)
                self._db.execute("COMMIT")
            except BaseException as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise self._named(error) from None
                raise
            self._prefixes.update(prefixes)

    def ask(
        self,
        llm: LLM,
        prompts: Sequence[Prompt],
        *,
        budget: Budget | None = None,
        stats: JournalStats | None = None,
        keys: Sequence[str] | None = None,
    ) -> list[Response]:
        """Answers to all ``prompts`` in order; only what the journal lacks is asked, each distinct question once.

        Every answer is written before it is returned. ServiceError, resumable by the same call, when the budget is
        used up or the last :data:`pipeline.llm.http.pace.MAX_FAILURES` questions have all failed; a backend that
        gives up by itself (``gives_up``) is heard to the end first. ``keys``: those of :meth:`keys`.
        """
        stats = stats if stats is not None else JournalStats()
        attach = getattr(llm, "attach", None)
        if attach is not None:
            attach(self)
        keys = self.keys(llm, prompts) if keys is None else keys
        found = self.get_many(keys)
        missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in found}
        stats.served += len(found)
        todo = list(missing.items())
        size = max(1, int(getattr(llm, "chunk", _CHUNK)))
        while todo:
            chunk, todo = self._claim(todo[:size]), todo[size:]
            if chunk:
                found.update(self._ask_chunk(llm, chunk, budget, stats))
            for key, prompt in missing.items():  # asked by another thread meanwhile
                if not todo and key not in found:
                    self._wait(key)
                    response = self.get(key)
                    if response is not None:
                        found[key] = response
                        stats.served += 1
                    else:
                        todo.append((key, prompt))
        return [found[key] for key in keys]

    def put_batch(self, name: str, adviser: str, keys: Sequence[str], instead_of: str = "") -> None:
        """Remember an open batch job and the requests in it, in place of ``instead_of``; on disk when this returns."""
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM batch WHERE name = ?", (instead_of,))
            row = (name, adviser, _dump(list(keys)), "open", time.time())
            self._db.execute("INSERT OR REPLACE INTO batch VALUES (?, ?, ?, ?, ?)", row)

    def batches(self, adviser: str) -> list[tuple[str, list[str]]]:
        """(name, request hashes) of the open batch jobs of an adviser, oldest first."""
        rows = self._query("SELECT name, hashes FROM batch WHERE adviser = ? ORDER BY created, name", (adviser,))
        return [(name, json.loads(hashes)) for name, hashes in rows]

    def drop_batch(self, name: str) -> None:
        """Forget a batch job whose answers have been written."""
        self._query("DELETE FROM batch WHERE name = ?", (name,))

    def _claim(self, entries: list[tuple[str, Prompt]]) -> list[tuple[str, Prompt]]:
        with self._done:
            mine = [(key, prompt) for key, prompt in entries if key not in self._asking]
            self._asking.update(key for key, _ in mine)
        return mine

    def _wait(self, key: str) -> None:
        with self._done:
            self._done.wait_for(lambda: key not in self._asking)

    def _ask_chunk(
        self, llm: LLM, chunk: list[tuple[str, Prompt]], budget: Budget | None, stats: JournalStats
    ) -> dict[str, Response]:
        try:
            self._sender(llm)
            found = self.get_many([key for key, _ in chunk])  # written by others between our look and our claim
            stats.served += len(found)
            fresh = [(key, prompt) for key, prompt in chunk if key not in found]
            while fresh:  # in parts where a budget stops before the last: real prices free what estimates held
                allowed = len(fresh) if budget is None else budget.reserve([prompt for _, prompt in fresh])
                if not allowed:
                    raise ServiceError(
                        "partial: the limit on cost or requests is reached before all questions were asked",
                        kept=f"{len(self)} answers in {self.path}",
                        hint="run the same command with a higher limit; nothing is asked twice",
                    )
                found.update(self._complete(llm, fresh[:allowed], budget, stats))
                fresh = fresh[allowed:]
        finally:
            with self._done:
                self._asking.difference_update(key for key, _ in chunk)
                self._done.notify_all()
        return found

    def _complete(
        self, llm: LLM, entries: list[tuple[str, Prompt]], budget: Budget | None, stats: JournalStats
    ) -> dict[str, Response]:
        """Ask one chunk; a backend with ``answer_to`` or ``stream`` hands over what is there; it is written at once."""
        found: dict[str, Response] = {}
        prompts = [prompt for _, prompt in entries]
        gives_up = bool(getattr(llm, "gives_up", False))

        sender = self._sender(llm)

        def take(part: Iterable[tuple[int, Response]]) -> None:
            done = [(*entries[i], response) for i, response in part]
            if sender is None:
                self.put(done, llm)
            for key, prompt, response in done:
                found[key] = response
                stats.count(response)
                if budget is not None:
                    budget.settle(prompt, response)
            if stats.failed_in_a_row >= MAX_FAILURES and not gives_up:
                raise self._stopped(llm, stats)

        answer_to, stream = getattr(llm, "answer_to", None), getattr(llm, "stream", None)
        if sender is not None:
            sender.ask([key for key, _ in entries], prompts, llm.concurrency, take)  # type: ignore[attr-defined]
        elif answer_to is not None:
            answer_to(take, prompts)
        elif stream is not None:
            for pair in stream(prompts):
                take([pair])
        else:
            take(enumerate(llm.complete(prompts)))
        if len(found) != len(entries):
            if gives_up and stats.last_error:
                raise self._stopped(llm, stats)
            raise ServiceError(f"backend {shown(llm.name)} answered {len(found)} of {len(entries)} questions",
                               kept=f"{len(self)} answers in {self.path}")  # fmt: skip
        return found

    def _sender(self, llm: LLM) -> Sender | None:
        """The process that asks ``llm`` and writes its answers here; None where this one does."""
        spec = getattr(llm, "spec", None)
        return self._senders.get(spec, Path(self.path), self._kind) if spec and self.path != ":memory:" else None

    def _stopped(self, llm: LLM, stats: JournalStats) -> ServiceError:
        where = getattr(llm, "where", llm.name)
        return ServiceError(
            f"partial: {MAX_FAILURES} questions in a row failed: {shown(stats.last_error)} ({shown(where, 160)})",
            kept=f"{len(self)} answers in {self.path}",
            hint="run the same command again later; nothing is asked twice",
        )

    def _query(self, sql: str, values: Sequence[Any] = ()) -> list[tuple]:
        with self._lock:
            try:
                return self._db.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise self._named(error) from None

    def _named(self, error: sqlite3.Error) -> Exception:
        text = str(error)
        where, kept = f"journal {self.path}: {shown(text)}", "every answer written before"
        if "locked" in text or "busy" in text:
            return Busy(where, kept=kept, hint="another run is writing; try again when it is done")
        if "full" in text:
            return NoSpace(where, kept=kept, hint="free some space and run again")
        if "malformed" in text or "not a database" in text:
            return CorruptArtifact(where, hint="move the file away, or restore it from a copy")
        return BadInput(where, kept=kept)


def _key(llm: LLM, prompt: Prompt, parameters: dict[str, Any]) -> str:
    if getattr(llm, "reads_state", False):
        parameters = {**parameters, "state": prompt.state.hex()}
    return request_hash(llm.name, prompt, parameters)


@lru_cache(maxsize=64)
def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


_dump = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def _loaded(text: str, where: str) -> Response:
    try:
        return response_from(json.loads(text))
    except (ValueError, TypeError, AttributeError) as error:
        raise CorruptArtifact(f"journal {where}: an answer does not read: {shown(error)}") from None
