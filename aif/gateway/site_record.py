"""What is known of a whole site, from what its Controller answers each time it is asked.

Decides how status and log lines become the figures of a ``SiteView``, and which lines are worth a place among
the events. Asks nobody and draws nothing.

Invariants: an answer of any shape is taken, and what does not have the expected form is left out; texts are
printable and short; memory does not grow with time. A Controller that was started anew is noticed by the time
at which it began, and what the one before it counted is forgotten.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from aif.gateway.causes import MEANS
from aif.gateway.event_fields import count, entries, flag, items, mapping, number, text
from aif.gateway.run_record import RunRecord
from aif.gateway.site_view import LOST, AIMLine, DeviceLine, LinkLine, SiteEvent, SiteView, WorkflowLine
from aif.model.standby import in_words, served_by

EVENTS_KEPT: Final = 200
MAX_WORKFLOWS: Final = 200
MERGED_WITHIN: Final = 10
"""An event that is among so many newest ones already is counted there, not shown twice."""

_TOLD: Final = {
    "workflow planned": ("devices",),
    "workflow state": ("state", "note"),
    "workflow taken over": ("devices",),
    "workflow re-mapped": ("moves", "reason"),
    "first output after a loss": ("port",),
    "device enrolled": ("device",),
    "device answers quickly again": ("device",),
    "the plan stays": ("why", "reason"),
}
"""Lines of the Controller that are shown though nothing is wrong, and their facts; warnings always are."""

_STAGED: Final = "workflow re-mapped"
"""The only event whose times (``_ms``) are stages."""

_WARNED: Final = ("aiw", "device", "aim", "reason", "detail", "step")
"""Facts of warnings and errors that are shown; what may help has a line of its own."""


@dataclass(slots=True)
class _Plan:
    """What the plan of one workflow takes of devices and links."""

    usage: Mapping[str, Mapping[str, Any]]
    links: tuple[LinkLine, ...]


class SiteRecord:
    """Gathers the answers of a Controller."""

    def __init__(self, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self.last_line = 0
        """Number of the newest log line that was taken; ask for those after it."""
        self.restarts = 0
        self._started_us = self._time_us = 0
        self._heard_s: float | None = None
        self._answers = True
        self._devices: tuple[DeviceLine, ...] = ()
        self._runs: dict[str, RunRecord] = {}
        self._plans: dict[str, _Plan] = {}
        self._events: deque[SiteEvent] = deque(maxlen=EVENTS_KEPT)

    # --- what is heard -------------------------------------------------------------------------------

    def take(self, status: Mapping[str, Any], lines: Iterable[Mapping[str, Any]]) -> None:
        """Take up one answer and the log lines that came since the one before; never raises."""
        status = mapping(status)
        controller = mapping(status.get("controller"))
        self._begin(count(controller.get("started_us")), count(controller.get("time_us")))
        self._heard_s, self._answers = self._now_s(), True
        self._devices = tuple(_device(mapping(one)) for one in items(status.get("devices")))
        known: dict[str, RunRecord] = {}
        plans: dict[str, _Plan] = {}
        for entry in list(items(status.get("workflows")))[-MAX_WORKFLOWS:]:
            workflow = mapping(entry)
            if aiw := text(workflow.get("aiw")):
                known[aiw] = self._runs.get(aiw) or RunRecord(aiw, now_s=self._now_s)
                known[aiw].take({"type": "status", "status": status})
                if not known[aiw].ended:
                    plans[aiw] = _plan(workflow)
        self._runs, self._plans = known, plans
        for line in lines:
            self._take_line(mapping(line))

    def silent(self) -> None:
        """The Controller did not answer."""
        self._answers = False

    def forgets_lines(self, status: Mapping[str, Any]) -> bool:
        """Whether the answer is another Controller's, whose log lines are counted from the beginning."""
        started_us = count(mapping(mapping(status).get("controller")).get("started_us"))
        return bool(self._started_us) and started_us != self._started_us

    def _begin(self, started_us: int, time_us: int) -> None:
        if self._started_us and started_us != self._started_us:
            self.restarts += 1
            self._runs.clear()
            words = "another one goes on; what was counted before is gone"
            self._events.append(SiteEvent(started_us, "top", "warning", "Controller was started anew", words))
        self._started_us, self._time_us = started_us, time_us

    def _take_line(self, line: Mapping[str, Any]) -> None:
        self.last_line = count(line.get("number")) or self.last_line
        event = _event(line)
        if event is not None:
            self._note(event)

    def _note(self, event: SiteEvent) -> None:
        """Keep an event; what a device says again and again takes one place only."""
        newest = range(len(self._events) - 1, max(-1, len(self._events) - 1 - MERGED_WITHIN), -1)
        for at in newest:
            if (before := self._events[at]).same_as(event):
                del self._events[at]
                event = replace(event, times=before.times + 1)
                break
        self._events.append(event)

    # --- what is shown -------------------------------------------------------------------------------

    def view(self) -> SiteView:
        """Everything, as it is now."""
        now_s = self._now_s()
        silent_s = None if self._answers else now_s - (now_s if self._heard_s is None else self._heard_s)
        waited_us = 0 if self._heard_s is None else int((now_s - self._heard_s) * 1e6)
        return SiteView(
            time_us=self._time_us + waited_us,
            started_us=self._started_us,
            silent_s=silent_s,
            restarts=self.restarts,
            devices=tuple(self._filled(device) for device in self._devices),
            links=self._links(),
            workflows=tuple(self._workflow(run) for run in self._runs.values()),
            events=tuple(self._events),
        )

    def _filled(self, device: DeviceLine) -> DeviceLine:
        """A device with the figures of all workflows that it has a part in."""
        runs = [run for run in self._runs.values() if not run.ended]
        planned = [plan.usage[device.device] for plan in self._plans.values() if device.device in plan.usage]
        usages = [
            metrics.usage
            for run in runs
            if (metrics := run.metrics.get(device.device)) is not None and metrics.usage is not None
        ]
        used = usages[-1] if usages else None  # a device reports its budgets as a whole
        return replace(
            device,
            aims=sum(a.device == device.device for run in runs for a in run.assignments),
            planned_cpu=sum(number(one.get("cpu_share")) or 0.0 for one in planned),
            cpu_limit=max((number(one.get("cpu_limit")) or 0.0 for one in planned), default=0.0),
            busy=sum(run.busy(device.device) for run in runs),
            planned_ram_bytes=sum(count(one.get("ram_bytes")) for one in planned),
            ram_bytes=used.ram_bytes if used else 0,
            ram_limit_bytes=used.ram_limit_bytes
            if used
            else max((count(one.get("ram_limit_bytes")) for one in planned), default=0),
            flash_bytes=used.flash_bytes if used else 0,
            flash_limit_bytes=used.flash_limit_bytes if used else 0,
        )

    def _workflow(self, run: RunRecord) -> WorkflowLine:
        """A workflow; what an AIM said last is not told of it while its device is lost."""
        away = {device.device: LOST for device in self._devices if device.trust == LOST}
        return WorkflowLine(
            run.aiw, run.workflow, run.state, run.note,
            tuple(_aim(run, assignment.aim, away) for assignment in run.assignments),
            {} if run.ended else {name: run.rate_hz(name) for name in run.channels()},
        )  # fmt: skip

    def _links(self) -> tuple[LinkLine, ...]:
        links: dict[str, LinkLine] = {}
        for plan in self._plans.values():
            for link in plan.links:
                before = links.get(link.link)
                carried = link.planned_bps + (before.planned_bps if before else 0)
                most = max(link.limit_bps, before.limit_bps if before else 0)
                links[link.link] = replace(link, planned_bps=carried, limit_bps=most)
        return tuple(links[name] for name in sorted(links))


def _device(entry: Mapping[str, Any]) -> DeviceLine:
    sensed = mapping(entry.get("sensed"))
    link, battery = mapping(sensed.get("link")), mapping(sensed.get("battery"))
    return DeviceLine(
        text(entry.get("device")), text(entry.get("trust")), text(entry.get("reason")),
        number(entry.get("heard_s")), flag(entry.get("drained")),
        number(link.get("rtt_p95_ms")), flag(link.get("slow")),
        number(battery.get("level")), text(battery.get("state")),
    )  # fmt: skip


def _plan(workflow: Mapping[str, Any]) -> _Plan:
    usage = items(mapping(workflow.get("placement")).get("usage"))
    links = (mapping(one) for one in items(workflow.get("links")))
    return _Plan({text(mapping(one).get("device")): mapping(one) for one in usage}, tuple(map(_link, links)))


def _link(entry: Mapping[str, Any]) -> LinkLine:
    return LinkLine(
        text(entry.get("link")), tuple(text(member) for member in items(entry.get("members"))),
        count(entry.get("planned_bps")), count(entry.get("limit_bps")),
    )  # fmt: skip


def _aim(run: RunRecord, aim: str, away: Mapping[str, str]) -> AIMLine:
    assignment = next(a for a in run.assignments if a.aim == aim)
    here = run.metrics.get(assignment.device)
    figures = here.aims.get(aim) if here is not None else None
    spent = figures.process_us if figures is not None and figures.process_us.count else None
    said = run.states.get(assignment.device)
    state = said.aims.get(aim, "") if said is not None else ""
    causes = [seen.troubles for name, seen in (here.channels if here else {}).items() if _reads(name, aim)]
    return AIMLine(
        aim=in_words(aim),
        device=assignment.device,
        implementation=assignment.implementation,
        state=away.get(assignment.device) or ("standby" if served_by(aim) else state),
        rate_hz=0.0 if run.ended else run.aim_rate_hz(aim),
        p50_us=spent.quantile(0.5) if spent else None,
        p99_us=spent.quantile(0.99) if spent else None,
        waiting=figures.waiting if figures is not None else 0,
        sealed=sum(n for name, n in (here.sent if here else {}).items() if name.startswith(f"{aim}.")),
        lost=sum(troubles.get("lost", 0) for troubles in causes),
        rejected=sum(n for troubles in causes for cause, n in troubles.items() if _refusal(cause)),
    )


def _reads(channel: str, aim: str) -> bool:
    """Whether an AIM is among the consumers of ``source.port -> a.port, b.port``."""
    return any(end.strip().startswith(f"{aim}.") for end in channel.partition(" -> ")[2].split(","))


def _refusal(cause: str) -> bool:
    """Counters of what was sent but not accepted; losses are counted as messages, repeats do no harm."""
    return cause != "lost" and not cause.startswith(("loss.", "dup."))


def _event(line: Mapping[str, Any]) -> SiteEvent | None:
    origin, level, event = (text(line.get(name)) for name in ("origin", "level", "event"))
    facts = dict(entries(line.get("facts")))
    if level in ("warning", "error"):
        shown = _TOLD.get(event, _WARNED)
    elif origin == "controller" and event in _TOLD:
        shown = _TOLD[event]
    else:
        return None
    if event in _TOLD and "aiw" in facts:
        shown = ("aiw", *shown)
    told = (text(facts.get(name)) for name in shown)
    words = "; ".join(MEANS.get(word, word) for word in told if word)
    stages = {
        name[: -len("_ms")]: ms
        for name in facts
        if event == _STAGED and name.endswith("_ms") and (ms := number(facts[name])) is not None
    }
    hint = text(facts.get("hint")) if shown is _WARNED else ""
    return SiteEvent(count(line.get("time_us")), origin, level, event, words, stages, hint)
