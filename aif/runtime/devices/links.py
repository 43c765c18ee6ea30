"""A device as the Controller sees it now: where it stands, its session, and its last appraisal.

Values only; they change in ``admission``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from aif.protocol.control import Hello, InstalledRelease
from aif.protocol.evidence import Component
from aif.runtime.devices.liveness import Answers, Reputation
from aif.trusted.communication import SecureReceiver, SecureSender


class Trust(StrEnum):
    """Where a device stands."""

    UNKNOWN = "unknown"
    APPRAISING = "appraising"
    TRUSTED = "trusted"
    REJECTED = "rejected"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Appraised:
    """The last appraisal of a device's own answer, passed or not."""

    passed: bool
    time_us: int
    steps: tuple[str, ...]
    components: tuple[Component, ...]
    signed_result: bytes
    """The Attestation Result as COSE_Sign1, under the site's result key."""


@dataclass(slots=True)
class DeviceLink:
    """One device as the Controller sees it now.

    ``hello`` is the one that accepted Evidence spoke for, ``offered`` one that still waits for Evidence.
    Times are monotonic milliseconds.
    """

    device: str
    hello: Hello | None = None
    offered: Hello | None = None
    rejected_boot: bytes = b""
    trust: Trust = Trust.UNKNOWN
    verdict: Appraised | None = None
    reason: str = ""
    attested_mapping: int = -1
    attested_ms: float = 0.0
    challenged_ms: float = float("-inf")
    heard_ms: float = 0.0
    sign_ms: float = 0.0
    """When the first sign of its last loss was seen: a rumour, or the last word before the silence."""
    keyed_ms: float = 0.0
    keyed_frames: int = 0
    skew_s: float = 0.0
    answers: Answers = field(default_factory=Answers)
    reputation: Reputation = field(default_factory=Reputation)
    installed: dict[str, InstalledRelease] = field(default_factory=dict)
    up: SecureReceiver | None = None
    down: SecureSender | None = None
