"""What the verbs that admit, hand on and remove devices leave in the audit log."""

from __future__ import annotations

from pathlib import Path

import pytest

from aif.cli import _wiring as wiring
from aif.cli import main as cli
from aif.runtime.clock import SystemClock
from aif.runtime.devices.audit_log import AuditLog

INVENTORY = """
schema: 1
inventory: {name: bench, version: 1}
devices:
  - {id: left, class: gateway, board: bench-left, arch: x86-64, os: Linux, instructions_per_s: 1000000000,
     ram_bytes: 100000000, flash_bytes: 100000000, runtimes: [python], attestation: software}
"""


def kinds(home: Path) -> list[tuple[str, str]]:
    entries, signed = AuditLog(wiring.Home(home).site, SystemClock().time_us).verify()
    assert signed == len(entries)
    return [(entry.kind, entry.subject) for entry in entries]


def test_who_comes_back_and_who_goes_is_in_the_audit_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inventory, here, there = tmp_path / "inventory.yaml", tmp_path / "here", tmp_path / "there"
    inventory.write_text(INVENTORY)
    manifest = tmp_path / "left.manifest"

    def device(*arguments: object, home: Path = here) -> None:
        code = cli.main(["device", *map(str, arguments), "--home", str(home)])
        assert code == 0, capsys.readouterr()

    device("add", "left", "--inventory", inventory)
    device("revoke", "left", "--reason", "stolen")
    device("re-enrol", "left")
    device("transfer", "left", "--output", manifest)
    device("accept", manifest, home=there)
    device("remove", "left", home=there)
    assert kinds(here) == [
        ("revoked", "left"), ("may enrol anew", "left"), ("revoked", "left"),
        ("handed to another site", "left"),
    ]  # fmt: skip
    assert kinds(there) == [("accepted from another site", "left"), ("removed", "left")]
    entries, _ = AuditLog(wiring.Home(here).site, SystemClock().time_us).verify()
    taken, _ = AuditLog(wiring.Home(there).site, SystemClock().time_us).verify()
    assert entries[1].facts == {"reason": "stolen"}
    assert entries[-1].facts == taken[0].facts != {}
