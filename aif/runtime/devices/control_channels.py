"""The Controller's ends of the two sealed control channels of each device, and their keys.

A session has a pair of channels; a new one begins with fresh ones. Decides when keys are old, and in which
order they are handed out: whoever receives has a key before whoever sends uses it. Whom to trust is decided
by ``admission``, what is said by whoever sends.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence

from aif.errors import AIFError, NotConnected, NotFound, TransportError
from aif.protocol import control
from aif.protocol.bundle import BundlePolicy
from aif.protocol.control import CONTROLLER, ControlMessage
from aif.protocol.numbers import AuthMode
from aif.protocol.topics import Down, DownTopic
from aif.runtime.agreed import CONTROL_QOS
from aif.runtime.books import log_channel_event
from aif.runtime.clock import Clock
from aif.runtime.devices.audit_log import AuditLog
from aif.runtime.devices.gatekeeper import Gatekeeper
from aif.runtime.devices.grants import MAX_FRAMES, RENEWAL_S, End, GrantOffice
from aif.runtime.devices.links import DeviceLink
from aif.runtime.logbook import LogBook
from aif.transport.base import Transport
from aif.trusted.communication import CommunicationService, SealedChannel

_UNBUNDLED = BundlePolicy(max_messages=1)
"""What the Controller says is rare and urgent."""


class ControlChannels:
    """Those of all devices of a site."""

    def __init__(
        self,
        transport: Transport,
        communication: CommunicationService,
        grants: GrantOffice,
        gates: Gatekeeper,
        *,
        clock: Clock,
        log: LogBook,
        audit: AuditLog,
    ) -> None:
        self._transport, self._communication = transport, communication
        self._grants, self._gates = grants, gates
        self._clock, self._log, self._audit = clock, log, audit

    def open(self, link: DeviceLink, take: Callable[[Sequence[bytes]], None]) -> None:
        """New channels for a new session, and the grants for them; ``take`` gets what the device says."""
        self.close(link)
        up_id, up_topic = control.control_channel(link.device, up=True)
        down_id, down_topic = control.control_channel(link.device, up=False)
        link.up = self._communication.open_receiver(
            SealedChannel(up_id, up_topic, AuthMode.AEAD, qos=CONTROL_QOS),
            take,
            lambda event: log_channel_event(self._log, event, up_topic),
        )
        link.down = self._communication.open_sender(
            SealedChannel(down_id, down_topic, AuthMode.AEAD, qos=CONTROL_QOS, policy=_UNBUNDLED)
        )
        self.renew_keys(link)

    def close(self, link: DeviceLink) -> None:
        """The session is over."""
        for end in (link.up, link.down):
            if end is not None:
                self._communication.close(end.channel.channel_id)
        link.up = link.down = None

    def renew_keys(self, link: DeviceLink) -> None:
        """Fresh keys for both channels."""
        device = link.device
        link.keyed_ms, link.keyed_frames = self._clock.monotonic_ms(), _frames(link)
        here, there = End(CONTROLLER, f"{device}.control"), End(device, "control")
        for up, sender, receiver in ((True, there, here), (False, here, there)):
            channel_id, _ = control.control_channel(device, up=up)
            issued = self._grants.issue(channel_id, AuthMode.AEAD, [sender], [receiver], mapping_version=0)
            for grant in sorted(issued, key=lambda grant: grant.device == sender.device):
                if grant.device == CONTROLLER:
                    self._communication.apply_grant(grant.grant, b"")
                else:
                    self.send_grant(device, grant.sealed)

    @staticmethod
    def keys_are_old(link: DeviceLink, now_ms: float) -> bool:
        return (
            now_ms - link.keyed_ms > RENEWAL_S * 1000 or _frames(link) - link.keyed_frames > MAX_FRAMES // 2
        )

    def send(self, link: DeviceLink | None, message: ControlMessage) -> None:
        """Seal a message for a trusted device; otherwise drop it (the Controller repeats itself)."""
        if link is None or link.down is None or not link.down.keyed:
            return
        try:
            link.down.send(control.pack(message))
        except NotConnected:
            return  # the log says so once, when the connection ends
        except AIFError as error:
            self._log.warning("control message dropped", device=link.device, reason=str(error))

    def send_grant(self, device: str, sealed: bytes) -> None:
        """Send a grant to the device it is sealed for; the audit log keeps its digest."""
        self._audit.note("grant", device, digest=hashlib.sha256(sealed).hexdigest())
        topic = DownTopic(device, Down.GRANT)
        try:
            self._transport.send(str(topic), self._gates.stamped(device, topic, sealed), qos=1)
        except (NotConnected, NotFound):
            return  # what waits for the grant asks again
        except TransportError as error:
            self._log.warning("grant not sent", device=device, reason=str(error))


def troubles(link: DeviceLink) -> Counter[str]:
    """What went wrong on the control channels of a device's session, by cause, as the Controller sees it."""
    causes: Counter[str] = Counter()
    for end in (link.up, link.down):
        causes.update(end.statistics().causes if end is not None else {})
    return causes


def _frames(link: DeviceLink) -> int:
    """Frames of the busier direction since the session began."""
    ends = [end.statistics() for end in (link.up, link.down) if end is not None]
    return max((max(end.sealed_frames, end.verified_frames) for end in ends), default=0)
