"""One channel, its Controller and a hostile network, in any order of events.

The machine publishes, crashes and moves the sender, changes keys, revokes and readmits a consumer, and its
network loses, repeats, reorders, edits and cross-posts frames and grants: between channels, versions of the
workflow, epochs, sender indices and types. On a signed channel a member, or who was one, forges its producer.
Whatever happens: nothing forged is delivered, nothing is delivered twice, no (key, nonce) is used twice, who
is not a member reads nothing, and every message that was not delivered is covered by a loss report.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from nacl.public import PrivateKey
from nacl.signing import SigningKey

from aif.errors import AIFError, LocalProtocolError, NotConnected, ReplayDetected, TrustError
from aif.protocol import frame as frame_module
from aif.protocol.aif1 import AuthMode, BundlePolicy, LossReport
from aif.protocol.events import AuthFailure, ChannelEvent, ChannelSilent
from aif.protocol.frame import channel_id
from aif.protocol.grant import open_grant
from aif.protocol.ledger import SenderLedger
from aif.protocol.numbers import FrameType
from aif.protocol.window import ReplayWindow
from aif.runtime.clock import Clock
from aif.runtime.devices.grants import End, GrantOffice, IssuedGrant, SessionKeys
from aif.trusted.communication import CommunicationService, SealedChannel, SecureReceiver, SecureSender
from tests.adversary.conftest import Report
from tests.adversary.hostile_client import Member

START_US = 1_700_000_000_000_000
GRANT_KEY = SigningKey(bytes([3]) * 32)
TOPIC = "aif/ch/w/a/p"


def _channel_id(version: str = "1.0", source: str = "a.p", topic: str = TOPIC) -> bytes:
    return channel_id("w", version, source, ["b.q", "c.q"], data_type="bytes", topic=topic)


CHANNEL = _channel_id()
OTHER_CHANNELS = (
    _channel_id(version="1.1"), _channel_id(source="a.other"), _channel_id(topic="aif/ch/w/a/other"),
)  # fmt: skip
"""The same channel of another version of the workflow, another port's, and one on another topic."""
POLICY = BundlePolicy(max_messages=4, max_delay_ms=20, max_message_bytes=200)
LARGE_BYTES = 70_000
"""More than a frame holds: travels in fragments."""

STEADY, LEAVER = "steady", "leaver"


class SteppedClock(Clock):
    """Time that moves when the machine says so."""

    def __init__(self) -> None:
        self.now_ms = 0.0

    def time_us(self) -> int:
        return START_US + int(self.now_ms * 1000)

    def monotonic_ms(self) -> float:
        return self.now_ms

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError


class SpyingAEAD:
    """The real cipher, which refuses to use a nonce twice under one key."""

    used: set[tuple[bytes, bytes]]

    def __init__(self, key: bytes) -> None:
        self._key, self._real = key, ChaCha20Poly1305(key)

    def encrypt(self, nonce: bytes, data: bytes, aad: bytes) -> bytes:
        assert (self._key, nonce) not in self.used, "a (key, nonce) was used twice"
        self.used.add((self._key, nonce))
        return self._real.encrypt(nonce, data, aad)

    def decrypt(self, nonce: bytes, data: bytes, aad: bytes) -> bytes:
        return self._real.decrypt(nonce, data, aad)


@dataclass
class Boot:
    """One life of one device: its session keys, what it was granted, and the end of the channel it has."""

    device: str
    secret: PrivateKey
    frame_key: SigningKey
    number: int
    communication: CommunicationService
    highest_serial: int = 0
    granted: list[bytes] = field(default_factory=list)

    @property
    def keys(self) -> SessionKeys:
        return SessionKeys(
            bytes(self.secret.public_key), bytes(self.frame_key.verify_key), self.number.to_bytes(16, "big")
        )

    def take(self, sealed: bytes, clock: Clock) -> None:
        """As a device does: open, remember the serial, hand over."""
        grant = open_grant(
            sealed, bytes(self.secret), bytes(GRANT_KEY.verify_key),
            now_s=clock.time_us() // 1_000_000, highest_serial=self.highest_serial, mapping_version=0,
        )  # fmt: skip
        self.highest_serial = grant.serial
        self.communication.apply_grant(grant, bytes(self.frame_key))


@dataclass
class Consumer:
    """A receiving device over all its lives."""

    boot: Boot
    end: SecureReceiver
    waiting: list[bytes] = field(default_factory=list)
    """Frames on their way."""
    delivered: set[int] = field(default_factory=set)
    forbidden: set[int] = field(default_factory=set)
    """Messages it must never read: sent while it was not a member, or before it joined."""
    events: list[ChannelEvent] = field(default_factory=list)
    member: bool = True


class ChannelMachine(RuleBasedStateMachine):
    """See the module; ``mode`` is set by a subclass."""

    mode: AuthMode
    refused: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.clock, self.random = SteppedClock(), Random(1)
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(frame_module, "ChaCha20Poly1305", SpyingAEAD)
        SpyingAEAD.used = set()
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self.boots: dict[str, Boot] = {}
        self.order = itertools.count()
        self.numbers = self.mapping = 0
        self.messages: list[bytes] = []
        self.sealed: list[bytes] = []
        self.foreign: list[bytes] = []
        self.office = GrantOffice(
            lambda data: GRANT_KEY.sign(data).signature,
            lambda device: self.boots[device].keys if device in self.boots else None,
            clock=self.clock, random=self.random.randbytes,
        )  # fmt: skip
        self.consumers = {name: self._consumer(name) for name in (STEADY, LEAVER)}
        self.producer = "producer"
        self.sender = self._sender(self.producer)
        self._issue()
        self.others = [self._other_channel(channel) for channel in OTHER_CHANNELS]

    # --- construction -------------------------------------------------------------------------------

    def _boot(self, device: str, publish: Callable[[str, bytes, int], None]) -> Boot:
        self.numbers += 1
        draw = self.random.randbytes
        communication = CommunicationService(
            publish=publish, now_ms=self.clock.monotonic_ms, call_later=self._call_later
        )
        boot = Boot(device, PrivateKey(draw(32)), SigningKey(draw(32)), self.numbers, communication)
        self.boots[device] = boot
        return boot

    def _call_later(self, delay_ms: float, function: Callable[[], None]) -> None:
        heapq.heappush(self.timers, (self.clock.now_ms + delay_ms, next(self.order), function))

    def _channel(self, channel: bytes = CHANNEL) -> SealedChannel:
        return SealedChannel(channel, TOPIC, self.mode, policy=POLICY)

    def _sender(self, device: str) -> SecureSender:
        boot = self._boot(device, self._publish)
        return boot.communication.open_sender(self._channel())

    def _publish(self, _topic: str, frame: bytes, _qos: int) -> None:
        self.sealed.append(frame)
        for consumer in self.consumers.values():
            consumer.waiting.append(frame)

    def _consumer(self, name: str) -> Consumer:
        boot = self._boot(name, _nothing_is_sent)
        events: list[ChannelEvent] = []
        end = boot.communication.open_receiver(
            self._channel(), lambda payloads: self._delivered(name, payloads), events.append
        )
        return Consumer(boot, end, events=events)

    def _other_channel(self, channel: bytes) -> SecureSender:
        """A sender of this device on another channel; its frames are cross-posted."""
        boot = self.boots[self.producer]
        producer = CommunicationService(
            publish=lambda _topic, frame, _qos: self.foreign.append(frame),
            now_ms=self.clock.monotonic_ms, call_later=self._call_later,
        )  # fmt: skip
        sender = producer.open_sender(self._channel(channel))
        end = End(self.producer, "aim")
        issued = self.office.issue(channel, self.mode, [end], [], mapping_version=0)
        sender.install(issued[0].grant, bytes(boot.frame_key))
        return sender

    def _issue(self) -> None:
        """A new epoch for the sender and all members, as the Controller does it: receivers first."""
        members = [End(name, "sink") for name, consumer in self.consumers.items() if consumer.member]
        issued = self.office.issue(
            CHANNEL, self.mode, [End(self.producer, "aim")], members, mapping_version=self.mapping
        )
        for each in sorted(issued, key=lambda grant: grant.device == self.producer):
            boot = self.boots[each.device]
            boot.granted.append(each.sealed)
            boot.take(each.sealed, self.clock)

    # --- what is delivered ----------------------------------------------------------------------------

    def _delivered(self, name: str, payloads: Sequence[bytes]) -> None:
        consumer = self.consumers[name]
        for payload in payloads:
            number = int.from_bytes(payload[:4], "big")
            assert payload in self.messages[number : number + 1], "a forged payload was delivered"
            assert number not in consumer.delivered, "a message was delivered twice"
            assert number not in consumer.forbidden, "a message was read by who is not a member"
            consumer.delivered.add(number)

    def _bring(self, consumer: Consumer, frame: bytes, *, retained: bool = False) -> None:
        consumer.end.receive(frame, retained=retained)

    def _attack(self, kind: str, consumer: Consumer, frame: bytes, *, retained: bool = False) -> None:
        """As ``_bring``, counted. Only an original frame on its first way may deliver, and is no attack."""
        before = len(consumer.delivered)
        self._bring(consumer, frame, retained=retained)
        harmless = len(consumer.delivered) == before
        assert harmless or frame in self.sealed, "a frame that nobody sent delivered something"
        if harmless:
            self._count(kind)

    def _count(self, kind: str) -> None:
        self.refused[kind] += 1

    # --- what the site does -----------------------------------------------------------------------------

    @rule(count=st.integers(1, 9))
    def publish(self, count: int) -> None:
        for _ in range(count):
            self._send(large=False)

    @rule()
    def publish_large(self) -> None:
        self._send(large=True)

    def _send(self, *, large: bool) -> None:
        number = len(self.messages)
        for consumer in self.consumers.values():
            if not consumer.member:
                consumer.forbidden.add(number)
        body = number.to_bytes(4, "big") * (1 + number % 7)
        self.messages.append(body.ljust(LARGE_BYTES, b"\xaa") if large else body)
        self.sender.send(self.messages[number])

    @rule(ms=st.sampled_from((1, 25, 400, 1_100, 3_000)))
    def time_passes(self, ms: int) -> None:
        self._pass(ms)

    @rule()
    def grace_of_the_last_epoch_passes(self) -> None:
        self._pass(31_000)

    def _pass(self, ms: float) -> None:
        self.clock.now_ms += ms
        while self.timers and self.timers[0][0] <= self.clock.now_ms:
            heapq.heappop(self.timers)[2]()
        self.sender.poll(self.clock.now_ms)
        for consumer in self.consumers.values():
            consumer.end.poll(self.clock.now_ms)

    @rule()
    def change_keys(self) -> None:
        self._issue()

    @rule()
    def crash_and_restart_the_sender(self) -> None:
        self.timers.clear()
        self.sender = self._sender(self.producer)
        self._issue()

    @rule()
    def move_the_sender(self) -> None:
        """To another device; what the old one still held is gone with it."""
        self.timers.clear()
        self.mapping += 1
        self.producer = f"producer-{self.mapping}"
        self.sender = self._sender(self.producer)
        self._issue()

    @precondition(lambda self: self.consumers[LEAVER].member)
    @rule()
    def revoke_the_leaver(self) -> None:
        """It keeps every key it ever had."""
        self.consumers[LEAVER].member = False
        self._issue()

    @precondition(lambda self: not self.consumers[LEAVER].member)
    @rule()
    def readmit_the_leaver(self) -> None:
        """As a new boot, with the frames of the past still on their way to it."""
        old = self.consumers[LEAVER]
        fresh = self._consumer(LEAVER)
        fresh.waiting, fresh.delivered = old.waiting, old.delivered
        fresh.forbidden = set(range(len(self.messages)))
        self.consumers[LEAVER] = fresh
        self._issue()

    # --- what the network does --------------------------------------------------------------------------

    @rule(name=st.sampled_from((STEADY, LEAVER)), count=st.integers(1, 12))
    def deliver(self, name: str, count: int) -> None:
        consumer = self.consumers[name]
        arriving, consumer.waiting = consumer.waiting[:count], consumer.waiting[count:]
        for frame in arriving:
            self._bring(consumer, frame)

    @rule(name=st.sampled_from((STEADY, LEAVER)), pick=st.integers(0, 1 << 16))
    def overtake(self, name: str, pick: int) -> None:
        consumer = self.consumers[name]
        if consumer.waiting:
            self._bring(consumer, consumer.waiting.pop(pick % len(consumer.waiting)))

    @rule(name=st.sampled_from((STEADY, LEAVER)), pick=st.integers(0, 1 << 16), count=st.integers(1, 5))
    def lose(self, name: str, pick: int, count: int) -> None:
        consumer = self.consumers[name]
        if consumer.waiting:
            at = pick % len(consumer.waiting)
            del consumer.waiting[at : at + count]

    @rule(name=st.sampled_from((STEADY, LEAVER)), pick=st.integers(0, 1 << 16), retained=st.booleans())
    def replay(self, name: str, pick: int, retained: bool) -> None:
        """Any frame of any time; one that was not delivered yet is then also still on its way."""
        if self.sealed:
            self._attack(
                "replay", self.consumers[name], self.sealed[pick % len(self.sealed)], retained=retained
            )

    @rule(
        name=st.sampled_from((STEADY, LEAVER)),
        pick=st.integers(0, 1 << 16),
        place=st.integers(0, 1 << 16),
        bit=st.integers(0, 7),
    )
    def edit(self, name: str, pick: int, place: int, bit: int) -> None:
        if self.sealed:
            frame = bytearray(self.sealed[pick % len(self.sealed)])
            frame[place % len(frame) if place % 3 else place % 10] ^= 1 << bit  # headers often
            self._attack("tampering", self.consumers[name], bytes(frame))

    @rule(name=st.sampled_from((STEADY, LEAVER)), which=st.integers(0, len(OTHER_CHANNELS) - 1))
    def cross_post(self, name: str, which: int) -> None:
        """From another channel, as it is and under the epoch and sender index of this one."""
        self.others[which].send(b"posted elsewhere")
        self.others[which].flush()
        like = self.sealed[-1] if self.sealed else self.foreign[-1]
        for frame in (self.foreign[-1], self.foreign[-1][:1] + like[1:4] + self.foreign[-1][4:]):
            self._attack("cross-post", self.consumers[name], frame)

    @rule(
        name=st.sampled_from((STEADY, LEAVER)),
        pick=st.integers(0, 1 << 16),
        like=st.integers(0, 1 << 16),
        part=st.sampled_from((slice(0, 1), slice(1, 2), slice(2, 4), slice(4, 10), slice(10, None))),
    )
    def exchange_parts(self, name: str, pick: int, like: int, part: slice) -> None:
        """A frame with the type, epoch, sender index, counter or body of another frame of any time."""
        if self.sealed:
            frame = bytearray(self.sealed[pick % len(self.sealed)])
            frame[part] = self.sealed[like % len(self.sealed)][part]
            self._attack("tampering", self.consumers[name], bytes(frame))

    @precondition(lambda self: self.mode is AuthMode.SIGNED)
    @rule(kind=st.sampled_from(sorted(FrameType)), ahead=st.sampled_from((1, 2, 70, 1 << 40)))
    def a_member_forges(self, kind: FrameType, ahead: int) -> None:
        """The leaver has the producer's sender keys of its epochs, but not its sign key."""
        end = self.consumers[LEAVER].end
        if not end._receiver._peers:
            return
        with pytest.MonkeyPatch.context() as patch:  # who forges does not care about nonces
            patch.setattr(frame_module, "ChaCha20Poly1305", ChaCha20Poly1305)
            member = Member(end, bytes([6]) * 32)
        forged = member.forge(kind, b"\0\1\0\1x", ahead=ahead, signed="SIGNED" in kind.name)
        self._attack("consumer forges", self.consumers[STEADY], forged)

    @rule(name=st.sampled_from((STEADY, LEAVER, "producer")), pick=st.integers(0, 1 << 16))
    def replay_grant(self, name: str, pick: int) -> None:
        boot = self.boots[self.producer if name == "producer" else name]
        if boot.granted:
            with pytest.raises(ReplayDetected):
                boot.take(boot.granted[pick % len(boot.granted)], self.clock)
            self._count("replay of grants")

    @rule(pick=st.integers(0, 1 << 16))
    def give_a_grant_to_another(self, pick: int) -> None:
        mine, other = self.boots[LEAVER], self.boots[STEADY]
        with pytest.raises(TrustError):
            mine.take(other.granted[pick % len(other.granted)], self.clock)
        self._count("grants of others")

    # --- the account --------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """The stream ends, the last frames arrive, and the books are closed."""
        try:
            steady = self.consumers[STEADY]
            steady.waiting.clear()
            try:
                self.sender.finish()
            except (LocalProtocolError, NotConnected) as error:
                raise AssertionError("the end of the stream was not sent") from error
            for frame in steady.waiting:
                self._bring(steady, frame)
            for _ in range(4):
                self._pass(31_000)
            self._check_account(steady)
        except AIFError as error:
            raise AssertionError(f"{type(error).__name__}: {error}") from error
        finally:
            self.patch.undo()

    def _check_account(self, consumer: Consumer) -> None:
        losses = [event for event in consumer.events if isinstance(event, LossReport)]
        known = sum(loss.messages for loss in losses if loss.messages is not None)
        unknown = any(loss.messages is None for loss in losses) or any(
            isinstance(event, AuthFailure) and event.stopped for event in consumer.events
        )  # who says that it delivers nothing more does not count what it refuses
        missing = len(self.messages) - len(consumer.delivered)
        assert known <= missing, "more losses reported than there were"
        assert unknown or known == missing, "a loss was not reported"


def _nothing_is_sent(_topic: str, _frame: bytes, _qos: int) -> None:
    raise AssertionError("a consumer sends nothing")


def run(mode: AuthMode, *, examples: int, steps: int, planted: bool = False) -> type[ChannelMachine]:
    machine: type[ChannelMachine] = type(
        f"{mode.title()}Machine",
        (ChannelMachine,),
        {"mode": mode, "refused": Counter()},  # counts over all examples
    )
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, database=None,
            suppress_health_check=list(HealthCheck), derandomize=planted,
            phases=(Phase.generate,) if planted else tuple(Phase),
        ),
    )  # fmt: skip
    return machine


def tell(attacks: Report, machine: type[ChannelMachine]) -> None:
    for kind, refused in machine.refused.items():
        attacks(f"{kind}, in any order of events", refused)


@pytest.mark.parametrize("mode", list(AuthMode))
def test_whatever_happens_the_invariants_hold(mode: AuthMode, attacks: Report) -> None:
    tell(attacks, run(mode, examples=60, steps=40))


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("mode", list(AuthMode))
def test_the_invariants_hold_for_long(mode: AuthMode, attacks: Report) -> None:
    tell(attacks, run(mode, examples=1_500, steps=80))


# --- the machine finds what it is there to find ---------------------------------------------------------


def _no_window(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ReplayWindow, "refusal", lambda *_: None)


def _no_tag(patch: pytest.MonkeyPatch) -> None:
    """Decrypts without authentication: ChaCha20 from block 1 (RFC 8439 §2.8)."""

    def decrypt(self: SpyingAEAD, nonce: bytes, data: bytes, _aad: bytes) -> bytes:
        cipher = Cipher(ChaCha20(self._key, (1).to_bytes(4, "little") + nonce), mode=None)
        return cipher.decryptor().update(data[:-16])

    patch.setattr(SpyingAEAD, "decrypt", decrypt)


def _same_key_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("aif.trusted.secure_sender.key_of", lambda *_: bytes(32))
    patch.setattr("aif.trusted.communication.key_of", lambda *_: bytes(32))


def _key_for_everybody(patch: pytest.MonkeyPatch) -> None:
    """Whoever was a member once goes on receiving grants."""
    issue = GrantOffice.issue

    def generous(self: GrantOffice, *arguments: Any, **named: Any) -> list[IssuedGrant]:
        channel_id, mode, senders, receivers = arguments
        everybody = [End(STEADY, "sink"), End(LEAVER, "sink")] if receivers else []
        return issue(self, channel_id, mode, senders, everybody, **named)

    patch.setattr(GrantOffice, "issue", generous)


def _no_loss_reports(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SenderLedger, "_loss", lambda *_: ChannelSilent(CHANNEL, 0, 0, 0))


def _serials_unchecked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Boot, "highest_serial", property(lambda _: 0, lambda *_: None), raising=False)


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        (_no_window, "delivered twice|not reported|nobody sent"),
        (_no_tag, "forged payload|member|nobody sent"),
        (_same_key_again, "used twice"),
        (_key_for_everybody, "not a member"),
        (_no_loss_reports, "loss was not reported"),
        (_serials_unchecked, "DID NOT RAISE|not newer"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_planted_defects_are_found(
    plant: Callable[[pytest.MonkeyPatch], None], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception, LocalProtocolError), match=found):
        run(AuthMode.AEAD, examples=400, steps=20, planted=True)
