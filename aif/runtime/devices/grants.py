"""Grants of one site: fresh keys per channel and epoch, rosters, serials per session, renewal.

Decides keys and indexes; who deserves them is decided by ``admission`` and ``controller``. A device only
ever gets a grant wrapped for the session key that its accepted Evidence was bound to.

Invariants: an epoch of a channel never repeats, and has a fresh random key; every sender gets a fresh grant
nonce with every epoch; a key goes to the boots it was made for, and to no other. The first epoch of a channel
and serials follow the clock, so they also grow over a restart of the Controller, which devices live through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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
class Epoch:
    """One epoch of one channel: its grant but for the role of each member, and who is a member."""

    grant: Grant
    members: tuple[str, ...]
    indexes: Mapping[str, int]
    """Sender index by device."""
    receivers: frozenset[str]
    boots: Mapping[str, bytes]
    """The boot of each member with a session, when the epoch was opened."""


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
        first_epoch: int = 0,
    ) -> None:
        """Epochs begin at ``first_epoch``, above those of every office before, or with the clock."""
        self._first_epoch = first_epoch
        self._sign, self._session_of = sign, session_of
        self._clock, self._random = clock, random
        self._epochs: dict[bytes, int] = {}
        self._indexes: dict[bytes, dict[End, int]] = {}
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
        epoch = self.open_epoch(channel_id, mode, senders, receivers, mapping_version=mapping_version)
        issued = (self.grant(epoch, device) for device in epoch.members)
        return [grant for grant in issued if grant is not None]

    def open_epoch(
        self,
        channel_id: bytes,
        mode: AuthMode,
        senders: Sequence[End],
        receivers: Sequence[End],
        *,
        mapping_version: int,
        refused: Sequence[End] = (),
        max_frame_bytes: int = HOST_LIMITS.max_frame_bytes,
    ) -> Epoch:
        """A new epoch of one channel with a fresh key, for the boots that its members are in now.

        Args:
            channel_id: 16 bytes.
            mode: the channel's ``auth``.
            senders: who sends from now on; another end is another index.
            receivers: who receives from now on.
            mapping_version: of the deployment.
            refused: former senders whose frames are refused at once.
            max_frame_bytes: longest frame that every receiver takes.
        """
        now_s = self._clock.time_us() // 1_000_000
        indexes = {end: self._index(channel_id, end) for end in senders}
        grant = Grant(
            channel_id, self._next_epoch(channel_id, now_s), Role.RECEIVE, None, self._random(32),
            valid_from_s=now_s - CLOCK_TOLERANCE_S, valid_to_s=now_s + VALIDITY_S, max_frames=MAX_FRAMES,
            mapping_version=mapping_version, serial=1, auth_mode=mode,
            max_frame_bytes=max_frame_bytes,
            roster=tuple(self._row(index, end) for end, index in indexes.items()),
            refused=tuple(sorted({self._index(channel_id, end) for end in refused} - set(indexes.values()))),
        )  # fmt: skip
        members = sorted({end.device for end in (*senders, *receivers)})
        sessions = {device: self._session_of(device) for device in members if device != CONTROLLER}
        return Epoch(
            grant,
            tuple(members),
            {end.device: index for end, index in indexes.items()},
            frozenset(end.device for end in receivers),
            {device: session.boot_id for device, session in sessions.items() if session is not None},
        )

    def grant(self, epoch: Epoch, device: str) -> IssuedGrant | None:
        """A member's grant; a second one holds the same key under a new serial, and changes nothing there.

        None for a device that is not in the boot that the epoch was opened for: another boot would start its
        counters over under the same key.
        """
        if device != CONTROLLER and not self.in_boot(epoch, device):
            return None
        index = epoch.indexes.get(device)
        roles = Role.RECEIVE if device in epoch.receivers else Role(0)
        if index is not None:
            roles |= Role.SEND
        grant = replace(epoch.grant, roles=roles, sender_index=index)
        if device == CONTROLLER:
            return IssuedGrant(device, grant, b"")
        session = self._session_of(device)
        return self._sealed(device, grant, session) if session is not None else None

    def in_boot(self, epoch: Epoch, device: str) -> bool:
        """Whether a member still has the session that the epoch was opened for."""
        session = self._session_of(device)
        return session is not None and session.boot_id == epoch.boots.get(device)

    def epoch(self, channel_id: bytes) -> int | None:
        """The newest epoch of a channel; None before its first."""
        return self._epochs.get(channel_id)

    def forget(self, channel_ids: Iterable[bytes]) -> None:
        """These channels are no more; their ids never come again."""
        for channel_id in channel_ids:
            self._epochs.pop(channel_id, None)
            self._indexes.pop(channel_id, None)

    def senders(self, channel_id: bytes) -> tuple[End, ...]:
        """Every sender that a channel ever had, in the order of their indexes."""
        return tuple(self._indexes.get(channel_id, ()))

    def remember(self, channel_id: bytes, senders: Sequence[End]) -> None:
        """Senders of a channel that an earlier office gave indexes to, in their order."""
        self._indexes[channel_id] = {end: index for index, end in enumerate(senders)}

    def _index(self, channel_id: bytes, end: End) -> int:
        """Which sender this end is: the same in every epoch, and nobody else's."""
        known = self._indexes.setdefault(channel_id, {})
        return known.setdefault(end, len(known))

    def _sealed(self, device: str, grant: Grant, session: SessionKeys) -> IssuedGrant:
        serial = max(self._serials.get(session.boot_id, 0) + 1, self._clock.time_us())
        self._serials[session.boot_id] = serial
        numbered = replace(grant, serial=serial)
        sealed = issue_grant(numbered, session.session_public, self._sign, self._random(32))
        return IssuedGrant(device, numbered, sealed)

    def _next_epoch(self, channel_id: bytes, now_s: int) -> int:
        previous = self._epochs.get(channel_id)
        # the next one, not the clock: receivers hold frames of the next epoch until its grant has come
        epoch = max(now_s, self._first_epoch) if previous is None else previous + 1
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
