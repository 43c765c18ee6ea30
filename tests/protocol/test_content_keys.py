"""Content keys reach the site and the boot they were sealed to, for the use they were sealed for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_scalarmult_base

from aif.errors import DecryptionFailed, LocalProtocolError, RemoteProtocolError
from aif.protocol import documents
from aif.protocol.content_keys import (
    ContentKey,
    KeyUse,
    check_commitment,
    commitment,
    open_hand_over,
    seal_hand_over,
    unwrap_content_key,
    wrap_content_key,
)
from aif.protocol.limits import MAX_HAND_OVER_BYTES
from aif.protocol.wrap import wrap

SITE_SK, OTHER_SK, EPHEMERAL = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32
SITE_PK = crypto_scalarmult_base(SITE_SK)
KEY, DIGEST = bytes(range(32)), b"\x07" * 32
KEYS = (ContentKey("aim/v/kws/1", KEY), ContentKey("aim/v/kws/2", b"\x09" * 32))


@given(st.lists(st.builds(ContentKey, st.text(max_size=40), st.binary(min_size=32, max_size=32)), max_size=8))
def test_what_is_handed_over_arrives(keys: list[ContentKey]) -> None:
    assert open_hand_over(seal_hand_over(keys, SITE_PK, EPHEMERAL), SITE_SK) == tuple(keys)


def test_a_hand_over_opens_for_its_site_only_and_unchanged_only() -> None:
    sealed = seal_hand_over(KEYS, SITE_PK, EPHEMERAL)
    with pytest.raises(DecryptionFailed):
        open_hand_over(sealed, OTHER_SK)
    for position in range(len(sealed)):
        for bit in range(8):
            changed = bytearray(sealed)
            changed[position] ^= 1 << bit
            with pytest.raises((DecryptionFailed, RemoteProtocolError)):
                open_hand_over(bytes(changed), SITE_SK)


@given(st.binary(max_size=400))
def test_what_is_no_hand_over_is_refused(data: bytes) -> None:
    with pytest.raises((DecryptionFailed, RemoteProtocolError)):
        open_hand_over(data, SITE_SK)


@pytest.mark.parametrize(
    "body", [{0: 2, 1: []}, {0: 1, 1: [{0: "p", 1: b"short"}]}, {0: 1}, {0: 1, 1: [], 2: 0}]
)
def test_a_body_that_no_publisher_writes_is_refused(body: dict[int, object]) -> None:
    from aif.protocol.cbor import encode
    from aif.protocol.content_keys import _CONTEXT

    with pytest.raises(RemoteProtocolError):
        open_hand_over(wrap(encode(body), SITE_PK, EPHEMERAL, _CONTEXT), SITE_SK)


def test_sizes_are_bounded_on_both_sides() -> None:
    many = [ContentKey(f"aim/v/m/{n}", KEY) for n in range(documents.MAX_ITEMS + 1)]
    with pytest.raises(LocalProtocolError, match="more than one hand-over carries"):
        seal_hand_over(many, SITE_PK, EPHEMERAL)
    with pytest.raises(RemoteProtocolError, match="are read"):
        open_hand_over(bytes(MAX_HAND_OVER_BYTES + 1), SITE_SK)
    with pytest.raises(LocalProtocolError):
        seal_hand_over([ContentKey("aim/v/m/1", b"short")], SITE_PK, EPHEMERAL)


@pytest.mark.parametrize("use", list(KeyUse))
def test_a_key_opens_for_its_session_ticket_and_use_only(use: KeyUse) -> None:
    wrapped = wrap_content_key(KEY, SITE_PK, EPHEMERAL, DIGEST, use)
    assert len(wrapped) == 80
    assert unwrap_content_key(wrapped, SITE_SK, DIGEST, use) == KEY
    (other_use,) = set(KeyUse) - {use}
    for session_sk, digest, wanted in (
        (OTHER_SK, DIGEST, use),
        (SITE_SK, b"\x08" * 32, use),
        (SITE_SK, DIGEST, other_use),
    ):
        with pytest.raises(DecryptionFailed):
            unwrap_content_key(wrapped, session_sk, digest, wanted)


@given(st.binary(max_size=100).filter(lambda data: len(data) != 80))
def test_what_has_not_the_length_of_a_wrapped_key_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        unwrap_content_key(data, SITE_SK, DIGEST, KeyUse.RUN)


def test_a_release_commits_to_its_key() -> None:
    said = commitment(KEY, b"release one")
    check_commitment(KEY, b"release one", said)
    for key, release in ((b"\x09" * 32, b"release one"), (KEY, b"release two")):
        with pytest.raises(DecryptionFailed, match="published with"):
            check_commitment(key, release, said)
    assert KEY not in said


def test_a_key_is_in_no_representation() -> None:
    assert "key" not in repr(KEYS[0]).replace("ContentKey", "").replace("kws", "")
