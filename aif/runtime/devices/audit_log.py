"""The site's audit log on disk: who enrolled, what was appraised, granted, revoked, deployed.

Entries are chained by hash; the head is signed every 256 entries or 10 s and kept in the site's state, so a
log that was cut off shows. Size is bounded: the oldest file goes when there are too many.

Invariants: one process at a time writes, under a lock; what a crash left half-written is removed by the next
write, and what was signed never is; noting something raises nothing that would stop the work it is about.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from nacl.signing import SigningKey

from aif.errors import AIFError, AuditBroken
from aif.protocol.audit import (
    Entry,
    Head,
    Reading,
    encode_entry,
    frame,
    records,
    sign_head,
    verify_head,
    verify_log,
)
from aif.trusted.state import SiteState, StateFile

MAX_FILE_BYTES = 256 * 1024
FILES_KEPT = 16
HEAD_ENTRIES = 256
HEAD_S = 10.0


class AuditLog:
    """The log of one site, in its state folder."""

    def __init__(self, site_folder: Path, time_us: Callable[[], int]) -> None:
        self.folder = site_folder / "audit"
        self._site = StateFile(site_folder / "site.cbor", SiteState)
        self._time_us = time_us
        self._reading: Reading | None = None
        self._at: tuple[str, int] = ("", 0)
        self._signed_us = time_us()
        self.failure = ""
        """Why the last entry could not be written; empty when it was."""

    def note(self, kind: str, subject: str, **facts: str | int) -> None:
        """Write one entry."""
        try:
            with self._open() as reading:
                record = encode_entry(Entry(reading.number + 1, self._time_us(), kind, subject, facts))
                self._append(record)
                reading.added(record)
                if reading.number - reading.signed >= HEAD_ENTRIES:
                    self._sign(reading)
            self.failure = ""
        except (OSError, AIFError) as error:
            self.failure = str(error)

    def tick(self) -> None:
        """Regularly: sign what is new."""
        reading = self._reading
        due = self._time_us() - self._signed_us >= HEAD_S * 1e6
        if due and reading is not None and reading.number > reading.signed:
            self.sign()

    def sign(self) -> None:
        """Sign the head now."""
        try:
            with self._open() as reading:
                if reading.number > reading.signed:
                    self._sign(reading)
        except (OSError, AIFError) as error:
            self.failure = str(error)

    def verify(self) -> tuple[list[Entry], int]:
        """All entries, and up to which they are signed.

        Raises:
            AuditBroken: the log is not whole.
        """
        state = self._site.load()
        parts = (path.read_bytes() for path in self._files())
        return verify_log(parts, state.audit_head, _key(state).verify_key.encode())

    # --- files -------------------------------------------------------------------------------------

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.log"))

    @contextmanager
    def _open(self) -> Iterator[Reading]:
        """The end of the log, with other writers locked out."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            files = self._files()
            if self._reading is None or not files or self._at != (files[-1].name, files[-1].stat().st_size):
                self._reading = self._read_end(files)
            yield self._reading
        finally:
            os.close(lock)

    def _read_end(self, files: list[Path]) -> Reading:
        """The state at the end of the log.

        Raises:
            AuditBroken: what was signed is not there as it was; nothing is written to such a log.
        """
        state = self._site.load()
        public, newest = _key(state).verify_key.encode(), None
        if state.audit_head:
            newest = verify_head(state.audit_head, public)
        reading = Reading(public, newest)
        if not files:
            reading.end()
            reading.begun = True
            return self._begin(reading)
        data, whole = files[-1].read_bytes(), 0
        for record in whole_records(data):
            reading.take(record)
            whole += 4 + len(record)
        reading.end()
        os.truncate(files[-1], whole)  # what a crash cut off was never signed
        self._at = (files[-1].name, whole)
        return reading

    def _begin(self, reading: Reading) -> Reading:
        """A new file, which begins with the head of all that came before."""
        head = self._signed_head(reading)
        path = self.folder / f"{reading.number + 1:012}.log"
        path.touch(0o600, exist_ok=False)
        path.write_bytes(frame(head))
        self._at = (path.name, 4 + len(head))
        for old in self._files()[:-FILES_KEPT]:
            old.unlink()
        return reading

    def _append(self, record: bytes) -> None:
        name, size = self._at
        with (self.folder / name).open("ab") as file:
            file.write(frame(record))
        self._at = (name, size + 4 + len(record))

    def _sign(self, reading: Reading) -> None:
        with (self.folder / self._at[0]).open("rb") as file:
            os.fsync(file.fileno())  # what is signed is there, whatever happens next
        self._append(self._signed_head(reading))
        reading.signed, self._signed_us = reading.number, self._time_us()
        if self._at[1] > MAX_FILE_BYTES:
            self._begin(reading)

    def _signed_head(self, reading: Reading) -> bytes:
        """A head of everything so far, also kept in the site's state."""
        head = Head(reading.number, reading.chain, self._time_us())
        signed = b""

        def change(state: SiteState) -> SiteState:
            nonlocal signed
            key = _key(state)
            signed = sign_head(head, lambda message: key.sign(message).signature)
            return replace(state, audit_head=signed)

        self._site.update(change)
        return signed


def whole_records(data: bytes) -> Iterator[bytes]:
    """The records of a file whose end a crash may have cut off."""
    with suppress(AuditBroken):
        yield from records(data)


def _key(state: SiteState) -> SigningKey:
    if not state.audit_seed:
        raise AuditBroken(
            "this site has no audit key", hint="it was made by an earlier version: set it up anew"
        )
    return SigningKey(state.audit_seed)
