"""What one device offers to one AIM: candidates with their demands and prices, and why there are no others.

Decides from one AIM and one device alone; what AIMs share is counted in ``problem``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from aif.model.aim import Implementation
from aif.model.aiw import LeafAIM, Objectives
from aif.model.inventory import Device, Inventory
from partitioner.policy import MIGRATION_SCALE_BYTES, POWER_SCALE_MW, ModelFacts, PlanPolicy
from partitioner.problem.costs import (
    IN_FLASH,
    ModelHome,
    battery_limit_uw,
    flash_is_limited,
    invocation_cost,
    model_facts,
    model_home,
    whole,
)
from partitioner.problem.filters import Refusal, implementation_refusals, rate_refusal
from partitioner.problem.parts import Candidate, Demand, Limit, Offer


@dataclass(frozen=True, slots=True)
class Offering:
    """Makes the offers of one problem's devices."""

    inventory: Inventory
    policy: PlanPolicy
    releases: Mapping[str, ModelFacts]

    def offer(
        self, leaf: LeafAIM, device: Device, rate_hz: float, weights: Objectives, kept_bytes: int = 0
    ) -> Offer:
        """All of it; ``kept_bytes`` of records are kept until they are acknowledged."""
        candidates: list[Candidate] = []
        refusals: list[Refusal] = []
        costs: list[Refusal] = []
        for implementation in leaf.metadata.implementations:
            found = list(implementation_refusals(leaf, implementation, device, self.policy))
            refusals += found
            if not found:
                made = self._candidate(leaf, implementation, device, rate_hz, weights, kept_bytes)
                if isinstance(made, Candidate):
                    candidates.append(made)
                else:
                    costs.append(made)
        return Offer(tuple(candidates), tuple(refusals), tuple(costs))

    def _candidate(
        self,
        leaf: LeafAIM,
        code: Implementation,
        device: Device,
        rate_hz: float,
        weights: Objectives,
        kept_bytes: int,
    ) -> Candidate | Refusal:
        facts = model_facts(code, self.releases)
        home = model_home(code, facts.bytes_, device, self.policy)
        if isinstance(home, str):
            return Refusal(device.id, code.id, "storage", home)
        cost = invocation_cost(code, device, self.inventory)
        if cost is None:
            text = "has no known latency: nothing measured on its board, no speed that fits the figures"
            return Refusal(device.id, code.id, "latency", text)
        deadline_ms = leaf.metadata.deadline_ms
        if deadline_ms is not None and cost.tail_us > deadline_ms * 1000.0:
            text = f"takes {cost.tail_us:,} us per invocation, its deadline is {deadline_ms * 1000.0:,.0f} us"
            return Refusal(device.id, code.id, "invocation deadline", text)
        slow = rate_refusal(code, device, rate_hz)
        if slow is not None:
            return slow
        queues = sum(port.queue_depth * port.payload_bytes for port in leaf.metadata.inputs)
        arena = code.arena_bytes if facts.arena_bytes is None else facts.arena_bytes
        ram_bytes = code.ram_bytes - code.arena_bytes + arena + queues + kept_bytes
        cpu_us_per_s = whole(rate_hz * cost.latency_us)
        power_mw = rate_hz * cost.energy_uj / 1000.0
        on_battery = device.energy.price * power_mw if device.energy.source == "battery" else 0.0
        demand = self._demand(code, device, home, ram_bytes=ram_bytes, cpu_us_per_s=cpu_us_per_s)
        if battery_limit_uw(device, self.policy.battery_life_h) is not None:
            demand = (*demand, (Limit("battery", device.id), whole(1000.0 * power_mw)))
        terms = [("energy", weights.energy * on_battery / POWER_SCALE_MW)]
        if weights.migration:
            moved_bytes = facts.bytes_ + code.state_bytes
            terms.append(("migration", weights.migration * moved_bytes / MIGRATION_SCALE_BYTES))
        return Candidate(
            device=device.id,
            implementation=code.id,
            runtime=code.runtime,
            demand=demand,
            latency_us=cost.latency_us,
            tail_us=cost.tail_us,
            energy_uj=cost.energy_uj,
            power_mw=power_mw,
            rule=cost.rule,
            terms=tuple(terms),
            storage=_resting_place(device, home.unit),
        )

    @staticmethod
    def _demand(
        code: Implementation, device: Device, home: ModelHome, *, ram_bytes: int, cpu_us_per_s: int
    ) -> Demand:
        """What the AIM draws on its device's RAM, processor, flash, storage unit, sensors and actuators."""
        demand = [
            (Limit("ram", device.id), ram_bytes + home.staging_bytes),
            (Limit("cpu", device.id), cpu_us_per_s),
        ]
        if flash_is_limited(device):
            in_flash = home.bytes_ if home.unit == IN_FLASH else 0
            demand.append((Limit("flash", device.id), code.flash_bytes + in_flash))
        if home.unit is not None and home.unit != IN_FLASH:
            demand.append((storage_limit(device, home.unit), home.bytes_))
        demand += [(Limit("sensor", f"{device.id} {kind}"), 1) for kind in code.requires.sensors]
        demand += [(Limit("actuator", f"{device.id} {kind}"), 1) for kind in code.requires.actuators]
        return tuple(demand)


def idle(offer: Offer, device: Device) -> Offer:
    """What the same device offers to the standby of the AIM: its memory, storage and parts, but no work.

    A processor that could not run the AIM even alone does not do for its standby either.
    """
    busy = Limit("cpu", device.id)
    most = cpu_limit_us(device)
    kept: list[Candidate] = []
    costs = list(offer.costs)
    for candidate in offer.candidates:
        needed = dict(candidate.demand)[busy]
        if needed > most:
            shares = (100.0 * us / 1e6 / device.cores for us in (needed, most))
            text = "would need {:.3g} % of its processor to take over, {:.3g} % may be used".format(*shares)
            costs.append(Refusal(device.id, candidate.implementation, "cpu", text))
            continue
        demand = tuple((limit, n) for limit, n in candidate.demand if limit.kind not in ("cpu", "battery"))
        terms = tuple(term for term in candidate.terms if term[0] == "migration")
        kept.append(
            replace(
                candidate, demand=demand, terms=terms, latency_us=0, tail_us=0, energy_uj=0.0, power_mw=0.0,
                rule="",
            )
        )  # fmt: skip
    return Offer(tuple(kept), offer.refusals, tuple(costs))


def cpu_limit_us(device: Device) -> int:
    """Processor time (us per s, all cores) that AIMs may take of a device."""
    return int(device.cpu_limit * device.cores * 1e6 + 1e-6)


def storage_limit(device: Device, position: int) -> Limit:
    return Limit("storage", f"{device.id} {device.storage[position].kind}#{position}")


def _resting_place(device: Device, unit: int | None) -> str:
    """Name of the place of a model, as in ``Assignment.storage``."""
    if unit is None:
        return ""
    return "flash" if unit == IN_FLASH else f"{device.storage[unit].kind}#{unit}"
