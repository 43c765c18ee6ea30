"""Storage under kill -9, torn journals, failing disks and restored files: old, new, or DATA_CORRUPT."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aif.trusted.psa import PSAError, PSAStatus, StorageFlag
from aif.trusted.records import Head, StartUp, slot_of, start_up
from aif.trusted.storage import DataLocation, SecureData, StorageService

KEY = bytes(range(32))
OWNER = bytes([1]) * 16
CRASHER = Path(__file__).with_name("storage_crasher.py")
NEW = b"new" * 3000
CHANGES = {
    # change: (what is read, its value before, its value after)
    "ps set": (lambda s: s.of(OWNER).psa_ps_get(1, 0, 10_000), b"old", NEW),
    "ps set new": (lambda s: s.of(OWNER).psa_ps_get(2, 0, 10_000), None, NEW),
    "ps extend": (lambda s: s.of(OWNER).psa_ps_get(3, 0, 10), b"old", b"olnew"),
    "ps remove": (lambda s: s.of(OWNER).psa_ps_get(1, 0, 10_000), b"old", None),
    "its set": (lambda s: s.of(OWNER).psa_its_get(1, 0, 10_000), b"old", NEW),
    "disk write": (
        lambda s: s.of(OWNER).area(SecureData(DataLocation.LOCAL_DISK)).read("name"),
        b"old",
        NEW,
    ),
}
Read = Callable[[StorageService], bytes]


def opened(folder: Path, failpoint: Callable[[str], None] = lambda _step: None) -> StorageService:
    return StorageService(folder, KEY, random=os.urandom, failpoint=failpoint)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("storage")
    service = opened(folder)
    storage = service.of(OWNER)
    storage.psa_ps_set(1, b"old")
    storage.psa_ps_create(3, 5)
    storage.psa_ps_set_extended(3, 0, b"old")
    storage.psa_its_set(1, b"old")
    storage.area(SecureData(DataLocation.LOCAL_DISK)).write("name", b"old")
    service.close()
    return folder


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "storage"))


def value(folder: Path, read: Read) -> bytes | None:
    """What is stored; None for nothing. Any error but DOES_NOT_EXIST passes through."""
    service = opened(folder)
    try:
        return read(service)
    except PSAError as error:
        if error.status is not PSAStatus.DOES_NOT_EXIST:
            raise
        return None
    finally:
        service.of(OWNER).psa_ps_set(9, b"usable")
        service.close()


def crash(folder: Path, change: str, step: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(CRASHER), str(folder), change, str(step)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.integration
@pytest.mark.parametrize("change", CHANGES)
def test_a_process_killed_at_any_step_leaves_old_or_new(folder: Path, tmp_path: Path, change: str) -> None:
    read, before, after = CHANGES[change]
    found = []
    for step in range(20):
        copy = tmp_path / f"at {step}"
        shutil.copytree(folder, copy)
        ended = crash(copy, change, step)
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        found.append(value(copy, read))
    assert ended.returncode == 0
    names = ended.stdout.splitlines()
    assert [name.split(": ")[1] for name in names[:4]] == ["begun", "record", "head", "committed"]
    assert len(found) == len(names) >= 4
    # every step before the commit leaves the old value, every one from it on the new
    assert found == [before] * 3 + [after] * (len(names) - 3)
    if change != "its set":
        assert names[4:] == ["int_flash: begun", "int_flash: anchor", "int_flash: committed"]


@pytest.mark.integration
def test_a_journal_torn_anywhere_leaves_old_or_new(folder: Path, tmp_path: Path) -> None:
    """Killed after the commit, before the anchor; then the journal is cut, as a power cut may do."""
    assert crash(folder, "ps set", 3).returncode == -signal.SIGKILL
    journal = folder / "ext_flash.db-wal"
    read = CHANGES["ps set"][0]
    seen = set()
    for length in range(0, journal.stat().st_size + 1, 1030):
        copy = tmp_path / f"cut at {length}"
        shutil.copytree(folder, copy)
        with (copy / journal.name).open("r+b") as file:
            file.truncate(length)
        seen.add(value(copy, read))
    assert value(folder, read) == NEW
    assert b"old" in seen
    assert seen <= {b"old", NEW}


def restored(folder: Path, *names: str) -> Callable[[], None]:
    """Remember files as they are; the result puts them back."""
    kept = {p: p.read_bytes() for p in folder.iterdir() if p.name.split("-")[0] in names}

    def restore() -> None:
        for path in folder.iterdir():
            if path.name.split("-")[0] in names:
                path.unlink()
        for path, content in kept.items():
            path.write_bytes(content)

    return restore


def write_often(folder: Path, times: int) -> int:
    service = opened(folder)
    for number in range(times):
        service.of(OWNER).psa_ps_set(1, b"newer %d" % number)
        service.of(OWNER).psa_its_set(1, b"newer %d" % number)
        service.of(OWNER).area(SecureData(DataLocation.LOCAL_DISK)).write("name", b"newer")
    generation = service.generation
    service.close()
    return generation


@pytest.mark.parametrize("name", ["ext_flash.db", "local_disk.db"])
@pytest.mark.parametrize("times", [1, 2, 5])
def test_a_restored_file_is_refused(folder: Path, name: str, times: int) -> None:
    restore = restored(folder, name)
    write_often(folder, times)
    restore()
    with pytest.raises(PSAError) as caught:
        opened(folder)
    assert caught.value.status is PSAStatus.DATA_CORRUPT
    assert "reset the device's storage" in caught.value.hint


def test_restored_internal_flash_is_refused(folder: Path) -> None:
    restore = restored(folder, "int_flash.db")
    write_often(folder, 2)
    restore()
    with pytest.raises(PSAError) as caught:
        opened(folder)
    assert caught.value.status is PSAStatus.DATA_CORRUPT


def test_restoring_every_file_shows_in_the_generation(folder: Path) -> None:
    restore = restored(folder, *(p.name for p in folder.iterdir()))
    service = opened(folder)
    before = service.generation
    service.close()
    after = write_often(folder, 1)
    assert after == before + 3
    restore()
    service = opened(folder)
    assert service.generation == before < after
    service.close()


@pytest.mark.parametrize("name", ["ext_flash.db", "int_flash.db", "local_disk.db"])
def test_a_removed_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(PSAError) as caught:
        opened(folder)
    assert caught.value.status is PSAStatus.DATA_CORRUPT


@pytest.mark.parametrize(
    "edit",
    [
        "DELETE FROM record WHERE uid = x'0000000000000001'",
        "UPDATE record SET version = version + 1",
        "UPDATE record SET flags = 4",
        "UPDATE record SET flags = 1024",
        "UPDATE record SET sealed = CAST(sealed || x'00' AS BLOB)",
        "UPDATE record SET owner = x'02020202020202020202020202020202'",
        "UPDATE record SET uid = x'00' WHERE uid = x'0000000000000001'",
        "UPDATE head SET generation = generation + 1",
        "UPDATE head SET generation = -1",
        "UPDATE head SET digest = x'00'",
        "DELETE FROM head",
        "CREATE TRIGGER t AFTER INSERT ON record BEGIN DELETE FROM record; END",
        "CREATE VIEW v AS SELECT 1",
        "DROP TABLE anchor",
    ],
)
@pytest.mark.parametrize("name", ["ext_flash.db", "int_flash.db"])
def test_an_edited_file_is_refused(folder: Path, name: str, edit: str) -> None:
    connection = sqlite3.connect(folder / name, isolation_level=None)
    connection.execute(edit)
    connection.close()
    with pytest.raises(PSAError) as caught:
        opened(folder)
    assert caught.value.status is PSAStatus.DATA_CORRUPT


@pytest.mark.parametrize("content", [b"", b"no database", bytes(8192)])
def test_a_file_that_is_none_is_refused(folder: Path, content: bytes) -> None:
    (folder / "ext_flash.db").write_bytes(content)
    with pytest.raises(PSAError) as caught:
        opened(folder)
    assert caught.value.status is PSAStatus.DATA_CORRUPT


def test_another_key_opens_nothing(folder: Path) -> None:
    with pytest.raises(PSAError) as caught:
        StorageService(folder, bytes(32), random=os.urandom)
    assert caught.value.status is PSAStatus.DATA_CORRUPT


def test_an_older_value_without_replay_protection_may_come_back(folder: Path) -> None:
    flags = StorageFlag.NO_REPLAY_PROTECTION
    service = opened(folder)
    service.of(OWNER).psa_ps_set(5, b"first", flags)
    generation = service.generation
    service.close()
    restore = restored(folder, "ext_flash.db")
    service = opened(folder)
    service.of(OWNER).psa_ps_set(5, b"second", flags)
    assert service.generation == generation
    service.close()
    restore()
    assert value(folder, lambda s: s.of(OWNER).psa_ps_get(5, 0, 10)) == b"first"


@pytest.mark.parametrize("step", ["begun", "record", "head"])
def test_a_disk_that_fails_before_the_commit_leaves_the_old_value(folder: Path, step: str) -> None:
    failing = False

    def failpoint(name: str) -> None:
        if failing and name == f"ext_flash: {step}":
            raise sqlite3.OperationalError("disk I/O error")

    service = opened(folder, failpoint)
    failing = True
    with pytest.raises(PSAError) as caught:
        service.of(OWNER).psa_ps_set(1, NEW)
    assert caught.value.status is PSAStatus.STORAGE_FAILURE
    failing = False
    assert service.of(OWNER).psa_ps_get(1, 0, 10) == b"old"
    service.of(OWNER).psa_ps_set(1, NEW)
    service.close()
    assert value(folder, CHANGES["ps set"][0]) == NEW


def test_no_error_is_told_once_the_new_value_is_visible(folder: Path) -> None:
    """The anchor cannot be written: this set is done, the next one is refused and leaves its old value."""
    failing = False

    def failpoint(name: str) -> None:
        if failing and name == "int_flash: anchor":
            raise sqlite3.OperationalError("disk I/O error")

    service = opened(folder, failpoint)
    failing = True
    service.of(OWNER).psa_ps_set(1, b"visible")
    assert service.of(OWNER).psa_ps_get(1, 0, 10) == b"visible"
    with pytest.raises(PSAError) as caught:
        service.of(OWNER).psa_ps_set(1, b"too early")
    assert caught.value.status is PSAStatus.STORAGE_FAILURE
    assert service.of(OWNER).psa_ps_get(1, 0, 10) == b"visible"
    service.close()
    assert value(folder, lambda s: s.of(OWNER).psa_ps_get(1, 0, 10)) == b"visible"


@given(
    generation=st.integers(0, 6),
    anchors=st.lists(st.integers(0, 6), max_size=2, unique=True),
    same=st.booleans(),
)
def test_the_start_up_table(generation: int, anchors: list[int], same: bool) -> None:
    head = Head(generation, b"digest")
    kept = [Head(g, b"digest" if same else b"other") for g in anchors]
    newest = max(anchors, default=-1)
    if generation == newest + 1:
        assert start_up(head, kept) is StartUp.ROLL_FORWARD
    elif generation == newest and same:
        assert start_up(head, kept) is StartUp.GO
    else:
        with pytest.raises(PSAError) as caught:
            start_up(head, kept)
        assert caught.value.status is PSAStatus.DATA_CORRUPT
    assert slot_of(generation) != slot_of(generation + 1)
