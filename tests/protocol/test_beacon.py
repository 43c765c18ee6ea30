"""Where a site's broker is: believed from the site, from nobody else, and never half."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from aif.errors import LocalProtocolError, RemoteProtocolError, SignatureInvalid, TrustError
from aif.protocol.beacon import MAX_PIECES, PIECE_BYTES, Beacon, sign_beacon, verify_beacon

SITE = SigningKey(bytes(range(32)))
OTHER = SigningKey(bytes(32))
CLUSTER = Beacon(", ".join(f"mqtts://broker-{node}.example:8883" for node in range(16)))


def signed(beacon: Beacon, key: SigningKey = SITE) -> dict[bytes, bytes]:
    return sign_beacon(beacon, lambda data: key.sign(data).signature)


@pytest.mark.parametrize("beacon", [Beacon("mqtt://192.0.2.1:1883"), CLUSTER])
def test_what_was_signed_is_read_and_fits_a_record(beacon: Beacon) -> None:
    strings = signed(beacon)
    assert all(len(key) + 1 + len(value) <= 255 for key, value in strings.items())
    assert verify_beacon(strings, bytes(SITE.verify_key)) == beacon


def test_another_site_is_not_believed() -> None:
    with pytest.raises(SignatureInvalid):
        verify_beacon(signed(CLUSTER, OTHER), bytes(SITE.verify_key))


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_every_changed_bit_is_refused(at: int, bit: int) -> None:
    strings = signed(CLUSTER)
    name = sorted(strings)[at % len(strings)]
    value = bytearray(strings[name])
    value[at % len(value)] ^= 1 << bit
    with pytest.raises((RemoteProtocolError, TrustError)):
        verify_beacon({**strings, name: bytes(value)}, bytes(SITE.verify_key))


@given(
    st.dictionaries(
        st.one_of(st.binary(max_size=4), st.sampled_from([b"0", b"1", b"2", b"3"])),
        st.one_of(st.none(), st.binary(max_size=300)),
        max_size=6,
    )
)
def test_whatever_is_announced_gets_a_typed_answer(strings: dict[bytes, bytes | None]) -> None:
    with pytest.raises((RemoteProtocolError, TrustError)):
        verify_beacon(strings, bytes(SITE.verify_key))


def test_missing_and_additional_pieces_are_refused() -> None:
    strings = signed(CLUSTER)
    last = max(strings)
    more = {b"%d" % number: bytes(1) for number in range(MAX_PIECES + 1)}
    for changed in ({name: value for name, value in strings.items() if name != last}, {**more, **strings}):
        with pytest.raises((RemoteProtocolError, TrustError)):
            verify_beacon(changed, bytes(SITE.verify_key))


def test_addresses_that_do_not_fit_are_refused_where_they_are_written() -> None:
    with pytest.raises(LocalProtocolError, match="fit"):
        signed(Beacon("m" * PIECE_BYTES * MAX_PIECES))
