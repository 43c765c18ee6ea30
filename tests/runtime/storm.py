"""Trouble in any order for a site with a numbered workflow: devices die, leave, are cut off, frames get lost.

What happens and to whom follows from a seed. After each trouble the source must hear of messages that are
done with, or the storm has broken something.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random

from aif.protocol.lifecycle import WorkflowState
from aif.runtime.mapping.workflows import RunningWorkflow
from aif.transport.faults import Delivery, Fault, drop
from tests.runtime.numbered import figures
from tests.runtime.site import BenchSite

SOURCE = "count.number -> double.number"
STEP = 40
"""Messages that come through between one trouble and the next."""


def acknowledged(site: BenchSite, running: RunningWorkflow) -> int:
    """Messages that the source was told are done with."""
    return figures(site, running).get(SOURCE, {}).get("acknowledged", 0)


class Storm:
    """What befalls one site.

    Args:
        site: with a device for every AIM that is lost.
        running: the numbered workflow; its source stays where it is.
        seed: of everything.
        faults: where rules for deliveries go.
        cut: breaks the connection of a device, which it may make anew at once.
    """

    def __init__(
        self, site: BenchSite, running: RunningWorkflow, seed: int, *, faults: list[Fault],
        cut: Callable[[str], object],
    ) -> None:  # fmt: skip
        self.site, self.running = site, running
        self._rng, self._faults, self._cut = Random(seed), faults, cut

    async def rage(self, troubles: Sequence[str]) -> None:
        """One trouble after the other; ``running`` is the workflow of the last Controller then."""
        for trouble in troubles:
            await self._progress()
            match trouble:
                case "kill":
                    await self._kill()
                case "drain":
                    await self._drain()
                case "cut":
                    self._cut(self._rng.choice(list(self.site.hosts)))
                case "loss":
                    rule = _on_data(drop(0.15, Random(self._rng.random())))
                    self._faults.append(rule)
                    await self._progress()
                    self._faults.remove(rule)
                case "controller":
                    await self._restart_controller()
                case _:
                    raise ValueError(trouble)
        await self._progress()

    async def end(self, file: Path) -> None:
        """Tell the source to stop, and see that every number is in the tally's state, and none twice.

        The source's last message is done with when its AIM ends, so it was told of all it wrote; the last
        output of the tally says what that has seen.
        """
        following = asyncio.create_task(self.site.run_to_end(self.running))
        await self._progress()
        await asyncio.to_thread(file.touch)
        events = await following
        assert self.running.state is WorkflowState.COMPLETED, self.running.note
        told = self.running.metrics["left"]["acknowledged"][SOURCE]["acknowledged"]
        tally = [event["value"] for event in events if event["port"] == "tally"][-1]
        assert (tally["number"], tally["seen"], tally["again"]) == (told, told, 0)

    async def _progress(self) -> None:
        wanted = acknowledged(self.site, self.running) + STEP
        await self.site.until_true(lambda: acknowledged(self.site, self.running) >= wanted)

    def _victim(self) -> str:
        """A device with an AIM that can go elsewhere."""
        places = {self.running.placement.device_of(aim) for aim in ("double", "note")} - {"left"}
        return self._rng.choice(sorted(places))

    def _moved(self) -> int:
        return len(self.site.log.lines("workflow re-mapped"))

    async def _kill(self) -> None:
        victim, before = self._victim(), self._moved()
        await self.site.kill(victim)
        await self.site.until_true(lambda: self._moved() > before)
        await self._progress()
        await self.site.start_device(victim)
        await self.site.until_trusted(victim)

    async def _drain(self) -> None:
        victim, before = self._victim(), self._moved()
        await self.site.controller.draining.drain(victim)
        await self.site.until_true(lambda: self._moved() > before)
        self.site.registry.set_drained(victim, drained=False)

    async def _restart_controller(self) -> None:
        await self.site.kill_controller()
        await self._progress()
        await self.site.start_controller()
        self.running = self.site.controller.workflow(self.running.aiw_id)
        await self.site.until(self.running, WorkflowState.RUNNING)


def _on_data(rule: Fault) -> Fault:
    def chosen(delivery: Delivery) -> Iterable[Delivery]:
        return rule(delivery) if delivery.message.topic.startswith("aif/ch/") else (delivery,)

    return chosen
