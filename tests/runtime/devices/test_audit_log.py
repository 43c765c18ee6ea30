"""The audit log on disk: signed in time, bounded, and not to be continued once it was changed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from aif.errors import AuditBroken
from aif.runtime.devices import audit_log
from aif.runtime.devices.audit_log import AuditLog
from aif.runtime.devices.registry import Site


class Time:
    now_us = 1_000_000

    def __call__(self) -> int:
        return self.now_us


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    Site.open_or_create(tmp_path, os.urandom)
    return AuditLog(tmp_path, Time())


def file_of(log: AuditLog) -> Path:
    return log._files()[-1]


def test_entries_come_back_and_are_private(log: AuditLog, tmp_path: Path) -> None:
    log.note("enrolled", "left")
    log.note("grant", "left", digest="ab")
    log.sign()
    entries, signed = AuditLog(tmp_path, Time()).verify()
    assert [(entry.kind, entry.subject, dict(entry.facts)) for entry in entries] == [
        ("enrolled", "left", {}), ("grant", "left", {"digest": "ab"}),
    ]  # fmt: skip
    assert (signed, log.failure) == (2, "")
    assert stat.S_IMODE(file_of(log).stat().st_mode) == 0o600
    assert stat.S_IMODE(log.folder.stat().st_mode) == 0o700


def test_the_head_is_signed_by_count_and_by_time(tmp_path: Path) -> None:
    Site.open_or_create(tmp_path, os.urandom)
    time = Time()
    log = AuditLog(tmp_path, time)
    for _ in range(audit_log.HEAD_ENTRIES - 1):
        log.note("grant", "left")
    assert log.verify()[1] == 0
    log.note("grant", "left")
    assert log.verify()[1] == audit_log.HEAD_ENTRIES
    log.note("grant", "left")
    log.tick()
    assert log.verify()[1] == audit_log.HEAD_ENTRIES
    time.now_us += 10_000_000
    log.tick()
    assert log.verify()[1] == audit_log.HEAD_ENTRIES + 1


def test_two_processes_may_write(log: AuditLog, tmp_path: Path) -> None:
    other = AuditLog(tmp_path, Time())
    for _ in range(3):
        log.note("grant", "left")
        other.note("revoked", "right")
    log.sign()
    assert [entry.number for entry in log.verify()[0]] == [1, 2, 3, 4, 5, 6]


def test_old_files_go_and_the_rest_is_whole(
    log: AuditLog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(audit_log, "MAX_FILE_BYTES", 500)
    monkeypatch.setattr(audit_log, "HEAD_ENTRIES", 4)
    monkeypatch.setattr(audit_log, "FILES_KEPT", 3)
    for _ in range(100):
        log.note("grant", "left", digest="f" * 64)
    assert len(log._files()) == 3
    entries, signed = AuditLog(tmp_path, Time()).verify()
    assert entries[-1].number == signed == 100
    log._files()[1].unlink()
    with pytest.raises(AuditBroken):
        log.verify()


def test_a_crash_within_an_entry_is_repaired(log: AuditLog, tmp_path: Path) -> None:
    log.note("enrolled", "left")
    log.sign()
    log.note("enrolled", "right")
    data = file_of(log).read_bytes()
    file_of(log).write_bytes(data[:-3])
    again = AuditLog(tmp_path, Time())
    again.note("enrolled", "third")
    assert [entry.subject for entry in again.verify()[0]] == ["left", "third"]


def test_a_log_that_was_cut_off_is_not_continued(log: AuditLog, tmp_path: Path) -> None:
    log.note("enrolled", "left")
    log.sign()
    early = file_of(log).read_bytes()
    log.note("revoked", "left")
    log.sign()
    file_of(log).write_bytes(early)
    for writer in (log, AuditLog(tmp_path, Time())):
        writer.note("enrolled", "right")
        assert "the Controller signed 2" in writer.failure
    file_of(log).unlink()
    log.note("enrolled", "right")
    assert "the Controller signed 2" in log.failure
    with pytest.raises(AuditBroken):
        log.verify()
