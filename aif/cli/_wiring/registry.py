"""Taking a device's trust back where no Controller has to change keys."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

from aif.cli._wiring.home import Home
from aif.cli._wiring.process import now
from aif.runtime.clock import SystemClock
from aif.runtime.controller.revocation import Taken, withdrawn
from aif.runtime.devices.audit_log import AuditLog
from aif.runtime.devices.registry import Site
from aif.runtime.devices.site_broker import SiteBroker


def withdraw_rights(home: Home, device: str) -> str:
    """Take a device's certificates and its rights at the broker back; what became of it, in words."""
    return f"its rights and certificates are taken back; {SiteBroker(home.site).revoke(device, now=now())}"


def revoke_in_registry(home: Home, device: str, reason: str, *, lost: bool) -> list[dict[str, Any]]:
    """Revoke a device while no Controller runs: there is nobody whose keys must change."""
    site = Site.open(home.site, os.urandom)
    site.device(device)
    taken = [withdrawn(lambda name: withdraw_rights(home, name), device)]
    site.revoke(device, reason, now_s=int(now().timestamp()), lost=lost)
    audit = AuditLog(home.site, SystemClock().time_us)
    audit.note("revoked", device, reason=reason)
    audit.sign()
    taken.append(Taken("registry", "hello, evidence and enrolment of the device are refused"))
    return [asdict(step) for step in taken]
