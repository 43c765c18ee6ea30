"""What is written down about enrolment requests that are refused."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from aif.runtime.devices.audit_log import AuditLog
from aif.runtime.devices.enrolling import REFUSAL_NOTED_S, EnrolmentDesk
from aif.runtime.devices.registry import Site
from aif.runtime.logbook import LogBook
from aif.transport.memory import MemoryBroker, MemoryTransport
from aif.trusted.security_engine import DeviceKeys
from aif.trusted.state import DeviceState, StateFile
from tests.runtime.virtual_clock import VirtualClock


def test_a_flood_of_requests_leaves_the_audit_log_readable(tmp_path: Path) -> None:
    clock, strangers = VirtualClock(1_700_000_000_000.0), set[str]()
    site = Site.open_or_create(tmp_path / "site", os.urandom)
    state = StateFile(tmp_path / "left" / "device.cbor", DeviceState)
    keys = DeviceKeys(bytes([88]) + bytes([102]) * 31, os.urandom(32))
    site.provision("left", "board/arch", state, lambda: keys, now_s=clock.time_us() // 1_000_000)
    audit = AuditLog(tmp_path / "site", clock.time_us)
    desk = EnrolmentDesk(
        site, MemoryTransport(MemoryBroker(), client_id="c"), clock=clock,
        log=LogBook("c", clock, io.StringIO()), store_root=b"root", audit=audit,
        on_stranger=lambda name, _: strangers.add(name),
    )  # fmt: skip
    for n in range(1_000):
        desk.take("left", bytes(200 + n))
        desk.take(f"stranger-{n}", bytes(200))
    clock.now_ms += REFUSAL_NOTED_S * 1000
    desk.take("left", b"")
    audit.sign()
    entries, _ = audit.verify()
    assert [(e.kind, e.subject, e.facts["requests"]) for e in entries] == [
        ("enrolment refused", "left", 1), ("enrolment refused", "left", 1_000),
    ]  # fmt: skip
    assert not audit.failure
    assert len(strangers) == 1_001


@pytest.mark.parametrize("request_bytes", [b"", bytes(97), bytes(5_000)])
def test_a_request_of_any_size_is_only_refused(tmp_path: Path, request_bytes: bytes) -> None:
    log = io.StringIO()
    clock, strangers = VirtualClock(1_700_000_000_000.0), set[str]()
    site = Site.open_or_create(tmp_path / "site", os.urandom)
    desk = EnrolmentDesk(
        site, MemoryTransport(MemoryBroker(), client_id="c"), clock=clock, log=LogBook("c", clock, log),
        store_root=b"root", audit=AuditLog(tmp_path / "site", clock.time_us),
        on_stranger=lambda name, _: strangers.add(name),
    )  # fmt: skip
    desk.take("nobody", request_bytes)
    assert strangers == {"nobody"}
    assert "enrolment refused" in log.getvalue()
