"""What somebody on the broker can try against a running site, and what must come of it: one table.

Every row names an attack and the refusal that must follow, as a counter or a log line, exactly as often as
the attack was made. After each row the workflow's results are exact, every session, key and registry entry is
as before, and no callback has failed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from random import Random

import pytest
from _pytest.mark.structures import ParameterSet
from nacl.signing import SigningKey

from aif.protocol import control
from aif.protocol.bundle import encode_bundle
from aif.protocol.enrolment import EnrolmentRequest, build_request
from aif.protocol.frame import FrameSealer
from aif.protocol.grant import Grant, Role, RosterRow, issue_grant
from aif.protocol.identifiers import id16
from aif.protocol.lifecycle import Signal
from aif.protocol.numbers import AuthMode, ControlCode, FrameType
from aif.protocol.stamp import STAMP_BYTES
from aif.protocol.watermark import Watermark
from aif.runtime.host.session import CALL_INTERVAL_MS
from aif.transport.faults import Delivery
from tests.adversary.arena import MOSQUITTO, WIRES, Arena, ArenaThread
from tests.adversary.conftest import Report
from tests.adversary.hostile_client import Member, edited, moved_ahead

Act = Callable[[Arena], Awaitable[int]]
Refusals = Callable[[Arena], int]

FOREIGN = SigningKey(bytes([0x66]) * 32)
"""A key that belongs to nobody here."""


def at(place: str, *causes: str) -> Refusals:
    """Counted by a device or the Controller."""
    return lambda arena: arena.count(place, *causes)


def gate_of_site(device: str) -> Refusals:
    """Stopped by the Controller for want of a stamp."""
    return lambda arena: arena.site.controller.admission.gates.refused(device)["gate.stamp"]


def gate_of(device: str) -> Refusals:
    """Stopped by a device for want of a stamp."""
    return lambda arena: arena.site.hosts[device].session._gates.refused["gate.stamp"]


def log(event: str, **facts: object) -> Refusals:
    """Told in the log."""
    return lambda arena: arena.logged(event, **facts)


@dataclass(frozen=True)
class Attack:
    """One row. ``act`` makes the attack and says how many refusals must follow."""

    name: str
    act: Act
    refused: Refusals


# --- data frames ------------------------------------------------------------------------------------


def pairs(arena: Arena) -> str:
    """Topic of the one-to-one channel from right to left."""
    return arena.hostile.data_topic("double", arena.running.aiw_id)


def numbers(arena: Arena) -> str:
    """Topic of the signed channel from left to right and far."""
    return arena.hostile.data_topic("count", arena.running.aiw_id)


def pair_frame(change: Callable[[bytes], bytes], *, count: int = 3) -> Act:
    """Changed copies of frames of the one-to-one channel, sent where they belong."""

    async def act(arena: Arena) -> int:
        topic = pairs(arena)
        for frame in await arena.hostile.until_heard(topic, count):
            arena.hostile.send(topic, change(frame))
        return count

    return act


async def replay_newest(arena: Arena) -> int:
    topic = pairs(arena)
    frames = await arena.hostile.until_heard(topic, 3)
    for frame in frames:
        arena.hostile.send(topic, frame)
    return len(frames)


async def replay_oldest(arena: Arena) -> int:
    topic = pairs(arena)
    for frame in arena.hostile.heard(topic)[:5]:
        arena.hostile.send(topic, frame)
    return 5


async def cross_post_to_other_mode(arena: Arena) -> int:
    for frame in await arena.hostile.until_heard(pairs(arena), 3):
        arena.hostile.send(numbers(arena), moved_ahead(frame))
    return 3


def fitted(frame: bytes, like: bytes) -> bytes:
    """A frame with epoch and sender of another channel and a fresh counter: only the tag can tell."""
    return moved_ahead(frame[:1] + like[1:4] + frame[4:])


async def cross_post_from_control_channel(arena: Arena) -> int:
    frames = await arena.hostile.until_heard("aif/dev/right/up/report", 2)
    like = arena.hostile.heard(pairs(arena))[-1]
    for frame in frames:
        arena.hostile.send(pairs(arena), fitted(frame, like))
    return len(frames)


async def cross_post_from_earlier_workflow(arena: Arena) -> int:
    earlier = next(t for t in arena.hostile.data_topics() if "/double/" in t and t != pairs(arena))
    data = [frame for frame in arena.hostile.heard(earlier) if frame[0] & 15 == FrameType.DATA]
    like = arena.hostile.heard(pairs(arena))[-1]
    for frame in data:
        arena.hostile.send(pairs(arena), fitted(frame, like))
    return len(data)


async def cross_post_between_devices(arena: Arena) -> int:
    target = "aif/dev/right/up/report"
    frames = await arena.hostile.until_heard("aif/dev/left/up/report", 2)
    like = (await arena.hostile.until_heard(target))[0]
    for frame in frames:
        arena.hostile.send(target, fitted(frame, like))
    return len(frames)


async def other_sender_index(arena: Arena) -> int:
    return await pair_frame(lambda frame: moved_ahead(edited(frame, 3, 9)), count=2)(arena)


# --- a consumer against its producer ------------------------------------------------------------------


def member(arena: Arena) -> Member:
    """``far``, a legitimate consumer of the numbers, with all the keys it has."""
    receivers = arena.communication("far")._receivers.values()
    stolen = next(r for r in receivers if r.channel.topic == numbers(arena))
    return Member(stolen, bytes(FOREIGN))


def forged(kind: FrameType, plaintext: bytes, *, signed: bool) -> Act:
    async def act(arena: Arena) -> int:
        for n in (1, 2):
            frame = member(arena).forge(kind, plaintext, ahead=(1 << 20) + n, signed=signed)
            arena.hostile.send(numbers(arena), frame)
        return 2

    return act


_MESSAGE = bytes(12) + (7).to_bytes(4, "little")
_ONE_FRAGMENT = bytes(5) + b"\0\0\1" + len(_MESSAGE).to_bytes(4, "big") + _MESSAGE

# --- control channels -----------------------------------------------------------------------------------


def in_clear(topic: str, *messages: control.ControlMessage) -> Act:
    """Control messages as an attacker without keys would write them."""

    async def act(arena: Arena) -> int:
        for message in messages:
            arena.hostile.send(topic, control.pack(message))
        return len(messages)

    return act


def replay_all(topic: str) -> Act:
    async def act(arena: Arena) -> int:
        heard = arena.hostile.heard(topic)[-20:]
        for payload in heard:
            arena.hostile.send(topic, payload)
        return len(heard)

    return act


# --- hello ----------------------------------------------------------------------------------------------


def bare(stamped: bytes) -> bytes:
    """Without its stamp."""
    return stamped[:-STAMP_BYTES]


SENTINEL = b"\xd2\x84"
"""Refused with a word: what was sent before it on the same topic has been dealt with."""


def hello_of(arena: Arena, device: str) -> bytes:
    return arena.hostile.heard(f"aif/dev/{device}/up/hello")[-1]


async def replay_hello(arena: Arena) -> int:
    arena.hostile.send("aif/dev/left/up/hello", hello_of(arena, "left"))
    arena.send_stamped("aif/dev/left/up/hello", SENTINEL)
    return 1


async def hello_of_another(arena: Arena) -> int:
    arena.hostile.send("aif/dev/right/up/hello", hello_of(arena, "left"))
    return 1


async def hello_of_nobody(arena: Arena) -> int:
    arena.hostile.send("aif/dev/nobody/up/hello", hello_of(arena, "left"))
    return 1


async def forged_hello(arena: Arena) -> int:
    hello = control.Hello("left", bytes(16), bytes(32), bytes(32), 5, 0, ())
    arena.send_stamped(
        "aif/dev/left/up/hello", control.sign_hello(hello, lambda m: FOREIGN.sign(m).signature)
    )
    return 1


async def edited_hello(arena: Arena) -> int:
    payload = hello_of(arena, "left")
    places = range(4, len(payload), 13)
    for position in places:
        arena.hostile.send("aif/dev/left/up/hello", edited(payload, position, payload[position] ^ 1))
    return len(places)


# --- attestation ------------------------------------------------------------------------------------------


def false_evidence(payload: Callable[[Arena], bytes]) -> Act:
    """Evidence in answer to a challenge that the device never gets; it stays open for the device's own."""

    async def act(arena: Arena) -> int:
        admission, lost = arena.site.controller.admission, 0

        def lose_challenge(delivery: Delivery) -> Iterator[Delivery]:
            nonlocal lost
            if delivery.message.topic != "aif/att/right/req" or delivery.receiver != "right":
                yield delivery
            else:
                lost += 1

        arena.faults.append(lose_challenge)
        try:
            admission.challenge("right", mapping_version=admission.link("right").attested_mapping)
            # the attacker may hear it before the broker brings it to the device: only the loss itself counts
            await arena.until(lambda: lost > 0)
            arena.send_stamped("aif/att/right/evd", payload(arena))
        finally:
            arena.faults.remove(lose_challenge)
        return 1

    return act


async def unasked_evidence(arena: Arena) -> int:
    """Nobody expects it, so nobody says a word; a hello behind it shows that it was dealt with."""
    for payload in arena.hostile.heard("aif/att/right/evd"):
        arena.hostile.send("aif/att/right/evd", payload)
    return await replay_hello(arena)


async def malformed_challenge(arena: Arena) -> int:
    arena.send_stamped("aif/att/right/req", b"\xa1\x01\x40")
    return 1


# --- grants -----------------------------------------------------------------------------------------------


async def replay_grants(arena: Arena) -> int:
    for payload in arena.hostile.heard("aif/dev/right/down/grant"):
        arena.hostile.send("aif/dev/right/down/grant", payload)
    arena.send_stamped("aif/dev/right/down/grant", SENTINEL)
    return 1


async def grants_of_another(arena: Arena) -> int:
    recorded = arena.hostile.heard("aif/dev/left/down/grant")
    for payload in recorded:
        arena.hostile.send("aif/dev/right/down/grant", payload)
    return len(recorded)


async def stamped_grants_of_another(arena: Arena) -> int:
    recorded = arena.hostile.heard("aif/dev/left/down/grant")
    for payload in recorded:
        arena.send_stamped("aif/dev/right/down/grant", bare(payload))
    return len(recorded)


async def forged_grant(arena: Arena) -> int:
    """Wrapped for the session key that the hello shows to everybody, but not signed by the Controller."""
    hello = arena.site.controller.admission.link("right").hello
    assert hello is not None
    channel_id, _ = control.control_channel("right", up=False)
    grant = Grant(
        channel_id, 2**32 - 1, Role.RECEIVE, None, bytes(32), 0, 2**40, 100, 2**31, 2**40, AuthMode.AEAD,
        4096,
        (RosterRow(0, bytes(16), bytes(16), bytes(16)),),
    )  # fmt: skip
    arena.send_stamped(
        "aif/dev/right/down/grant", issue_grant(grant, hello.session_public, FOREIGN, bytes([9]) * 32)
    )
    return 1


# --- enrolment --------------------------------------------------------------------------------------------


def enrolment(device: str, change: Callable[[bytes], bytes]) -> Act:
    async def act(arena: Arena) -> int:
        recorded = bare(arena.hostile.heard("aif/enrol/enrol.left/req")[-1])
        send = arena.hostile.send if device == "nobody" else arena.send_stamped
        send(f"aif/enrol/enrol.{device}/req", change(recorded))
        return 1

    return act


async def replay_enrolment(arena: Arena) -> int:
    topic = "aif/enrol/enrol.left/req"
    arena.hostile.send(topic, arena.hostile.heard(topic)[-1])
    arena.send_stamped(topic, SENTINEL)
    return 1


def own_enrolment(_: bytes) -> bytes:
    request = EnrolmentRequest(
        id16("device", "left"), bytes(FOREIGN.verify_key), bytes([9]) * 32, bytes(32), bytes(16)
    )
    return build_request(request, bytes(16), FOREIGN)


# --- names ------------------------------------------------------------------------------------------------


def on_topics(*topics: str) -> Act:
    async def act(arena: Arena) -> int:
        for topic in topics:
            arena.hostile.send(topic, b"x")
        return await replay_hello(arena)

    return act


async def rumour(arena: Arena) -> int:
    """A last will that the broker did not write; the device's answer to a question refutes it."""
    refuted = "a rumour was refuted: the device answers"
    before = arena.logged(refuted, device="left")
    arena.hostile.send("aif/dev/left/up/status", b"gone")
    await arena.until(lambda: arena.logged(refuted, device="left") > before)
    return await replay_hello(arena)


async def calls(arena: Arena) -> int:
    """Calls for a Hello: old ones of the Controller, one for another device, and one that it did not sign."""
    session, registry = arena.site.hosts["left"].session, arena.site.registry
    call = control.Call("left", 2**62)
    for payload in (
        registry.call("left", time_us=1),
        registry.call("left", time_us=session._controller_us),
        registry.call("right", time_us=2**62),
        control.sign_call(call, lambda message: FOREIGN.sign(message).signature),
    ):
        await arena.until(lambda: session._clock.monotonic_ms() - session._called_ms > CALL_INTERVAL_MS)
        before = session._called_ms
        arena.send_stamped("aif/dev/left/down/call", payload)
        await arena.until(lambda: session._called_ms > before)  # noqa: B023  # awaited here
    return 2


def _resealed(frame: bytes) -> bytes:
    return FrameSealer(bytes(16), frame[1], 0, bytes(32), None).seal(FrameType.DATA, 1 << 21, bytes(20))


TABLE = (
    Attack("replay of fresh frames", replay_newest, at("left", "dup.redelivery", "replay.stale")),
    Attack("replay of old frames", replay_oldest, at("left", "replay.stale")),
    Attack(
        "another frame under a used counter",
        pair_frame(lambda frame: edited(frame, len(frame) - 16, frame[-16] ^ 1)),
        at("left", "replay.window", "replay.stale"),
    ),
    Attack(
        "one changed bit of ciphertext",
        pair_frame(lambda frame: moved_ahead(edited(frame, 12, frame[12] ^ 1))), at("left", "frame.tag"),
    ),
    Attack("another counter", pair_frame(moved_ahead), at("left", "frame.tag")),
    Attack(
        "the highest counter",
        pair_frame(lambda frame: frame[:4] + b"\xff" * 6 + frame[10:]), at("left", "frame.tag"),
    ),
    Attack("another key", pair_frame(_resealed), at("left", "frame.tag")),
    Attack(
        "another type of frame",
        pair_frame(lambda frame: moved_ahead(edited(frame, 0, 0x15))), at("left", "frame.tag"),
    ),
    Attack("another version", pair_frame(lambda frame: edited(frame, 0, 0x20)), at("left", "frame.version")),
    Attack("a reserved type", pair_frame(lambda frame: edited(frame, 0, 0x1F)), at("left", "frame.type")),
    Attack(
        "a signed type on an unsigned channel",
        pair_frame(lambda frame: edited(frame, 0, 0x11) + bytes(64)), at("left", "frame.mode"),
    ),
    Attack("an empty frame", pair_frame(lambda _: b"", count=1), at("left", "frame.short")),
    Attack("a cut frame", pair_frame(lambda frame: frame[:25]), at("left", "frame.short")),
    Attack(
        "a frame longer than allowed",
        pair_frame(lambda frame: frame + bytes(65_536)), at("left", "frame.size"),
    ),
    Attack(
        "an epoch of the past",
        pair_frame(lambda frame: edited(frame, 1, frame[1] - 7 & 0xFF)), at("left", "frame.epoch"),
    ),
    Attack(
        "the next epoch",
        pair_frame(lambda frame: edited(frame, 1, frame[1] + 1 & 0xFF), count=1), at("left", "frame.epoch"),
    ),
    Attack("an unknown sender index", other_sender_index, at("left", "frame.sender")),
    Attack("cross-post to a signed channel", cross_post_to_other_mode, at("right", "frame.mode")),
    Attack("cross-post from a control channel", cross_post_from_control_channel, at("left", "frame.tag")),
    Attack("cross-post from an earlier workflow", cross_post_from_earlier_workflow, at("left", "frame.tag")),
    Attack("cross-post between devices", cross_post_between_devices, at("controller", "frame.tag")),
    Attack(
        "a consumer forges without signature",
        forged(FrameType.DATA, _MESSAGE, signed=False), at("right", "frame.mode"),
    ),
    Attack(
        "a consumer signs with its own key",
        forged(FrameType.DATA_SIGNED, _MESSAGE, signed=True), at("right", "frame.signature"),
    ),
    Attack(
        "a consumer forges a bundle",
        forged(FrameType.BUNDLE_SIGNED, encode_bundle([_MESSAGE] * 3), signed=True),
        at("right", "frame.signature"),
    ),
    Attack(
        "a consumer forges a whole fragmented message",
        forged(FrameType.FRAGMENT_SIGNED, _ONE_FRAGMENT, signed=True), at("right", "frame.signature"),
    ),
    Attack(
        "a consumer forges the end of the stream",
        forged(FrameType.CONTROL_SIGNED, bytes([ControlCode.END_OF_STREAM]), signed=True),
        at("right", "frame.signature"),
    ),
    Attack(
        "a consumer forges a watermark",
        forged(FrameType.WATERMARK_SIGNED, Watermark(0, 5, 1 << 40, final=True).encode(), signed=True),
        at("right", "frame.signature"),
    ),
    Attack(
        "orders in clear",
        in_clear(
            "aif/dev/left/down/command", control.Undeploy("Adding-2"), control.Deploy(b"x"),
            control.SignalAIMs("Adding-2", "", Signal.STOP),
        ),
        at("left", "frame.version", "frame.short"),
    ),
    Attack(
        "reports in clear",
        in_clear("aif/dev/left/up/report", control.Undeploy("Adding-2"), control.Heartbeat(5)),
        at("controller", "frame.version", "frame.short"),
    ),
    Attack(
        "replay of orders",
        replay_all("aif/dev/left/down/command"), at("left", "dup.redelivery", "replay.stale"),
    ),
    Attack(
        "replay of reports",
        replay_all("aif/dev/left/up/report"), at("controller", "dup.redelivery", "replay.stale"),
    ),
    Attack("replay of a hello", replay_hello, log("hello refused", device="left")),
    Attack("the hello of another device", hello_of_another, gate_of_site("right")),
    Attack("the hello of no device", hello_of_nobody, log("hello ignored", device="nobody")),
    Attack("a forged hello", forged_hello, log("hello refused", device="left", code="AIF-E0501")),
    Attack("a hello with changed bits", edited_hello, gate_of_site("left")),
    Attack("evidence that nobody asked for", unasked_evidence, log("hello refused", device="left")),
    Attack(
        "replay of evidence",
        false_evidence(lambda arena: bare(arena.hostile.heard("aif/att/right/evd")[0])),
        log("evidence ignored", device="right", step="nonce"),
    ),
    Attack(
        "the evidence of another device",
        false_evidence(lambda arena: bare(arena.hostile.heard("aif/att/left/evd")[-1])),
        log("evidence ignored", device="right", step="signature"),
    ),
    Attack(
        "malformed evidence",
        false_evidence(lambda _: b"\xff" * 80), log("evidence ignored", device="right", step="format"),
    ),
    Attack("a malformed challenge", malformed_challenge, log("attestation request not answered")),
    Attack("replay of grants", replay_grants, log("grant refused", code="AIF-E0402")),
    Attack("the grants of another device", grants_of_another, gate_of("right")),
    Attack(
        "the grants of another device, by who can make stamps",
        stamped_grants_of_another, log("grant refused", code="AIF-E0505"),
    ),
    Attack("a forged grant", forged_grant, log("grant refused", code="AIF-E0501")),
    Attack("replay of an enrolment", replay_enrolment, log("enrolment refused", device="left")),
    Attack(
        "enrolment of an enrolled device",
        enrolment("left", own_enrolment), log("enrolment refused", device="left"),
    ),
    Attack(
        "enrolment under another name",
        enrolment("right", lambda data: data), log("enrolment refused", device="right"),
    ),
    Attack(
        "enrolment of an unknown device",
        enrolment("nobody", own_enrolment), log("enrolment refused", device="nobody"),
    ),
    Attack("calls for a hello", calls, log("call refused", origin="left")),
    Attack("a forged last will", rumour, log("hello refused", device="left")),
    Attack(
        "topics that name no device",
        on_topics("aif/dev/No Device/up/hello", "aif/dev/-/up/report", "aif/att/ /evd", "aif/enrol/left/req"),
        log("hello refused", device="left"),
    ),
)  # fmt: skip

OPEN_DEFECTS: dict[str, str] = {}


def _rows() -> list[ParameterSet]:
    return [
        pytest.param(
            row,
            id=row.name,
            marks=[pytest.mark.xfail(reason=OPEN_DEFECTS[row.name], strict=True)]
            if row.name in OPEN_DEFECTS
            else [],
        )
        for row in TABLE
    ]


@pytest.fixture(scope="module", params=(*WIRES, MOSQUITTO))
def attacked(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ArenaThread]:
    thread = ArenaThread(str(request.param), tmp_path_factory.mktemp("arena"))
    try:
        thread.start()
        yield thread
    finally:
        thread.stop()


KINDS = {
    "replay": "replay", "cross-post": "cross-post", "consumer": "consumer forges",
    "hello": "forged documents", "evidence": "forged documents", "challenge": "forged documents",
    "grant": "forged documents",
    "enrolment": "forged documents", "in clear": "forged documents", "last will": "forged documents",
    "calls": "forged documents",
    "topics": "malformed", "empty": "malformed", "cut": "malformed", "longer": "malformed",
    "version": "malformed", "reserved": "malformed",
}  # fmt: skip
"""Class of an attack by a word of its name; the others tamper with a frame."""


def kind_of(row: Attack) -> str:
    return next((kind for word, kind in KINDS.items() if word in row.name), "tampering")


@pytest.mark.parametrize("row", _rows())
def test_attack_is_refused(attacked: ArenaThread, row: Attack, attacks: Report) -> None:
    async def attempt() -> None:
        arena = attacked.arena
        arena.uncaught.clear()
        state, refused = arena.trust_state(), row.refused(arena)
        made = await row.act(arena)
        assert made > 0
        await arena.until(lambda: row.refused(arena) >= refused + made)
        await arena.until_outputs(5)
        attacks(f"{kind_of(row)}, on a running site", made, row.refused(arena) - refused)
        assert row.refused(arena) == refused + made
        assert arena.trust_state() == state
        assert not arena.uncaught, "a callback failed"
        arena.check_results()

    attacked.run(attempt())


def test_the_results_of_the_workflow_were_never_touched(attacked: ArenaThread) -> None:
    async def verdict() -> None:
        arena = attacked.arena
        await arena.until_outputs(5)
        arena.check_results()
        for place in ("left", "right", "far", "controller"):
            assert arena.communication(place).statistics().lost_messages == 0
            assert arena.count(place, "loss.gap", "loss.tail", "channel.silent") == 0

    attacked.run(verdict())


def test_frames_of_an_earlier_epoch_are_refused(attacked: ArenaThread) -> None:
    async def attempt() -> None:
        arena = attacked.arena
        topic = "aif/dev/left/down/command"
        admission = arena.site.controller.admission
        old = arena.hostile.heard(topic)
        admission._channels.renew_keys(admission.link("left"))
        fresh = await arena.hostile.until_heard(topic, 2)
        await arena.until(lambda: arena.hostile.heard(topic)[-1][1] != old[-1][1])  # its epoch
        causes = ("dup.redelivery", "replay.window", "replay.stale", "frame.sender", "frame.epoch")
        before = arena.count("left", *causes)
        for frame in old[-10:]:
            arena.hostile.send(topic, frame)
        await arena.until(lambda: arena.count("left", *causes) >= before + 10)
        await arena.until_outputs(5)
        assert fresh
        assert arena.count("left", *causes) == before + 10
        assert admission.trusted("left")
        arena.check_results()

    attacked.run(attempt())


def test_random_frames_on_every_topic_change_nothing(attacked: ArenaThread) -> None:
    async def attempt() -> None:
        arena, rng = attacked.arena, Random(5)
        state = arena.trust_state()
        topics = {m.topic for m in arena.hostile.recorded if m.topic.startswith(("aif/ch/", "aif/dev/"))}
        for topic in sorted(t for t in topics if not t.endswith(("/hello", "/grant", "/status"))):
            samples = arena.hostile.heard(topic)
            for _ in range(60):
                frame = rng.choice(samples)
                place = rng.randrange(len(frame))
                arena.hostile.send(
                    topic, moved_ahead(edited(frame, place, frame[place] ^ 1 << rng.randrange(8)))
                )
        await arena.until_outputs(40)
        assert arena.trust_state() == state
        arena.check_results()

    attacked.run(attempt())
