"""New keys for the channels of a workflow, without a lost message: receivers first, then who sends to them.

Every epoch has a fresh random key. A member confirms that it has it; the source of a channel gets it when all
its receivers have confirmed, or have had their time. A grant that nobody confirms is sent again.

Decides the order and the repetitions; who is a member is said by whoever calls, and what a grant holds is
decided by ``grants``.

Invariants: a device that is left out gets nothing of a new epoch, and its frames are refused with it; a
repeated grant never reaches another boot than the one its key was made for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from aif.runtime.clock import Clock
from aif.runtime.devices.grants import End, Epoch, GrantOffice
from aif.runtime.logbook import LogBook
from aif.runtime.mapping.deployer import Plan

RECEIVERS_S = 0.5
"""Receivers have this long before their source changes keys without them: a dead one must not hold up the
exclusion of a revoked one."""

REPEAT_S = 2.0
GIVE_UP_S = 30.0
"""As long as receivers accept the epoch before; what was not confirmed by then waits for the next renewal."""


REQUEST_INTERVAL_S = 10.0
"""A channel gets new keys on request this often. Whoever can stop a channel again and again, a member that
forges, or a device that only says so, must not keep its members busy."""


class Members(Protocol):
    """Who may have keys, and the way to them: ``Admission``."""

    def trusted(self, device: str) -> bool: ...

    def send_grant(self, device: str, sealed: bytes) -> None: ...


@dataclass(slots=True)
class _Turn:
    """One channel on its way to a new epoch."""

    aiw_id: str
    epoch: Epoch
    source: str
    started_ms: float
    sent_ms: float
    waiting: set[str]
    """Members that have not confirmed."""
    source_told: bool = False


@dataclass(slots=True)
class _Round:
    """All channels of a workflow that were renewed together."""

    started_ms: float
    channels: int = 0
    members: set[str] = field(default_factory=set)


class Rekeying:
    """Brings new keys to the members of channels."""

    def __init__(
        self,
        admission: Members,
        grants: GrantOffice,
        *,
        clock: Clock,
        log: LogBook,
        changed: Callable[[], None],
    ) -> None:
        self._admission, self._grants = admission, grants
        self._clock, self._log, self._changed = clock, log, changed
        self._turns: dict[bytes, _Turn] = {}
        self._rounds: dict[str, _Round] = {}
        self._requested_ms: dict[bytes, float] = {}

    def pending(self, aiw_id: str) -> bool:
        """Whether a member of this workflow's channels has not confirmed its newest key."""
        return aiw_id in self._rounds

    def renew(
        self,
        plan: Plan,
        *,
        only: Mapping[bytes, Collection[End]] | None = None,
        without: Collection[str] = (),
        refused: Collection[str] = (),
    ) -> None:
        """A new epoch for every channel of a workflow whose source is there.

        Args:
            plan: the workflow's channels.
            only: the channels to renew, with the senders that each had before; receivers refuse what those
                send that are not senders now. None for all channels, whose senders are the same.
            without: devices that have no part in the workflow any more.
            refused: those of them that are not trusted any more: receivers refuse what they sent, at once.
        """
        now_ms = self._clock.monotonic_ms()
        shared = self._rounds[plan.aiw_id] = _Round(now_ms)
        gone = {*without, *refused}
        for channel_id, turn in list(self._turns.items()):
            if turn.aiw_id == plan.aiw_id and channel_id not in plan.channels:
                del self._turns[channel_id]  # the channel is no more
        for channel_id, channel in plan.channels.items():
            if only is not None and channel_id not in only:
                continue
            self._turns.pop(channel_id, None)
            source = channel.source_device
            senders, rejected = plan.senders[channel_id], source in refused
            if not rejected and (source in gone or not self._admission.trusted(source)):
                continue
            epoch = self._grants.open_epoch(
                channel_id,
                channel.auth,
                [] if rejected else senders,
                [end for end in plan.receivers[channel_id] if end.device not in gone],
                mapping_version=plan.mapping_version,
                refused=[*(senders if rejected else ()), *(only or {}).get(channel_id, ())],
                max_frame_bytes=channel.max_frame_bytes,
            )
            turn = _Turn(plan.aiw_id, epoch, source, now_ms, now_ms, {*epoch.boots})
            if not turn.waiting:
                continue
            self._turns[channel_id] = turn
            shared.channels += 1
            shared.members |= turn.waiting
            for device in turn.waiting - {source}:
                self._send(turn, device)
            self._tell_source(turn)
        self._conclude(plan.aiw_id)

    def wanted(
        self, plan: Plan, device: str, channel_id: bytes, epoch: int, *, without: Collection[str] = ()
    ) -> None:
        """A receiver of a channel hears its sender no more and asks for the next epoch; at most every 10 s.

        Args:
            plan: the workflow's channels, this one among them.
            device: who asks.
            channel_id: what it does not hear.
            epoch: that has stopped; when it is not the newest, the next one is on its way already.
            without: devices that have no part in the workflow any more.
        """
        now_ms = self._clock.monotonic_ms()
        if device not in {end.device for end in plan.receivers[channel_id]} - {*without}:
            return
        if channel_id in self._turns or epoch != self._grants.epoch(channel_id):
            return
        if now_ms - self._requested_ms.get(channel_id, -math.inf) < REQUEST_INTERVAL_S * 1000:
            return
        self._requested_ms[channel_id] = now_ms
        self._log.warning(
            "a channel has stopped and gets new keys", aiw=plan.aiw_id, device=device,
            channel=plan.channels[channel_id].topic,
        )  # fmt: skip
        self.renew(plan, only={channel_id: ()}, without=without)

    def confirmed(self, device: str, channel_id: bytes, epoch: int) -> None:
        """A device says that it has the key of an epoch."""
        turn = self._turns.get(channel_id)
        if turn is None or turn.epoch.grant.epoch != epoch or device not in turn.waiting:
            return
        turn.waiting.discard(device)
        self._tell_source(turn)
        self._conclude(turn.aiw_id)

    def tick(self) -> None:
        """Several times a second: sources whose receivers are late, and grants that were lost."""
        now_ms = self._clock.monotonic_ms()
        for turn in list(self._turns.values()):
            turn.waiting = {device for device in turn.waiting if self._grants.in_boot(turn.epoch, device)}
            if now_ms - turn.started_ms > GIVE_UP_S * 1000:
                self._log.warning(
                    "a device has not confirmed its new key", aiw=turn.aiw_id,
                    device=", ".join(sorted(turn.waiting)),
                )  # fmt: skip
                turn.waiting.clear()
            if now_ms - turn.sent_ms > REPEAT_S * 1000:
                turn.sent_ms = now_ms
                for device in turn.waiting:
                    if device != turn.source or turn.source_told:
                        self._send(turn, device)
            self._tell_source(turn, late=now_ms - turn.started_ms > RECEIVERS_S * 1000)
            self._conclude(turn.aiw_id)

    def forget(self, plan: Plan) -> None:
        """The workflow has ended: its channels are no more."""
        for channel_id in plan.channels:
            self._turns.pop(channel_id, None)
            self._requested_ms.pop(channel_id, None)
        self._rounds.pop(plan.aiw_id, None)
        self._grants.forget(plan.channels)

    def _tell_source(self, turn: _Turn, *, late: bool = False) -> None:
        if turn.source in turn.waiting and not turn.source_told and (late or turn.waiting == {turn.source}):
            turn.source_told = True
            self._send(turn, turn.source)

    def _send(self, turn: _Turn, device: str) -> None:
        issued = self._grants.grant(turn.epoch, device)
        if issued is not None:
            self._admission.send_grant(device, issued.sealed)

    def _conclude(self, aiw_id: str) -> None:
        """Everybody has the new keys of this workflow: say so, and how long it took."""
        done = [channel_id for channel_id, turn in self._turns.items() if not turn.waiting]
        for channel_id in done:
            del self._turns[channel_id]
        shared = self._rounds.get(aiw_id)
        if shared is None or any(turn.aiw_id == aiw_id for turn in self._turns.values()):
            return
        del self._rounds[aiw_id]
        if shared.channels:
            took_ms = self._clock.monotonic_ms() - shared.started_ms
            self._log.info(
                "channels re-keyed", aiw=aiw_id, channels=shared.channels, devices=len(shared.members),
                took_ms=round(took_ms, 1),
            )  # fmt: skip
        self._changed()
