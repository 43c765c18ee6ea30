"""A legitimate consumer turns on its producer: it has every key of the channel but the producer's sign key.

On a signed channel its forgeries are refused; on a checkpoint channel they are found at the next checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from aif.protocol.aif1 import (
    AuthFailure,
    AuthMode,
    Cause,
    ChannelReceiver,
    ChannelSender,
    ChannelSilent,
    CloneSuspected,
    LossReport,
    RosterSender,
)
from aif.protocol.frame import FrameSealer
from aif.protocol.numbers import COUNTER_LIMIT, FrameType

CHANNEL, KEY, SEED = b"channel-id-of-16", bytes([7]) * 32, bytes([5]) * 32
MEMBER_SEED = bytes([6]) * 32
EPOCH, PRODUCER = 1, 7
FIRST_OF_TWO = bytes(4) + b"\0\0" + b"\0\2" + (9).to_bytes(4, "big") + b"x"
LAST_OF_TWO = bytes(4) + b"\0\1" + b"\0\2" + (9).to_bytes(4, "big") + b"x"


class Duel:
    """The producer, one honest consumer, and the other member's way to seal."""

    def __init__(self, mode: AuthMode, *, max_frame_bytes: int = 65_536) -> None:
        self.producer = ChannelSender(
            CHANNEL, EPOCH, PRODUCER, KEY, mode, sign_key=SEED, max_frame_bytes=max_frame_bytes
        )
        self.consumer = ChannelReceiver(CHANNEL, mode)
        row = RosterSender(PRODUCER, KEY, bytes(SigningKey(SEED).verify_key))
        self.consumer.install_epoch(EPOCH, [row], now_ms=0)
        self._forger = FrameSealer(CHANNEL, EPOCH, PRODUCER, KEY, MEMBER_SEED)

    def forge(
        self, kind: FrameType, counter: int, plaintext: bytes, trailer: bytes | None = b""
    ) -> Sequence[bytes]:
        """What the honest consumer delivers for a frame that the member sealed with the producer's key."""
        body = self._forger.seal(kind, counter, plaintext)
        return self.consumer.receive(
            body + (self._forger.signature(body) if trailer is None else trailer), now_ms=0
        )

    def causes(self) -> dict[Cause, int]:
        return self.consumer.statistics().causes


@pytest.mark.parametrize("kind", [FrameType.DATA, FrameType.BUNDLE, FrameType.WATERMARK, FrameType.CONTROL])
def test_unsigned_types_are_refused_on_a_signed_channel(kind: FrameType) -> None:
    duel = Duel(AuthMode.SIGNED)
    assert duel.forge(kind, 0, b"\0\1\0\1x") == []
    assert duel.causes() == {Cause.FRAME_MODE: 1}


def test_fragments_of_the_member_never_become_a_message() -> None:
    duel = Duel(AuthMode.SIGNED)
    trailer = SigningKey(MEMBER_SEED).sign(b"x").signature
    assert duel.forge(FrameType.FRAGMENT, 0, FIRST_OF_TWO) == []
    assert duel.forge(FrameType.FRAGMENT_SIGNED, 1, LAST_OF_TWO[:12] + b"12345678", trailer) == []
    assert duel.causes() == {Cause.FRAME_MODE: 1, Cause.FRAME_SIGNATURE: 1}
    assert duel.consumer.statistics().delivered_messages == 0


FORGED_HEADS = st.builds(
    lambda message_id, index, total, size: (
        message_id.to_bytes(4, "big") + index.to_bytes(2, "big") + total.to_bytes(2, "big")
        + size.to_bytes(4, "big")
    ),
    st.integers(0, 3), st.integers(0, 4), st.integers(0, 4), st.integers(0, 3_000),
)  # fmt: skip
FORGERIES = st.tuples(
    st.sampled_from(FrameType),
    st.one_of(st.integers(0, 40), st.integers(0, COUNTER_LIMIT - 1), st.just(COUNTER_LIMIT - 1)),
    st.one_of(st.binary(max_size=60), st.builds(bytes.__add__, FORGED_HEADS, st.binary(max_size=300))),
    st.sampled_from([b"", bytes(64), None]),
)
"""Type, counter, plaintext, and what stands where a signature belongs; None: the member's own signature."""


@given(st.lists(st.tuples(st.integers(0, 20), FORGERIES), max_size=12))
def test_nothing_a_member_seals_costs_a_signed_producer_a_message(
    forgeries: list[tuple[int, tuple[FrameType, int, bytes, bytes | None]]],
) -> None:
    """Data, bundles, fragments and watermarks arrive whole and in order, whatever comes between them."""
    duel = Duel(AuthMode.SIGNED, max_frame_bytes=600)
    sent = [b"%d" % n for n in range(4)] + [bytes([n]) * 1_500 for n in range(2)] + [b"a", b"b", b"end"]
    producer = duel.producer
    frames = [
        *map(producer.seal, sent[:4]), *producer.seal_fragments(sent[4]), producer.seal_watermark(),
        *producer.seal_fragments(sent[5]), producer.seal_bundle(sent[6:8]), producer.seal(sent[8]),
        producer.seal_watermark(final=True),
    ]  # fmt: skip
    received = list[bytes]()
    for place, frame in enumerate(frames):
        for before, (kind, counter, plaintext, trailer) in forgeries:
            if before == place:
                assert duel.forge(kind, counter, plaintext, trailer) == []
        received += duel.consumer.receive(frame, now_ms=1)
    assert received == sent
    events = duel.consumer.poll(100_000)
    assert all(isinstance(event, CloneSuspected) for event in events), "a warning costs nothing"
    statistics = duel.consumer.statistics()
    assert (statistics.verified_frames, statistics.lost_messages) == (len(frames), 0)


def test_a_producer_that_was_silenced_is_reported() -> None:
    """Where members may be caught late, one can jump ahead of the producer; that does not stay hidden."""
    duel = Duel(AuthMode.CHECKPOINT)
    assert duel.consumer.receive(duel.producer.seal(b"before"), now_ms=0) == [b"before"]
    duel.forge(FrameType.FRAGMENT, COUNTER_LIMIT - 1, FIRST_OF_TWO)
    events = []
    for second in range(1, 40):
        duel.consumer.receive(duel.producer.seal(b"x"), now_ms=second * 1_000)
        duel.consumer.receive(duel.producer.seal_watermark(), now_ms=second * 1_000)
        events += duel.consumer.poll(second * 1_000)
    assert any(isinstance(event, ChannelSilent | LossReport | AuthFailure) for event in events)


def test_data_of_the_member_is_found_at_the_next_checkpoint() -> None:
    """Until then it may have been acted on: the price of a signature per interval and not per frame."""
    duel = Duel(AuthMode.CHECKPOINT)
    genuine = [duel.producer.seal(b"%d" % n) for n in range(3)]
    assert duel.consumer.receive(genuine[0], now_ms=0) == [b"0"]
    assert duel.forge(FrameType.DATA, 1, b"forged") == [b"forged"]
    assert duel.consumer.receive(genuine[1], now_ms=0) == [], "the counter was taken"
    assert duel.consumer.receive(genuine[2], now_ms=0) == [b"2"]
    duel.consumer.receive(duel.producer.seal_watermark(), now_ms=0)
    failures = [event for event in duel.consumer.poll(10_000) if isinstance(event, AuthFailure)]
    assert [(failure.cause, failure.stopped) for failure in failures] == [(Cause.AUTH_MISMATCH, True)]
    assert duel.consumer.receive(duel.producer.seal(b"3"), now_ms=10_001) == [], "delivery has ended"


def test_a_member_cannot_sign_a_checkpoint() -> None:
    duel = Duel(AuthMode.CHECKPOINT)
    trailer = SigningKey(MEMBER_SEED).sign(b"x").signature
    assert duel.forge(FrameType.WATERMARK_SIGNED, 0, bytes(17 + 32), trailer) == []
    assert duel.causes() == {Cause.FRAME_SIGNATURE: 1}
