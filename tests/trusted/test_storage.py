"""Storage: PSA rules per location, owners apart, sealed at rest, bounded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt

from aif.errors import NotConnected
from aif.trusted.psa import PSAError, PSAStatus, StorageFlag, StorageInfo
from aif.trusted.records import RecordId, RecordKeys, open_record, seal_record
from aif.trusted.storage import DataLocation, OwnerStorage, SecureData, StorageService

KEY = bytes(range(32))
ANNA, BORIS = bytes([1]) * 16, bytes([2]) * 16
SECRET = b"a secret that nobody may find on the disk"
STORES = ("its", "ps")


class MemoryRemote:
    """A remote disk that can be cut off, and that does what it likes with what it keeps."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.connected = True

    def _check(self) -> None:
        if not self.connected:
            raise NotConnected("no way to the remote disk")

    def put(self, name: str, blob: bytes) -> None:
        self._check()
        self.blobs[name] = blob

    def get(self, name: str, max_bytes: int) -> bytes:
        self._check()
        return self.blobs.get(name, b"")[:max_bytes]

    def delete(self, name: str) -> None:
        self._check()
        self.blobs.pop(name, None)


@pytest.fixture
def remote() -> MemoryRemote:
    return MemoryRemote()


@pytest.fixture
def service(tmp_path: Path, remote: MemoryRemote) -> Iterator[StorageService]:
    service = StorageService(tmp_path, KEY, random=os.urandom, remote=remote)
    yield service
    service.close()


@pytest.fixture
def storage(service: StorageService) -> OwnerStorage:
    return service.of(ANNA)


def refused(status: PSAStatus) -> pytest.RaisesExc[PSAError]:
    return pytest.RaisesExc(PSAError, check=lambda error: error.status is status)


def test_xchacha20_poly1305_is_the_published_one() -> None:
    """draft-irtf-cfrg-xchacha-03 §A.3.1."""
    text = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
        b"sunscreen would be it."
    )
    aad = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    sealed = crypto_aead_xchacha20poly1305_ietf_encrypt(
        text, aad, bytes(range(0x40, 0x58)), bytes(range(0x80, 0xA0))
    )
    assert sealed[:16].hex() == "bd6d179d3e83d43b9576579493c0e939"
    assert sealed[-16:].hex() == "c0875924c1c7987947deafd8780acf49"


def test_a_record_has_the_bytes_that_are_documented() -> None:
    keys = RecordKeys(bytes(32), bytes(32))
    sealed = seal_record(keys, RecordId(ANNA, bytes(8)), StorageFlag.NONE, 1, b"body", bytes(24))
    assert sealed.hex() == "00" * 24 + "8fc625592bbf2e3887416949cb6f6d221dcb8f40"


@given(
    body=st.binary(max_size=300),
    flags=st.sampled_from([StorageFlag(n) for n in range(8)]),
    version=st.integers(0, 2**63 - 1),
    nonce=st.binary(min_size=24, max_size=24),
    bit=st.integers(0, 10**6),
)
def test_a_record_opens_unchanged_in_its_place_only(
    body: bytes, flags: StorageFlag, version: int, nonce: bytes, bit: int
) -> None:
    keys, place = RecordKeys.derive(KEY, "s"), RecordId(ANNA, bytes(8))
    sealed = seal_record(keys, place, flags, version, body, nonce)
    assert open_record(keys, place, flags, version, sealed) == body
    changed = bytearray(sealed)
    changed[bit % len(sealed)] ^= 1 << bit % 8
    for wrong in (
        (keys, place, flags, version, bytes(changed)),
        (keys, place, flags, version, sealed[:-1]),
        (keys, place, flags ^ StorageFlag.WRITE_ONCE, version, sealed),
        (keys, place, flags, version ^ 1, sealed),
        (keys, RecordId(BORIS, place.uid), flags, version, sealed),
        (keys, RecordId(ANNA, bytes([1] * 8)), flags, version, sealed),
        (RecordKeys.derive(KEY, "other store"), place, flags, version, sealed),
    ):
        with refused(PSAStatus.DATA_CORRUPT):
            open_record(*wrong)


@pytest.mark.parametrize("kind", STORES)
def test_set_get_info_remove(storage: OwnerStorage, kind: str) -> None:
    def call(name: str, *arguments: object) -> object:
        return getattr(storage, f"psa_{kind}_{name}")(*arguments)

    call("set", 1, b"0123456789", StorageFlag.NO_CONFIDENTIALITY)
    call("set", 2**64 - 1, b"", 0)
    assert call("get", 1, 0, 100) == b"0123456789"
    assert call("get", 1, 4, 3) == b"456"
    assert call("get", 1, 10, 3) == b""
    assert call("get", 2**64 - 1, 0, 1) == b""
    assert call("get_info", 1) == StorageInfo(10, 10, StorageFlag.NO_CONFIDENTIALITY)
    call("set", 1, b"new", 0)
    assert call("get_info", 1) == StorageInfo(3, 3, StorageFlag.NONE)
    with refused(PSAStatus.INVALID_ARGUMENT):
        call("get", 1, 4, 1)
    call("remove", 1)
    for name, arguments in (("get", (1, 0, 1)), ("get_info", (1,)), ("remove", (1,))):
        with refused(PSAStatus.DOES_NOT_EXIST):
            call(name, *arguments)
    for uid in (0, -1, 2**64):
        with refused(PSAStatus.INVALID_ARGUMENT):
            call("set", uid, b"", 0)
    for flags in (8, -1):
        with refused(PSAStatus.NOT_SUPPORTED):
            call("set", 1, b"", flags)


@pytest.mark.parametrize("location", DataLocation)
def test_every_location_keeps_what_is_written(
    service: StorageService, location: DataLocation, tmp_path: Path
) -> None:
    area, other = (service.of(o).area(SecureData(location)) for o in (ANNA, BORIS))
    area.write("thresholds", SECRET)
    area.create("log", 10)
    assert area.read("thresholds") == SECRET
    assert area.info("thresholds") == StorageInfo(len(SECRET), len(SECRET), StorageFlag.NONE)
    assert area.info("log") == StorageInfo(10, 0, StorageFlag.NONE)
    with refused(PSAStatus.ALREADY_EXISTS):
        area.create("log", 10)
    for elsewhere in (
        other,
        *(service.of(ANNA).area(SecureData(x)) for x in DataLocation if x is not location),
    ):
        with refused(PSAStatus.DOES_NOT_EXIST):
            elsewhere.read("thresholds")
    area.delete("thresholds")
    with refused(PSAStatus.DOES_NOT_EXIST):
        area.read("thresholds")
    for name in ("", "x" * 257):
        with refused(PSAStatus.INVALID_ARGUMENT):
            area.write(name, b"")


@pytest.mark.parametrize("location", [x for x in DataLocation if x is not DataLocation.RAM])
@pytest.mark.parametrize("flags", [StorageFlag.NONE, StorageFlag.NO_CONFIDENTIALITY])
def test_nothing_rests_in_clear_unless_asked_for(
    service: StorageService, remote: MemoryRemote, tmp_path: Path, location: DataLocation, flags: StorageFlag
) -> None:
    service.of(ANNA).area(SecureData(location, flags)).write("name", SECRET)
    kept = [p.read_bytes() for p in tmp_path.iterdir()] + list(remote.blobs.values())
    assert any(SECRET in data for data in kept) is (flags is StorageFlag.NO_CONFIDENTIALITY)
    assert not any(b"thresholds" in data or KEY in data for data in kept)
    assert {p.stat().st_mode & 0o077 for p in tmp_path.iterdir()} == {0}


def test_values_survive_a_new_start_and_memory_does_not(tmp_path: Path, remote: MemoryRemote) -> None:
    service = StorageService(tmp_path, KEY, random=os.urandom, remote=remote)
    for location in DataLocation:
        service.of(ANNA).area(SecureData(location)).write("name", location.encode())
    generation = service.generation
    service.close()
    again = StorageService(tmp_path, KEY, random=os.urandom, remote=remote)
    assert again.generation == generation == 4
    for location in DataLocation:
        area = again.of(ANNA).area(SecureData(location))
        if location is DataLocation.RAM:
            with refused(PSAStatus.DOES_NOT_EXIST):
                area.read("name")
        else:
            assert area.read("name") == location.encode()
    again.close()


@pytest.mark.parametrize("kind", STORES)
def test_what_is_written_once_stays(storage: OwnerStorage, kind: str) -> None:
    def call(name: str, *arguments: object) -> object:
        return getattr(storage, f"psa_{kind}_{name}")(*arguments)

    call("set", 1, b"for good", StorageFlag.WRITE_ONCE)
    with refused(PSAStatus.NOT_PERMITTED):
        call("set", 1, b"other", 0)
    with refused(PSAStatus.NOT_PERMITTED):
        call("remove", 1)
    if kind == "ps":
        with refused(PSAStatus.NOT_PERMITTED):
            call("set_extended", 1, 0, b"o")
    assert call("get", 1, 0, 100) == b"for good"


def test_extended_writes_grow_up_to_the_capacity(storage: OwnerStorage) -> None:
    assert storage.psa_ps_get_support() == 1
    storage.psa_ps_create(1, 6, StorageFlag.NO_REPLAY_PROTECTION)
    storage.psa_ps_set_extended(1, 0, b"abcd")
    storage.psa_ps_set_extended(1, 2, b"XYZW")
    storage.psa_ps_set_extended(1, 0, b"1")
    assert storage.psa_ps_get(1, 0, 9) == b"1bXYZW"
    assert storage.psa_ps_get_info(1) == StorageInfo(6, 6, StorageFlag.NO_REPLAY_PROTECTION)
    storage.psa_ps_create(2, 6)
    for offset, data in ((1, b"a"), (0, b"1234567"), (-1, b"a")):
        with refused(PSAStatus.INVALID_ARGUMENT):
            storage.psa_ps_set_extended(2, offset, data)
    with refused(PSAStatus.DOES_NOT_EXIST):
        storage.psa_ps_set_extended(3, 0, b"")
    with refused(PSAStatus.ALREADY_EXISTS):
        storage.psa_ps_create(1, 6)
    with refused(PSAStatus.NOT_SUPPORTED):
        storage.psa_ps_create(4, 6, StorageFlag.WRITE_ONCE)
    for capacity in (-1, 1 << 20):
        with refused(PSAStatus.INSUFFICIENT_STORAGE):
            storage.psa_ps_create(4, capacity)


def test_an_owner_can_fill_neither_the_store_nor_one_record(service: StorageService) -> None:
    greedy = service.of(ANNA).area(SecureData(DataLocation.RAM))
    with refused(PSAStatus.INSUFFICIENT_STORAGE):
        greedy.write("large", bytes(1 << 20))
    for number in range(256):
        greedy.write(f"{number}", b"")
    with refused(PSAStatus.INSUFFICIENT_STORAGE):
        greedy.write("one more", b"")
    greedy.write("0", b"replacing needs no room")
    service.of(BORIS).area(SecureData(DataLocation.RAM)).write("0", b"room for others")
    assert greedy.read("255") == b""


def test_remote_values_cannot_be_exchanged(service: StorageService, remote: MemoryRemote) -> None:
    area = service.of(ANNA).area(SecureData(DataLocation.REMOTE_DISK))
    area.write("name", b"old")
    (old_name, old), *_ = remote.blobs.items()
    area.write("name", b"new")
    ((name, blob),) = remote.blobs.items()
    assert name != old_name
    for answer in (old, blob[:-1], b"", blob + b"x"):
        remote.blobs[name] = answer
        with refused(PSAStatus.DATA_CORRUPT):
            area.read("name")
    remote.blobs[name] = blob
    assert area.read("name") == b"new"


def test_a_remote_disk_that_is_cut_off_changes_nothing(service: StorageService, remote: MemoryRemote) -> None:
    area = service.of(ANNA).area(SecureData(DataLocation.REMOTE_DISK))
    area.write("name", b"old")
    remote.connected = False
    with refused(PSAStatus.COMMUNICATION_FAILURE):
        area.write("name", b"new")
    with refused(PSAStatus.COMMUNICATION_FAILURE):
        area.read("name")
    remote.connected = True
    assert area.read("name") == b"old"
    remote.connected = False
    area.delete("name")  # forgotten here; what stays there opens for nobody
    with refused(PSAStatus.DOES_NOT_EXIST):
        area.read("name")


def test_a_device_without_a_remote_disk_says_so(tmp_path: Path) -> None:
    service = StorageService(tmp_path, KEY, random=os.urandom)
    with refused(PSAStatus.NOT_SUPPORTED):
        service.of(ANNA).area(SecureData(DataLocation.REMOTE_DISK))
    with refused(PSAStatus.INVALID_ARGUMENT):
        service.of(b"short")
    service.close()


def test_one_process_has_the_files(service: StorageService, tmp_path: Path) -> None:
    with refused(PSAStatus.STORAGE_FAILURE):
        StorageService(tmp_path, KEY, random=os.urandom)
    service.of(ANNA).psa_its_set(1, b"still usable")
    service.close()
    with refused(PSAStatus.STORAGE_FAILURE):
        service.of(ANNA).psa_its_get(1, 0, 1)
