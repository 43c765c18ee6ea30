"""Enrolment: the two messages with which a new device and its site come to trust each other.

Decides the bytes of request and response. Does not decide which devices are known, the registry is an
argument, nor how long the secret of both lives: that is ``pairing``. Invariants: both messages carry a MAC
under the secret and a signature, and both are checked; the response is bound to the request.

The secret has 128 random bits, so the MAC over public messages gives a guesser nothing; a short PIN would
need a password-authenticated key exchange instead, and is not accepted here::

    kE  = BLAKE2b-256(key = secret, "AIF-ENROL-1" || device id)
    request  = req || BLAKE2b-256(kE, "D" || req) || Ed25519(identity, "AIF-ENROL-D" || req)
    response = rsp || BLAKE2b-256(kE, "C" || h || rsp) || Ed25519(enrolment key, "AIF-ENROL-C" || h || rsp)
    with h = BLAKE2b-256(req)
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Container
from dataclasses import dataclass
from typing import Final

from aif.errors import EnrolmentRefused, LocalProtocolError, RemoteProtocolError
from aif.protocol.cbor import Fields, decode, encode_document
from aif.protocol.cose import Sign, check_ed25519_key, sign_ed25519, verify_ed25519
from aif.protocol.limits import (
    ENROLMENT_SECRET_BYTES,
    HASH_BYTES,
    ID_BYTES,
    KEY_BYTES,
    MAX_CERTIFICATE_BYTES,
    MAX_ENROLMENT_REQUEST_BYTES,
    MAX_ENROLMENT_RESPONSE_BYTES,
    MAX_ROOT_METADATA_BYTES,
    NONCE_BYTES,
    SIGNATURE_BYTES,
    UINT63_MAX,
)
from aif.protocol.wrap import check_x25519_key

_TRAILER_BYTES: Final = HASH_BYTES + SIGNATURE_BYTES


@dataclass(frozen=True, slots=True)
class EnrolmentRequest:
    """What a device says of itself. ``csr`` (DER, PKCS #10) is absent where the broker has no TLS."""

    device_id: bytes
    sign_pk: bytes
    kex_pk: bytes
    nonce: bytes
    hw_class: bytes
    csr: bytes | None = None


@dataclass(frozen=True, slots=True)
class Anchors:
    """What an enrolled device trusts from then on; the keys are Ed25519."""

    store_root: bytes
    """TUF root metadata of the Store, as bytes."""
    grant_pk: bytes
    ticket_pk: bytes
    deployment_pk: bytes
    director_root: bytes | None = None
    result_pk: bytes | None = None
    """Signs Attestation Results, which devices show to each other."""


@dataclass(frozen=True, slots=True)
class EnrolmentResponse:
    """What the site answers. ``certificate`` (DER, X.509) is absent where the broker has no TLS."""

    device_id: bytes
    anchors: Anchors
    controller_nonce: bytes
    device_nonce: bytes
    time_s: int
    """Authenticated Unix time: the device's first time floor."""
    certificate: bytes | None = None


def build_request(request: EnrolmentRequest, secret: bytes, sign: Sign) -> bytes:
    """The device's request; ``sign`` is its identity key.

    Raises:
        LocalProtocolError: a field is out of its range.
    """
    document: dict[int, object] = {
        1: request.device_id,
        2: request.sign_pk,
        3: request.kex_pk,
        4: request.nonce,
        5: request.hw_class,
    }
    if request.csr is not None:
        document[6] = request.csr
    body = encode_document(document, _read_request)
    signature = sign_ed25519(sign, b"AIF-ENROL-D" + body)
    return body + _mac(secret, request.device_id, b"D" + body) + signature


def open_request(data: bytes, secret: bytes, *, device_id: bytes) -> EnrolmentRequest:
    """The request in ``data``, made by the holder of the secret and of the keys it names.

    Args:
        data: as received.
        secret: from ``EnrolmentSecret.usable``.
        device_id: the device whose secret it is.

    Raises:
        EnrolmentRefused: wrong MAC, and nothing else; ``check_author`` says whether that counts.
        RemoteProtocolError: malformed, about another device, or with an unusable exchange key.
        SignatureInvalid: not signed with the key it names, or that key is unusable.
    """
    body, mac, signature = _split(data, MAX_ENROLMENT_REQUEST_BYTES)
    _check_mac(mac, _mac(secret, device_id, b"D" + body))
    request = _read_request(body)
    if request.device_id != device_id:
        raise RemoteProtocolError("enrolment request: about another device")
    verify_ed25519(request.sign_pk, b"AIF-ENROL-D" + body, signature)
    check_x25519_key(request.kex_pk)
    return request


def check_author(data: bytes, identity_pk: bytes) -> bytes:
    """See that a request was signed by a device, whatever its MAC says; its digest.

    Only such a request shows a wrong pairing code: anybody can send bytes with a wrong MAC.

    Args:
        data: as received.
        identity_pk: of the device that is to enrol, from its provisioning.

    Raises:
        RemoteProtocolError: not the size of a request.
        SignatureInvalid: by somebody else.
    """
    body, _, signature = _split(data, MAX_ENROLMENT_REQUEST_BYTES)
    verify_ed25519(identity_pk, b"AIF-ENROL-D" + body, signature)
    return hashlib.blake2b(body, digest_size=HASH_BYTES).digest()


def check_new_device(
    request: EnrolmentRequest, known_ids: Container[bytes], known_keys: Container[bytes]
) -> None:
    """Refuse a device that is enrolled already, and keys that another device has.

    Raises:
        EnrolmentRefused: id or key are taken.
    """
    if request.device_id in known_ids:
        raise EnrolmentRefused("this device is enrolled already", hint="revoke it or use re-enrolment")
    if request.sign_pk in known_keys or request.kex_pk in known_keys:
        raise EnrolmentRefused(
            "another device is enrolled with the same key",
            hint="one of them is a copy: provision this one again",
        )


def build_response(response: EnrolmentResponse, request_message: bytes, secret: bytes, sign: Sign) -> bytes:
    """The site's response to ``request_message``; ``sign`` is the Controller's enrolment key.

    Raises:
        LocalProtocolError: a field is out of its range.
    """
    anchors = response.anchors
    anchors_document: dict[int, object] = {
        1: anchors.store_root,
        3: anchors.grant_pk,
        4: anchors.ticket_pk,
        5: anchors.deployment_pk,
    }
    if anchors.director_root is not None:
        anchors_document[2] = anchors.director_root
    if anchors.result_pk is not None:
        anchors_document[6] = anchors.result_pk
    document: dict[int, object] = {
        1: response.device_id,
        3: anchors_document,
        4: response.controller_nonce,
        5: response.device_nonce,
        6: response.time_s,
    }
    if response.certificate is not None:
        document[2] = response.certificate
    body = encode_document(document, _read_response)
    bound = _request_hash(request_message) + body
    mac = _mac(secret, response.device_id, b"C" + bound)
    return body + mac + sign_ed25519(sign, b"AIF-ENROL-C" + bound)


def open_response(
    data: bytes, request_message: bytes, secret: bytes, controller_pk: bytes
) -> EnrolmentResponse:
    """The response in ``data``, if this site gave it to this very request.

    Args:
        data: as received.
        request_message: this device's own request, as sent.
        secret: this device's enrolment secret.
        controller_pk: the Controller's enrolment key, an anchor from provisioning.

    Raises:
        EnrolmentRefused: wrong MAC.
        RemoteProtocolError: malformed, or for another device or request.
        SignatureInvalid: not by that Controller, or an anchor is an unusable key.
    """
    request = _read_request(_split(request_message, MAX_ENROLMENT_REQUEST_BYTES)[0])
    body, mac, signature = _split(data, MAX_ENROLMENT_RESPONSE_BYTES)
    bound = _request_hash(request_message) + body
    _check_mac(mac, _mac(secret, request.device_id, b"C" + bound))
    response = _read_response(body)
    if response.device_id != request.device_id or response.device_nonce != request.nonce:
        raise RemoteProtocolError("enrolment response: for another device or request")
    verify_ed25519(controller_pk, b"AIF-ENROL-C" + bound, signature)
    anchors = response.anchors
    for key in (anchors.grant_pk, anchors.ticket_pk, anchors.deployment_pk, anchors.result_pk):
        if key is not None:
            check_ed25519_key(key)
    return response


def _split(data: bytes, max_bytes: int) -> tuple[bytes, bytes, bytes]:
    if not _TRAILER_BYTES < len(data) <= max_bytes:
        raise RemoteProtocolError(f"enrolment message: {len(data)} B is not the size of one")
    end = len(data) - _TRAILER_BYTES
    return data[:end], data[end : end + HASH_BYTES], data[end + HASH_BYTES :]


def _request_hash(request_message: bytes) -> bytes:
    body, _, _ = _split(request_message, MAX_ENROLMENT_REQUEST_BYTES)
    return hashlib.blake2b(body, digest_size=HASH_BYTES).digest()


def _mac(secret: bytes, device_id: bytes, message: bytes) -> bytes:
    if len(secret) != ENROLMENT_SECRET_BYTES:
        raise LocalProtocolError(f"an enrolment secret has {ENROLMENT_SECRET_BYTES} bytes")
    key = hashlib.blake2b(b"AIF-ENROL-1" + device_id, key=secret, digest_size=HASH_BYTES).digest()
    return hashlib.blake2b(message, key=key, digest_size=HASH_BYTES).digest()


def _check_mac(received: bytes, expected: bytes) -> None:
    if not hmac.compare_digest(received, expected):
        raise EnrolmentRefused(
            "the enrolment message was not made with this pairing code", hint="compare the code on both sides"
        )


def _read_request(body: bytes) -> EnrolmentRequest:
    fields = Fields(decode(body, max_bytes=MAX_ENROLMENT_REQUEST_BYTES), "enrolment request")
    request = EnrolmentRequest(
        device_id=fields.bytes(1, "device id", length=ID_BYTES),
        sign_pk=fields.bytes(2, "identity key", length=KEY_BYTES),
        kex_pk=fields.bytes(3, "exchange key", length=KEY_BYTES),
        nonce=fields.bytes(4, "nonce", length=NONCE_BYTES),
        hw_class=fields.bytes(5, "hw class", length=ID_BYTES),
        csr=fields.bytes(6, "CSR", max_length=MAX_CERTIFICATE_BYTES) if 6 in fields else None,
    )
    fields.done()
    return request


def _read_response(body: bytes) -> EnrolmentResponse:
    fields = Fields(decode(body, max_bytes=MAX_ENROLMENT_RESPONSE_BYTES), "enrolment response")
    response = EnrolmentResponse(
        device_id=fields.bytes(1, "device id", length=ID_BYTES),
        certificate=fields.bytes(2, "certificate", max_length=MAX_CERTIFICATE_BYTES) if 2 in fields else None,
        anchors=_read_anchors(fields.map(3, "anchors")),
        controller_nonce=fields.bytes(4, "controller nonce", length=NONCE_BYTES),
        device_nonce=fields.bytes(5, "device nonce", length=NONCE_BYTES),
        time_s=fields.uint(6, "time", maximum=UINT63_MAX),
    )
    fields.done()
    return response


def _read_anchors(fields: Fields) -> Anchors:
    anchors = Anchors(
        store_root=fields.bytes(1, "Store root", max_length=MAX_ROOT_METADATA_BYTES),
        director_root=fields.bytes(2, "Director root", max_length=MAX_ROOT_METADATA_BYTES)
        if 2 in fields
        else None,
        grant_pk=fields.bytes(3, "grant key", length=KEY_BYTES),
        ticket_pk=fields.bytes(4, "ticket key", length=KEY_BYTES),
        deployment_pk=fields.bytes(5, "deployment key", length=KEY_BYTES),
        result_pk=fields.bytes(6, "result key", length=KEY_BYTES) if 6 in fields else None,
    )
    fields.done()
    return anchors
