"""The gates of a site: what devices say before they are trusted, and the stamps on what is said to them.

Decides whose stamp counts, and how much of what comes from names that are not registered is looked at. What
passes is believed no more than before: its signature is checked behind the gate.

Invariants: garbage costs a hash, and a look at whether the registry has changed; only devices of the registry
take memory; names that nobody expects take nothing from those that an inventory names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from aif.errors import NotFound, RemoteProtocolError
from aif.protocol.gate import FRESH, Budget, Gate, StampNumbers, TokenBucket
from aif.protocol.stamp import stamp
from aif.protocol.topics import Topic
from aif.runtime.clock import Clock
from aif.runtime.devices.registry import Site
from aif.runtime.logbook import LogBook

STRANGERS: Final = Budget(per_s=20.0, burst=64)
"""Messages of names that are not registered, whose hello or request is looked at; as many again of names that
an inventory knows."""

TOLD_MS: Final = 10_000.0
"""What was refused of a device is logged at most this often."""


class Gatekeeper:
    """Stamps and gates of all devices of a site.

    Args:
        site: its registry, and its key.
        expected: whether an inventory names a device that is not registered.
    """

    def __init__(self, site: Site, *, expected: Callable[[str], bool], clock: Clock, log: LogBook) -> None:
        self._site, self._expected, self._clock, self._log = site, expected, clock, log
        self._numbering = StampNumbers()
        self._read_version: object = None
        self._registered: dict[str, bytes] = {}
        """Exchange keys by device, as the registry was when it was read."""
        self._keys: dict[str, tuple[bytes, bytes]] = {}
        """Exchange key of a device, and the stamp key that came of it."""
        self._gates: dict[str, dict[str, Gate]] = {}
        self._strangers, self._awaited = TokenBucket(STRANGERS), TokenBucket(STRANGERS)
        self._told_ms: dict[str, float] = {}
        self.strangers_refused = 0
        """Messages of names that are not registered, beyond what is looked at."""

    def stamped(self, device: str, topic: Topic, message: bytes) -> bytes:
        """A message to a device, with the site's stamp.

        Raises:
            NotFound: no such device.
        """
        key = self._key(device)
        if key is None:
            raise NotFound(f"the site knows no device {device!r}")
        return stamp(key, str(topic), message, self._numbering.next(self._clock.time_us()))

    def admit(self, device: str, topic: Topic, data: bytes) -> bytes | None:
        """The message in ``data``; None when it goes no further.

        Names that are not registered have no stamp: a few of their messages pass as they are, so that
        somebody hears of them.
        """
        now_ms, key = self._clock.monotonic_ms(), self._key(device)
        if key is None:
            if (self._awaited if self._expected(device) else self._strangers).take(now_ms):
                return data
            self.strangers_refused += 1
            return None
        gate = self._gates.setdefault(device, {}).setdefault(str(topic), Gate(str(topic), fresh=FRESH))
        try:
            return gate.admit(key, data, now_ms)
        except RemoteProtocolError as error:
            self._tell(device, error, now_ms)
            return None

    def refused(self, device: str) -> Counter[str]:
        """What of a device was refused at its gates, by cause."""
        return sum((gate.refused for gate in self._gates.get(device, {}).values()), Counter())

    def _key(self, device: str) -> bytes | None:
        """The stamp key of a device as the registry is now; None when it is not in there."""
        version = self._site.version
        if version != self._read_version:
            self._registered = {record.device: record.exchange_pk for record in self._site.state.devices}
            self._read_version = version
            for table in (self._keys, self._gates, self._told_ms):
                for gone in table.keys() - self._registered.keys():
                    del table[gone]
        device_pk = self._registered.get(device)
        if device_pk is None:
            return None
        known = self._keys.get(device)
        if known is None or known[0] != device_pk:
            known = self._keys[device] = (device_pk, self._site.stamp_key(device_pk))
        return known[1]

    def _tell(self, device: str, error: RemoteProtocolError, now_ms: float) -> None:
        if now_ms - self._told_ms.get(device, -TOLD_MS) < TOLD_MS:
            return
        self._told_ms[device] = now_ms
        self._log.warning(
            "messages stopped at the gate", device=device, cause=error.counter, reason=str(error),
            so_far=sum(self.refused(device).values()),
            hint="somebody else uses its name, or it was provisioned at another site: see its own log",
        )  # fmt: skip
