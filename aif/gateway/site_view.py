"""What a person sees of a whole site: every figure of the screen as a plain value.

Decides which figures there are, and their names in ``aif top --json``. Does not decide where they come from
(``site_record``) nor what they look like (``site_panels``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

SCHEMA: Final = 1
TRUSTED: Final = "trusted"
LOST: Final = "lost"
"""How a device stands that has proven what it runs, and that of one that does not answer any more."""


@dataclass(frozen=True, slots=True)
class DeviceLine:
    """One device.

    Attributes:
        device: its id.
        trust: where it stands; ``reason`` says why it is not trusted.
        reason: in words.
        heard_s: seconds since its last sealed word; None when there was none.
        drained: it shall run nothing, because an operator said so.
        rtt_p95_ms: within this time nearly all its answers come; None where nothing was measured.
        slow: whether that is longer than planned, for some time.
        battery: how full it is (0..1), None where there is none; ``battery_state`` is ``good``, ``low``
            or ``reserve``.
        battery_state: empty without a battery.
        aims: how many AIMs run there.
        planned_cpu: share of its processor that the plans give to AIMs, and ``cpu_limit`` what they may give.
        cpu_limit: 0..1; 0 where nothing is planned.
        busy: share of one core that its AIMs took, as they report.
        planned_ram_bytes: what the plans count.
        ram_bytes: what it reports as taken, with its limit.
        ram_limit_bytes: 0 where there is none.
        flash_bytes: as ``ram_bytes``.
        flash_limit_bytes: 0 where there is none.
    """

    device: str
    trust: str
    reason: str
    heard_s: float | None
    drained: bool = False
    rtt_p95_ms: float | None = None
    slow: bool = False
    battery: float | None = None
    battery_state: str = ""
    aims: int = 0
    planned_cpu: float = 0.0
    cpu_limit: float = 0.0
    busy: float = 0.0
    planned_ram_bytes: int = 0
    ram_bytes: int = 0
    ram_limit_bytes: int = 0
    flash_bytes: int = 0
    flash_limit_bytes: int = 0


@dataclass(frozen=True, slots=True)
class LinkLine:
    """One link: planned traffic of all workflows, and what may be planned there (bit/s).

    ``limit_bps`` is 0 while no plan counts the link: one of its ends may run nothing.
    """

    link: str
    members: tuple[str, ...]
    planned_bps: int
    limit_bps: int


@dataclass(frozen=True, slots=True)
class AIMLine:
    """One AIM: where it is, how fast, and what became of its messages.

    ``sealed`` are messages it sent to other devices; ``lost`` and ``rejected`` are of those it reads.
    """

    aim: str
    device: str
    implementation: str
    state: str
    rate_hz: float
    p50_us: float | None
    p99_us: float | None
    waiting: int
    sealed: int
    lost: int
    rejected: int


@dataclass(frozen=True, slots=True)
class WorkflowLine:
    """One workflow with its AIMs."""

    aiw: str
    workflow: str
    state: str
    note: str
    aims: tuple[AIMLine, ...]
    records_per_s: Mapping[str, float]
    """By sealed channel."""


@dataclass(frozen=True, slots=True)
class SiteEvent:
    """What happened, and why; ``stages_ms`` since it began for re-mappings, ``hint`` for trouble.

    ``times``: how often it came in a row of its kind; ``time_us`` is that of the last.
    """

    time_us: int
    origin: str
    level: str
    event: str
    words: str
    stages_ms: Mapping[str, float] = field(default_factory=dict)
    hint: str = ""
    times: int = 1

    def same_as(self, other: SiteEvent) -> bool:
        """Whether both say the same of the same; moves never do."""
        return not self.stages_ms and replace(self, time_us=0, times=1) == replace(other, time_us=0, times=1)


@dataclass(frozen=True, slots=True)
class SiteView:
    """A site at one moment. ``silent_s``: for how long the Controller has not answered; None when it does."""

    time_us: int
    started_us: int
    silent_s: float | None
    restarts: int
    devices: tuple[DeviceLine, ...]
    links: tuple[LinkLine, ...]
    workflows: tuple[WorkflowLine, ...]
    events: tuple[SiteEvent, ...]
    """The newest last."""


def site_json(view: SiteView) -> dict[str, Any]:
    """The document of ``aif top --json``."""
    return {"schema": SCHEMA, **asdict(view)}
