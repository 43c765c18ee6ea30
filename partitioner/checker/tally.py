"""One judgement of a placement: totals per device and link, compared with what there is, and the objective.

Part of the independent checker: plain loops over the metadata and no code of the planner. Decides what is
broken and what the placement costs; ``checker`` says what to do about it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from math import ceil

from aif.model.aim import AIMMetadata, Implementation, SecurityNeed
from aif.model.aiw import LeafAIM, PathLimit, Workflow
from aif.model.inventory import Device, DeviceClass
from aif.model.ports import ChannelSpec, PortRef
from aif.protocol.numbers import ChannelLimits
from partitioner.checker.facts import Audit, Facts, Violation, Where
from partitioner.checker.recount import Way, Ways, invocation, rounded_up, storage_unit
from partitioner.checker.sealed import between_aims, kept_by, sealed_channels, shortest_bytes
from partitioner.policy import ModelFacts

WEIGHTED = ("latency", "energy", "traffic", "exposure", "migration")


class Tally:
    """One judgement: totals per device and link, then the comparison with what there is."""

    def __init__(self, facts: Facts, where: Where, *, partial: bool) -> None:
        self.facts, self.where, self.partial = facts, where, partial
        self.policy, self.devices = facts.policy, facts.devices
        self.found: list[Violation] = []
        self.terms = dict.fromkeys((*WEIGHTED, "balance", "devices", "affinity"), 0.0)
        self.ram = dict.fromkeys(self.devices, 0)
        self.flash = dict.fromkeys(self.devices, 0)
        self.cpu = dict.fromkeys(self.devices, 0)
        self.storage: dict[tuple[str, int], int] = {}
        self.parts: dict[tuple[str, str, str], int] = {}
        self.link_bps = dict.fromkeys(facts.links, 0)
        self.battery_uw = dict.fromkeys(self.devices, 0)
        self.channels: Counter[str] = Counter()
        self.times: dict[str, tuple[int, int]] = {}
        self.bound: set[str] = set()
        """Boundary Ports; no AIM runs for them."""
        self.ready: set[str] = set()
        """Devices with a standby."""
        self.tails: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)

    def run(self) -> Audit:
        known = dict.fromkeys(self.facts.places())
        if not self.partial:
            self.found += [Violation("placed", k, "is not placed") for k in known if k not in self.where]
        self.found += [Violation("placed", k, "is not part of it") for k in self.where if k not in known]
        for number, workflow in enumerate(self.facts.workflows):
            self._boundary(number, workflow)
            for leaf in workflow.aims:
                self._aim(number, leaf)
                if self.facts.has_standby(number, leaf):
                    self._standby(number, leaf)
        self._runtimes()
        for key, (_, tail) in self.times.items():
            self.tails[self.where[key][0]].append((key, tail))
        for number, workflow in enumerate(self.facts.workflows):
            for channel in workflow.channels:
                self._channel(number, workflow, channel)
            self._sealed(number, workflow)
            self._affinity(number, workflow)
            self._latencies(number, workflow)
        self._capacities()
        self._balance()
        self._devices()
        terms = {name: value for name, value in self.terms.items() if value}
        return Audit(tuple(self.found), sum(terms.values()), terms)

    def _bad(self, name: str, subject: str, text: str) -> None:
        self.found.append(Violation(name, subject, text))

    # --- one AIM ---

    def _boundary(self, number: int, workflow: Workflow) -> None:
        for bound in (*workflow.metadata.inputs, *workflow.metadata.outputs):
            key = self.facts.key(number, f"aiw.{bound.port.name}")
            if bound.bind is None or key not in self.where:
                continue
            device = self.devices.get(self.where[key][0])
            if device is None:
                self._bad("device", key, f"no device {self.where[key][0]!r}")
                continue
            self._use_part(key, device, bound.bind.kind, bound.bind.name)
            self.times[key] = (0, 0)
            self.bound.add(key)

    def _aim(self, number: int, leaf: LeafAIM) -> None:
        key = self.facts.key(number, leaf.id)
        found = self._place(key, leaf)
        if found is None:
            return
        device, code = found
        self._pinned(key, leaf, device)
        self._suits(key, leaf, code, device)
        self._memory(key, leaf.metadata, code, device)
        self.ram[device.id] += kept_by(self.facts.workflows[number], leaf.id)
        self._moved(number, key, code, device)
        cost = self._cost(number, key, leaf, code, device)
        if cost is None:
            return
        mean, tail, energy_uj = cost
        rate = self.facts.invocations[number][leaf.id]
        self.times[key] = (mean, tail)
        self.cpu[device.id] += rounded_up(rate * mean)
        self.battery_uw[device.id] += rounded_up(rate * energy_uj)
        if device.energy.source == "battery":
            weight = self.facts.workflows[number].metadata.objectives.energy
            self.terms["energy"] += weight * device.energy.price * rate * energy_uj / 1000.0

    def _standby(self, number: int, leaf: LeafAIM) -> None:
        """Takes memory, storage and parts like the AIM, but no time; it need not be on the pinned device."""
        key = self.facts.standby(number, leaf)
        found = self._place(key, leaf)
        if found is None:
            return
        device, code = found
        self.ready.add(device.id)
        if leaf.placement is not None:
            self._pinned(key, replace(leaf, placement=replace(leaf.placement, device=None)), device)
        self._suits(key, leaf, code, device)
        self._memory(key, leaf.metadata, code, device)
        self.ram[device.id] += kept_by(self.facts.workflows[number], leaf.id)
        self._moved(number, key, code, device)
        cost = self._cost(number, key, leaf, code, device)
        if cost is not None:
            busy = rounded_up(self.facts.invocations[number][leaf.id] * cost[0])
            if busy > int(1e6 * device.cpu_limit * device.cores + 1e-6):
                self._bad("cpu", key, f"{device.id} could not run it even alone")

    def _place(self, key: str, leaf: LeafAIM) -> tuple[Device, Implementation] | None:
        if key not in self.where:
            return None
        device = self.devices.get(self.where[key][0])
        code = leaf.metadata.implementation(self.where[key][1])
        if device is None or code is None:
            self._bad("device" if device is None else "implementation", key, f"{self.where[key]} is unknown")
            return None
        return device, code

    def _cost(
        self, number: int, key: str, leaf: LeafAIM, code: Implementation, device: Device
    ) -> tuple[int, int, float] | None:
        """Mean us, 99th-percentile us and uJ of one invocation; reports one that is too slow."""
        rate = self.facts.invocations[number][leaf.id]
        cost = invocation(code, device, self.devices.values())
        if cost is None:
            self._bad("latency", key, f"no figure for {device.id}")
            return None
        deadline_ms = leaf.metadata.deadline_ms
        if deadline_ms is not None and cost[1] > deadline_ms * 1000.0:
            self._bad("invocation deadline", key, f"takes {cost[1]} us of {deadline_ms * 1000.0:g}")
        for sensor in device.sensors:
            if sensor.kind in code.requires.sensors and sensor.rate_hz is not None and sensor.rate_hz < rate:
                self._bad("sensor rate", key, f"{sensor.kind} at {sensor.rate_hz:g} Hz, {rate:g} Hz needed")
        return cost

    def _moved(self, number: int, key: str, code: Implementation, device: Device) -> None:
        weights = self.facts.workflows[number].metadata.objectives
        before = self.facts.current.get(key, device.id)
        if before != device.id and weights.migration:
            facts = self._release(code)
            model_bytes = (code.model.bytes_ or 0) if code.model else 0
            moved_bytes = (model_bytes if facts is None else facts.bytes_) + code.state_bytes
            self.terms["migration"] += weights.migration * moved_bytes / 1e6

    def _release(self, code: Implementation) -> ModelFacts | None:
        return self.facts.releases.get(code.model.component) if code.model else None

    def _suits(self, key: str, leaf: LeafAIM, code: Implementation, device: Device) -> None:
        if leaf.implementation is not None and leaf.implementation != code.id:
            self._bad("pin", key, f"implementation {leaf.implementation} is asked for, {code.id} is planned")
        if code.runtime not in device.runtimes:
            self._bad("runtime", key, f"{device.id} has no {code.runtime.value}")
        for name, built_for, actual in (("arch", code.arch, device.arch), ("os", code.os, device.os)):
            if built_for and "any" not in built_for and actual not in ("any", *built_for):
                self._bad(name, key, f"{device.id} is {actual}, not one of {built_for}")
        for kind, names in (("sensor", code.requires.sensors), ("actuator", code.requires.actuators)):
            for name in names:
                self._use_part(key, device, kind, name)
        for radio in code.requires.radios:
            if radio not in device.radios:
                self._bad("radio", key, f"{device.id} has no {radio}")
        if code.security is not SecurityNeed.NONE and device.attestation not in self.policy.trusted_roots:
            self._bad("security", key, f"{device.id} has attestation {device.attestation}")

    def _pinned(self, key: str, leaf: LeafAIM, device: Device) -> None:
        hint = leaf.placement
        if hint is None:
            return
        pairs = (
            (hint.device, device.id),
            (hint.device_class, device.device_class.value),
            (hint.site, device.site),
            (hint.zone, device.zone),
        )
        for wanted, actual in pairs:
            if wanted and wanted != actual:
                self._bad("pin", key, f"pinned to {wanted}, is on {actual}")

    def _use_part(self, key: str, device: Device, kind: str, name: str) -> None:
        parts = device.sensors if kind == "sensor" else device.actuators
        place = (device.id, kind, name)
        self.parts[place] = self.parts.get(place, 0) + 1
        there = sum(part.count for part in parts if part.kind == name)
        if self.parts[place] > there:
            self._bad(kind, key, f"{device.id} has {there} {name}, {self.parts[place]} are used")

    def _memory(self, key: str, contract: AIMMetadata, code: Implementation, device: Device) -> None:
        facts = self._release(code)
        model_bytes = (code.model.bytes_ or 0) if code.model else 0
        ram = code.ram_bytes
        if facts is not None:
            model_bytes = facts.bytes_
            if facts.arena_bytes is not None:
                ram += facts.arena_bytes - code.arena_bytes
        for port in contract.inputs:
            ram += port.queue_depth * port.payload_bytes
        self.flash[device.id] += code.flash_bytes
        stored = model_bytes * self.policy.model_slots
        need = code.requires.storage
        if need is not None:
            stored = max(stored, need.bytes_)
        if stored:
            unit = storage_unit(device, stored, need.kind if need else None, flash_will_do=need is None)
            if unit is None:
                self._bad("storage", key, f"no unit of {device.id} has {stored} B")
            elif unit < 0:
                self.flash[device.id] += stored
            else:
                self.storage[device.id, unit] = self.storage.get((device.id, unit), 0) + stored
                mcu = device.device_class is DeviceClass.MCU
                if mcu and device.storage[unit].kind != "internal_flash":
                    ram += model_bytes
        self.ram[device.id] += ram

    def _runtimes(self) -> None:
        loaded = set()
        for number, workflow in enumerate(self.facts.workflows):
            for leaf in workflow.aims:
                for key in (self.facts.key(number, leaf.id), self.facts.standby(number, leaf)):
                    device, code_id = self.where.get(key, ("", ""))
                    code = leaf.metadata.implementation(code_id)
                    if code is not None and device in self.devices:
                        loaded.add((device, code.runtime))
        for device, runtime in loaded:
            cost = self.policy.runtime_costs.get(runtime)
            if cost is not None:
                self.ram[device] += cost.ram_bytes
                self.flash[device] += cost.flash_bytes

    # --- between AIMs ---

    def _end(self, number: int, ref: PortRef) -> tuple[str, str] | None:
        """Key and device of a Channel's end, None where nothing is placed."""
        key = self.facts.key(number, str(ref) if ref.aim == "aiw" else ref.aim)
        device = self.where.get(key, ("", ""))[0]
        return (key, device) if device in self.devices else None

    def _delay(self, number: int, channel: ChannelSpec) -> int:
        """Time of one record on the way, us; unreachable pairs are reported by ``_channel``."""
        ends = self._end(number, channel.source), self._end(number, channel.destination)
        if ends[0] is None or ends[1] is None or ends[0][1] == ends[1][1]:
            return 0
        frame = self._frame_bytes(number, channel)
        delay = self.policy.remote_handling_us
        for _, device in (ends[0], ends[1]):
            delay += rounded_up(1000.0 * self.devices[device].delay_ms)
        for link_id, _, _ in self.facts.route(ends[0][1], ends[1][1]) or ():
            link = self.facts.links[link_id]
            delay += rounded_up(
                1000.0 * (link.latency_ms + 8000.0 * frame / link.bandwidth_bps) / (1.0 - link.loss)
            )
        return delay

    def _frame_bytes(self, number: int, channel: ChannelSpec) -> int:
        workflow = self.facts.workflows[number]
        if channel.source.aim == "aiw":
            inputs = [b.port for b in workflow.metadata.inputs if b.port.name == channel.source.port]
            payload = inputs[0].payload_bytes
        else:
            payload = workflow.aim(channel.source.aim).metadata.output(channel.source.port).payload_bytes
        return payload + self.policy.frame_overhead_bytes

    def _channel(self, number: int, workflow: Workflow, channel: ChannelSpec) -> None:
        ends = self._end(number, channel.source), self._end(number, channel.destination)
        if ends[0] is None or ends[1] is None or ends[0][1] == ends[1][1]:
            return
        source, destination = ends[0][1], ends[1][1]
        route = self.facts.route(source, destination)
        if route is None:
            self._bad("reach", str(channel), f"no way from {source} to {destination}")
            return
        frame, rate = self._frame_bytes(number, channel), self.facts.rates[number][channel.source]
        for device in (source, destination):
            self.ram[device] += self.policy.channel_ram_bytes + frame
        weights = workflow.metadata.objectives
        on_link: dict[str, int] = {}
        for link_id, sender, receiver in route:
            loss = self.facts.links[link_id].loss
            on_link[link_id] = on_link.get(link_id, 0) + rounded_up(8.0 * rate * frame / (1.0 - loss))
            self.terms["traffic"] += weights.traffic * rate * frame / 1000.0
            radio = (
                (self.devices[sender].energy, self.devices[sender].energy.tx_uj_per_byte),
                (self.devices[receiver].energy, self.devices[receiver].energy.rx_uj_per_byte),
            )
            for energy, uj_per_byte in radio:
                if energy.source == "battery":
                    milliwatts = rate * frame * uj_per_byte / 1000.0
                    self.terms["energy"] += weights.energy * energy.price * milliwatts
        self._radio(route, rate * frame)
        for link_id, bps in on_link.items():
            self.link_bps[link_id] += bps
        if self.devices[source].zone != self.devices[destination].zone:
            self.terms["exposure"] += weights.exposure * rate

    def _sealed(self, number: int, workflow: Workflow) -> None:
        def device_of(ref: PortRef) -> str | None:
            end = self._end(number, ref)
            return None if end is None else end[1]

        self.channels.update(sealed_channels(workflow, device_of))
        for channel in between_aims(workflow):
            ends = device_of(channel.destination), device_of(channel.source)
            if None in ends or ends[0] == ends[1]:
                continue
            for device, least in zip(ends, shortest_bytes(workflow, channel), strict=True):
                most = self._held(self.devices[device or ""]).max_message_bytes
                if least > most:
                    self._bad("message", str(channel), f"{least:,} B at least, {device} takes {most:,} B")

    def _held(self, device: Device) -> ChannelLimits:
        small = device.device_class is DeviceClass.MCU
        return self.policy.mcu_channels if small else self.policy.host_channels

    def _radio(self, route: Way, bytes_per_s: float) -> None:
        """Power of every sender and receiver on the way, rounded up once per device."""
        power_uw: dict[str, float] = {}
        for _, sender, receiver in route:
            sent, heard = self.devices[sender].energy, self.devices[receiver].energy
            power_uw[sender] = power_uw.get(sender, 0.0) + bytes_per_s * sent.tx_uj_per_byte
            power_uw[receiver] = power_uw.get(receiver, 0.0) + bytes_per_s * heard.rx_uj_per_byte
        for device, microwatts in power_uw.items():
            self.battery_uw[device] += rounded_up(microwatts)

    def _affinity(self, number: int, workflow: Workflow) -> None:
        for leaf in workflow.aims:
            self._apart(leaf.id, self._on(number, leaf), self._standing(number, leaf))
            if leaf.placement is None:
                continue
            here = self._end(number, PortRef(leaf.id, ""))
            wishes = [("colocate", other) for other in leaf.placement.colocate_with]
            wishes += [("separate", other) for other in leaf.placement.separate_from]
            for name, other in wishes:
                named = [a for a in workflow.aims if a.id == other or a.id.startswith(other + ".")]
                for partner_leaf in named:
                    partner = partner_leaf.id
                    there = self._end(number, PortRef(partner, ""))
                    if leaf.placement.strength == "hard":
                        self._standbys_too(number, name, leaf, partner_leaf)
                    if here is None or there is None or (here[1] == there[1]) == (name == "colocate"):
                        continue
                    if leaf.placement.strength == "hard":
                        self._bad(name, f"{leaf.id} {partner}", f"on {here[1]} and {there[1]}")
                    else:
                        self.terms["affinity"] += self.policy.affinity_penalty

    def _standbys_too(self, number: int, name: str, leaf: LeafAIM, partner: LeafAIM) -> None:
        """What is asked of two AIMs in any case must still hold after one, or both, were taken over."""
        mine, theirs = self._standing(number, leaf), self._standing(number, partner)
        subject = f"{leaf.id} {partner.id}"
        if name == "separate":
            self._apart(subject, mine, self._on(number, partner))
            self._apart(subject, self._on(number, leaf), theirs)
        elif mine and theirs and mine != theirs:
            self._bad("colocate", subject, f"standbys on {mine} and {theirs}")

    def _apart(self, subject: str, here: str, there: str) -> None:
        if here and here == there:
            self._bad("separate", subject, f"would both be on {here} after a take-over")

    def _on(self, number: int, leaf: LeafAIM) -> str:
        """Device of an AIM; empty when it has none."""
        return self.where.get(self.facts.key(number, leaf.id), ("", ""))[0]

    def _standing(self, number: int, leaf: LeafAIM) -> str:
        """Device of the standby of an AIM; empty when it has none."""
        return self.where.get(self.facts.standby(number, leaf), ("", ""))[0]

    def _latencies(self, number: int, workflow: Workflow) -> None:
        weight = workflow.metadata.objectives.latency
        for limit in workflow.metadata.paths:
            latency = self._path_us(number, workflow, limit)
            self.terms["latency"] += weight * latency / 1e5
            if latency > int(limit.deadline_ms * 1000.0 + 1e-6):
                self._bad("deadline", limit.id, f"takes {latency} us of {limit.deadline_ms * 1000.0:g}")
        if not workflow.metadata.paths:
            self.terms["latency"] += weight * self._path_us(number, workflow, None) / 1e5

    def _path_us(self, number: int, workflow: Workflow, limit: PathLimit | None) -> int:
        tail = limit is not None and limit.percentile > 0.5

        def end(ref: PortRef) -> str | None:
            there = self._end(number, ref)
            return None if there is None else there[0]

        def ran(key: str) -> int:
            return self.times.get(key, (0, 0))[tail] + self._wait_us(key)

        ways = Ways(workflow.channels, limit, end, ran, lambda channel: self._delay(number, channel))
        return ways.longest(k for k in self.times if self._belongs(k, number))

    def _belongs(self, key: str, number: int) -> bool:
        return len(self.facts.workflows) == 1 or key.startswith(f"{self.facts.workflows[number].name}/")

    def _wait_us(self, key: str) -> int:
        """On one core, the longest other invocation of the same device may be running."""
        device = self.devices[self.where[key][0]]
        if device.cores != 1 or key.rpartition("/")[2].startswith("aiw."):
            return 0
        return max((tail for k, tail in self.tails[device.id] if k != key), default=0)

    # --- totals ---

    def _capacities(self) -> None:
        for device in self.devices.values():
            ram_bytes = max(0, device.ram_bytes - self.policy.reserve_ram_bytes)
            if self.ram[device.id] > ram_bytes:
                self._bad("ram", device.id, f"{self.ram[device.id]:,} B of {ram_bytes:,} B")
            budgeted = device.device_class is DeviceClass.MCU or device.flash_bytes > 0
            if budgeted and self.flash[device.id] > device.flash_bytes:
                self._bad("flash", device.id, f"{self.flash[device.id]:,} B of {device.flash_bytes:,} B")
            if self.cpu[device.id] > int(1e6 * device.cpu_limit * device.cores + 1e-6):
                share = self.cpu[device.id] / 1e6 / device.cores
                self._bad("cpu", device.id, f"{share:.3f} of {device.cpu_limit:g}")
            self._battery(device)
            held = self._held(device).max_channels
            if self.channels[device.id] > held:
                self._bad("channels", device.id, f"{self.channels[device.id]:,} of {held:,}")
        for (device_id, position), used in self.storage.items():
            unit = self.devices[device_id].storage[position]
            if used > unit.bytes_:
                self._bad("storage", f"{device_id} {unit.kind}", f"{used:,} B of {unit.bytes_:,} B")
        for link_id, bps in self.link_bps.items():
            limit = int(self.policy.link_share * self.facts.links[link_id].bandwidth_bps + 1e-6)
            if bps > limit:
                self._bad("link", link_id, f"{bps:,} bit/s of {limit:,} bit/s")

    def _battery(self, device: Device) -> None:
        life_h, charge_mwh = self.policy.battery_life_h, device.energy.battery_mwh
        if life_h and charge_mwh is not None and device.energy.source == "battery":
            allowed_uw = max(0, int(1000.0 * (charge_mwh / life_h - device.energy.idle_mw) + 1e-6))
            if self.battery_uw[device.id] > allowed_uw:
                text = f"{self.battery_uw[device.id]:,} uW of {allowed_uw:,} uW for {life_h:g} h"
                self._bad("battery", device.id, text)

    def _balance(self) -> None:
        weight = max((w.metadata.objectives.balance for w in self.facts.workflows), default=0.0)
        shares = [0.0]
        for device in self.devices.values():
            if device.ram_bytes:
                shares.append(self.ram[device.id] / device.ram_bytes)
            shares.append(self.cpu[device.id] / 1e6 / device.cores)
        self.terms["balance"] = weight * ceil(1e6 * max(shares) - 1e-6) / 1e6

    def _devices(self) -> None:
        weight = max((w.metadata.objectives.devices for w in self.facts.workflows), default=0.0)
        running = {self.where[key][0] for key in self.times if key not in self.bound}
        self.terms["devices"] = weight * len(running | self.ready)
