"""Messages of acknowledged channels reach their consumers once, whatever becomes of the devices."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest

from aif.protocol.lifecycle import State, WorkflowState
from aif.runtime.mapping.workflows import RunningWorkflow
from aif.transport.base import Received
from aif.transport.faults import Delivery
from aif.transport.memory import MemoryTransport
from tests.runtime.mapping.test_remapping import all_up, other, place_of, three
from tests.runtime.numbered import NUMBERED_AIMS, figures, numbered, numbered_until
from tests.runtime.site import BenchSite
from tests.runtime.storm import Storm, acknowledged


async def run_to_end(site: BenchSite, running: RunningWorkflow, last: int) -> None:
    """Until the workflow has completed, and the tally has said that nothing is missing or twice there."""
    events = await site.run_to_end(running)
    assert running.state is WorkflowState.COMPLETED, running.note
    tally = [event["value"] for event in events if event["port"] == "tally"][-1]
    assert (tally["number"], tally["seen"], tally["again"]) == (last, last, 0)


AWAY = "{separate_from: [count], strength: hard}"
LEFT = "{device: left}"


def test_messages_are_acknowledged_when_nothing_happens(tmp_path: Path) -> None:
    async def journey() -> None:
        async with three(tmp_path, speed=3.0, aims=NUMBERED_AIMS) as site:
            await all_up(site)
            running = await site.deploy(numbered(last=300, double="{device: right}", note=LEFT))
            await run_to_end(site, running, 300)
            await site.controller.stop(running.aiw_id)
            site.check_nothing_is_left()

    asyncio.run(journey())


def test_within_one_host_messages_are_acknowledged_too(tmp_path: Path) -> None:
    async def journey() -> None:
        async with three(tmp_path, speed=3.0, aims=NUMBERED_AIMS) as site:
            await all_up(site)
            running = await site.deploy(numbered(last=200, double=LEFT, note=LEFT))
            await run_to_end(site, running, 200)

    asyncio.run(journey())


@pytest.mark.parametrize(
    ("double", "note", "lost"),
    [
        pytest.param(AWAY, LEFT, ["double"], id="work"),
        pytest.param(LEFT, AWAY, ["note"], id="tally with state"),
        pytest.param(
            AWAY, "{colocate_with: [double], strength: hard}", ["double", "note"], id="both at once"
        ),
    ],
)
def test_messages_to_aims_of_a_lost_device_are_sent_to_the_next_one(
    tmp_path: Path, double: str, note: str, lost: list[str]
) -> None:
    async def journey() -> None:
        async with three(tmp_path, speed=3.0, aims=NUMBERED_AIMS) as site:
            await all_up(site)
            running = await site.deploy(numbered(last=900, double=double, note=note))
            await site.outputs(running, 60)
            victim = place_of(running, lost[0])
            await site.kill(victim)
            await site.until_logged("workflow re-mapped")
            assert {place_of(running, aim) for aim in lost} == {other(victim)}
            assert sum(seen.get("moved", 0) for seen in figures(site, running).values()) > 0
            await run_to_end(site, running, 900)

    asyncio.run(journey())


def test_a_drained_tally_goes_on_with_its_state(tmp_path: Path) -> None:
    async def journey() -> None:
        async with three(tmp_path, speed=3.0, aims=NUMBERED_AIMS) as site:
            await all_up(site)
            running = await site.deploy(numbered(last=900, double=LEFT, note=AWAY))
            await site.outputs(running, 60)
            await site.controller.draining.drain(place_of(running, "note"))
            await site.until_logged("workflow re-mapped")
            await run_to_end(site, running, 900)

    asyncio.run(journey())


def test_nothing_of_it_needs_the_controller(tmp_path: Path) -> None:
    """It is killed, a connection breaks meanwhile, and the next one moves what is left to be done."""

    async def journey() -> None:
        async with three(tmp_path, speed=3.0, aims=NUMBERED_AIMS) as site:
            await all_up(site)
            running = await site.deploy(numbered(last=3000, double=AWAY, note=LEFT))
            await site.outputs(running, 20)
            await site.kill_controller()
            before = acknowledged(site, running)
            site.broker.sever(place_of(running, "double"))
            site.broker.heal(place_of(running, "double"))
            await site.until_true(lambda: acknowledged(site, running) > before + 200)
            await site.start_controller()
            again = site.controller.workflow(running.aiw_id)
            await site.until(again, WorkflowState.RUNNING)
            await site.kill(place_of(again, "double"))
            await site.until_logged("workflow re-mapped")
            await run_to_end(site, again, 3000)

    asyncio.run(journey())


WINDOW = """
class Doubler(AIM):
    def process(self, number):
        return {"pair": {"number": number[-1] // 3, "twice": sum(number)}}
"""
SPLIT = """
class Doubler(AIM):
    def process(self, number):
        for made in (2 * number - 1, 2 * number):
            yield {"pair": {"number": made, "twice": 0}}
"""


@pytest.mark.parametrize(
    ("settings", "module", "last"),
    [
        pytest.param(("queue_depth: 64", "queue_depth: 64, consumes: 3"), WINDOW, 300, id="window"),
        pytest.param(('twice}"', 'twice}", emits: 2'), SPLIT, 1800, id="several"),
    ],
)
def test_turns_of_many_messages_and_of_many_records_go_on_elsewhere(
    tmp_path: Path, settings: tuple[str, str], module: str, last: int
) -> None:
    contract = NUMBERED_AIMS["doubler"][0].replace(*settings)
    aims = {**NUMBERED_AIMS, "doubler": (contract, "from aif.sdk import AIM\n" + module)}

    async def journey() -> None:
        async with three(tmp_path, speed=3.0, aims=aims) as site:
            await all_up(site)
            running = await site.deploy(numbered(last=900, double=AWAY, note=LEFT))
            await site.outputs(running, 40)
            await site.kill(place_of(running, "double"))
            await site.until_logged("workflow re-mapped")
            await run_to_end(site, running, last)

    asyncio.run(journey())


def stumbling(name: str, at: Sequence[int], *, restart_limit: int) -> Mapping[str, tuple[str, str]]:
    """The AIMs, of which one fails before it has done with some numbers, each the first time."""
    contract, module = NUMBERED_AIMS[name]
    number = "number if isinstance(number, int) else number.number"
    argument = "number" if name == "doubler" else "pair"
    module = textwrap.dedent(module).replace("def process", "def work") + textwrap.indent(
        textwrap.dedent(f"""
        def process(self, {argument}):
            number = {argument}
            made = self.work({argument})
            if ({number}) in STUMBLES:
                STUMBLES.remove({number})
                raise ValueError("stumbled")
            return made
        """),
        "    ",
    )
    limited = textwrap.dedent(contract).replace(
        "implementations:", f"restart_limit: {restart_limit}\nimplementations:"
    )
    return {**NUMBERED_AIMS, name: (limited, f"STUMBLES = {list(at)}\n" + module)}


@pytest.mark.parametrize("name", ["doubler", "tally"])
def test_an_aim_that_fails_in_a_turn_and_begins_anew_takes_it_again(tmp_path: Path, name: str) -> None:
    async def journey() -> None:
        aims = stumbling(name, [1, 40, 41, 150], restart_limit=4)
        async with three(tmp_path, speed=3.0, aims=aims) as site:
            await all_up(site)
            running = await site.deploy(numbered(last=300, double="{device: right}", note=LEFT))
            await run_to_end(site, running, 300)
            part = "right" if name == "doubler" else "left"
            aim = "double" if name == "doubler" else "note"
            assert running.metrics[part]["aims"][aim]["restarts"] == 4

    asyncio.run(journey())


def test_messages_to_an_aim_that_failed_for_good_are_abandoned_and_nobody_waits(tmp_path: Path) -> None:
    async def journey() -> None:
        aims = stumbling("tally", [100], restart_limit=0)
        async with three(tmp_path, speed=3.0, aims=aims) as site:
            await all_up(site)
            running = await site.deploy(numbered(last=300, double="{device: right}", note=LEFT))
            await site.run_to_end(running)
            seen = running.metrics["right"]["acknowledged"]["double.pair -> note.pair"]
            assert seen["acknowledged"] < 100
            assert seen["acknowledged"] + seen["abandoned"] == seen["written"]

    asyncio.run(journey())


def test_nobody_waits_for_the_last_word_of_an_aim_that_ended_and_was_lost(tmp_path: Path) -> None:
    def unheard(delivery: Delivery) -> Iterable[Delivery]:
        return () if delivery.message.topic.endswith("note.pair-ack") else (delivery,)

    async def journey() -> None:
        async with three(tmp_path, speed=3.0, aims=NUMBERED_AIMS) as site:
            await all_up(site)
            site.broker.faults.append(unheard)
            running = await site.deploy(numbered(last=20, double=LEFT, note="{device: right}"))
            await site.until_true(
                lambda: (
                    (status := running.status.get("right")) is not None
                    and (report := status.aims.get("note")) is not None
                    and report.state is State.STOPPED
                )
            )
            assert running.state is WorkflowState.RUNNING
            await site.kill("right")
            await site.until(running, WorkflowState.COMPLETED)
            seen = running.metrics["left"]["acknowledged"]["count.number -> double.number"]
            assert seen["acknowledged"] == seen["written"] == 20
            assert (
                "right is lost with the last word to double"
                in site.log.lines("workflow re-mapped")[0]["reason"]
            )
            await site.until_true(lambda: not site.hosts["left"]._parts)

    asyncio.run(journey())


def test_a_source_that_is_drained_hears_of_what_it_has_sent(tmp_path: Path) -> None:
    """The next one begins anew, with numbers that nobody takes for old ones."""

    async def journey() -> None:
        async with three(tmp_path, speed=3.0, aims=NUMBERED_AIMS) as site:
            await all_up(site)
            free = numbered(last=400, double=LEFT, note=LEFT).replace(
                "placement: {device: left}", "placement: {separate_from: [note], strength: hard}", 1
            )
            running = await site.deploy(free)
            await site.outputs(running, 30)
            await site.controller.draining.drain(place_of(running, "count"))
            await site.until_logged("workflow re-mapped")
            events = await site.run_to_end(running)
            assert running.state is WorkflowState.COMPLETED, running.note
            tally = [event["value"] for event in events if event["port"] == "tally"][-1]
            assert tally["seen"] == 400
            assert tally["again"] >= 30  # by their numbers; as messages they are new

    asyncio.run(journey())


def test_acknowledgements_that_are_forged_or_said_again_change_nothing(tmp_path: Path) -> None:
    """Everything on the wire is sealed; somebody sends all of it once more, and under other numbers."""

    async def journey() -> None:
        async with three(tmp_path, speed=3.0, aims=NUMBERED_AIMS) as site:
            await all_up(site)
            async with MemoryTransport(site.broker, client_id="hostile") as hostile:
                seen: set[bytes] = set()
                acknowledgements = 0

                def again(received: Received) -> None:
                    nonlocal acknowledgements
                    if received.payload in seen:
                        return
                    acknowledgements += received.topic.endswith("-ack")
                    head, rest = received.payload[:4], received.payload[10:]
                    later = int.from_bytes(received.payload[4:10], "big") + (1 << 20)
                    forged = head + later.to_bytes(6, "big") + rest
                    seen.update((received.payload, forged))
                    hostile.send(received.topic, received.payload)
                    hostile.send(received.topic, forged)

                await hostile.subscribe("aif/ch/#", again)
                running = await site.deploy(numbered(last=300, double="{device: right}", note=LEFT))
                await run_to_end(site, running, 300)
                assert acknowledgements > 10
                totals = running.metrics["left"]["messages"]["causes"]
                assert totals["frame.tag"] >= acknowledgements // 2
                assert totals["dup.redelivery"] >= acknowledgements // 2

    asyncio.run(journey())


def test_every_number_is_there_once_after_a_short_storm(tmp_path: Path) -> None:
    """Longer ones are in the adversary tests."""

    async def journey() -> None:
        async with three(tmp_path, speed=3.0, aims=NUMBERED_AIMS) as site:
            await all_up(site)
            end = tmp_path / "end"
            running = await site.deploy(numbered_until(end, double=AWAY, note=AWAY))

            def cut(device: str) -> None:
                site.broker.sever(device)
                site.broker.heal(device)

            storm = Storm(site, running, 7, faults=site.broker.faults, cut=cut)
            await storm.rage(["loss", "cut", "kill"])
            await storm.end(end)

    asyncio.run(journey())
