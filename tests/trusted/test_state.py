"""What must survive a crash, and what must not be read."""

from __future__ import annotations

import json
import os
import resource
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from aif.errors import LocalProtocolError, NotFound, TrustError
from aif.protocol.pairing import SecretState
from aif.trusted.state import (
    MAX_STATE_BYTES,
    DeviceRecord,
    DeviceState,
    SiteState,
    StateFile,
    write_atomically,
)

STATE = DeviceState("left", "board/arch", b"c" * 32, b"s" * 16)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def file(tmp_path: Path) -> StateFile[DeviceState]:
    made = StateFile(tmp_path / "left" / "device.cbor", DeviceState)
    made.save(STATE)
    return made


def test_a_state_comes_back_as_it_was(file: StateFile[DeviceState]) -> None:
    assert file.exists()
    assert file.load() == STATE
    assert not STATE.enrolled


def test_a_site_comes_back_as_it_was(tmp_path: Path) -> None:
    record = DeviceRecord("left", "b/a", b"i" * 32, b"x" * 32, None, SecretState.USED, enrolled_s=7)
    site = replace(SiteState.create("here", os.urandom), devices=(record,))
    made = StateFile(tmp_path / "site.cbor", SiteState)
    made.save(site)
    assert made.load() == site
    assert site.device("left") == record
    assert site.device("right") is None


def test_the_file_and_its_folder_are_private(file: StateFile[DeviceState]) -> None:
    for path, mode in (
        (file.path, 0o600),
        (file.path.parent, 0o700),
        (file.path.with_suffix(".lock"), 0o600),
    ):
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_secrets_are_not_shown() -> None:
    assert "iiii" not in repr(STATE)
    assert "ssss" not in repr(STATE)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_that_others_can_reach_is_refused(file: StateFile[DeviceState], mode: int) -> None:
    file.path.chmod(mode)
    with pytest.raises(TrustError, match="is open to other users") as refused:
        file.load()
    assert refused.value.hint == f"chmod 600 {file.path}"


def test_what_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    missing = StateFile(tmp_path / "no" / "device.cbor", DeviceState)
    with pytest.raises(NotFound, match="there is no "):
        missing.load()
    with pytest.raises(NotFound, match="there is no "):
        missing.update(lambda state: state)
    assert not missing.path.parent.exists()


def test_what_cannot_be_read_is_an_error_of_this_project(tmp_path: Path) -> None:
    (tmp_path / "device.cbor").mkdir()
    with pytest.raises(TrustError, match="cannot be read: Is a directory"):
        StateFile(tmp_path / "device.cbor", DeviceState).load()


def test_every_flipped_bit_of_the_layout_is_noticed_or_changes_a_value(file: StateFile[DeviceState]) -> None:
    whole = file.path.read_bytes()
    damaged = 0
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 1 << at % 8
        file.path.write_bytes(changed)
        try:
            assert file.load() != STATE
        except TrustError as error:
            damaged += 1
            assert "is damaged" in str(error)  # noqa: PT017  # both outcomes are right
    assert damaged


@pytest.mark.parametrize("length", [0, 1, 40])
def test_a_truncated_file_is_damaged(file: StateFile[DeviceState], length: int) -> None:
    file.path.write_bytes(file.path.read_bytes()[:length])
    with pytest.raises(TrustError, match="is damaged") as refused:
        file.load()
    assert refused.value.hint == "restore it, or provision anew"


def test_a_file_of_any_size_costs_little(file: StateFile[DeviceState]) -> None:
    with file.path.open("r+b") as sparse:
        sparse.truncate(1 << 40)
    with pytest.raises(TrustError, match="is damaged: document of 4194305 B is larger"):
        file.load()


def test_a_state_that_could_not_be_loaded_again_is_not_saved(file: StateFile[DeviceState]) -> None:
    with pytest.raises(LocalProtocolError, match="would have"):
        file.save(replace(STATE, store_root=bytes(MAX_STATE_BYTES)))
    assert file.load() == STATE


def test_a_change_that_fails_changes_nothing(file: StateFile[DeviceState]) -> None:
    def change(_: DeviceState) -> DeviceState:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        file.update(change)
    assert file.update(lambda state: replace(state, mapping_floor=5)).mapping_floor == 5
    assert file.load().mapping_floor == 5


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """The disk fills up."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "slot"
    write_atomically(path, b"old")
    with largest_file(1000), pytest.raises(OSError, match="File too large"):
        write_atomically(path, bytes(5000))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_crash_left_behind_goes_with_the_next_write(tmp_path: Path) -> None:
    for name in (".slot.abcd1234", ".slot.other.abcd1234", ".other.abcd1234"):
        (tmp_path / name).write_bytes(b"secret")
    write_atomically(tmp_path / "slot", b"new")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".other.abcd1234", ".slot.other.abcd1234", "slot"]


def test_changes_by_several_threads_do_not_get_lost(file: StateFile[DeviceState]) -> None:
    def count() -> None:
        for _ in range(5):
            file.update(lambda state: replace(state, mapping_floor=state.mapping_floor + 1))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert file.load().mapping_floor == 20


def run(program: str, *arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(Path(__file__).parent / program), *map(str, arguments)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT)


@pytest.mark.integration
def test_changes_by_several_processes_do_not_get_lost(file: StateFile[DeviceState]) -> None:
    writers = [run("counting_writer.py", file.path, 10) for _ in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert file.load().mapping_floor == 30


@pytest.mark.integration
def test_a_kill_at_any_moment_leaves_the_old_state_or_the_new_one(
    file: StateFile[DeviceState], tmp_path: Path
) -> None:
    output = tmp_path / "crashes"
    output.mkdir()
    assert run("crash_writer.py", file.path, output).wait(60) == 0
    steps = json.loads((output / "steps.json").read_text())
    generations = []
    for moment in range(len(steps)):
        left = StateFile(output / str(moment) / "device.cbor", DeviceState)
        generations.append(left.load().mapping_floor)
        assert left.update(lambda state: replace(state, mapping_floor=100)).mapping_floor == 100
        assert sorted(p.name for p in left.path.parent.iterdir()) == ["device.cbor", "device.lock"]
    renamed = next(n for n, step in enumerate(steps) if step.startswith("os.rename"))
    assert generations == [0] * (renamed + 1) + [1] * (len(steps) - renamed - 1)
    assert len(steps) >= 5
    assert generations[-1] == 1  # the folder was synced after the new state was in place
