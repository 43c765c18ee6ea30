"""Where a channel may be acknowledged: what makes a message the same one when it is made again.

An AIM that is run anew elsewhere consumes again what was not acknowledged, and gives again what came of it.
That is only the same as before if each of its turns hangs on one acknowledged input, and if nothing on the
way drops messages by itself.

Decides nothing about messages: ``protocol.numbering`` says what they are called.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping

from aif.model.aim import AIMMetadata
from aif.model.aiw import Workflow
from aif.model.ports import AuthMode, ChannelSpec, Overflow, Port, PortRef

MAX_FAN = 1 << 16
"""Largest product of ``fan_of`` all acknowledged outputs on a way, so that 2**48 messages have a number."""


MAX_CARRIED_BYTES = 1024 * 1024
"""State that travels with one acknowledgement: of its AIM and of all behind it."""

_ENTRY_BYTES = 64
"""At least what one state takes beside its bytes."""


def fan_of(output: Port) -> int:
    """Records that a turn may give at an output that is acknowledged: ``emits``, rounded up."""
    return max(1, math.ceil(output.emits))


def carried_bytes(workflow: Workflow) -> Mapping[ChannelSpec, int]:
    """State that an acknowledgement of each channel carries at most: of its consumer and of all behind that.

    0 where none of them has any.
    """
    into = {channel.destination.aim: channel for channel in workflow.channels if channel.acknowledged}
    carried = dict.fromkeys(into.values(), 0)
    for leaf in workflow.aims:
        kept = [i.state_bytes for i in leaf.metadata.implementations if i.checkpointable]
        at, state = into.get(leaf.id), max(kept, default=0)
        while kept and at is not None and state <= MAX_CARRIED_BYTES:  # of which a cycle is no way out
            state += _ENTRY_BYTES
            carried[at] += state
            at = into.get(at.source.aim)
    return carried


def delivery_problems(workflow: Workflow) -> Iterator[tuple[ChannelSpec, str, str]]:
    """Acknowledged channels that cannot be: (channel, what is wrong, what to do)."""
    into: defaultdict[PortRef, list[ChannelSpec]] = defaultdict(list)
    of_aim: defaultdict[str, list[ChannelSpec]] = defaultdict(list)
    for channel in workflow.channels:
        into[channel.destination].append(channel)
        if channel.acknowledged:
            of_aim[channel.destination.aim].append(channel)
    sound = True
    for channel in workflow.channels:
        if channel.acknowledged:
            for problem in _problems(workflow, channel, into[channel.destination], of_aim):
                sound = False
                yield (channel, *problem)
    if sound:
        yield from _too_wide(workflow, of_aim)
        for channel, carried in carried_bytes(workflow).items():
            if carried > MAX_CARRIED_BYTES:
                yield (
                    channel,
                    f"the AIMs behind it have more than {MAX_CARRIED_BYTES:,} B of state",
                    "let them declare less, or end the acknowledged way before",
                )


def _problems(
    workflow: Workflow,
    channel: ChannelSpec,
    writers: list[ChannelSpec],
    of_aim: defaultdict[str, list[ChannelSpec]],
) -> Iterator[tuple[str, str]]:
    """What is wrong with one channel, and what to do."""
    if channel.source.at_boundary or channel.destination.at_boundary:
        yield "the workflow's own ports acknowledge nothing", "leave out delivery"
        return
    port = workflow.port(channel.destination, output=False)
    contract = workflow.aim(channel.destination.aim).metadata
    name = channel.destination
    if channel.auth is AuthMode.CHECKPOINT:
        yield "a channel in checkpoint mode ends when messages are lost", "use auth: aead or signed"
    if channel.delay_records:
        yield (
            "a delayed channel closes a cycle, on which messages would wait for themselves",
            "leave out delay",
        )
    if len(writers) > 1:
        yield f"{name} has another writer, and messages of two have no common order", "use one input for each"
    if len(of_aim[channel.destination.aim]) > 1:
        yield (
            f"{channel.destination.aim} has several acknowledged inputs, and a turn can hang on one only",
            "keep delivery: acknowledged on one of its inputs",
        )
    if not _hangs_on(contract, channel.destination.port):
        yield (
            f"not every turn of {channel.destination.aim} is started by {name.port} alone",
            f"let {contract.reference} have trigger: [{name.port}] and no period_ms",
        )
    if port.overflow is not Overflow.BLOCK or port.max_age_ms is not None:
        yield f"{name} drops messages by itself", "use overflow: block, and no max_age_ms, on the input"


def _hangs_on(contract: AIMMetadata, port: str) -> bool:
    return contract.period_ms is None and contract.trigger_inputs() == (port,)


def _too_wide(
    workflow: Workflow, of_aim: defaultdict[str, list[ChannelSpec]]
) -> Iterator[tuple[ChannelSpec, str, str]]:
    """Ways on which one message becomes too many. What is acknowledged has one way back, without cycles."""
    for channel in workflow.channels:
        fan, at = 1, [channel] if channel.acknowledged else []
        for step in at:  # it grows on the way
            fan *= fan_of(workflow.port(step.source, output=True)) if of_aim[step.source.aim] else 1
            at += of_aim[step.source.aim] if len(at) <= len(workflow.aims) else []
        if fan > MAX_FAN:
            yield (
                channel,
                f"one message at its beginning becomes up to {fan:,} here, at most {MAX_FAN:,} have numbers",
                "let its AIMs emit fewer records in one turn",
            )
