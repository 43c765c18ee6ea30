"""Grants of one site: fresh keys per channel and epoch, rosters, serials per session, renewal.

Decides keys and indexes; who deserves them is decided by ``admission`` and ``controller``. A device only
ever gets a grant wrapped for the session key that its accepted Evidence was bound to.

Invariants: an epoch of a channel never repeats, and neither does its low byte in a row (frame headers carry
only that); every sender gets a fresh grant nonce with every grant of a key. Epochs and serials follow the
clock, so they also grow over a restart of the Controller, which devices live through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from aif.protocol.control import CONTROLLER
from aif.protocol.grant import Grant, Role, RosterRow, issue_grant
from aif.protocol.identifiers import id16
from aif.protocol.numbers import HOST_LIMITS, AuthMode
from aif.runtime.clock import Clock

VALIDITY_S = 2 * 3600
RENEWAL_S = 3600
MAX_FRAMES = 1 << 20
CLOCK_TOLERANCE_S = 60
"""Grants are valid this long before they are issued, so that a device's clock may be a little behind."""


@dataclass(frozen=True, slots=True)
class End:
    """One end of a channel: a device and the AIM instance there (any unique text)."""

    device: str
    instance: str


@dataclass(frozen=True, slots=True)
class IssuedGrant:
    """A grant for one device; ``sealed`` is what travels (empty for the Controller itself)."""

    device: str
    grant: Grant
    sealed: bytes


@dataclass(frozen=True, slots=True)
class SessionKeys:
    """What the hello of a device's current boot offered."""

    session_public: bytes
    frame_public: bytes
    boot_id: bytes


class GrantOffice:
    """Issues grants with the site's grant key."""

    def __init__(
        self,
        sign: Callable[[bytes], bytes],
        session_of: Callable[[str], SessionKeys | None],
        *,
        clock: Clock,
        random: Callable[[int], bytes],
    ) -> None:
        self._sign, self._session_of = sign, session_of
        self._clock, self._random = clock, random
        self._epochs: dict[bytes, int] = {}
        self._serials: dict[bytes, int] = {}

    def issue(
        self,
        channel_id: bytes,
        mode: AuthMode,
        senders: Sequence[End],
        receivers: Sequence[End],
        *,
        mapping_version: int,
    ) -> list[IssuedGrant]:
        """A new epoch of one channel with a fresh key: one grant for every device at either end.

        Devices without a session are left out; they ask again with their next hello.
        """
        now_s = self._clock.time_us() // 1_000_000
        epoch = self._next_epoch(channel_id, now_s)
        k_epoch = self._random(32)
        roster = tuple(self._row(n, end) for n, end in enumerate(senders))
        issued = []
        for device in sorted({end.device for end in (*senders, *receivers)}):
            index = next((n for n, end in enumerate(senders) if end.device == device), None)
            roles = Role(0)
            if index is not None:
                roles |= Role.SEND
            if any(end.device == device for end in receivers):
                roles |= Role.RECEIVE
            grant = Grant(
                channel_id, epoch, roles, index, k_epoch,
                valid_from_s=now_s - CLOCK_TOLERANCE_S, valid_to_s=now_s + VALIDITY_S, max_frames=MAX_FRAMES,
                mapping_version=mapping_version, serial=1, auth_mode=mode,
                max_frame_bytes=HOST_LIMITS.max_frame_bytes, roster=roster,
            )  # fmt: skip
            if device == CONTROLLER:
                issued.append(IssuedGrant(device, grant, b""))
            elif (session := self._session_of(device)) is not None:
                issued.append(self._sealed(device, grant, session))
        return issued

    def _sealed(self, device: str, grant: Grant, session: SessionKeys) -> IssuedGrant:
        serial = max(self._serials.get(session.boot_id, 0) + 1, self._clock.time_us())
        self._serials[session.boot_id] = serial
        numbered = replace(grant, serial=serial)
        sealed = issue_grant(numbered, session.session_public, self._sign, self._random(32))
        return IssuedGrant(device, numbered, sealed)

    def _next_epoch(self, channel_id: bytes, now_s: int) -> int:
        previous = self._epochs.get(channel_id, 0)
        epoch = max(now_s, previous + 1)
        if epoch & 0xFF == previous & 0xFF:
            epoch += 1
        self._epochs[channel_id] = epoch
        return epoch

    def _row(self, index: int, end: End) -> RosterRow:
        session = None if end.device == CONTROLLER else self._session_of(end.device)
        return RosterRow(
            index,
            id16("aim", end.instance),
            id16("device", end.device),
            self._random(16),
            session.frame_public if session else None,
        )
