"""Every question and answer in one SQLite file, written before it is used: the same question is never paid twice.

The key of an answer is the SHA-256 of model, prompt, schema and parameters (:func:`pipeline.llm.base.request_hash`).
Every answer has the SHA-256 of its row beside it: a damaged one is named, never served. Failures are kept beside the
answers, for the record, and are never served.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from lore_datasets.errors import (
    BadInput,
    Busy,
    CorruptArtifact,
    LimitReached,
    NewerSchema,
    NoSpace,
    ServiceError,
    Stopped,
    shown,
)  # fmt: skip
from lore_datasets.json_text import parsed
from pipeline.llm.base import KINDS, LLM, Prompt, Response, Stop, never, request_hash, response_from
from pipeline.llm.journal.budget import MAX_FAILURES, Budget, JournalStats, why_failed
from pipeline.llm.keys import without_key

__all__ = ["Journal"]

_RESPONSE = 7  # column of `answer`
_LATER = ("status", "tokens_cached")  # fields that came later are written where they say something
Judge = Callable[[str, Prompt, Response], str]
VERSION = 2
"""1 had no digests; such a journal is given them when it is opened."""
_SETTINGS = ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA wal_autocheckpoint=4000")  # of 4 kB
_TABLES = """
CREATE TABLE IF NOT EXISTS answer (
    hash TEXT PRIMARY KEY, kind TEXT NOT NULL, adviser TEXT NOT NULL, parameters TEXT NOT NULL,
    reads_state INTEGER NOT NULL, system TEXT NOT NULL, user TEXT NOT NULL, response TEXT NOT NULL,
    created REAL NOT NULL, digest TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failure (
    hash TEXT NOT NULL, kind TEXT NOT NULL, adviser TEXT NOT NULL, response TEXT NOT NULL, created REAL NOT NULL);
CREATE TABLE IF NOT EXISTS prefix (sha256 TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batch (
    name TEXT PRIMARY KEY, adviser TEXT NOT NULL, hashes TEXT NOT NULL, state TEXT NOT NULL, created REAL NOT NULL)
    WITHOUT ROWID;
"""
_FAILURES = (sqlite3.Error, UnicodeDecodeError)
"""What SQLite's module raises: the second where the name of a column is damaged."""


class Journal:
    """The answers of one file (``:memory:`` for none); one instance may be shared by threads, one file by processes."""

    def __init__(self, path: Path | str = ":memory:") -> None:
        self.path = str(path)
        if self.path != ":memory:":
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._done = threading.Condition()
        self._asking: set[str] = set()
        self._prefixes: set[str] = set()
        try:
            self._db = sqlite3.connect(self.path, timeout=60.0, check_same_thread=False, isolation_level=None)
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise NewerSchema(f"journal {self.path} has version {version}, this program reads up to {VERSION}",
                                  hint="install a newer LoRe")  # fmt: skip
            for setting in _SETTINGS:
                self._db.execute(setting)
            self._db.executescript(_TABLES)
            if version < VERSION:
                self._seal_all()
        except _FAILURES as error:
            raise self._named(error) from None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._query("SELECT COUNT(*) FROM answer")[0][0]

    def close(self) -> None:
        """Close the file; the journal cannot be used after it."""
        with self._lock:
            self._db.close()

    def get(self, key: str) -> Response | None:
        """The answer to the request ``key``, None when it was never answered."""
        return self.get_many([key]).get(key)

    def get_many(self, keys: Iterable[str]) -> dict[str, Response]:
        """The answers among ``keys`` that are there."""
        wanted, found = list(dict.fromkeys(keys)), {}
        for i in range(0, len(wanted), 500):
            part = wanted[i : i + 500]
            marks = ",".join("?" * len(part))
            for row in self._query(f"SELECT * FROM answer WHERE hash IN ({marks})", part):
                if _seal(row[:-1]) != row[-1]:
                    raise CorruptArtifact(
                        f"journal {self.path}: the answer to {row[0][:12]} does not have its digest",
                        kept="all other answers",
                        hint=f"restore a copy, or pay once more: sqlite3 {self.path} "
                        f"\"DELETE FROM answer WHERE hash = '{row[0]}'\"",
                    )
                found[row[0]] = _loaded(row[_RESPONSE], self.path)
        return found

    def advisers(self) -> list[tuple[str, str, bool]]:
        """(name, parameters as JSON, reads the state) of every adviser with an answer here, sorted."""
        rows = self._query("SELECT DISTINCT adviser, parameters, reads_state FROM answer")
        return sorted((name, parameters, bool(reads)) for name, parameters, reads in rows)

    def kinds(self, adviser: str, parameters: str) -> tuple[str, ...]:
        """The kinds of questions that an adviser of :meth:`advisers` has answered here."""
        sql = "SELECT DISTINCT kind FROM answer WHERE adviser = ? AND parameters = ?"
        found = {kind for (kind,) in self._query(sql, (adviser, parameters))}
        return tuple(kind for kind in KINDS if kind in found)

    def failures(self) -> list[tuple[str, Response]]:
        """(request hash, response) of everything that failed, oldest first."""
        return [(h, _loaded(r, self.path)) for h, r in self._query("SELECT hash, response FROM failure ORDER BY rowid")]

    @staticmethod
    def keys(llm: LLM, prompts: Sequence[Prompt]) -> list[str]:
        """Request hash of each prompt when ``llm`` is asked."""
        known = llm.capabilities
        parameters = dict(known.parameters)
        if not known.reads_state:
            return [request_hash(llm.name, prompt, parameters) for prompt in prompts]
        return [request_hash(llm.name, prompt, {**parameters, "state": prompt.state.hex()}) for prompt in prompts]

    def put(self, entries: Iterable[tuple[str, Prompt, Response]], llm: LLM) -> None:
        """Write answers and failures in one transaction; an answer that is there already stays as it is."""
        parameters, reads = _dump(dict(llm.capabilities.parameters)), int(llm.capabilities.reads_state)
        now, answers, failures, prefixes = time.time(), [], [], {}
        for key, prompt, response in entries:
            text = _dump({name: value for name, value in vars(response).items() if value or name not in _LATER})
            if response.error is not None:
                failures.append((key, prompt.kind, llm.name, text, now))
                continue
            prefix = _sha(prompt.system)
            if prefix not in self._prefixes:
                prefixes[prefix] = prompt.system
            row = (key, prompt.kind, llm.name, parameters, reads, prefix, prompt.user, text, now)
            answers.append((*row, _seal(row)))
        with self._writing():
            self._db.executemany("INSERT OR IGNORE INTO prefix VALUES (?, ?)", prefixes.items())
            self._db.executemany("INSERT OR IGNORE INTO answer VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", answers)
            self._db.executemany("INSERT INTO failure VALUES (?, ?, ?, ?, ?)", failures)
        self._prefixes.update(prefixes)

    def forget(self, keys: Iterable[str]) -> None:
        """Drop the answers to ``keys``, which are about to be read anew."""
        with self._writing():
            self._db.executemany("DELETE FROM answer WHERE hash = ?", [(key,) for key in keys])

    def ask(
        self,
        llm: LLM,
        prompts: Sequence[Prompt],
        *,
        budget: Budget | None = None,
        stats: JournalStats | None = None,
        keys: Sequence[str] | None = None,
        stop: Stop = never,
        judge: Judge | None = None,
    ) -> list[Response]:
        """Answers to all ``prompts`` in order; only what the journal lacks is asked, each distinct question once.

        Every answer is written before it is returned. LimitReached when the budget is used up, Stopped when ``stop()``
        was True before the last question, ServiceError when :data:`MAX_FAILURES` questions in a row have failed or as
        many answers as the budget allows could not be used: the same call goes on from there. ``keys``: those of
        :meth:`keys`. ``judge``: told (key, prompt, response) of each fresh answer, says why it cannot be used, if so.
        """
        stats = stats if stats is not None else JournalStats()
        keys = self.keys(llm, prompts) if keys is None else keys
        found = self.get_many(keys)
        stats.served += len(found)
        wanted = dict(zip(keys, prompts, strict=True))
        while left := {key: prompt for key, prompt in wanted.items() if key not in found}:
            mine = self._claim(left)
            if mine:
                found.update(self._ask_claimed(llm, mine, budget or Budget(), stats, stop, judge))
            for key in left.keys() - mine.keys():  # asked by another thread meanwhile; what failed there is asked here
                self._wait(key)
                response = self.get(key)
                if response is not None:
                    found[key] = response
                    stats.served += 1
        return [found[key] for key in keys]

    def put_batch(self, name: str, adviser: str, keys: Sequence[str], instead_of: str = "") -> None:
        """Remember an open batch job and the requests in it, in place of ``instead_of``; on disk when this returns."""
        with self._writing():
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

    def _claim(self, entries: Mapping[str, Prompt]) -> dict[str, Prompt]:
        """Those of ``entries`` that no other thread asks."""
        with self._done:
            mine = {key: prompt for key, prompt in entries.items() if key not in self._asking}
            self._asking.update(mine)
        return mine

    def _wait(self, key: str) -> None:
        with self._done:
            self._done.wait_for(lambda: key not in self._asking)

    def _ask_claimed(
        self,
        llm: LLM,
        mine: Mapping[str, Prompt],
        budget: Budget,
        stats: JournalStats,
        stop: Stop,
        judge: Judge | None,
    ) -> dict[str, Response]:
        try:
            found = self.get_many(mine)  # written by others between our look and our claim
            stats.served += len(found)
            fresh = [(key, prompt) for key, prompt in mine.items() if key not in found]
            while fresh:  # in parts where a budget stops before the last: real prices free what estimates held
                allowed = budget.reserve([prompt for _, prompt in fresh])
                if not allowed:
                    raise LimitReached(
                        "partial: the limit on cost or requests is reached before all questions were asked: "
                        f"{budget.cost:.4f} USD ({budget.paid_before:.4f} of them in earlier runs), "
                        f"{budget.requests} requests in this one",
                        kept=self._kept(),
                        hint="run the same command with a higher limit; nothing is asked twice",
                    )
                try:
                    found.update(self._answers(llm, fresh[:allowed], budget, stats, stop, judge))
                finally:
                    budget.done()
                fresh = fresh[allowed:]
        finally:
            with self._done:
                self._asking.difference_update(mine)
                self._done.notify_all()
        return found

    def _answers(
        self,
        llm: LLM,
        entries: list[tuple[str, Prompt]],
        budget: Budget,
        stats: JournalStats,
        stop: Stop,
        judge: Judge | None,
    ) -> dict[str, Response]:
        """Ask all ``entries`` and write what comes as it comes."""
        found: dict[str, Response] = {}

        def take(part: Sequence[tuple[int, Response]]) -> None:
            done = [(*entries[i], without_key(response)) for i, response in part]
            self.put(done, llm)
            for key, prompt, response in done:
                found[key] = response
                stats.count(response)
                budget.settle(prompt, response)
                if judge is not None and response.error is None:
                    budget.judge(judge(key, prompt, response))

        def enough() -> bool:
            return stats.gave_up or bool(budget.wasted) or stop()

        llm.answer([prompt for _, prompt in entries], take, enough)
        where = shown(llm.capabilities.where or llm.name, 160)
        if stats.gave_up:
            what, hint = why_failed(stats.last_status)
            raise ServiceError(
                f"partial: {MAX_FAILURES} questions in a row failed: {what}{shown(stats.last_error)} ({where})",
                kept=self._kept(),
                hint=hint,
            )
        if budget.wasted:
            raise ServiceError(
                f"partial: {budget.max_unusable} answers in a row could not be used: {shown(budget.wasted)} ({where})",
                kept=self._kept(),
                hint="raise ask.thinking_tokens where a model thinks, or take another; ask.max_unusable is the limit",
            )
        if len(found) != len(entries):
            if stop():
                raise Stopped("partial: asking was stopped", kept=self._kept(), hint="run the same command again")
            text = f"backend {shown(llm.name)} answered {len(found)} of {len(entries)} questions"
            raise ServiceError(text, kept=self._kept())
        return found

    def paid(self) -> float:
        """US dollars that everything in this journal cost, failures among them."""
        sql = "SELECT TOTAL(json_extract(response, '$.price_usd')) FROM {}"
        return float(sum(self._query(sql.format(table))[0][0] for table in ("answer", "failure")))

    def _seal_all(self) -> None:
        """Bring a new journal, or one of version 1, to this version: every answer gets the digest of its row."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            if "digest" not in [column[1] for column in self._db.execute("PRAGMA table_info(answer)")]:
                self._db.execute("ALTER TABLE answer ADD COLUMN digest TEXT")
                self._db.create_function("seal", -1, lambda *row: _seal(row))
                columns = "hash, kind, adviser, parameters, reads_state, system, user, response, created"
                self._db.execute(f"UPDATE answer SET digest = seal({columns})")
            self._db.execute(f"PRAGMA user_version={VERSION}")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction, on disk when it ends; none of it after an error."""
        with self._lock:
            try:
                with self._db:
                    self._db.execute("BEGIN IMMEDIATE")
                    yield
            except _FAILURES as error:
                raise self._named(error) from None

    def _kept(self) -> str:
        return f"{len(self)} answers in {self.path}"

    def _query(self, sql: str, values: Sequence[Any] = ()) -> list[tuple]:
        with self._lock:
            try:
                return self._db.execute(sql, values).fetchall()
            except _FAILURES as error:
                raise self._named(error) from None

    def _named(self, error: Exception) -> Exception:
        whole = getattr(error, "sqlite_errorcode", 0)  # errors of the module itself have none
        code = whole & 0xFF
        where, kept = f"journal {self.path}: {shown(error)}", "every answer written before"
        if code in (sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_BUSY):
            return Busy(where, kept=kept, hint="another run is writing; try again when it is done")
        if code == sqlite3.SQLITE_FULL or whole == sqlite3.SQLITE_IOERR_WRITE:  # the latter at a quota or size limit
            return NoSpace(where, kept=kept, hint="free some space there and run again")
        unread = any(word in str(error) for word in ("decode", "malformed"))  # of the module, or of JSON in a row
        unread |= whole == sqlite3.SQLITE_IOERR_SHORT_READ
        if unread or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT):
            return CorruptArtifact(where, hint="move the file away, or restore it from a copy")
        return BadInput(where, kept=kept)


@lru_cache(maxsize=64)
def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _seal(row: Sequence[Any]) -> str:
    """SHA-256 of a row of ``answer`` without its digest."""
    return hashlib.sha256(_dump(list(row)).encode()).hexdigest()


_dump = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def _loaded(text: str, where: str) -> Response:
    try:
        return response_from(parsed(text))
    except (ValueError, TypeError, AttributeError) as error:
        raise CorruptArtifact(f"journal {where}: an answer does not read: {shown(error)}") from None
