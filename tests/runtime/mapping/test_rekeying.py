"""New keys while messages flow: none is lost, and what is old or left out is refused.

Time stands still but for what a test lets pass; everything is real but the wire.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from nacl.public import PrivateKey
from nacl.signing import SigningKey

from aif.protocol.deployment import RemoteChannel
from aif.protocol.events import LossReport
from aif.protocol.grant import open_grant
from aif.protocol.numbers import EPOCH_GRACE_MS, UNVERIFIED_INTERVALS, AuthMode
from aif.runtime.devices.grants import End, GrantOffice, SessionKeys
from aif.runtime.logbook import LogBook
from aif.runtime.mapping.deployer import Plan
from aif.runtime.mapping.rekeying import GIVE_UP_S, REPEAT_S, REQUEST_INTERVAL_S, Rekeying
from aif.trusted.communication import CommunicationService, SealedChannel
from tests.runtime.virtual_clock import VirtualClock

CHANNEL, TOPIC = b"c" * 16, "aif/ch/a-1/one/out"
KEY = SigningKey(b"\x01" * 32)


def counting() -> Callable[[int], bytes]:
    drawn = iter(range(1, 100_000))
    return lambda size: next(drawn).to_bytes(4).rjust(size, b"r")


class Device:
    """A host's sealed channels, and its session."""

    def __init__(self, name: str, clock: VirtualClock, publish: Callable[[str, bytes, int], None]) -> None:
        self.name, self.clock = name, clock
        self.reboot()
        self.frame_key = SigningKey(name.encode().ljust(32, b"f"))
        self.communication = CommunicationService(
            publish=publish, now_ms=clock.monotonic_ms, call_later=lambda _, function: function()
        )
        self.epoch = 0
        self.received: list[bytes] = []
        self.events: list[object] = []

    def reboot(self, boot: bytes = b"1") -> None:
        self.session = PrivateKey((self.name.encode() + boot).ljust(32, b"s"))
        self.boot = (self.name.encode() + boot).ljust(16, b"b")

    @property
    def keys(self) -> SessionKeys:
        return SessionKeys(bytes(self.session.public_key), bytes(self.frame_key.verify_key), self.boot)

    def take(self, sealed: bytes) -> int:
        grant = open_grant(
            sealed, bytes(self.session), bytes(KEY.verify_key), now_s=self.clock.time_us() // 1_000_000,
            highest_serial=0, mapping_version=0,
        )  # fmt: skip
        if self.epoch != grant.epoch:
            self.communication.apply_grant(grant, bytes(self.frame_key))
        self.epoch = grant.epoch
        return grant.epoch


@dataclass
class Bench:
    """One source and receivers on one channel; grants wait until a test hands them over."""

    receivers: tuple[str, ...] = ("two", "three")
    auth: AuthMode = AuthMode.SIGNED
    clock: VirtualClock = field(default_factory=lambda: VirtualClock(1_700_000_000_000.0))
    grants: list[tuple[str, bytes]] = field(default_factory=list)
    frames: list[bytes] = field(default_factory=list)
    away: set[str] = field(default_factory=set)
    log: io.StringIO = field(default_factory=io.StringIO)

    def __post_init__(self) -> None:
        names = ("one", *self.receivers)
        self.devices = {name: Device(name, self.clock, self.publish) for name in names}
        channel = RemoteChannel(
            CHANNEL, TOPIC, "one.out", "one", tuple(f"{n}.in" for n in self.receivers), self.receivers,
            self.auth, 0, 1, 0.0, 1_000, 0,
        )  # fmt: skip
        ends = tuple(End(name, f"{name}.in") for name in self.receivers)
        self.plan = Plan("a-1", 1, {}, {CHANNEL: channel}, {CHANNEL: (End("one", "one"),)}, {CHANNEL: ends})
        self.office = GrantOffice(
            lambda message: KEY.sign(message).signature, lambda device: self.devices[device].keys,
            clock=self.clock, random=counting(),
        )  # fmt: skip
        self.rekeying = Rekeying(
            self, self.office, clock=self.clock, log=LogBook("c", self.clock, self.log), changed=lambda: None
        )
        sealed = SealedChannel(CHANNEL, TOPIC, self.auth)
        self.sender = self.devices["one"].communication.open_sender(sealed)
        self.inputs = {
            name: self.devices[name].communication.open_receiver(
                sealed, self.devices[name].received.extend, self.devices[name].events.append
            )
            for name in self.receivers
        }

    def trusted(self, device: str) -> bool:
        return device not in self.away

    def send_grant(self, device: str, sealed: bytes) -> None:
        self.grants.append((device, sealed))

    def publish(self, _topic: str, frame: bytes, _qos: int) -> None:
        self.frames.append(frame)

    def carry(self) -> None:
        """Every frame on its way arrives everywhere."""
        waiting, self.frames = self.frames, []
        for frame in waiting:
            for receiver in self.inputs.values():
                receiver.receive(frame, retained=False)

    def hand_over(self, *, lose: tuple[str, ...] = ()) -> list[str]:
        """Grants arrive and are confirmed, those that follow from it too; who got one, in order."""
        order = []
        while self.grants:
            device, sealed = self.grants.pop(0)
            if device not in lose:
                order.append(device)
                self.rekeying.confirmed(device, CHANNEL, self.devices[device].take(sealed))
        return order

    def pass_time(self, seconds: float) -> None:
        self.clock.now_ms += seconds * 1000
        self.rekeying.tick()
        for device in self.devices.values():
            device.communication.poll()

    def lost(self) -> int:
        return sum(d.communication.statistics().lost_messages for d in self.devices.values())


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.rekeying.renew(made.plan)
    made.hand_over()
    return made


def test_receivers_have_the_key_before_their_source(bench: Bench) -> None:
    bench.rekeying.renew(bench.plan)
    assert [device for device, _ in bench.grants] == ["three", "two"] or [
        device for device, _ in bench.grants
    ] == ["two", "three"]
    assert bench.hand_over()[-1] == "one"
    assert not bench.rekeying.pending("a-1")
    assert bench.log.getvalue().count('"channels re-keyed"') == 2


def test_hourly_renewal_loses_nothing_and_the_old_epoch_ends(bench: Bench) -> None:
    sent: list[bytes] = []

    def send() -> None:
        sent.append(b"message %d" % len(sent))
        bench.sender.send(sent[-1])
        bench.sender.flush()

    for _ in range(3):
        for _ in range(5):
            send()
        bench.rekeying.renew(bench.plan)
        send()  # still under the old key
        late = list(bench.frames)  # on its way while keys change
        bench.hand_over()
        send()
        bench.carry()
        bench.pass_time(3600)
        bench.carry()
    for name in bench.receivers:
        assert bench.devices[name].received == sent
    assert bench.lost() == 0
    # the epoch before is over: its frames are refused, not even as repetitions of what came
    bench.pass_time(EPOCH_GRACE_MS / 1000 + 1)
    before = bench.inputs["two"].statistics()
    for frame in late[:1]:
        bench.inputs["two"].receive(frame, retained=False)
    after = bench.inputs["two"].statistics()
    assert after.verified_frames == before.verified_frames
    assert sum(after.causes.values()) == sum(before.causes.values()) + 1


def test_frames_of_the_next_epoch_wait_for_a_late_grant(bench: Bench) -> None:
    """The source has changed without a receiver that was late; what it sent is not lost."""
    bench.rekeying.renew(bench.plan)
    late = [grant for grant in bench.grants if grant[0] == "three"]
    bench.grants = [grant for grant in bench.grants if grant[0] != "three"]
    bench.hand_over()
    bench.pass_time(0.6)
    assert bench.hand_over() == ["one"]
    bench.sender.send(b"early")
    bench.sender.flush()
    bench.carry()
    assert (bench.devices["two"].received, bench.devices["three"].received) == ([b"early"], [])
    bench.grants += late
    bench.hand_over()
    assert bench.devices["three"].received == [b"early"]


def test_a_lost_grant_comes_again_and_starts_no_counter_over(bench: Bench) -> None:
    bench.rekeying.renew(bench.plan)
    bench.hand_over(lose=("two",))
    bench.pass_time(REPEAT_S + 0.1)
    assert sorted(bench.hand_over()) == ["one", "two"]
    assert not bench.rekeying.pending("a-1")


def test_a_grant_is_not_repeated_to_another_boot(bench: Bench) -> None:
    bench.rekeying.renew(bench.plan)
    bench.hand_over(lose=("one",))
    bench.devices["one"].reboot(b"2")
    bench.pass_time(REPEAT_S + 0.1)
    assert bench.grants == []
    assert not bench.rekeying.pending("a-1")


def test_who_never_confirms_is_named_and_given_up(bench: Bench) -> None:
    bench.rekeying.renew(bench.plan)
    bench.hand_over(lose=("three",))
    bench.pass_time(GIVE_UP_S + 1)
    assert (
        '"event": "a device has not confirmed its new key", "aiw": "a-1", "device": "' in bench.log.getvalue()
    )
    assert not bench.rekeying.pending("a-1")


def test_a_device_that_is_left_out_opens_nothing_new(bench: Bench) -> None:
    bench.sender.send(b"for all")
    bench.sender.flush()
    bench.carry()
    bench.rekeying.renew(bench.plan, refused=["three"])
    assert "three" not in bench.hand_over()
    for n in range(5):
        bench.sender.send(b"secret %d" % n)
    bench.sender.flush()
    bench.carry()
    bench.pass_time(2)
    assert bench.devices["two"].received == [b"for all", *(b"secret %d" % n for n in range(5))]
    assert bench.devices["three"].received == [b"for all"]


def test_what_a_refused_source_sends_is_refused_at_once(bench: Bench) -> None:
    bench.sender.send(b"good")
    bench.sender.flush()
    bench.carry()
    bench.sender.send(b"too late")
    bench.sender.flush()
    bench.rekeying.renew(bench.plan, refused=["one"])
    assert sorted(bench.hand_over()) == ["three", "two"]
    bench.carry()
    assert bench.devices["two"].received == bench.devices["three"].received == [b"good"]


def test_a_source_that_moved_has_its_time_to_come_to_its_end(bench: Bench) -> None:
    bench.sender.send(b"before")
    bench.sender.flush()
    moved = Plan("a-1", 2, {}, bench.plan.channels, {CHANNEL: (End("one", "moved"),)}, bench.plan.receivers)
    office = bench.office
    first = office.open_epoch(CHANNEL, AuthMode.SIGNED, bench.plan.senders[CHANNEL], [], mapping_version=1)
    second = office.open_epoch(CHANNEL, AuthMode.SIGNED, moved.senders[CHANNEL], [], mapping_version=2)
    assert [row.index for row in first.grant.roster] == [0]
    assert [row.index for row in second.grant.roster] == [1]
    old = bench.sender
    bench.rekeying.renew(moved)
    for device, sealed in [grant for grant in bench.grants if grant[0] != "one"]:
        bench.devices[device].take(sealed)
    bench.carry()
    assert bench.devices["two"].received == [b"before"]
    bench.pass_time(2.1)
    old.send(b"after its end")
    old.flush()
    bench.carry()
    bench.pass_time(1)
    assert bench.devices["two"].received == [b"before"]
    assert not any(isinstance(event, LossReport) and event.messages for event in bench.devices["two"].events)


def test_every_epoch_has_another_key_and_the_next_number(bench: Bench) -> None:
    opened = [
        bench.office.open_epoch(CHANNEL, AuthMode.SIGNED, [End("one", "one")], [], mapping_version=1).grant
        for _ in range(300)
    ]
    assert len({grant.k_epoch for grant in opened}) == 300
    assert [b.epoch - a.epoch for a, b in pairwise(opened)] == [1] * 299
    assert str(opened[0].k_epoch)[2:-1] not in repr(opened[0])


# --- channels that have stopped ---------------------------------------------------------------------


@pytest.fixture
def stopped() -> Bench:
    """A checkpoint channel whose receiver ``two`` could not verify what came, twice in a row."""
    bench = Bench(auth=AuthMode.CHECKPOINT)
    bench.rekeying.renew(bench.plan)
    bench.hand_over()
    for _ in range(UNVERIFIED_INTERVALS):
        for n in range(3):
            bench.sender.send(b"%d" % n)
        bench.sender.flush()
        lost = bench.frames.pop(0)
        bench.carry()
        bench.inputs["three"].receive(lost, retained=False)
        bench.pass_time(1.1)
        bench.carry()
        bench.pass_time(3)
    assert list(bench.devices["two"].communication.stopped()) == [CHANNEL]
    return bench


def ask(bench: Bench, device: str = "two") -> None:
    epoch = bench.devices["two"].communication.stopped().get(CHANNEL, bench.office.epoch(CHANNEL) or 0)
    bench.rekeying.wanted(bench.plan, device, CHANNEL, epoch)


def test_a_channel_that_stopped_goes_on_when_its_receiver_asks(stopped: Bench) -> None:
    heard = len(stopped.devices["two"].received)
    stopped.sender.send(b"unheard")
    stopped.carry()
    assert len(stopped.devices["two"].received) == heard
    ask(stopped)
    order = stopped.hand_over()
    assert (sorted(order), order[-1]) == (["one", "three", "two"], "one")
    assert not stopped.devices["two"].communication.stopped()
    stopped.sender.send(b"heard again")
    stopped.carry()
    assert stopped.devices["two"].received[-1] == b"heard again"


def test_only_a_receiver_that_has_a_part_gets_a_stopped_channel_new_keys(stopped: Bench) -> None:
    for stranger in ("one", "controller", "unknown"):
        ask(stopped, stranger)
    epoch = stopped.office.epoch(CHANNEL) or 0
    stopped.rekeying.wanted(stopped.plan, "two", CHANNEL, epoch, without=["two"])
    stopped.rekeying.wanted(stopped.plan, "two", CHANNEL, epoch - 1)
    assert stopped.grants == []
    assert stopped.office.epoch(CHANNEL) == epoch


def test_who_stops_a_channel_again_and_again_does_not_keep_its_members_busy(stopped: Bench) -> None:
    first = stopped.office.epoch(CHANNEL) or 0
    for _ in range(10 * int(REQUEST_INTERVAL_S)):
        ask(stopped)
        stopped.hand_over()
        stopped.pass_time(1)
    assert (stopped.office.epoch(CHANNEL) or 0) - first == 10
