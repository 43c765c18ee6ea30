"""Storage Service: sealed assets of many owners in the data locations of the standard.

Decides which store serves which location, the PSA rules of an asset (write once, capacity, offsets) and the
generation that attestation reports. Does not decide who an owner is: its caller must know.

Invariants: an owner reaches its own assets only; nothing rests outside memory unsealed, unless its flags say
NO_CONFIDENTIALITY; an older state of any file is refused at start, an older state of all files shows in
``generation``.

On a host, internal flash is a file of its own. Source: PSA Certified Secure Storage API 1.0 (its, ps);
MPAI-AIF V2 secure storage, data_t, for the locations.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

from aif.trusted.psa import (
    STORAGE_FLAGS,
    PSAError,
    PSAStatus,
    StorageFlag,
    StorageInfo,
    StorageSupport,
)
from aif.trusted.record_database import Failpoint, RecordDatabase, no_failpoint
from aif.trusted.records import OWNER_BYTES, UID_BYTES, RecordId, RecordKeys
from aif.trusted.remote_disk import RemoteDisk, RemoteStore
from aif.trusted.sealed_store import Random, SealedStore, StoreLimits

UID_MAX: Final = (1 << 64) - 1
_CAPACITY_BYTES: Final = 4  # in front of every asset's data: what psa_ps_create reserved
_FLASH_LIMITS: Final = StoreLimits(record_bytes=64 << 10, total_bytes=8 << 20)
_DISK_LIMITS: Final = StoreLimits()
_KEY_STORE: Final = "keys"


class DataLocation(StrEnum):
    """Where an asset rests (data_location_t)."""

    RAM = "ram"
    """Memory of the service's process; gone with it."""
    INT_FLASH = "int_flash"
    """PSA internal trusted storage."""
    EXT_FLASH = "ext_flash"
    """PSA protected storage."""
    LOCAL_DISK = "local_disk"
    REMOTE_DISK = "remote_disk"
    """Sealed here, kept elsewhere; what was kept cannot be exchanged for an older value."""


@dataclass(frozen=True, slots=True)
class SecureData:
    """Where and how an asset is kept (data_t): Encrypted is no flag, plain is NO_CONFIDENTIALITY."""

    location: DataLocation
    flags: StorageFlag = StorageFlag.NONE


class RecordStore(Protocol):
    """What a location's back end does; errors are PSA ones."""

    def contains(self, record: RecordId) -> bool: ...
    def flags(self, record: RecordId) -> StorageFlag: ...
    def get(self, record: RecordId) -> bytes: ...
    def put(self, record: RecordId, body: bytes, flags: StorageFlag = StorageFlag.NONE) -> None: ...
    def remove(self, record: RecordId) -> None: ...


class StorageService:
    """All stores of one device.

    Args:
        folder: private folder of the device; made if it is missing.
        storage_key: 32 bytes derived from the device's root key.
        random: secure random bytes.
        remote: keeps sealed records elsewhere; without it REMOTE_DISK is not supported.
        failpoint: see ``record_database``.

    Raises:
        PSAError: ``DATA_CORRUPT``, the files are not the newest this device wrote; ``STORAGE_FAILURE``.
    """

    def __init__(
        self,
        folder: Path,
        storage_key: bytes,
        *,
        random: Random,
        remote: RemoteDisk | None = None,
        failpoint: Failpoint = no_failpoint,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._opened: list[RecordDatabase] = []

        def database(name: str | None) -> RecordDatabase:
            prefix = name or "ram"
            path = folder / f"{name}.db" if name else None
            self._opened.append(RecordDatabase(path, failpoint=lambda step: failpoint(f"{prefix}: {step}")))
            return self._opened[-1]

        def anchored(name: str) -> SealedStore:
            keys, store = RecordKeys.derive(storage_key, name), database(name)
            return SealedStore(store, keys, random=random, anchor=(flash, name), limits=_DISK_LIMITS)

        try:
            flash = database(DataLocation.INT_FLASH)
            flash_keys = RecordKeys.derive(storage_key, DataLocation.INT_FLASH)
            internal = SealedStore(flash, flash_keys, random=random, limits=_FLASH_LIMITS)
            external, disk = anchored(DataLocation.EXT_FLASH), anchored(DataLocation.LOCAL_DISK)
            receipts = anchored(DataLocation.REMOTE_DISK)
            self._keys = anchored(_KEY_STORE)
            memory = SealedStore(
                database(None), RecordKeys(random(32), random(32)), random=random, limits=_DISK_LIMITS
            )
        except BaseException:
            self.close()
            raise
        self._dated = (internal, external, disk, receipts, self._keys)
        self._stores: dict[DataLocation, RecordStore] = {
            DataLocation.RAM: memory,
            DataLocation.INT_FLASH: internal,
            DataLocation.EXT_FLASH: external,
            DataLocation.LOCAL_DISK: disk,
        }
        if remote is not None:
            keys = RecordKeys.derive(storage_key, f"{DataLocation.REMOTE_DISK} body")
            self._stores[DataLocation.REMOTE_DISK] = RemoteStore(remote, receipts, keys, random=random)

    @property
    def generation(self) -> int:
        """Protected changes to all files since they were made, for attestation: it never goes back."""
        return sum(store.generation for store in self._dated)

    @property
    def keys(self) -> SealedStore:
        """Where the Encryption Service and the Security Engine keep secrets; no owner can name it."""
        return self._keys

    def of(self, owner: bytes) -> OwnerStorage:
        """The storage of one owner, for instance an AIM instance id of 16 bytes.

        Raises:
            PSAError: ``INVALID_ARGUMENT``.
        """
        if len(owner) != OWNER_BYTES:
            raise PSAError(PSAStatus.INVALID_ARGUMENT, f"an owner has {OWNER_BYTES} bytes")
        return OwnerStorage(self._stores, owner)

    def close(self) -> None:
        for database in self._opened:
            database.close()


class OwnerStorage:
    """The PSA storage functions, for one owner. Every uid is 1 to 2^64 - 1; errors are PSAError."""

    def __init__(self, stores: dict[DataLocation, RecordStore], owner: bytes) -> None:
        self._stores, self._owner = stores, owner

    def area(self, kind: SecureData) -> SecureArea:
        """Assets with symbolic names, kept as ``kind`` says.

        Raises:
            PSAError: ``NOT_SUPPORTED``, this device has no such location.
        """
        return SecureArea(self._assets(kind.location), kind)

    def psa_its_set(self, uid: int, data: bytes, create_flags: int = 0) -> None:
        self._assets(DataLocation.INT_FLASH).set(uid, data, create_flags)

    def psa_its_get(self, uid: int, data_offset: int, data_length: int) -> bytes:
        return self._assets(DataLocation.INT_FLASH).get(uid, data_offset, data_length)

    def psa_its_get_info(self, uid: int) -> StorageInfo:
        return self._assets(DataLocation.INT_FLASH).get_info(uid)

    def psa_its_remove(self, uid: int) -> None:
        self._assets(DataLocation.INT_FLASH).remove(uid)

    def psa_ps_set(self, uid: int, data: bytes, create_flags: int = 0) -> None:
        self._assets(DataLocation.EXT_FLASH).set(uid, data, create_flags)

    def psa_ps_get(self, uid: int, data_offset: int, data_length: int) -> bytes:
        return self._assets(DataLocation.EXT_FLASH).get(uid, data_offset, data_length)

    def psa_ps_get_info(self, uid: int) -> StorageInfo:
        return self._assets(DataLocation.EXT_FLASH).get_info(uid)

    def psa_ps_remove(self, uid: int) -> None:
        self._assets(DataLocation.EXT_FLASH).remove(uid)

    def psa_ps_create(self, uid: int, capacity: int, create_flags: int = 0) -> None:
        self._assets(DataLocation.EXT_FLASH).create(uid, capacity, create_flags)

    def psa_ps_set_extended(self, uid: int, data_offset: int, data: bytes) -> None:
        self._assets(DataLocation.EXT_FLASH).set_extended(uid, data_offset, data)

    def psa_ps_get_support(self) -> int:
        return int(StorageSupport.SET_EXTENDED)

    def _assets(self, location: DataLocation) -> _Assets:
        store = self._stores.get(location)
        if store is None:
            raise PSAError(
                PSAStatus.NOT_SUPPORTED,
                f"this device has no {location}",
                hint="mount one and start the host with --remote-disk FOLDER, or keep it on local_disk",
            )
        return _Assets(store, self._owner)


class SecureArea:
    """Assets of one owner and location, by symbolic name (any text of 1 to 256 characters)."""

    def __init__(self, assets: _Assets, kind: SecureData) -> None:
        self._assets, self._kind = assets, kind

    def create(self, name: str, capacity_bytes: int) -> None:
        """Reserve room for an asset, which is empty then.

        Raises:
            PSAError: ``ALREADY_EXISTS``, ``INSUFFICIENT_STORAGE``, ``STORAGE_FAILURE``.
        """
        self._assets.create(_uid(name), capacity_bytes, self._kind.flags)

    def write(self, name: str, data: bytes) -> None:
        """Keep ``data`` under ``name``.

        Raises:
            PSAError: ``NOT_PERMITTED`` (it is written once), ``INSUFFICIENT_STORAGE``, ``STORAGE_FAILURE``.
        """
        self._assets.set(_uid(name), data, self._kind.flags)

    def read(self, name: str) -> bytes:
        """What was written.

        Raises:
            PSAError: ``DOES_NOT_EXIST``, ``DATA_CORRUPT``.
        """
        return self._assets.data(_uid(name))

    def info(self, name: str) -> StorageInfo:
        return self._assets.get_info(_uid(name))

    def delete(self, name: str) -> None:
        self._assets.remove(_uid(name))


class _Assets:
    """The PSA rules over the records of one owner in one store."""

    def __init__(self, store: RecordStore, owner: bytes) -> None:
        self._store, self._owner = store, owner

    def set(self, uid: int, data: bytes, create_flags: int) -> None:
        record, flags = self._record(uid), _creation_flags(create_flags)
        self._refuse_write_once(record)
        self._store.put(record, _body(len(data), data), flags)

    def create(self, uid: int, capacity: int, create_flags: int) -> None:
        record, flags = self._record(uid), _creation_flags(create_flags)
        if StorageFlag.WRITE_ONCE in flags:
            raise PSAError(PSAStatus.NOT_SUPPORTED, "what is written once has no capacity to fill later")
        if self._store.contains(record):
            raise PSAError(PSAStatus.ALREADY_EXISTS, "something is stored under this uid")
        if not 0 <= capacity <= _DISK_LIMITS.record_bytes - _CAPACITY_BYTES:
            raise PSAError(PSAStatus.INSUFFICIENT_STORAGE, "the capacity is more than an asset may have")
        self._store.put(record, _body(capacity, b""), flags)

    def set_extended(self, uid: int, data_offset: int, data: bytes) -> None:
        record = self._record(uid)
        capacity, old = self._parts(record)
        self._refuse_write_once(record)
        if not 0 <= data_offset <= len(old) or data_offset + len(data) > capacity:
            raise PSAError(
                PSAStatus.INVALID_ARGUMENT,
                f"the asset has {len(old)} B of {capacity} B, and grows only from its end to its capacity",
            )
        new = old[:data_offset] + data + old[data_offset + len(data) :]
        self._store.put(record, _body(capacity, new), self._store.flags(record))

    def get(self, uid: int, data_offset: int, data_length: int) -> bytes:
        data = self.data(uid)
        if not 0 <= data_offset <= len(data) or data_length < 0:
            raise PSAError(PSAStatus.INVALID_ARGUMENT, f"the asset has {len(data)} B")
        return data[data_offset : data_offset + data_length]

    def data(self, uid: int) -> bytes:
        return self._parts(self._record(uid))[1]

    def get_info(self, uid: int) -> StorageInfo:
        record = self._record(uid)
        capacity, data = self._parts(record)
        return StorageInfo(capacity, len(data), self._store.flags(record))

    def remove(self, uid: int) -> None:
        record = self._record(uid)
        self._refuse_write_once(record)
        self._store.remove(record)

    def _record(self, uid: int) -> RecordId:
        if not 1 <= uid <= UID_MAX:
            raise PSAError(PSAStatus.INVALID_ARGUMENT, "a uid is 1 to 2^64 - 1")
        # SQLite's integers are signed, so half of the uids would not fit in one
        return RecordId(self._owner, uid.to_bytes(UID_BYTES))

    def _parts(self, record: RecordId) -> tuple[int, bytes]:
        body = self._store.get(record)
        return int.from_bytes(body[:_CAPACITY_BYTES]), body[_CAPACITY_BYTES:]

    def _refuse_write_once(self, record: RecordId) -> None:
        if self._store.contains(record) and StorageFlag.WRITE_ONCE in self._store.flags(record):
            raise PSAError(PSAStatus.NOT_PERMITTED, "the asset was written once, for good")


def _body(capacity: int, data: bytes) -> bytes:
    return capacity.to_bytes(_CAPACITY_BYTES) + data


def _creation_flags(value: int) -> StorageFlag:
    if value < 0 or value & ~int(STORAGE_FLAGS):
        raise PSAError(PSAStatus.NOT_SUPPORTED, f"there are no storage flags {value:#x}")
    return StorageFlag(value)


def _uid(name: str) -> int:
    if not 1 <= len(name) <= 256:
        raise PSAError(PSAStatus.INVALID_ARGUMENT, "an asset's name has 1 to 256 characters")
    digest = hashlib.blake2b(b"AIF-UID-1" + name.encode(), digest_size=UID_BYTES).digest()
    return int.from_bytes(digest) or 1
