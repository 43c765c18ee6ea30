"""Stamps: both ends know the key, and nothing that was changed or moved has one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_scalarmult_base
from nacl.signing import SigningKey

from aif.errors import LocalProtocolError, RemoteProtocolError, SignatureInvalid
from aif.protocol.stamp import STAMP_BYTES, check_stamp, device_stamp_key, site_stamp_key, stamp

DEVICE_SK = bytes(range(1, 33))
DEVICE_PK = crypto_scalarmult_base(DEVICE_SK)
SITE_SEED = bytes(range(32))
SITE_PK = bytes(SigningKey(SITE_SEED).verify_key)
KEY = bytes.fromhex("d12ea9b85c02abb84b2ea7b98325f0951674716322ea8b2bedf2a0047b5c557e")
TOPIC = "aif/dev/mcu-1/up/hello"
VECTOR = bytes.fromhex("68656c6c6f0000000000000007796aaa174f4f9b4c893cfa5caff8ce2e")
"""The stamp of ``hello`` under number 7; firmware has to give the same bytes."""


def test_both_ends_have_the_same_key() -> None:
    assert device_stamp_key(DEVICE_SK, SITE_PK) == site_stamp_key(SITE_SEED, DEVICE_PK) == KEY


def test_the_bytes_of_a_stamp() -> None:
    assert stamp(KEY, TOPIC, b"hello", 7) == VECTOR
    assert len(VECTOR) == len(b"hello") + STAMP_BYTES


@given(st.binary(max_size=200), st.integers(0, 2**63 - 1))
def test_what_was_stamped_comes_back(message: bytes, number: int) -> None:
    assert check_stamp(KEY, TOPIC, stamp(KEY, TOPIC, message, number)) == (message, number)


def test_every_flipped_bit_is_refused() -> None:
    for bit in range(8 * len(VECTOR)):
        changed = bytearray(VECTOR)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SignatureInvalid):
            check_stamp(KEY, TOPIC, bytes(changed))


@pytest.mark.parametrize(
    ("key", "topic"),
    [
        (site_stamp_key(bytes(32), DEVICE_PK), TOPIC),
        (site_stamp_key(SITE_SEED, crypto_scalarmult_base(bytes([9] * 32))), TOPIC),
        (KEY, "aif/dev/mcu-2/up/hello"),
        (KEY, "aif/dev/mcu-1/up/hell"),
    ],
    ids=["another site", "another device", "another topic", "a part of the topic"],
)
def test_a_stamp_holds_for_one_device_site_and_topic(key: bytes, topic: str) -> None:
    with pytest.raises(SignatureInvalid):
        check_stamp(key, topic, VECTOR)


def test_what_is_too_short_holds_no_stamp() -> None:
    for length in range(STAMP_BYTES):
        with pytest.raises(RemoteProtocolError):
            check_stamp(KEY, TOPIC, bytes(length))


def test_numbers_are_bounded_on_both_sides() -> None:
    for number in (-1, 2**63):
        with pytest.raises(LocalProtocolError):
            stamp(KEY, TOPIC, b"", number)


def test_keys_of_small_order_are_refused() -> None:
    with pytest.raises(SignatureInvalid):
        device_stamp_key(DEVICE_SK, bytes(32))
    with pytest.raises(RemoteProtocolError):
        site_stamp_key(SITE_SEED, bytes(32))
