"""The journal of one shard that is asked about elsewhere: a file of its own, and its way into the main journal."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lore_datasets.errors import Busy, CorruptArtifact, shown
from pipeline.llm.http.sender import wait_for_senders
from pipeline.llm.journal.journal import Journal

__all__ = ["KINDS", "ShardFile", "ShardJournal", "merge", "price_of", "rows_of", "spent"]

_TABLES = {"prefix": 2, "answer": 9, "failure": 5}


class ShardFile(Journal):
    """The file of a shard's journal.

    It keeps no write-ahead log, which does not work on a network file system; each answer is on the disk when
    :meth:`put` returns.
    """

    _kind = "shard"
    _settings = ("PRAGMA journal_mode=DELETE", "PRAGMA synchronous=FULL")


class ShardJournal(ShardFile):
    """A journal that one process has to itself, with its sender; the lock dies with the process.

    Another process waits 60 s, then Busy; for the answers to what a dead one has in flight it waits to the end.
    """

    def __init__(self, path: Path | str) -> None:
        from filelock import FileLock, Timeout

        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._owner = FileLock(path.with_name(f".{path.name}.lock"), thread_local=False)
        try:
            self._owner.acquire(timeout=60)
        except Timeout:
            raise Busy(f"another process asks about the shard {path}", hint="try again when it is done") from None
        wait_for_senders(path)
        super().__init__(path)

    def close(self) -> None:
        """Close the file and let another process have it."""
        super().close()
        self._owner.release()


KINDS: dict[str, type[Journal]] = {Journal._kind: Journal, ShardFile._kind: ShardFile}
"""What a sender opens a journal as."""


def rows_of(journal: Journal, keys: Iterable[str] | None = None) -> dict[str, list[tuple]]:
    """Everything in ``journal``, or its answers to ``keys``, by table, for :func:`merge`."""
    if keys is None:
        return {table: journal._query(f"SELECT * FROM {table}") for table in _TABLES}
    wanted, answers = list(dict.fromkeys(keys)), []
    for i in range(0, len(wanted), 500):
        part = wanted[i : i + 500]
        answers += journal._query(f"SELECT * FROM answer WHERE hash IN ({','.join('?' * len(part))})", part)
    used = sorted({row[5] for row in answers})
    prefixes = [row for sha in used for row in journal._query("SELECT * FROM prefix WHERE sha256 = ?", (sha,))]
    return {"prefix": prefixes, "answer": answers, "failure": []}


def merge(rows: Mapping[str, Sequence[Any]], journal: Journal) -> None:
    """Write :func:`rows_of` another journal into ``journal`` in one transaction; what is there stays as it is."""
    with journal._lock:
        try:
            journal._db.execute("BEGIN IMMEDIATE")
            there = set(journal._db.execute("SELECT hash, created FROM failure")) if rows["failure"] else set()
            fresh = {**rows, "failure": [row for row in rows["failure"] if (row[0], row[4]) not in there]}
            for table, columns in _TABLES.items():
                marks = ",".join("?" * columns)
                journal._db.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", fresh[table])
            journal._db.execute("COMMIT")
        except sqlite3.ProgrammingError as error:
            journal._db.execute("ROLLBACK")
            raise CorruptArtifact(f"the rows of a shard do not fit a journal: {shown(error)}") from None
        except BaseException as error:
            if journal._db.in_transaction:
                journal._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise journal._named(error) from None
            raise


def price_of(answers: Sequence[tuple]) -> float:
    """US dollars that the ``answer`` rows of :func:`rows_of` cost."""
    return float(sum(json.loads(row[7])["price_usd"] for row in answers))


def spent(journal: Journal) -> tuple[int, float]:
    """(answers and failures, their price in US dollars) of everything in a journal."""
    sql = "SELECT COUNT(*), TOTAL(json_extract(response, '$.price_usd')) FROM {}"
    (answers, paid), (failures, lost) = (journal._query(sql.format(table))[0] for table in ("answer", "failure"))
    return answers + failures, paid + lost
