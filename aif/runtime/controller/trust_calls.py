"""What a User Agent asks about the trust of devices: what is known, a challenge now, revocation.

Nothing is decided here: it translates between calls and the Controller.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from aif.errors import LocalProtocolError, NotFound
from aif.runtime.controller.controller import Controller
from aif.runtime.devices.links import DeviceLink

MAX_REASON = 200
"""Characters of the reason for which a device is revoked."""


async def trust_call(controller: Controller, call: str, arguments: Mapping[str, Any]) -> Any:
    """One call.

    Raises:
        NotFound: no such device, or it has no session.
        StartFailed: a device does not answer its challenge.
        LocalProtocolError: an unknown call.
    """
    device = str(arguments.get("device", ""))
    match call:
        case "trust":
            return _known(controller.admission.links, device)
        case "verify":
            await controller.verify(device)
            return _in_words(controller.admission.link(device))
        case "revoke":
            reason, lost = str(arguments["reason"])[:MAX_REASON], bool(arguments.get("lost"))
            return [asdict(step) for step in await controller.revocation.revoke(device, reason, lost=lost)]
    raise LocalProtocolError(f"the Controller has no call {call!r}")


def _known(links: Mapping[str, DeviceLink], device: str) -> list[dict[str, Any]]:
    if device and device not in links:
        raise NotFound(
            f"{device[:40]} has not said hello since the Controller started",
            hint="`aif device list` shows the devices of the site; if it is one of them, start its host",
        )
    return [_in_words(link) for name, link in sorted(links.items()) if device in ("", name)]


def _in_words(link: DeviceLink) -> dict[str, Any]:
    verdict = link.verdict
    return {
        "device": link.device,
        "trust": str(link.trust),
        "reason": link.reason,
        "appraisal": None
        if verdict is None
        else {
            "passed": verdict.passed,
            "time_us": verdict.time_us,
            "steps": list(verdict.steps),
            "components": [
                {"type": c.type, "version": c.version, "sha256": c.measurement.hex()}
                for c in verdict.components
            ],
            "result": base64.b64encode(verdict.signed_result).decode(),
        },
    }
