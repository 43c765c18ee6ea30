"""The audit log's bytes: entries in a hash chain, and heads of the chain that the Controller signed.

Decides what an entry and a head are, and whether a log is whole. Writes nothing. Invariants: an entry holds
no payload and no key, only words, numbers and digests in hexadecimal; an entry that was deleted, edited,
moved or inserted before a signed head shows, and so does a log that ends before the newest head.

Bytes (SHA-256 of FIPS 180-4, COSE_Sign1 of RFC 9052)::

    h(0) = 32 zero bytes, h(n) = SHA-256(h(n-1) || entry(n))
    entry = CBOR {0: number from 1, 1: time, 2: kind, 3: subject, 4: facts}
    head = COSE_Sign1 {1: number of entries, 2: h of the last one, 3: time}
    log = (u32 length || entry or head)*, and it begins with a head
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from aif.errors import AuditBroken, ProtocolError, SignatureInvalid
from aif.protocol import documents
from aif.protocol.cose import Sign, sign1, verify1
from aif.protocol.limits import HASH_BYTES

MAX_ENTRY_BYTES: Final = 2_048
_HEAD_AAD: Final = b"AIF-AUDIT-1"
_COSE_SIGN1: Final = 0xD2  # CBOR tag 18: a head; an entry is a map
START: Final = bytes(HASH_BYTES)


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened."""

    number: int
    time_us: int
    kind: str
    subject: str
    """The device, workflow or file that it is about."""
    facts: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Head:
    """The Controller's word about everything up to an entry."""

    number: int
    chain: bytes
    time_us: int


def encode_entry(entry: Entry) -> bytes:
    """The bytes of an entry; facts that do not fit are left out.

    Raises:
        LocalProtocolError: a fact that is neither text nor number.
    """
    data = documents.encode(entry)
    if len(data) <= MAX_ENTRY_BYTES:
        return data
    return documents.encode(Entry(entry.number, entry.time_us, entry.kind, entry.subject[:256]))


def chain(previous: bytes, entry: bytes) -> bytes:
    """The next value of the hash chain."""
    return hashlib.sha256(previous + entry).digest()


def sign_head(head: Head, sign: Sign) -> bytes:
    return sign1(documents.encode(head), sign, external_aad=_HEAD_AAD, tagged=True)


def verify_head(data: bytes, audit_pk: bytes) -> Head:
    """A head that this Controller signed.

    Raises:
        SignatureInvalid, RemoteProtocolError: it did not, or the bytes are none.
    """
    payload = verify1(data, audit_pk, external_aad=_HEAD_AAD, tagged=True, max_bytes=MAX_ENTRY_BYTES)
    return documents.decode(Head, payload, max_bytes=MAX_ENTRY_BYTES)


def frame(record: bytes) -> bytes:
    """An entry or a head as it stands in the log."""
    return len(record).to_bytes(4) + record


def records(data: bytes) -> Iterator[bytes]:
    """The records of a log.

    Raises:
        AuditBroken: it ends within one, or one is longer than any.
    """
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4])
        if size > MAX_ENTRY_BYTES or at + 4 + size > len(data):
            raise AuditBroken(f"the log ends within a record at byte {at:,}", hint="something cut it off")
        yield data[at + 4 : at + 4 + size]
        at += 4 + size


@dataclass(slots=True)
class Reading:
    """Where a reader of a log stands: the last entry, its chain value, and the last head that fitted."""

    audit_pk: bytes
    newest: Head | None = None
    """The head that the Controller keeps apart from the log."""
    number: int = 0
    chain: bytes = START
    signed: int = 0
    begun: bool = False

    def take(self, record: bytes) -> Entry | None:
        """The next record; an entry is returned, a head is compared.

        Raises:
            AuditBroken: it does not follow from what came before.
        """
        try:
            if record[:1] == bytes([_COSE_SIGN1]):
                self._compare(verify_head(record, self.audit_pk))
                return None
            entry = documents.decode(Entry, record, max_bytes=MAX_ENTRY_BYTES)
        except ProtocolError as error:
            raise AuditBroken(f"after entry {self.number}: {error}") from error
        except SignatureInvalid as error:
            raise AuditBroken(f"after entry {self.number}: a head the Controller did not sign") from error
        if not self.begun or entry.number != self.number + 1:
            raise AuditBroken(f"entry {entry.number} follows entry {self.number}: some are missing")
        self.added(record)
        if self.newest is not None and self.newest.number == self.number:
            self._compare(self.newest)
        return entry

    def added(self, record: bytes) -> None:
        """An entry follows the last one."""
        self.number, self.chain = self.number + 1, chain(self.chain, record)

    def end(self) -> None:
        """Nothing follows.

        Raises:
            AuditBroken: the Controller signed more than there is.
        """
        if self.newest is not None and self.number < self.newest.number:
            raise AuditBroken(
                f"the log ends at entry {self.number}; the Controller signed {self.newest.number}",
                hint="its end was cut off, or an older copy was put in its place",
            )

    def _compare(self, head: Head) -> None:
        if not self.begun:  # older entries went as the log was rotated: their head stands for them
            self.begun, self.number, self.chain = True, head.number, head.chain
        elif head.number != self.number:
            raise AuditBroken(f"the head after entry {self.number} speaks of {head.number} entries")
        elif head.chain != self.chain:
            raise AuditBroken(f"an entry between {self.signed + 1} and {self.number} was changed")
        self.signed = head.number


def verify_log(parts: Iterable[bytes], newest_head: bytes, audit_pk: bytes) -> tuple[list[Entry], int]:
    """All entries of a log that is whole.

    Args:
        parts: its files, in order; the second and all that follow continue the one before.
        newest_head: the head that the Controller keeps apart from the log; empty before the first.
        audit_pk: the Controller's audit key.

    Returns:
        The entries, and up to which of them they are signed.

    Raises:
        AuditBroken: an entry was deleted, edited, moved or inserted, or the end is missing.
        SignatureInvalid, RemoteProtocolError: the newest head itself is not the Controller's.
    """
    reading = Reading(audit_pk, verify_head(newest_head, audit_pk) if newest_head else None)
    found = (reading.take(record) for part in parts for record in records(part))
    entries = [entry for entry in found if entry is not None]
    reading.end()
    return entries, reading.signed
