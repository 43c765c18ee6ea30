"""Records kept elsewhere: sealed here, and remembered by a receipt so that no older one is taken back.

Decides the names of remote blobs and the order of a change: new blob, then receipt, then the old blob goes.
Does not decide how a blob travels; ``RemoteDisk`` does, and it is not trusted with anything but availability.

Invariant: the receipt (version and digest of the sealed blob) rests in a local sealed store, which has its
own protection against rollback; whatever the remote end gives is checked against it before it is opened.
"""

from __future__ import annotations

import hashlib
import hmac
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from aif.errors import StoreError, TransportError
from aif.protocol.limits import HASH_BYTES
from aif.trusted.psa import PSAError, PSAStatus, StorageFlag
from aif.trusted.records import NONCE_BYTES, RecordId, RecordKeys, corrupt, open_record, seal_record
from aif.trusted.sealed_store import Random, SealedStore
from aif.trusted.state import write_atomically

MAX_REMOTE_BYTES: Final = 16 << 20
"""Body of one remote record."""
_VERSION_BYTES: Final = 8


class RemoteDisk(Protocol):
    """Keeps named blobs somewhere else. Each call may raise TransportError, StoreError or OSError."""

    def put(self, name: str, blob: bytes) -> None:
        """Keep a blob; when this returns it is kept."""

    def get(self, name: str, max_bytes: int) -> bytes:
        """The blob, never more than ``max_bytes`` of it."""

    def delete(self, name: str) -> None:
        """Forget a blob; one that is not there is no error."""


class FolderDisk:
    """A remote disk that the operating system has mounted at a folder.

    Names are the hexadecimal digits of a digest (see ``RemoteStore``), so they are safe as file names.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, name: str, blob: bytes) -> None:
        write_atomically(self._folder / name, blob)

    def get(self, name: str, max_bytes: int) -> bytes:
        with (self._folder / name).open("rb") as file:
            return file.read(max_bytes)

    def delete(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)


class RemoteStore:
    """Sealed records on a remote disk, with their receipts in ``receipts``."""

    def __init__(self, disk: RemoteDisk, receipts: SealedStore, keys: RecordKeys, *, random: Random) -> None:
        self._disk, self._receipts, self._keys, self._random = disk, receipts, keys, random

    def contains(self, record: RecordId) -> bool:
        return self._receipts.contains(record)

    def flags(self, record: RecordId) -> StorageFlag:
        return self._receipts.flags(record)

    def get(self, record: RecordId) -> bytes:
        """The body of a record.

        Raises:
            PSAError: ``DOES_NOT_EXIST``, ``COMMUNICATION_FAILURE``, or ``DATA_CORRUPT``: the remote end gave
                something else.
        """
        version, digest = self._receipt(record)
        try:
            blob = self._disk.get(_name(record, version), MAX_REMOTE_BYTES + 64)
        except (TransportError, StoreError, OSError) as error:
            raise _unreachable() from error
        if not hmac.compare_digest(_digest(blob), digest):
            raise corrupt("the remote disk gave other bytes than it was given")
        return open_record(self._keys, record, self.flags(record), version, blob)

    def put(self, record: RecordId, body: bytes, flags: StorageFlag = StorageFlag.NONE) -> None:
        """Keep ``body``; the old value stays until the receipt of the new one is written.

        Raises:
            PSAError: ``INSUFFICIENT_STORAGE``, ``COMMUNICATION_FAILURE``, ``STORAGE_FAILURE``.
        """
        if len(body) > MAX_REMOTE_BYTES:
            raise PSAError(
                PSAStatus.INSUFFICIENT_STORAGE, f"a remote record has at most {MAX_REMOTE_BYTES} B"
            )
        old = self._receipt(record)[0] if self.contains(record) else None
        # Random, not counted: the name of a blob that a crash left behind is never used again.
        version = int.from_bytes(self._random(_VERSION_BYTES)) >> 1
        blob = seal_record(self._keys, record, flags, version, body, self._random(NONCE_BYTES))
        try:
            self._disk.put(_name(record, version), blob)
        except (TransportError, StoreError, OSError) as error:
            raise _unreachable() from error
        self._receipts.put(record, version.to_bytes(_VERSION_BYTES) + _digest(blob), flags)
        if old is not None:
            self._forget(record, old)

    def remove(self, record: RecordId) -> None:
        """Forget a record, here first.

        Raises:
            PSAError: ``DOES_NOT_EXIST``, ``STORAGE_FAILURE``.
        """
        version, _digest_of_blob = self._receipt(record)
        self._receipts.remove(record)
        self._forget(record, version)

    def _receipt(self, record: RecordId) -> tuple[int, bytes]:
        receipt = self._receipts.get(record)
        return int.from_bytes(receipt[:_VERSION_BYTES]), receipt[_VERSION_BYTES:]

    def _forget(self, record: RecordId, version: int) -> None:
        # Without its receipt the blob opens for nobody: if it stays, it costs the remote end some room.
        with suppress(TransportError, StoreError, OSError):
            self._disk.delete(_name(record, version))


def _name(record: RecordId, version: int) -> str:
    """Tells the remote end nothing about the owner and uid that it could compute by itself."""
    place = record.owner + record.uid + version.to_bytes(_VERSION_BYTES)
    return hashlib.blake2b(b"AIF-BLOB-1" + place, digest_size=HASH_BYTES).hexdigest()


def _digest(blob: bytes) -> bytes:
    return hashlib.blake2b(blob, digest_size=HASH_BYTES).digest()


def _unreachable() -> PSAError:
    return PSAError(
        PSAStatus.COMMUNICATION_FAILURE,
        "the remote disk did not answer",
        hint="check the connection; the value there is unchanged",
    )
