"""What a microcontroller can hold of a channel, as its senders and its Controller know it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aif.errors import AIFError, Infeasible
from aif.model.ports import AuthMode
from aif.protocol.deployment import RemoteChannel
from aif.protocol.lifecycle import WorkflowState
from aif.protocol.message import HEADER
from aif.protocol.numbers import HOST_LIMITS, MCU_LIMITS
from aif.runtime.mapping.channel_limits import check_numbers
from aif.transport.memory import MemoryTransport
from tests.runtime.site import INVENTORY, bench_site

SMALL = INVENTORY.replace("{id: right, class: gateway", "{id: right, class: mcu")
LONGEST = MCU_LIMITS.max_message_bytes - HEADER.size - 4
"""Elements of the longest uint8[] for a microcontroller: a message has a header, the array a count."""

CODE = """implementations:
      - {id: any, runtime: python, entry: "module:NAME", ram_bytes: 1000, flash_bytes: 0,
         instructions: 1000, security: attested}
"""


def sized(kind: str) -> dict[str, tuple[str, str]]:
    """A source of records of the sizes in its parameter, and a reader that tells each size."""
    source = f"""
    schema: 1
    aim: {{name: Sized, version: "1.0", implementer: tinyaif, description: Arrays of chosen sizes.}}
    parameters: {{sizes: {{type: "number[]", default: [1]}}}}
    outputs: {{data: {{type: "{kind}", rate_hz: 10, payload_bytes: 40000}}}}
    {CODE.replace("NAME", "Sized")}"""
    reader = f"""
    schema: 1
    aim: {{name: Measure, version: "1.0", implementer: tinyaif, description: Tells the size of an array.}}
    inputs: {{data: {{type: "{kind}", queue_depth: 8, payload_bytes: 40000}}}}
    outputs: {{size: {{type: int32}}}}
    {CODE.replace("NAME", "Measure")}"""
    give = """
    from aif.sdk import AIM, EndOfData


    class Sized(AIM):
        def setup(self):
            self.left = [int(size) for size in self.context.parameters["sizes"]]

        def process(self):
            if not self.left:
                raise EndOfData("all sent")
            return {"data": bytes(self.left.pop(0))}
    """
    take = """
    from aif.sdk import AIM


    class Measure(AIM):
        def process(self, data):
            return {"size": len(data)}
    """
    return {"sized": (source, give), "measure": (reader, take)}


def measuring(sizes: list[int]) -> str:
    return f"""
schema: 1
aiw: {{name: Measuring, version: "1.0", implementer: tinyaif, description: "Sizes of arrays."}}
aims:
  - {{id: give, use: Sized@1.0, parameters: {{sizes: {sizes}}}, placement: {{device: left}}}}
  - {{id: take, use: Measure@1.0, inputs: {{data: give.data}}, placement: {{device: right}}}}
outputs: {{size: take.size}}
"""


def test_a_sender_cuts_for_its_receiver_and_refuses_what_that_cannot_hold(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, aims=sized("uint8[]"), inventory=SMALL) as site:
            frames: list[int] = []
            spy = MemoryTransport(site.broker, client_id="spy")
            await spy.connect()
            await spy.subscribe("aif/ch/#", lambda received: frames.append(len(received.payload)))
            running = await site.deploy(measuring([10, 5000, LONGEST, LONGEST + 1]))
            outputs = await site.run_to_end(running)
            assert [event["value"] for event in outputs] == [10, 5000, LONGEST]
            assert 2048 < max(frames) <= MCU_LIMITS.max_frame_bytes
            assert running.state is WorkflowState.FAILED
            why = running.note
            assert "AIM give failed: AIF-E0704: give.data: a message of 16,385 B on" in why
            assert "exceeds the limit of 16,384 B of its receivers" in why
            await spy.aclose()

    asyncio.run(journey())


def test_a_channel_that_no_record_fits_is_refused_before_anything_is_prepared(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, aims=sized("uint8[20000]"), inventory=SMALL) as site:
            with pytest.raises(Infeasible) as refused:
                await site.deploy(measuring([20000]))
            assert "every message of give.data -> take.data has at least 20,012 B" in str(refused.value)
            assert "right takes at most 16,384 B" in str(refused.value)
            site.check_nothing_is_left()

    asyncio.run(journey())


def wide(count: int) -> dict[str, tuple[str, str]]:
    """A source with many outputs, and a reader of them all."""
    ends = ", ".join(f"p{n}: {{type: int32, rate_hz: 1}}" for n in range(count))
    takes = ", ".join(f"p{n}: {{type: int32}}" for n in range(count))
    source = f"""
    schema: 1
    aim: {{name: Wide, version: "1.0", implementer: tinyaif, description: Many outputs.}}
    outputs: {{{ends}}}
    period_ms: 1000
    {CODE.replace("NAME", "Wide")}"""
    reader = f"""
    schema: 1
    aim: {{name: Reader, version: "1.0", implementer: tinyaif, description: Many inputs.}}
    inputs: {{{takes}}}
    outputs: {{done: {{type: int32}}}}
    {CODE.replace("NAME", "Reader")}"""
    give = """
    from aif.sdk import AIM


    class Wide(AIM):
        def process(self):
            return None
    """
    take = """
    from aif.sdk import AIM


    class Reader(AIM):
        def process(self, **numbers):
            return {"done": 1}
    """
    return {"wide": (source, give), "reader": (reader, take)}


def reading(count: int) -> str:
    ends = ", ".join(f"p{n}: give.p{n}" for n in range(count))
    return f"""
schema: 1
aiw: {{name: Reading, version: "1.0", implementer: tinyaif, description: "Many channels."}}
aims:
  - {{id: give, use: Wide@1.0, placement: {{device: left}}}}
  - {{id: take, use: Reader@1.0, inputs: {{{ends}}}, placement: {{device: right}}}}
outputs: {{done: take.done}}
"""


def test_the_channels_of_all_workflows_of_a_device_are_counted(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, aims=wide(20), inventory=SMALL) as site:
            first = await site.deploy(reading(20))
            await site.until(first, WorkflowState.RUNNING)
            with pytest.raises(Infeasible, match="right has 12 sealed channels, at least 8 missing"):
                await site.deploy(reading(20))
            assert first.state is WorkflowState.RUNNING

    asyncio.run(journey())


CHANNEL = RemoteChannel(
    bytes(16), "t", "one.out", "here", ("two.in",), ("there",), AuthMode.AEAD, 0, 1, 0.0, 1000, 0
)


def test_a_mapping_has_at_most_the_channels_that_a_device_holds() -> None:
    limits = {"here": HOST_LIMITS, "there": MCU_LIMITS}
    check_numbers([CHANNEL] * 32, limits)
    with pytest.raises(AIFError, match="there would have 33 sealed channels, it holds 32"):
        check_numbers([CHANNEL] * 33, limits)
