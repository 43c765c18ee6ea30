"""One SQLite file of sealed records: how it is opened, checked and written, so that a crash tears nothing.

Decides the tables, the settings that make a commit durable (WAL, ``synchronous=FULL``) and how SQLite's
errors are told. Does not decide what a record means, nor whether it is the newest (``sealed_store``).

Invariants: one process has the file; the schema is exactly the one below, so a prepared file cannot bring
triggers or views; after a failed commit nothing is read or written until the file is opened again, because
nobody can know which of both values the disk has.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from aif.trusted.psa import PSAError, PSAStatus
from aif.trusted.records import (
    OWNER_BYTES,
    UID_BYTES,
    Head,
    RecordId,
    corrupt,
)

Failpoint = Callable[[str], None]
"""Called with the name of each step of a write; tests end the process there."""

_RECORD_TABLE: Final = (
    "CREATE TABLE record (owner BLOB NOT NULL, uid BLOB NOT NULL, version INTEGER NOT NULL, "
    "flags INTEGER NOT NULL, sealed BLOB NOT NULL, PRIMARY KEY (owner, uid)) STRICT"
)
_HEAD_TABLE: Final = (
    "CREATE TABLE head (one INTEGER PRIMARY KEY CHECK (one = 1), generation INTEGER NOT NULL, "
    "digest BLOB NOT NULL) STRICT"
)
_ANCHOR_TABLE: Final = (
    "CREATE TABLE anchor (store TEXT NOT NULL, slot INTEGER NOT NULL, generation INTEGER NOT NULL, "
    "digest BLOB NOT NULL, PRIMARY KEY (store, slot)) STRICT"
)
_TABLES: Final = (_RECORD_TABLE, _HEAD_TABLE, _ANCHOR_TABLE)
_SETTINGS: Final = (
    "PRAGMA trusted_schema = OFF",
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA secure_delete = ON",
    "PRAGMA cell_size_check = ON",
)
_NO_SPACE: Final = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_TOOBIG)
_DAMAGED: Final = (
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_SCHEMA,
)


def no_failpoint(_step: str) -> None:
    """The failpoint of everyday use."""


class RecordDatabase:
    """An open file, or memory when ``path`` is None. Used by one thread at a time."""

    def __init__(self, path: Path | None, *, failpoint: Failpoint = no_failpoint) -> None:
        """Open or create the file.

        Raises:
            PSAError: ``DATA_CORRUPT``, not such a file; ``STORAGE_FAILURE``, in use or not readable.
        """
        self.failpoint = failpoint
        self._name = path.name if path else "memory"
        self._usable = True
        if path is not None:  # SQLite gives its journals the mode of the file
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        with self._told():
            self._connection = sqlite3.connect(
                path or ":memory:", timeout=0, isolation_level=None, check_same_thread=False
            )
            try:
                for setting in _SETTINGS:
                    self._connection.execute(setting)
                self._create_or_check()
            except BaseException:
                self._connection.close()
                raise

    def close(self) -> None:
        self._usable = False
        self._connection.close()

    def head(self) -> Head | None:
        """The stored head, None in a new file."""
        return next(iter(self._heads("SELECT generation, digest FROM head")), None)

    def anchors(self, store: str) -> tuple[Head, ...]:
        """What was remembered about another store, at most two heads."""
        return self._heads("SELECT generation, digest FROM anchor WHERE store = ?", store)

    def index(self) -> Iterator[tuple[RecordId, int, int, bytes, int]]:
        """Id, version, flags, tag and sealed size of every record."""
        query = "SELECT owner, uid, version, flags, substr(sealed, -16), length(sealed) FROM record"
        for owner, uid, version, flags, tag, size_bytes in self._rows(query):
            if len(owner) != OWNER_BYTES or len(uid) != UID_BYTES or min(version, flags) < 0:
                raise corrupt(f"{self._name} holds a record that was never written")
            yield RecordId(owner, uid), version, flags, tag, size_bytes

    def sealed(self, record: RecordId) -> tuple[int, int, bytes] | None:
        """Version, flags and sealed bytes of one record."""
        query = "SELECT version, flags, sealed FROM record WHERE owner = ? AND uid = ?"
        rows = self._rows(query, record.owner, record.uid)
        return next(((v, f, bytes(s)) for v, f, s in rows), None)

    @contextmanager
    def writing(self) -> Iterator[Transaction]:
        """One transaction: everything in it is kept, or nothing.

        Raises:
            PSAError: ``INSUFFICIENT_STORAGE`` or ``STORAGE_FAILURE``; nothing was changed.
        """
        with self._told():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self.failpoint("begun")
                yield Transaction(self._connection, self.failpoint)
            except BaseException:
                if self._connection.in_transaction:  # some errors make SQLite roll back by itself
                    self._connection.execute("ROLLBACK")
                raise
            self._usable = False  # until the commit is known to be on the disk
            self._connection.execute("COMMIT")
            self._usable = True
        self.failpoint("committed")

    def _rows(self, query: str, *values: object) -> list[Any]:
        with self._told():
            return self._connection.execute(query, values).fetchall()

    def _heads(self, query: str, *values: object) -> tuple[Head, ...]:
        heads = tuple(Head(generation, bytes(digest)) for generation, digest in self._rows(query, *values))
        if any(head.generation < 0 for head in heads):
            raise corrupt(f"{self._name} holds a generation that was never written")
        return heads

    def _create_or_check(self) -> None:
        found = {text for (text,) in self._connection.execute("SELECT sql FROM sqlite_master") if text}
        if not found:
            self._connection.execute("BEGIN IMMEDIATE")
            for table in _TABLES:
                self._connection.execute(table)
            self._connection.execute("COMMIT")
        elif found != set(_TABLES):
            raise corrupt(f"{self._name} is not a record file of this release")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """SQLite's errors as PSA ones; a file whose last commit failed is not touched again."""
        if not self._usable:
            raise PSAError(
                PSAStatus.STORAGE_FAILURE,
                f"{self._name} is closed, or its last write could not be completed",
                hint="check the disk, then start the service again",
            )
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            if code in _DAMAGED:
                raise corrupt(f"{self._name} is damaged") from error
            if code in _NO_SPACE:
                raise PSAError(
                    PSAStatus.INSUFFICIENT_STORAGE, f"no space is left for {self._name}"
                ) from error
            raise PSAError(
                PSAStatus.STORAGE_FAILURE,
                f"{self._name} cannot be used: {error}",
                hint="only one process may use a device's storage; check the disk too",
            ) from error


class Transaction:
    """What can be written together."""

    def __init__(self, connection: sqlite3.Connection, failpoint: Failpoint) -> None:
        self._connection, self._failpoint = connection, failpoint

    def put(self, record: RecordId, version: int, flags: int, sealed: bytes) -> None:
        query = "INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?, ?)"
        self._connection.execute(query, (record.owner, record.uid, version, flags, sealed))
        self._failpoint("record")

    def remove(self, record: RecordId) -> None:
        query = "DELETE FROM record WHERE owner = ? AND uid = ?"
        self._connection.execute(query, (record.owner, record.uid))
        self._failpoint("record")

    def set_head(self, head: Head) -> None:
        query = "INSERT OR REPLACE INTO head VALUES (1, ?, ?)"
        self._connection.execute(query, (head.generation, head.digest))
        self._failpoint("head")

    def set_anchor(self, store: str, slot: int, head: Head) -> None:
        query = "INSERT OR REPLACE INTO anchor VALUES (?, ?, ?, ?)"
        self._connection.execute(query, (store, slot, head.generation, head.digest))
        self._failpoint("anchor")
