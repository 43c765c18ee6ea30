"""The Controller's answers to enrolment requests.

A request that comes again gets the same answer, so a device that missed it is not locked out; whether a
device may enrol is decided by ``devices``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

from aif.errors import AIFError
from aif.protocol.topics import Enrolment, EnrolmentTopic
from aif.runtime.clock import Clock
from aif.runtime.devices.audit_log import AuditLog
from aif.runtime.devices.registry import Site
from aif.runtime.logbook import LogBook
from aif.transport.base import Transport

ANSWERS_KEPT = 64

REFUSAL_NOTED_S = 60.0
"""The audit log has one entry about refusals of a device in this time: whoever floods it with requests must
not push everything else out of the log."""


class EnrolmentDesk:
    """Answers the enrolment requests of a site's devices."""

    def __init__(
        self,
        site: Site,
        transport: Transport,
        *,
        clock: Clock,
        log: LogBook,
        store_root: bytes,
        audit: AuditLog,
        on_stranger: Callable[[str, str], None],
    ) -> None:
        self._site, self._transport, self._clock = site, transport, clock
        self._log, self._store_root, self._audit = log, store_root, audit
        self._on_stranger = on_stranger
        self._answers: dict[tuple[str, bytes], bytes] = {}
        self._noted_ms: dict[str, float] = {}
        self._unnoted: Counter[str] = Counter()

    def take(self, name: str, request: bytes) -> None:
        """One request, as it came on the topic of that device."""
        try:
            answer = self._answers.get((name, request))
            if answer is None:
                now_s = self._clock.time_us() // 1_000_000
                answer = self._site.enrol(name, request, self._store_root, now_s=now_s)
                kept = list(self._answers.items())[: ANSWERS_KEPT - 1]
                self._answers = {(name, request): answer, **dict(kept)}
                self._log.info("device enrolled", device=name)
                self._audit.note("enrolled", name)
            self._transport.send(str(EnrolmentTopic(name, Enrolment.RESPONSE)), answer, qos=1)
        except AIFError as error:
            record = self._site.try_device(name)
            if record is None or record.enrolled_s is None:
                self._on_stranger(name, f"its enrolment was refused: {error.code}")
            self._note_refusal(name, error)
            self._log.warning(
                "enrolment refused", device=name, code=error.code, reason=str(error), hint=error.hint
            )

    def _note_refusal(self, name: str, error: AIFError) -> None:
        """One entry for what came since the last; a name that is not registered is nobody's, and has none."""
        if self._site.try_device(name) is None:
            return
        now_ms, self._unnoted[name] = self._clock.monotonic_ms(), self._unnoted[name] + 1
        if now_ms - self._noted_ms.get(name, -math.inf) >= REFUSAL_NOTED_S * 1000:
            self._noted_ms[name] = now_ms
            self._audit.note("enrolment refused", name, code=error.code, requests=self._unnoted.pop(name))


__all__ = ["EnrolmentDesk"]
