"""The ends of acknowledged channels at one AIM: its turns, its outboxes and its intake, at work.

Joins the rules of ``protocol.outbox`` and ``protocol.intake`` to ports, clocks and sealed channels. Messages
go one way, acknowledgements the other, each on a sealed channel of its own. What one end sends may come to
the other, and be answered, before the sending returns: state is changed first, then sent.

Decides when an acknowledgement leaves: soon where a producer may wait for it, at the next ``poll`` otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from aif.errors import AIFError, AIMFailed, GrantExhausted, InvalidRecord, MessageTooLarge, TransportError
from aif.model.codec import compile_record
from aif.model.ports import Port
from aif.protocol import message
from aif.protocol.carried_state import CarriedState, pack_state, unpack_state
from aif.protocol.deployment import Acknowledged, RemoteChannel
from aif.protocol.intake import Intake, Turns, Verdict
from aif.protocol.numbering import (
    NUMBERED_BYTES,
    Acknowledgement,
    Kind,
    Numbered,
    derived_identity,
    origin_identity,
    pack_acknowledgement,
    pack_numbered,
    unpack_acknowledgement,
    unpack_numbered,
)
from aif.protocol.outbox import Kept, Outbox
from aif.runtime.clock import Clock
from aif.runtime.host.ports import InputPort, NumberedMessage
from aif.runtime.logbook import LogBook
from aif.runtime.metrics import ChannelMetrics
from aif.trusted.communication import SecureSender

BATCH_MESSAGES = 64
"""Messages that one acknowledgement is for at most, where the window allows so many."""

STATE_MS = 200.0
"""State leaves with an acknowledgement at most this often, unless the producer may be waiting for it."""

CanSend = Callable[[SecureSender], bool]


class AcknowledgedWork:
    """What one AIM does with acknowledged channels: its turns, what came of them, and where its state is.

    Args:
        aim_id: of the AIM.
        run: the mapping version under which it was made.
        consumes: whether one of its inputs is acknowledged; without one it is an origin.
        state_bytes: its largest checkpoint; None for one without state.
    """

    def __init__(self, aim_id: str, run: int, *, consumes: bool, state_bytes: int | None) -> None:
        self.aim_id, self.run, self.consumes = aim_id, run, consumes
        self.turns = Turns(stateful=consumes and state_bytes is not None)
        self.input: AcknowledgedInput | None = None
        self._state_bytes = state_bytes or 0
        self._outputs: list[AcknowledgedOutput] = []
        self._all_done = asyncio.Event()
        self._restore: bytes | None = None

    def begin(self, turn: int) -> bytes | None:
        """A turn begins; gives the state that the AIM has to take up first, if it came."""
        self.turns.begin(turn)
        state, self._restore = self._restore, None
        return state

    @property
    def wants_state(self) -> bool:
        """Whether the turn that has come to its end is to be followed by a checkpoint."""
        return self.turns.stateful and self.input is not None and self.input.wants_state()

    def end(self, state: bytes | None) -> None:
        """A turn has come to its end, with the state after it if ``wants_state``.

        Raises:
            AIMFailed: the state is longer than the AIM declares.
        """
        if state is not None and len(state) > self._state_bytes:
            raise AIMFailed(
                f"{self.aim_id}: a checkpoint of {len(state):,} B exceeds {self._state_bytes:,} B",
                hint="raise state_bytes in aim.yaml, or keep less",
            )
        self.turns.end(state)
        if self.input is not None:
            self.input.turn_ended()

    def add(self, output: AcknowledgedOutput) -> None:
        """An output of the AIM is acknowledged."""
        self.turns.outboxes.append(output.outbox)
        self._outputs.append(output)

    def carried(self, own: bytes | None) -> bytes:
        """The AIM's own state with that of all behind it, as it goes to the producer."""
        known = {output.channel.channel_id: output.outbox.state for output in self._outputs}
        behind = {channel: state for channel, state in known.items() if state is not None}
        return pack_state(CarriedState(own, behind))

    def restore(self, carried: bytes) -> None:
        """State has come: the AIM is to take its own up before its next turn.

        Raises:
            RemoteProtocolError: it is malformed.
        """
        state = unpack_state(carried)
        if self.turns.stateful:
            self._restore = state.own
        for output in self._outputs:
            if (known := state.behind.get(output.channel.channel_id)) is not None:
                output.outbox.take_over(*known)

    def restart(self) -> None:
        """The AIM begins anew after a failure: what it had not finished is asked for again."""
        self._restore = None
        if self.input is not None:
            self.input.restart(self.turns.restart())

    def progress(self) -> None:
        """Something that the AIM gave was acknowledged."""
        if self.input is not None:
            self.input.consider()
        if not self.kept:
            self._all_done.set()

    @property
    def kept(self) -> int:
        """Messages that are not acknowledged."""
        return sum(map(len, self.turns.outboxes))

    async def finish(self) -> None:
        """The AIM has nothing more to give: wait until everything that it gave is done with."""
        for output in self._outputs:
            output.end()
        if self.input is not None:
            self.input.complete()
        while self.kept:
            self._all_done.clear()
            await self._all_done.wait()

    def over(self) -> None:
        """The AIM is no more, and goes on nowhere: what it has not done by now never will be."""
        for output in self._outputs:
            output.end()
        if self.input is not None:
            self.input.over()


class AcknowledgedOutput:
    """The producing end of one acknowledged channel."""

    def __init__(
        self, channel: RemoteChannel, terms: Acknowledged, port: Port, work: AcknowledgedWork, *,
        clock: Clock, can_send: CanSend,
    ) -> None:  # fmt: skip
        self.outbox = Outbox(terms.window)
        self.waits = 0
        """Times that the AIM had to wait because the outbox was full."""
        self.work = work
        self.channel, self._fan = channel, terms.fan
        self._codec = compile_record(port.type.record, payload_bytes=port.payload_bytes, label=channel.source)
        self._clock, self._can_send = clock, can_send
        self._sender: SecureSender | None = None
        self._epoch = self._held_epoch = -1
        self._room = asyncio.Event()
        self._count = self._turn = self._index = 0
        self._end = 0
        """Identity of the END, once there is one."""
        work.add(self)

    def attach(self, channel: RemoteChannel, sender: SecureSender) -> None:
        """Send over this sealed channel; where the consumer is another one, not before it has new keys."""
        if channel.destination_devices != self.channel.destination_devices:
            self.outbox.figures.moved += len(self.outbox)
            self._held_epoch = sender.epoch
        if sender is not self._sender:
            self._epoch = -1
        self.channel, self._sender = channel, sender

    def detach(self, sender: SecureSender | None) -> None:
        """This sealed channel is closed; harmless when it is another one."""
        if sender is self._sender:
            self._sender = None

    async def write(self, values: Sequence[Any], t_us: int) -> None:
        """Keep and send records; waits while there is no room for one.

        Raises:
            InvalidRecord: not of the port's type, or more than a turn may give.
            MessageTooLarge: longer than a message may be.
        """
        for value in values:
            record = self._codec.encode(value)
            if len(record) + message.HEADER.size + NUMBERED_BYTES > self.channel.max_message_bytes:
                raise MessageTooLarge(
                    f"{self.channel.source}: a record of {len(record):,} B exceeds what its consumer takes",
                    hint="send smaller records, or place the AIM that reads them elsewhere",
                )
            identity, turn = self._number()
            waited = False
            while self.outbox.full and not self.outbox.knows(identity):
                self.waits += not waited
                waited = True
                self.pump()
                self._room.clear()
                await self._room.wait()
            self.outbox.add(Kept(identity, turn, Kind.RECORD, t_us, record))
        self.pump()

    def _number(self) -> tuple[int, int]:
        """Identity of the next record, and the turn that gives it."""
        if not self.work.consumes:
            self._count += 1
            identity = origin_identity(self.work.run, self._count)
            return identity, identity
        turns = self.work.turns
        if turns.begun != self._turn:
            self._turn, self._index = turns.begun, 0
        if self._index >= self._fan:
            raise InvalidRecord(
                f"{self.channel.source}: a turn gives at most {self._fan} records on an acknowledged channel",
                hint="raise emits of the output in aim.yaml to the most that a turn may give",
            )
        identity = derived_identity(turns.current, self._fan, self._index)
        self._index += 1
        return identity, turns.current

    def end(self) -> None:
        """The AIM will give nothing more; its consumer hears of it in its turn, and once."""
        if self._end:
            return
        if not self.work.consumes:
            self._count += 1
            turn = identity = origin_identity(self.work.run, self._count)
        else:
            source = self.work.input
            turn = source.intake.last if source is not None else 0
            ended = source is not None and source.ended
            identity = derived_identity(turn if ended else turn + 1, self._fan, 0)
        self._end = identity
        self.outbox.add(Kept(identity, turn, Kind.END, 0, b""))
        self.pump()

    def give_up(self) -> None:
        """The consumer has come to its end, and was lost before it could say so."""
        self.outbox.give_up()
        self._room.set()
        self.work.progress()

    def hear(self, payloads: Sequence[bytes]) -> None:
        """Acknowledgements have come."""
        for payload in payloads:
            try:
                said = unpack_acknowledgement(payload)
            except AIFError:
                continue  # of an authenticated peer: a defect there, and the next one says all of it again
            self.outbox.acknowledged(said, self._clock.monotonic_ms())
        if not self.outbox.full:
            self._room.set()
        self.work.progress()
        self.pump()

    def pump(self) -> None:
        """Send what is due, as far as it goes."""
        sender = self._sender
        if sender is None or sender.epoch == self._held_epoch or not self._can_send(sender):
            return None
        now_ms = self._clock.monotonic_ms()
        if sender.epoch != self._epoch:
            self._epoch, self._held_epoch = sender.epoch, -1
            self.outbox.start_over(now_ms)
            if self._end and not len(self.outbox):  # a consumer that begins now has not heard of it
                self._end += 1
                self.outbox.add(Kept(self._end, self._end, Kind.END, 0, b""))
        while (due := self.outbox.due()) is not None:
            numbered, origin_us = due
            header = message.header(origin_us, self._clock.time_us())
            body = pack_numbered(numbered.kind, numbered.identity, numbered.previous, bytes(numbered.record))
            self.outbox.leaves(now_ms)
            try:
                sender.send(header + body)
            except (TransportError, GrantExhausted):
                return self.outbox.comes_back()
        return None

    def poll(self) -> None:
        self.outbox.tick(self._clock.monotonic_ms())
        self.pump()


class AcknowledgedInput:
    """The consuming end of one acknowledged channel."""

    def __init__(
        self, channel: RemoteChannel, terms: Acknowledged, port: InputPort, work: AcknowledgedWork, *,
        clock: Clock, log: LogBook, can_send: CanSend,
    ) -> None:  # fmt: skip
        self.channel, self.work = channel, work
        self.intake = Intake()
        self.metrics = ChannelMetrics()
        self.ended = False
        """The producer has come to its end."""
        self._port = port
        kind = port.port
        self._codec = compile_record(
            kind.type.record, payload_bytes=kind.payload_bytes, label=channel.destinations[0]
        )
        self._clock, self._log, self._can_send = clock, log, can_send
        self._keeps = terms.state_bytes > 0
        self._batch = min(BATCH_MESSAGES, max(1, terms.window // 2))
        self._sender: SecureSender | None = None
        self._epoch = -1
        self._said_done = self._said_taken = 0
        self._again = self._repeat = self._gone = False
        self._turns_unsaid = self._turns_unkept = 0
        self._state_said_ms = float("-inf")
        work.input = self

    def attach(self, sender: SecureSender) -> None:
        """Acknowledge over this sealed channel."""
        self._sender = sender

    def detach(self, sender: SecureSender | None) -> None:
        """This sealed channel is closed; harmless when it is another one."""
        if sender is self._sender:
            self._sender = None

    # --- messages ----------------------------------------------------------------------------------

    def arrived(self, payloads: Sequence[bytes]) -> None:
        """The messages of one frame."""
        for payload in payloads:
            try:
                origin_us, sent_us, rest = message.unpack(payload)
                self._judge(unpack_numbered(rest), origin_us, sent_us)
            except AIFError as error:
                self.metrics.invalid += 1
                self._log.warning(
                    "record refused", channel=self.channel.topic, code=error.code, reason=str(error)
                )
        self.consider()

    def _judge(self, numbered: Numbered, origin_us: int, sent_us: int) -> None:
        verdict = self.intake.judge(numbered)
        if self._port.closed:  # the AIM has ended, or goes on elsewhere, where all of this comes once more
            self._repeat = self._gone
        elif verdict is Verdict.REPEATED:
            self._repeat = True
        elif verdict is Verdict.MISSING:
            self._again = True
        elif numbered.kind is Kind.END:
            self.intake.take(numbered)
            self.ended = True
            self._port.finish()
        elif numbered.kind is Kind.STATE:
            if self._keeps:
                self.work.restore(bytes(numbered.record))
                self.intake.take(numbered)
                self._port.restart()
        elif not self._port.full:  # otherwise it comes again, when there is room
            self.intake.take(numbered)
            self._deliver(numbered, origin_us, sent_us)

    def _deliver(self, numbered: Numbered, origin_us: int, sent_us: int) -> None:
        value = self._codec.decode(numbered.record)
        now_us = self._clock.time_us()
        self.metrics.records += 1
        self.metrics.latency_us.add(max(1, now_us - sent_us))
        self.metrics.age_us.add(max(1, now_us - origin_us))
        self._port.offer(NumberedMessage(value, origin_us, numbered.identity))

    def restart(self, last: int) -> None:
        """The AIM begins anew: what comes after ``last`` is to be sent again."""
        self.intake.restart(last)
        self._port.restart()
        self.ended = False
        self._again = True
        self.consider()

    # --- acknowledgements --------------------------------------------------------------------------

    def wants_state(self) -> bool:
        """Whether a checkpoint after the present turn is of use: when there is time, and now and then."""
        self._turns_unkept += 1
        if self._port.pending and self._turns_unkept < max(1, self._batch // 2):
            return False
        self._turns_unkept = 0
        return True

    def turn_ended(self) -> None:
        self._turns_unsaid += 1
        self.consider()

    def complete(self) -> None:
        """Nothing more will come of what was taken."""
        self.work.turns.over(self.intake.last)
        self.poll()

    def over(self) -> None:
        """The AIM is no more: what is not done with never will be."""
        self._gone = self._repeat = True
        self.poll()

    def consider(self) -> None:
        """Acknowledge at once where the producer may be waiting for it."""
        if self._again or (
            self._turns_unsaid >= self._batch and self.work.turns.done().turn > self._said_done
        ):
            self.poll()

    def poll(self) -> None:
        """Acknowledge what has not been."""
        sender = self._sender
        if sender is None or not self._can_send(sender):
            return
        if sender.epoch != self._epoch:
            self._epoch, self._repeat = sender.epoch, True
        said = self._news()
        if said is None:
            return
        if said.done:
            self._said_done, self._turns_unsaid = said.done, 0
        if said.state is not None:
            self._state_said_ms = self._clock.monotonic_ms()
        self._said_taken = said.taken
        self._again = self._repeat = False
        try:
            sender.send(pack_acknowledgement(said))
        except (TransportError, GrantExhausted):
            self._repeat = True

    def _news(self) -> Acknowledgement | None:
        """What there is to say; None when nothing is."""
        mark, taken = self.work.turns.done(), self.intake.last
        done, keeps = mark.turn, self._keeps and mark.turn > 0
        if keeps and not self._repeat:
            rare = self._clock.monotonic_ms() - self._state_said_ms >= STATE_MS
            if done == self._said_done or not (rare or self._turns_unsaid >= self._batch):
                done, keeps = 0, False
        if done <= self._said_done and taken == self._said_taken and not (self._again or self._repeat):
            return None
        state = self.work.carried(mark.state) if keeps else None
        return Acknowledgement(done, taken, self._again, self._gone, state)
