"""What is known of one run: the events of a User Agent's stream, gathered into figures.

Decides how events become counts, and what of an event is believed. Does not decide anything about the run,
ask for events, or draw.

Invariants: an event of any shape is taken; what it does not hold in the expected form is left out. Texts come
from devices and reach a terminal, so they are printable and short here. Memory does not grow with the length
of the run.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from aif.gateway.device_metrics import (
    AIMFigures,
    ChannelFigures,
    DeviceMetrics,
    MessageCounts,
    merged,
    read_metrics,
)
from aif.gateway.event_fields import count, entries, flag, items, mapping, number, text
from aif.gateway.rates import Rates
from aif.model.placement import Assignment
from aif.protocol.lifecycle import FINAL_WORKFLOW_STATES
from aif.runtime.metrics import Histogram

LATEST_KEPT: Final = 16
"""Predictions kept for the screen."""
APPRAISED: Final = ("trusted", "rejected")
"""Trust states that are a verdict; a device that leaves afterwards does not lose its verdict."""


@dataclass(frozen=True, slots=True)
class RunDevice:
    """A device process of this run, as its starter knows it."""

    id: str
    device_class: str
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """One scored window. ``unseen``: no model was trained on its kind of motion."""

    predicted: str
    truth: str
    anomaly: bool
    unseen: bool
    confidence: float | None


@dataclass(slots=True)
class Score:
    """Counts of scored windows; shares are 0..1, None while there is nothing to divide by."""

    known: int = 0
    correct: int = 0
    false_alarms: int = 0
    unseen: int = 0
    detected: int = 0

    def take(self, window: Prediction) -> None:
        if window.unseen:
            self.unseen += 1
            self.detected += window.anomaly
        else:
            self.known += 1
            self.correct += window.predicted == window.truth
            self.false_alarms += window.anomaly

    @property
    def accuracy(self) -> float | None:
        return _share(self.correct, self.known)

    @property
    def detection(self) -> float | None:
        return _share(self.detected, self.unseen)

    @property
    def false_alarm(self) -> float | None:
        return _share(self.false_alarms, self.known)


@dataclass(frozen=True, slots=True)
class Model:
    """A model release that was deployed to a device."""

    name: str
    version: str
    sha256: str
    device: str
    bytes_: int
    arena_bytes: int


@dataclass(slots=True)
class DeviceState:
    """How far one device is. ``verdict`` is its last appraisal, ``trust`` where it stands now."""

    trust: str = ""
    verdict: str = ""
    reason: str = ""
    phase: str = ""
    aims: Mapping[str, str] = field(default_factory=dict)
    progress: tuple[str, int, int] = ("", 0, 0)
    """Long step, done, total."""


class RunRecord:
    """Gathers the events of one workflow."""

    def __init__(
        self,
        aiw: str,
        *,
        devices: Sequence[RunDevice] = (),
        windows_total: int | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin to gather; the run's seconds count from here.

        Args:
            aiw: id under which the Controller deployed the workflow; events of others are left out.
            devices: the processes that were started for it.
            windows_total: windows that will be replayed, None when it goes on until stopped.
            now_s: monotonic seconds.
        """
        self.aiw, self.devices, self.windows_total = aiw, tuple(devices), windows_total
        self.workflow, self.state, self.note = aiw, "planned", ""
        self.assignments: tuple[Assignment, ...] = ()
        self.objective: float | None = None
        self.proven_gap: float | None = None
        self.models: tuple[Model, ...] = ()
        self.states: dict[str, DeviceState] = {device.id: DeviceState() for device in self.devices}
        self.metrics: dict[str, DeviceMetrics] = {}
        self.score = Score()
        self.latest: deque[Prediction] = deque(maxlen=LATEST_KEPT)
        self.end_to_end_us = Histogram()
        self.last_warning = ""
        self._outputs: dict[str, int] = {}
        self._rates = Rates()
        self._now_s = now_s
        self._started_s = now_s()
        self._ended_s: float | None = None

    # --- what is known -------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """From the beginning to the end, or to now."""
        return (self._now_s() if self._ended_s is None else self._ended_s) - self._started_s

    @property
    def ended(self) -> bool:
        return self._ended_s is not None

    @property
    def windows(self) -> int:
        """Records at the workflow's busiest output: one for every window that went through."""
        return max(self._outputs.values(), default=0)

    def device_ids(self) -> list[str]:
        """Devices of this run: those started for it first, then any other that got an AIM."""
        known = [device.id for device in self.devices]
        return [*known, *sorted({a.device for a in self.assignments} - set(known))]

    def messages(self) -> MessageCounts:
        counts = [m.messages for m in self.metrics.values()]
        return MessageCounts(
            sum(c.sealed for c in counts), sum(c.verified for c in counts),
            sum(c.rejected for c in counts), sum(c.lost for c in counts),
        )  # fmt: skip

    def channels(self) -> dict[str, ChannelFigures]:
        """By name. A record for several devices counts once; its latencies count at each of them."""
        whole: dict[str, ChannelFigures] = {}
        for metrics in self.metrics.values():
            for name, seen in metrics.channels.items():
                before = whole.get(name, ChannelFigures(0, Histogram()))
                latency = merged([before.latency_us, seen.latency_us])
                troubles = Counter(before.troubles) + Counter(seen.troubles)
                whole[name] = ChannelFigures(max(before.records, seen.records), latency, troubles)
        return dict(sorted(whole.items()))

    def acknowledged(self) -> dict[str, Counter[str]]:
        """Figures of acknowledged channels by name, of both ends and of every device that had one."""
        whole: dict[str, Counter[str]] = {}
        for metrics in self.metrics.values():
            for name, seen in metrics.acknowledged.items():
                whole.setdefault(name, Counter()).update(seen)
        return dict(sorted(whole.items()))

    def aims(self) -> dict[str, AIMFigures]:
        """By instance id; an AIM that ran on several devices in turn counts as one."""
        whole: dict[str, AIMFigures] = {}
        for metrics in self.metrics.values():
            for name, seen in metrics.aims.items():
                before = whole.get(name, AIMFigures(0, Histogram()))
                spent = merged([before.process_us, seen.process_us])
                whole[name] = AIMFigures(before.invocations + seen.invocations, spent)
        return dict(sorted(whole.items()))

    def rate_hz(self, channel: str) -> float:
        """Records per second over the last two seconds."""
        return self._rates.per_s(f"channel {channel}", self._now_s())

    def aim_rate_hz(self, aim: str) -> float:
        """Invocations per second over the last two seconds."""
        return self._rates.per_s(f"aim {aim}", self._now_s())

    def busy(self, device: str) -> float:
        """Share of one processor core that the AIMs of a device took over the last two seconds."""
        return self._rates.per_s(f"device {device}", self._now_s()) / 1e6

    # --- events --------------------------------------------------------------------------------------

    def take(self, event: Mapping[str, Any]) -> None:
        """Take up one event of the stream, or one ``{"type": "status", "status": …}``; never raises."""
        event = mapping(event)
        kind = event.get("type")
        if kind == "status":
            self._take_status(mapping(event.get("status")))
        elif kind == "trust":
            self._take_trust(event)
        elif kind == "log":
            if event.get("level") in ("warning", "error"):
                self.last_warning = f"{text(event.get('origin'))}: {text(event.get('event'))}".strip(": ")
        elif event.get("aiw") == self.aiw:
            self._take_own(kind, event)

    def _take_own(self, kind: object, event: Mapping[str, Any]) -> None:
        device = text(event.get("device"))
        if kind == "workflow":
            self._move(event)
        elif kind == "device":
            self._take_part(device, event)
        elif kind == "progress":
            step = text(event.get("step")), count(event.get("done")), count(event.get("total"))
            self._state_of(device).progress = step
        elif kind == "metrics":
            self._take_metrics({device: event.get("values")})
        elif kind == "output":
            self._take_output(event)

    def _take_status(self, status: Mapping[str, Any]) -> None:
        for device in items(status.get("devices")):
            self._take_trust(mapping(device))
        for entry in items(status.get("workflows")):
            workflow = mapping(entry)
            if workflow.get("aiw") == self.aiw:
                self._take_workflow(workflow)

    def _take_workflow(self, workflow: Mapping[str, Any]) -> None:
        self.workflow = text(workflow.get("workflow")) or self.workflow
        placement = mapping(workflow.get("placement"))
        self.assignments = tuple(_assignments(placement.get("assignments"))) or self.assignments
        self.objective, self.proven_gap = (
            number(placement.get("objective")),
            number(placement.get("proven_gap")),
        )
        self.models = tuple(_models(workflow.get("models"))) or self.models
        for device, part in entries(workflow.get("devices")):
            self._take_part(device, mapping(part))
        self._take_metrics(mapping(workflow.get("metrics")))
        self._move(workflow)

    def _move(self, event: Mapping[str, Any]) -> None:
        if state := text(event.get("state")):
            self.state, self.note = state, text(event.get("note"))
            if self._ended_s is None and state in FINAL_WORKFLOW_STATES:
                self._ended_s = self._now_s()

    def _state_of(self, device: str) -> DeviceState:
        return self.states.setdefault(device, DeviceState())

    def _take_trust(self, event: Mapping[str, Any]) -> None:
        device, trust = text(event.get("device")), text(event.get("trust"))
        if device in self.device_ids() and trust:
            state = self._state_of(device)
            state.trust = trust
            if trust in APPRAISED:
                state.verdict, state.reason = trust, text(event.get("reason"))

    def _take_part(self, device: str, event: Mapping[str, Any]) -> None:
        if device and (phase := text(event.get("phase"))):
            state = self._state_of(device)
            state.phase = phase
            state.aims = {aim: text(value) for aim, value in entries(event.get("aims"))}

    def _take_metrics(self, values: Mapping[str, Any]) -> None:
        for device, figures in entries(values):
            if device and isinstance(figures, Mapping):
                self.metrics[device] = read_metrics(figures)
        self._rates.note(self._now_s(), self._counters())

    def _counters(self) -> dict[str, float]:
        """What rates are made of, from devices that have a part in the workflow now."""
        present = {a.device for a in self.assignments}
        counters: dict[str, float] = {}
        for device, metrics in self.metrics.items():
            if present and device not in present:
                continue
            for name, seen in metrics.channels.items():
                counters[f"channel {name}"] = max(counters.get(f"channel {name}", 0), seen.records)
            for name, spent in metrics.aims.items():
                counters[f"aim {name}"] = counters.get(f"aim {name}", 0) + spent.invocations
            counters[f"device {device}"] = sum(one.process_us.total for one in metrics.aims.values())
        return counters

    def _take_output(self, event: Mapping[str, Any]) -> None:
        port = text(event.get("port"))
        if port not in self._outputs and len(self._outputs) >= 1_000:
            return
        self._outputs[port] = self._outputs.get(port, 0) + 1
        if delay_us := count(event.get("delay_us")):
            self.end_to_end_us.add(delay_us)
        if window := _prediction(mapping(event.get("value"))):
            self.score.take(window)
            self.latest.append(window)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _prediction(value: Mapping[str, Any]) -> Prediction | None:
    """A record with the members of a scored window (see the event sink's ``result`` port), else None."""
    words, flags = [value.get("predicted"), value.get("truth")], [value.get("anomaly"), value.get("unseen")]
    if not (all(isinstance(w, str) for w in words) and all(isinstance(f, bool) for f in flags)):
        return None
    return Prediction(
        text(words[0]), text(words[1]), flag(flags[0]), flag(flags[1]), number(value.get("confidence"))
    )


def _assignments(value: object) -> Iterable[Assignment]:
    for entry in items(value):
        one = mapping(entry)
        if aim := text(one.get("aim")):
            rejected = {device: text(why) for device, why in entries(one.get("rejected"))}
            yield Assignment(
                aim, text(one.get("device")), text(one.get("implementation")), text(one.get("reason")),
                rejected=rejected,
            )  # fmt: skip


def _models(value: object) -> Iterable[Model]:
    for entry in items(value):
        one = mapping(entry)
        if name := text(one.get("name")):
            version = one.get("version")
            yield Model(
                name, text(version) or str(count(version)), text(one.get("sha256")), text(one.get("device")),
                count(one.get("bytes")), count(one.get("arena_bytes")),
            )  # fmt: skip
