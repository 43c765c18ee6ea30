"""A store of sealed records that knows when it was rewound.

Decides the order of a write, the limits, and what is refused at start. Does not know what a record is for,
nor its flags' meaning beyond confidentiality and replay protection (``storage``).

Invariants: a call leaves the old or the new value, never a mix, and reports no error once the new value is
visible; the store is at most one generation ahead of its anchor; what the index does not list is not read.

Order of a protected write: one transaction with the record and the head of generation g + 1, then the anchor
of g + 1 in internal flash. A process that ends between both finds a store one ahead, and rolls forward.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from aif.trusted.psa import STORAGE_FLAGS, PSAError, PSAStatus, StorageFlag
from aif.trusted.record_database import RecordDatabase
from aif.trusted.records import (
    NONCE_BYTES,
    RECORD_OVERHEAD_BYTES,
    RecordId,
    RecordKeys,
    RecordVersion,
    StartUp,
    check_head,
    corrupt,
    head_of,
    open_record,
    seal_record,
    slot_of,
    start_up,
)

Random = Callable[[int], bytes]
"""Cryptographically secure random bytes."""


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """What one store can hold."""

    records: int = 1024
    """The head is computed over all records, so their number bounds the cost of a write."""
    records_per_owner: int = 256
    bytes_per_owner: int = 16 << 20
    record_bytes: int = 1 << 20
    total_bytes: int = 64 << 20


DEFAULT_LIMITS: Final = StoreLimits()


@dataclass(frozen=True, slots=True)
class _Entry:
    version: int
    flags: StorageFlag
    tag: bytes
    sealed_bytes: int


class SealedStore:
    """Records of one file.

    Args:
        database: the file, used by this store alone (anchors of others apart).
        keys: derived for this store.
        random: draws nonces.
        anchor: the internal flash that remembers this store's head, and this store's name there; None for
            internal flash itself and for memory.
        limits: bounds.

    Raises:
        PSAError: ``DATA_CORRUPT``, the content is not the newest this device wrote.
    """

    def __init__(
        self,
        database: RecordDatabase,
        keys: RecordKeys,
        *,
        random: Random,
        anchor: tuple[RecordDatabase, str] | None = None,
        limits: StoreLimits = DEFAULT_LIMITS,
    ) -> None:
        self._database, self._keys, self._random = database, keys, random
        self._anchor, self._limits = anchor, limits
        self._index = {
            record: _Entry(version, _flags(flags), tag, size)
            for record, version, flags, tag, size in database.index()
        }
        head = database.head()
        self._head = head_of(keys, 0, {}) if head is None else head
        check_head(keys, self._head, _protected(self._index))
        anchors = anchor[0].anchors(anchor[1]) if anchor else (self._head,)
        self._anchored = start_up(self._head, anchors) is StartUp.GO
        self._settle()

    @property
    def generation(self) -> int:
        """Protected changes since the store was made; it never goes back."""
        return self._head.generation

    def contains(self, record: RecordId) -> bool:
        return record in self._index

    def flags(self, record: RecordId) -> StorageFlag:
        """Flags a record was stored with.

        Raises:
            PSAError: ``DOES_NOT_EXIST``.
        """
        return self._entry(record).flags

    def get(self, record: RecordId) -> bytes:
        """The body of a record.

        Raises:
            PSAError: ``DOES_NOT_EXIST``, or ``DATA_CORRUPT``.
        """
        entry, found = self._entry(record), self._database.sealed(record)
        if found is None or found[:2] != (entry.version, entry.flags) or found[2][-16:] != entry.tag:
            raise corrupt("a stored record was changed while the store was open")
        return open_record(self._keys, record, entry.flags, entry.version, found[2])

    def put(self, record: RecordId, body: bytes, flags: StorageFlag = StorageFlag.NONE) -> None:
        """Store ``body``, replacing what was there.

        Raises:
            PSAError: ``INSUFFICIENT_STORAGE`` or ``STORAGE_FAILURE``; the old value is still there.
        """
        old = self._index.get(record)
        self._check_room(record, len(body) + RECORD_OVERHEAD_BYTES)
        version = 1 + max(old.version if old else 0, self._head.generation)
        sealed = seal_record(self._keys, record, flags, version, body, self._random(NONCE_BYTES))
        self._change(record, _Entry(version, flags, sealed[-16:], len(sealed)), sealed)

    def remove(self, record: RecordId) -> None:
        """Forget a record.

        Raises:
            PSAError: ``DOES_NOT_EXIST``, or ``STORAGE_FAILURE``; in the latter case it is still there.
        """
        self._entry(record)
        self._change(record, None, b"")

    def close(self) -> None:
        self._database.close()

    def _entry(self, record: RecordId) -> _Entry:
        entry = self._index.get(record)
        if entry is None:
            raise PSAError(PSAStatus.DOES_NOT_EXIST, "nothing is stored under this uid")
        return entry

    def _change(self, record: RecordId, entry: _Entry | None, sealed: bytes) -> None:
        self._settle()
        index = {**self._index}
        old = index.pop(record, None)
        if entry is not None:
            index[record] = entry
        head = self._head
        if any(e and StorageFlag.NO_REPLAY_PROTECTION not in e.flags for e in (old, entry)):
            head = head_of(self._keys, head.generation + 1, _protected(index))
        with self._database.writing() as transaction:
            if entry is None:
                transaction.remove(record)
            else:
                transaction.put(record, entry.version, int(entry.flags), sealed)
            if head is not self._head:
                transaction.set_head(head)
        self._anchored = self._anchored and head is self._head
        self._index, self._head = index, head
        # The new value is visible, so a failure here is none of this call; the next change settles it first.
        with suppress(PSAError):
            self._settle()

    def _settle(self) -> None:
        """Bring the anchor up to the head."""
        if self._anchored or self._anchor is None:
            return
        flash, name = self._anchor
        with flash.writing() as transaction:
            transaction.set_anchor(name, slot_of(self._head.generation), self._head)
        self._anchored = True

    def _check_room(self, record: RecordId, sealed_bytes: int) -> None:
        others = {key: entry for key, entry in self._index.items() if key != record}
        own = [entry.sealed_bytes for key, entry in others.items() if key.owner == record.owner]
        limits = self._limits
        for what, needed, allowed in (
            ("bytes in one record", sealed_bytes, limits.record_bytes + RECORD_OVERHEAD_BYTES),
            ("records of one owner", len(own) + 1, limits.records_per_owner),
            ("bytes of one owner", sum(own) + sealed_bytes, limits.bytes_per_owner),
            ("records", len(others) + 1, limits.records),
            (
                "bytes",
                sealed_bytes + sum(entry.sealed_bytes for entry in others.values()),
                limits.total_bytes,
            ),
        ):
            if needed > allowed:
                raise PSAError(
                    PSAStatus.INSUFFICIENT_STORAGE,
                    f"the store holds at most {allowed:,} {what}",
                    hint="remove what is no longer needed",
                )


def _protected(index: dict[RecordId, _Entry]) -> dict[RecordId, RecordVersion]:
    return {
        record: RecordVersion(entry.version, entry.tag)
        for record, entry in index.items()
        if StorageFlag.NO_REPLAY_PROTECTION not in entry.flags
    }


def _flags(value: int) -> StorageFlag:
    if value & ~int(STORAGE_FLAGS):
        raise corrupt("a record has flags that do not exist")
    return StorageFlag(value)
