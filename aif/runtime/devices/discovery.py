"""What the Controller knows of devices by their own word, and who else was heard.

Keeps the newest announcement of every enrolled device, and a copy at the broker, retained and signed, for
whoever comes later; the next Controller begins with those. Of strangers, that is names that are not of the
site or not enrolled, only the name, the reason and the time are kept.

Decides what of an announcement is believed: for capacity and speed it outweighs the inventory file as long as
it is fresh; for policy (attestation, zone, site, shares, availability) and energy the file alone counts.

Invariants: only what came over a sealed channel, or under this site's own signature, is kept as announced;
strangers take bounded memory whoever sends how much, and never displace one another while they are fresh;
names that an inventory knows have places of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from nacl.signing import SigningKey

from aif.errors import AIFError, NotConnected, TransportError
from aif.model.aim import Runtime
from aif.model.inventory import Device, Inventory, StorageUnit
from aif.protocol import topics
from aif.protocol.announcement import (
    Announcement,
    KeptAnnouncement,
    check_announcement,
    sign_announcement,
    verify_announcement,
)
from aif.protocol.topics import Retained, RetainedTopic
from aif.runtime.clock import Clock
from aif.runtime.devices.links import DeviceLink, Trust
from aif.runtime.devices.registry import Site
from aif.runtime.logbook import LogBook
from aif.transport.base import Received, Transport
from aif.trusted.state import DeviceRecord

FRESH_S = 5 * 60.0
"""An older announcement is shown, but the inventory file counts."""

MAX_STRANGERS = 32
STRANGERS_KEPT_S = 10 * 60.0


@dataclass(frozen=True, slots=True)
class Heard:
    """An announcement; ``retained`` is the word of an earlier Controller."""

    announcement: Announcement
    heard_us: int
    retained: bool


@dataclass(slots=True)
class Stranger:
    """Somebody who is not a device of this site."""

    reason: str
    last_us: int
    count: int


class Discovery:
    """All that was announced, and who else was heard."""

    def __init__(self, site: Site, transport: Transport, *, clock: Clock, log: LogBook) -> None:
        self._site, self._transport = site, transport
        self._clock, self._log = clock, log
        self._key = SigningKey(site.state.result_seed)
        self._heard: dict[str, Heard] = {}
        self._strangers: dict[str, Stranger] = {}
        self._expected: frozenset[str] = frozenset()
        self.left_out = 0
        """Hellos and requests of strangers for whose name there was no room."""

    async def listen(self) -> None:
        """Take up what an earlier Controller left at the broker, until cancelled."""
        subscription = await self._transport.subscribe(
            topics.retained_filter(Retained.ANNOUNCE), self._retained, qos=1
        )
        try:
            await asyncio.Event().wait()
        finally:
            with suppress(TransportError):
                await subscription.aclose()

    # --- what is heard -------------------------------------------------------------------------------

    def take(self, device: str, said: Announcement) -> None:
        """An announcement over a device's sealed channel."""
        try:
            check_announcement(said)
        except AIFError as error:
            self._log.warning("announcement refused", device=device, code=error.code, reason=str(error))
            return
        now_us = self._clock.time_us()
        self._heard[device] = Heard(said, now_us, retained=False)
        self._strangers.pop(device, None)
        kept = KeptAnnouncement(device, now_us, said)
        self._publish(device, sign_announcement(kept, lambda message: self._key.sign(message).signature))

    def stranger(self, name: str, reason: str) -> None:
        """Somebody said hello, or asked to be enrolled, and is not of this site.

        Names of an inventory have their places, which no flood of other names takes.
        """
        now_us = self._clock.time_us()
        known = self._strangers.get(name)
        if known is not None:
            known.reason, known.last_us, known.count = reason, now_us, known.count + 1
            return
        if not self.expects(name) and self._unexpected() >= MAX_STRANGERS:
            oldest_us = now_us - int(STRANGERS_KEPT_S * 1e6)
            self._strangers = {n: s for n, s in self._strangers.items() if s.last_us > oldest_us}
            if self._unexpected() >= MAX_STRANGERS:
                self.left_out += 1
                return
        self._strangers[name] = Stranger(reason, now_us, 1)

    def expects(self, name: str) -> bool:
        """Whether the inventory that was last planned with names this device."""
        return name in self._expected

    def _unexpected(self) -> int:
        return sum(not self.expects(name) for name in self._strangers)

    def on_trust(self, link: DeviceLink) -> None:
        """A device that was revoked, or whose evidence was rejected, is not spoken of any more."""
        if link.trust is Trust.REJECTED and self._heard.pop(link.device, None) is not None:
            self._publish(link.device, b"")

    def _retained(self, received: Received) -> None:
        """Only the broker's store has something new to say; what is not retained is this Controller's own."""
        try:
            topic = topics.parse(received.topic)
            if not isinstance(topic, RetainedTopic) or not received.retained or not received.payload:
                return
            record = self._site.try_device(topic.device)
            enrolled = record is not None and record.enrolled_s is not None and not record.revoked
            if topic.device in self._heard or not enrolled:
                return
            kept = verify_announcement(received.payload, bytes(self._key.verify_key), device=topic.device)
        except AIFError as error:
            self._log.warning("retained announcement refused", code=error.code, reason=str(error))
            return
        self._heard[topic.device] = Heard(kept.announcement, kept.heard_us, retained=True)

    def _publish(self, device: str, payload: bytes) -> None:
        try:
            self._transport.send(str(RetainedTopic(device, Retained.ANNOUNCE)), payload, qos=1, retain=True)
        except NotConnected:
            return  # the next announcement is not far
        except TransportError as error:
            self._log.warning("announcement not kept at the broker", device=device, reason=str(error))

    # --- what is known -------------------------------------------------------------------------------

    def applied(self, inventory: Inventory) -> Inventory:
        """The inventory with what fresh announcements say of capacity and speed; its names are expected.

        Those that an earlier Controller kept count too: they carry this site's signature and their time.
        """
        devices = []
        self._expected = frozenset(device.id for device in inventory.devices)
        for device in inventory.devices:
            heard = self._heard.get(device.id)
            fresh = heard is not None and self._age_s(heard.heard_us) <= FRESH_S
            devices.append(with_announced(device, heard.announcement) if heard and fresh else device)
        return replace(inventory, devices=tuple(devices))

    def scan(self, links: Mapping[str, DeviceLink]) -> dict[str, Any]:
        """Devices of the registry with what they announced, and who else was heard lately, as plain values.

        Links between devices are not measured yet: ``links`` is where their figures go.
        """
        records = sorted(self._site.state.devices, key=lambda record: record.device)
        return {
            "devices": [self._device(record, links.get(record.device)) for record in records],
            "links": [],
            "strangers": [
                {
                    "name": name, "reason": one.reason, "count": one.count,
                    "age_s": round(self._age_s(one.last_us), 1),
                }
                for name, one in sorted(self._strangers.items())
                if self._age_s(one.last_us) <= STRANGERS_KEPT_S and self._site.try_device(name) is None
            ],
            "left_out": self.left_out,
        }  # fmt: skip

    def _device(self, record: DeviceRecord, link: DeviceLink | None) -> dict[str, Any]:
        heard = self._heard.get(record.device)
        trust = link.trust if link is not None else Trust.UNKNOWN
        fresh = heard is not None and not heard.retained and self._age_s(heard.heard_us) <= FRESH_S
        state = "revoked" if record.revoked else str(trust) if record.enrolled_s else "not enrolled"
        return {
            "device": record.device,
            "state": state,
            "reason": link.reason if link is not None else "",
            "usable": trust is Trust.TRUSTED and fresh and not record.drained,
            "drained": record.drained,
            "announced": None if heard is None else asdict(heard.announcement),
            "origin": "" if heard is None else "an earlier Controller" if heard.retained else "announced",
            "age_s": None if heard is None else round(self._age_s(heard.heard_us), 1),
        }

    def _age_s(self, then_us: int) -> float:
        return max(0.0, (self._clock.time_us() - then_us) / 1e6)


def with_announced(device: Device, said: Announcement) -> Device:
    """A device of an inventory file with the capacities and speeds that it announced.

    Policy and energy stay the file's, and so do the write speed and encryption of a storage unit.
    """
    written = {(unit.kind, n): unit for n, unit in enumerate(device.storage)}
    runtimes = frozenset(Runtime(name) for name in said.runtimes if name in frozenset(Runtime))
    return replace(
        device,
        board=said.board,
        arch=said.arch,
        os=said.os,
        cores=said.cores,
        ram_bytes=said.ram_bytes,
        flash_bytes=said.flash_bytes,
        runtimes=runtimes,
        clock_hz=said.clock_hz or device.clock_hz,
        instructions_per_s=said.instructions_per_s or device.instructions_per_s,
        dmips=said.dmips or device.dmips,
        macs_per_s=said.macs_per_s or device.macs_per_s,
        storage=tuple(
            replace(written.get((unit.kind, n), StorageUnit(unit.kind, 0)), bytes_=unit.bytes_)
            for n, unit in enumerate(said.storage)
        ),
        sensors=said.sensors,
        actuators=said.actuators,
        radios=said.radios,
    )
