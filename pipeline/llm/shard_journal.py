"""The journal of one shard that is asked about elsewhere: a file of its own, and its way into the main journal."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lore_datasets.errors import CorruptArtifact, shown
from pipeline.llm.journal import Journal

__all__ = ["ShardJournal", "merge", "price_of", "rows_of", "spent"]

_TABLES = {"prefix": 2, "answer": 9, "failure": 5}


class ShardJournal(Journal):
    """A journal that one process has to itself (another one waits 60 s, then Busy); the lock dies with the process.

    It keeps no write-ahead log, which does not work on a network file system; each answer is on the disk when
    :meth:`put` returns.
    """

    _settings = (
        "PRAGMA locking_mode=EXCLUSIVE",
        "PRAGMA journal_mode=DELETE",
        "PRAGMA synchronous=FULL",
        "BEGIN EXCLUSIVE",
        "COMMIT",
    )


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
