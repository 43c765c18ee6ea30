"""Cutting and reassembly, in any order and inside the bounds."""

import random
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aif.errors import LocalProtocolError, RemoteProtocolError
from aif.protocol.fragment import Fragment, Reassembler, decode_fragment, encode_fragments
from aif.protocol.numbers import HOST_LIMITS, REASSEMBLY_BYTES

MAX = HOST_LIMITS.max_message_bytes


def refusal(reassembler: Reassembler, piece: Fragment, now_ms: float = 0) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        reassembler.add("s", piece, now_ms=now_ms)
    return caught.value.counter


def keep(reassembler: Reassembler, piece: Fragment, sender: str = "s", now_ms: float = 0) -> bytes | None:
    return reassembler.add(sender, piece, now_ms=now_ms)


@given(st.binary(max_size=400), st.integers(1, 50), st.randoms(use_true_random=False))
def test_a_message_comes_back_whatever_the_order(message: bytes, chunk: int, rng: random.Random) -> None:
    pieces = [decode_fragment(plain, MAX) for plain in encode_fragments(3, message, chunk)]
    assert len(pieces) == max(1, -(-len(message) // chunk))
    rng.shuffle(pieces)
    reassembler = Reassembler(HOST_LIMITS)
    *early, last = pieces
    assert [keep(reassembler, piece) for piece in early] == [None] * len(early)
    assert keep(reassembler, last) == message
    assert len(reassembler) == 0


@given(st.binary(max_size=40))
def test_any_bytes_are_a_fragment_or_refused(plaintext: bytes) -> None:
    cause, piece = "", None
    try:
        piece = decode_fragment(plaintext, MAX)
    except RemoteProtocolError as error:
        cause = error.counter
    if piece is None:
        assert cause in {"fragment.size", "fragment.order"}
    else:
        assert piece.index < piece.total
        assert len(piece.chunk) <= piece.message_bytes <= MAX


@pytest.mark.parametrize(
    ("head", "chunk", "counter"),
    [
        ((0, 0, 0, 0), b"", "fragment.order"),  # of none
        ((0, 2, 2, 9), b"x", "fragment.order"),  # index outside
        ((0, 0, 2, MAX + 1), b"x", "fragment.size"),  # too long a message
        ((0, 0, 2, 1), b"xx", "fragment.size"),  # longer than the message
        ((0, 0, 2, 1), b"", "fragment.size"),  # nothing in it
    ],
)
def test_a_fragment_that_contradicts_itself_is_refused(
    head: tuple[int, int, int, int], chunk: bytes, counter: str
) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_fragment(struct.pack(">IHHI", *head) + chunk, MAX)
    assert caught.value.counter == counter


def test_repeated_contradicting_and_wrongly_summed_pieces_are_refused() -> None:
    reassembler = Reassembler(HOST_LIMITS)
    first = Fragment(1, 0, 3, 6, b"ab")
    assert keep(reassembler, first) is None
    assert refusal(reassembler, first) == "fragment.order"
    assert refusal(reassembler, replace(first, index=1, total=4)) == "fragment.order"
    assert refusal(reassembler, replace(first, index=1, message_bytes=7)) == "fragment.order"
    assert refusal(reassembler, replace(first, index=1, chunk=b"abcde")) == "fragment.size"
    assert keep(reassembler, replace(first, index=1, chunk=b"cd")) is None
    assert refusal(reassembler, replace(first, index=2, chunk=b"e")) == "fragment.size"  # one byte short
    assert keep(reassembler, replace(first, index=2, chunk=b"ef")) == b"abcdef"


def test_a_partial_message_dies_after_five_seconds() -> None:
    reassembler = Reassembler(HOST_LIMITS)
    keep(reassembler, Fragment(1, 0, 2, 4, b"ab"), now_ms=100)
    assert reassembler.expire(5_099) == 0
    assert reassembler.expire(5_100) == 1
    assert keep(reassembler, Fragment(1, 1, 2, 4, b"cd"), now_ms=5_100) is None


def test_a_ninth_partial_message_costs_the_sender_its_oldest_and_nobody_else() -> None:
    reassembler = Reassembler(HOST_LIMITS)
    keep(reassembler, Fragment(0, 0, 2, 4, b"ab"), sender="other")
    for message_id in range(9):
        piece = Fragment(message_id, 0, 2, 4, b"ab")
        assert reassembler.make_room("s", piece) == (message_id == 8)
        keep(reassembler, piece)
    assert len(reassembler) == 9
    assert keep(reassembler, Fragment(1, 1, 2, 4, b"cd")) == b"abcd"
    assert keep(reassembler, Fragment(0, 1, 2, 4, b"cd"), sender="other") == b"abcd"
    assert keep(reassembler, Fragment(0, 1, 2, 4, b"cd")) is None, "the oldest is gone"
    assert reassembler.forget_sender("s") == 8


def test_the_memory_of_a_channel_is_bounded_and_given_back() -> None:
    reassembler = Reassembler(HOST_LIMITS)
    chunk = bytes(MAX - 1)
    room = REASSEMBLY_BYTES // (MAX + 255)
    for number in range(room):
        keep(reassembler, Fragment(0, 0, 2, MAX, chunk), sender=f"s{number}")
    assert refusal(reassembler, Fragment(0, 0, 2, MAX, chunk)) == "fragment.size"
    reassembler.expire(5_000)
    assert keep(reassembler, Fragment(0, 0, 2, MAX, chunk), sender="again") is None


def test_tiny_pieces_count_with_what_they_really_cost() -> None:
    reassembler = Reassembler(HOST_LIMITS)
    causes = set()
    for message_id in range(4):
        for index in range(65_534):
            try:
                keep(reassembler, Fragment(message_id, index, 65_535, 65_535, b"x"))
            except RemoteProtocolError as error:
                causes.add(error.counter)
                break
    assert causes == {"fragment.size"}


def test_a_message_needing_too_many_fragments_is_refused() -> None:
    with pytest.raises(LocalProtocolError):
        list(encode_fragments(0, bytes(65_536), 1))
