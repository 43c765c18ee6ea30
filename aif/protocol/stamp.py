"""A cheap stamp on what device and site say to each other outside a session: hellos, challenges, grants.

Their signatures and wraps are what is believed; checking one costs a hundred times what it costs to send
garbage. The stamp tells garbage apart at the price of one keyed hash. It proves nothing beyond that: whoever
has the key of a device can waste that device's time, and no more.

Decides the key and the bytes. Does not decide what passes: that is ``gate``. Invariants: a stamp holds for
one topic; both ends compute the key from what they have since provisioning, so no message carries it.

Source: X25519 (RFC 7748 §5), keyed BLAKE2b (RFC 7693); the site's X25519 key is that of its Ed25519 key, by
the birational map of RFC 7748 §4.1::

    key     = BLAKE2b-256(key = X25519(device exchange, site), "AIF-STAMP-1" || device_pk || site_pk)
    stamped = message || number (8) || BLAKE2b-128(key, topic || 0 || message || number)
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from nacl.bindings import (
    crypto_scalarmult,
    crypto_scalarmult_base,
    crypto_sign_ed25519_pk_to_curve25519,
    crypto_sign_ed25519_sk_to_curve25519,
    crypto_sign_seed_keypair,
)

from aif.errors import LocalProtocolError, RemoteProtocolError, SignatureInvalid
from aif.protocol.cose import check_ed25519_key
from aif.protocol.limits import HASH_BYTES, KEY_BYTES, UINT63_MAX
from aif.protocol.wrap import check_x25519_key

NUMBER_BYTES: Final = 8
STAMP_TAG_BYTES: Final = 16
STAMP_BYTES: Final = NUMBER_BYTES + STAMP_TAG_BYTES
"""What a stamp adds to a message."""

_LABEL: Final = b"AIF-STAMP-1"


def device_stamp_key(exchange_sk: bytes, site_pk: bytes) -> bytes:
    """The key of a device and a site, as the device computes it.

    Args:
        exchange_sk: the device's X25519 secret key.
        site_pk: the site's Ed25519 enrolment key.

    Raises:
        SignatureInvalid: the site's key is of small order, or no key.
    """
    check_ed25519_key(site_pk)
    shared = crypto_scalarmult(exchange_sk, crypto_sign_ed25519_pk_to_curve25519(site_pk))
    return _key(shared, crypto_scalarmult_base(exchange_sk), site_pk)


def site_stamp_key(site_seed: bytes, device_pk: bytes) -> bytes:
    """The key of a device and a site, as the site computes it.

    Args:
        site_seed: of the site's Ed25519 enrolment key.
        device_pk: the device's X25519 public key.

    Raises:
        RemoteProtocolError: the device's key is of small order, or no key.
    """
    check_x25519_key(device_pk)
    site_pk, site_sk = crypto_sign_seed_keypair(site_seed)
    shared = crypto_scalarmult(crypto_sign_ed25519_sk_to_curve25519(site_sk), device_pk)
    return _key(shared, device_pk, site_pk)


def stamp(key: bytes, topic: str, message: bytes, number: int) -> bytes:
    """``message`` with its stamp.

    Args:
        key: of device and site.
        topic: that it is published on.
        message: any bytes.
        number: 0 to 2^63 - 1, larger than that of every stamp before on this topic.
    """
    if not 0 <= number <= UINT63_MAX:
        raise LocalProtocolError(f"a stamp's number is 0 to 2^63 - 1, not {number}")
    numbered = message + number.to_bytes(NUMBER_BYTES)
    return numbered + _tag(key, topic, numbered)


def check_stamp(key: bytes, topic: str, data: bytes) -> tuple[bytes, int]:
    """The message and the number of a stamp that was made with this key for this topic.

    Raises:
        RemoteProtocolError: too short to hold a stamp, or an impossible number.
        SignatureInvalid: another key, another topic, or changed.
    """
    if len(data) < STAMP_BYTES:
        raise RemoteProtocolError(f"{len(data)} B hold no stamp")
    numbered, tag = data[:-STAMP_TAG_BYTES], data[-STAMP_TAG_BYTES:]
    if not hmac.compare_digest(tag, _tag(key, topic, numbered)):
        raise SignatureInvalid("the stamp is not of this device and site")
    number = int.from_bytes(numbered[-NUMBER_BYTES:])
    if number > UINT63_MAX:
        raise RemoteProtocolError("the number of a stamp is too large")
    return numbered[:-NUMBER_BYTES], number


def _key(shared: bytes, device_pk: bytes, site_pk: bytes) -> bytes:
    return hashlib.blake2b(_LABEL + device_pk + site_pk, key=shared, digest_size=HASH_BYTES).digest()


def _tag(key: bytes, topic: str, numbered: bytes) -> bytes:
    if len(key) != KEY_BYTES:
        raise LocalProtocolError(f"a stamp key has {KEY_BYTES} bytes")
    return hashlib.blake2b(topic.encode() + b"\0" + numbered, key=key, digest_size=STAMP_TAG_BYTES).digest()
