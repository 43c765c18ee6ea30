"""COSE_Sign1 with EdDSA (RFC 9052 §4.2, RFC 9053 §2.2), in one strict form.

Decides the one shape of a signed document: tagged or not as the document type says, protected header
exactly ``{1: -8}``, unprotected header empty or a key identifier, payload inside. Does not decide which key
belongs to whom, nor what the payload means.

Invariants: a document is looked at only below its size cap and in deterministic encoding; the algorithm is
never taken from the document; keys of small order or off the prime-order group verify nothing (with such a
key a forger needs no secret).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from nacl.bindings import crypto_core_ed25519_is_valid_point
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from aif.errors import RemoteProtocolError, SignatureInvalid
from aif.protocol.cbor import Fields, decode, encode
from aif.protocol.limits import KEY_BYTES, MAX_KID_BYTES, SIGNATURE_BYTES

Sign = Callable[[bytes], bytes] | SigningKey
"""How to sign with a key that may live elsewhere: message in, 64-byte Ed25519 signature out; or the key."""

_TAG_SIGN1: Final = b"\xd2"  # CBOR tag 18, RFC 9052 §2
_EDDSA: Final = -8  # RFC 9053 §2.2
_ALG: Final = 1  # header label, RFC 9052 §3.1
_KID: Final = 4  # header label, RFC 9052 §3.1
_PROTECTED: Final = encode({_ALG: _EDDSA})


@dataclass(frozen=True, slots=True)
class Sign1:
    """A well-formed COSE_Sign1 whose signature nobody has checked yet.

    ``unverified_payload`` may be used to find the key and to refuse cheaply, never to act.
    """

    kid: bytes | None
    unverified_payload: bytes
    signature: bytes

    def verify(self, public_key: bytes | VerifyKey, *, external_aad: bytes = b"") -> bytes:
        """The payload, now signed by ``public_key``.

        Raises:
            SignatureInvalid: the key is unusable, or the signature is not by that key over this payload
                and ``external_aad``.
        """
        verify_ed25519(public_key, _to_be_signed(self.unverified_payload, external_aad), self.signature)
        return self.unverified_payload


def sign1(
    payload: bytes, sign: Sign, *, external_aad: bytes = b"", tagged: bool, kid: bytes | None = None
) -> bytes:
    """Sign ``payload`` into a COSE_Sign1 document.

    Args:
        payload: the document's own bytes.
        sign: the signing key, or a function that signs with it.
        external_aad: bytes both ends know, naming the document type, so that a signature over one type
            never passes for another.
        tagged: whether CBOR tag 18 is written in front.
        kid: key identifier for the unprotected header, a hint only.

    Source: RFC 9052 §4.2 and §4.4.
    """
    signature = sign_ed25519(sign, _to_be_signed(payload, external_aad))
    unprotected = {} if kid is None else {_KID: kid}
    return (_TAG_SIGN1 if tagged else b"") + encode([_PROTECTED, unprotected, payload, signature])


def parse1(data: bytes, *, tagged: bool, max_bytes: int) -> Sign1:
    """The parts of a COSE_Sign1 document, not verified.

    Raises:
        RemoteProtocolError: too large, or anything but the one strict shape.
    """
    if len(data) > max_bytes:
        raise RemoteProtocolError(f"COSE_Sign1: {len(data)} B is larger than the allowed {max_bytes} B")
    if data.startswith(_TAG_SIGN1) is not tagged:
        raise RemoteProtocolError(f"COSE_Sign1: must {'' if tagged else 'not '}carry CBOR tag 18")
    parts = Fields.of_row(decode(data[1:] if tagged else data, max_bytes=max_bytes), "COSE_Sign1")
    if parts.bytes(0, "protected header") != _PROTECTED:
        raise RemoteProtocolError("COSE_Sign1: protected header must be exactly {1: -8} (EdDSA)")
    header = parts.map(1, "unprotected header")
    kid = header.bytes(_KID, "kid", max_length=MAX_KID_BYTES) if _KID in header else None
    header.done()
    payload = parts.bytes(2, "payload")
    signature = parts.bytes(3, "signature", length=SIGNATURE_BYTES)
    parts.done()
    return Sign1(kid, payload, signature)


def verify1(
    data: bytes, public_key: bytes | VerifyKey, *, external_aad: bytes = b"", tagged: bool, max_bytes: int
) -> bytes:
    """The payload of a COSE_Sign1 document signed by ``public_key``.

    Raises:
        RemoteProtocolError: too large or not in the one strict shape.
        SignatureInvalid: not signed by that key, or over another ``external_aad``.
    """
    return parse1(data, tagged=tagged, max_bytes=max_bytes).verify(public_key, external_aad=external_aad)


def sign_ed25519(sign: Sign, message: bytes) -> bytes:
    """A detached 64-byte Ed25519 signature (RFC 8032 §5.1.6)."""
    return bytes(sign.sign(message).signature) if isinstance(sign, SigningKey) else sign(message)


def verify_ed25519(public_key: bytes | VerifyKey, message: bytes, signature: bytes) -> None:
    """Check a detached Ed25519 signature (RFC 8032 §5.1.7).

    Raises:
        SignatureInvalid: an unusable key or a wrong signature; which of them is not told in detail.
    """
    key = bytes(public_key)
    check_ed25519_key(key)
    if len(signature) != SIGNATURE_BYTES:
        raise SignatureInvalid("signature is not by the expected key")
    try:
        VerifyKey(key).verify(message, signature)
    except BadSignatureError as error:
        raise SignatureInvalid("signature is not by the expected key") from error


def check_ed25519_key(public_key: bytes) -> None:
    """Refuse an Ed25519 public key that is not a canonical point of the prime-order group.

    Raises:
        SignatureInvalid: wrong length, off the curve, of small or mixed order, or not canonical.
    """
    if len(public_key) != KEY_BYTES or not crypto_core_ed25519_is_valid_point(public_key):
        raise SignatureInvalid(
            "the Ed25519 public key is not a point of the prime-order group",
            hint="create the key pair again; such a key lets anybody forge signatures",
        )


def _to_be_signed(payload: bytes, external_aad: bytes) -> bytes:
    """Sig_structure (RFC 9052 §4.4)."""
    return encode(["Signature1", _PROTECTED, external_aad, payload])
