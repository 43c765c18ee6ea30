"""Encryption Service: the PSA cryptography functions for many owners.

Decides which function needs which use of a key, and the order of a key derivation. Keys and their policy are
in ``key_ring``, algorithms in ``primitives``.

Invariants: every use of a key passes its policy; a secret key is never a result; a failed check raises.
Deviations from PSA, where C and Python differ: results are returned, errors are PSAError, a one-part call
replaces buffers. ``psa_export_key`` does not exist: no key of this service can be exported.

Source: PSA Certified Crypto API 1.x; MPAI-AIF V2 security API for the groups of functions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, TypeVar

from aif.trusted import primitives
from aif.trusted.key_ring import KeyRing, material_bytes
from aif.trusted.psa import (
    Algorithm,
    DerivationStep,
    KeyAttributes,
    KeyType,
    KeyUsage,
    PSAError,
    PSAStatus,
)
from aif.trusted.records import OWNER_BYTES
from aif.trusted.sealed_store import Random, SealedStore

MAX_RANDOM_BYTES: Final = 64 << 10
"""Random bytes per call."""
MAX_DERIVATIONS: Final = 16
"""Derivations that one owner may have open."""
MAX_OWNERS: Final = 1024
"""Owners per start of the service."""
MAX_INPUT_BYTES: Final = 64 << 10
"""Salt or info of a derivation."""

_AGREED: Final = {
    Algorithm.HKDF_SHA_256: Algorithm.ECDH_HKDF_SHA_256,
    Algorithm.HKDF_SHA_512: Algorithm.ECDH_HKDF_SHA_512,
}
_Number = TypeVar("_Number", bound=IntEnum)


@dataclass(slots=True)
class _Derivation:
    """An open key derivation (psa_key_derivation_operation_t)."""

    algorithm: Algorithm
    salt: bytes | None = None
    info: bytes | None = None
    pseudo_random_key: bytes | None = field(default=None, repr=False)
    used_bytes: int = 0


class EncryptionService:
    """Keys and derivations of all owners.

    Args:
        random: secure random bytes.
        store: keeps persistent keys; without it there are only volatile ones.
    """

    def __init__(self, *, random: Random, store: SealedStore | None = None) -> None:
        self._ring, self._random = KeyRing(store, random=random), random
        self._owners: dict[bytes, OwnerCrypto] = {}

    def of(self, owner: bytes) -> OwnerCrypto:
        """The functions of one owner, for instance an AIM instance id of 16 bytes.

        Raises:
            PSAError: ``INVALID_ARGUMENT``.
        """
        if len(owner) != OWNER_BYTES:
            raise PSAError(PSAStatus.INVALID_ARGUMENT, f"an owner has {OWNER_BYTES} bytes")
        if owner not in self._owners and len(self._owners) >= MAX_OWNERS:
            raise PSAError(PSAStatus.INSUFFICIENT_MEMORY, f"the service has {MAX_OWNERS} owners already")
        return self._owners.setdefault(owner, OwnerCrypto(self._ring, owner, self._random))


class OwnerCrypto:
    """The PSA cryptography functions, for one owner. ``key`` is a key id; errors are PSAError."""

    def __init__(self, ring: KeyRing, owner: bytes, random: Random) -> None:
        self._ring, self._owner, self._random = ring, owner, random
        self._derivations: dict[int, _Derivation] = {}

    # --- keys

    def psa_generate_key(self, attributes: KeyAttributes) -> int:
        """A new random key; its id."""
        return self._ring.generate(self._owner, attributes)

    def psa_import_key(self, attributes: KeyAttributes, data: bytes) -> int:
        """A key from bytes that the caller has; its id. Key pairs are imported as their secret half."""
        return self._ring.add(self._owner, attributes, data)

    def psa_export_public_key(self, key: int) -> bytes:
        return self._ring.find(self._owner, key).public_half()

    def psa_destroy_key(self, key: int) -> None:
        self._ring.destroy(self._owner, key)

    def psa_get_key_attributes(self, key: int) -> KeyAttributes:
        return self._ring.find(self._owner, key).attributes

    # --- one-part functions

    def psa_hash_compute(self, alg: int, data: bytes) -> bytes:
        return primitives.hash_compute(_number(Algorithm, alg), data)

    def psa_mac_compute(self, key: int, alg: int, data: bytes) -> bytes:
        algorithm, material = self._use(key, alg, KeyType.HMAC, KeyUsage.SIGN_MESSAGE)
        return primitives.mac_compute(algorithm, material, data)

    def psa_mac_verify(self, key: int, alg: int, data: bytes, mac: bytes) -> None:
        algorithm, material = self._use(key, alg, KeyType.HMAC, KeyUsage.VERIFY_MESSAGE)
        primitives.mac_verify(algorithm, material, data, mac)

    def psa_aead_encrypt(
        self, key: int, alg: int, nonce: bytes, additional_data: bytes, plaintext: bytes
    ) -> bytes:
        """Ciphertext and tag; ``nonce`` (12 bytes) must never come twice with this key."""
        _algorithm, material = self._use(key, alg, KeyType.CHACHA20, KeyUsage.ENCRYPT)
        return primitives.aead_encrypt(material, nonce, additional_data, plaintext)

    def psa_aead_decrypt(
        self, key: int, alg: int, nonce: bytes, additional_data: bytes, ciphertext: bytes
    ) -> bytes:
        _algorithm, material = self._use(key, alg, KeyType.CHACHA20, KeyUsage.DECRYPT)
        return primitives.aead_decrypt(material, nonce, additional_data, ciphertext)

    def psa_sign_message(self, key: int, alg: int, message: bytes) -> bytes:
        _algorithm, material = self._use(key, alg, KeyType.ED25519_KEY_PAIR, KeyUsage.SIGN_MESSAGE)
        return primitives.ed25519_sign(material, message)

    def psa_verify_message(self, key: int, alg: int, message: bytes, signature: bytes) -> None:
        algorithm = _number(Algorithm, alg)
        found = self._ring.permitted(self._owner, key, algorithm, KeyUsage.VERIFY_MESSAGE)
        primitives.ed25519_verify(found.public_half(), message, signature)

    def psa_raw_key_agreement(self, alg: int, private_key: int, peer_key: bytes) -> bytes:
        """The shared secret itself: only a key whose one algorithm is raw ECDH gives it out."""
        if _number(Algorithm, alg) is not Algorithm.ECDH:
            raise primitives.unsupported(_number(Algorithm, alg), "a raw key agreement")
        _algorithm, material = self._use(private_key, alg, KeyType.X25519_KEY_PAIR, KeyUsage.DERIVE)
        return primitives.x25519(material, peer_key)

    def psa_generate_random(self, output_size: int) -> bytes:
        if not 0 <= output_size <= MAX_RANDOM_BYTES:
            raise PSAError(PSAStatus.INVALID_ARGUMENT, f"0 to {MAX_RANDOM_BYTES:,} B at a time")
        return self._random(output_size)

    # --- key derivation: set-up, salt, secret and info, then output until the capacity is used

    def psa_key_derivation_setup(self, alg: int) -> int:
        """Open a derivation; its handle."""
        algorithm = _number(Algorithm, alg)
        primitives.hkdf_capacity(algorithm)
        if len(self._derivations) >= MAX_DERIVATIONS:
            raise PSAError(
                PSAStatus.INSUFFICIENT_MEMORY, "too many derivations are open", hint="abort the others"
            )
        handle = int.from_bytes(self._random(7))
        self._derivations[handle] = _Derivation(algorithm)
        return handle

    def psa_key_derivation_input_bytes(self, operation: int, step: int, data: bytes) -> None:
        """Salt (before the secret) or info, each at most once."""
        derivation, which = self._derivation(operation), _number(DerivationStep, step)
        if len(data) > MAX_INPUT_BYTES or which is DerivationStep.SECRET:
            raise PSAError(
                PSAStatus.INVALID_ARGUMENT, "bytes are for salt and info; the secret comes from a key"
            )
        if which is DerivationStep.SALT:
            if derivation.salt is not None or derivation.pseudo_random_key is not None:
                raise _bad_state("the salt comes once, before the secret")
            derivation.salt = data
        else:
            if derivation.info is not None or derivation.used_bytes:
                raise _bad_state("the info comes once, before any output")
            derivation.info = data

    def psa_key_derivation_input_key(self, operation: int, step: int, key: int) -> None:
        """The secret, from a key whose one algorithm is this derivation."""
        derivation = self._derivation(operation)
        if _number(DerivationStep, step) is not DerivationStep.SECRET:
            raise PSAError(PSAStatus.INVALID_ARGUMENT, "a key is for the secret")
        _algorithm, material = self._use(key, derivation.algorithm, KeyType.DERIVE, KeyUsage.DERIVE)
        self._take_secret(derivation, material)

    def psa_key_derivation_key_agreement(
        self, operation: int, step: int, private_key: int, peer_key: bytes
    ) -> None:
        """The secret, from an agreement whose result nobody sees."""
        derivation = self._derivation(operation)
        if _number(DerivationStep, step) is not DerivationStep.SECRET:
            raise PSAError(PSAStatus.INVALID_ARGUMENT, "an agreement is for the secret")
        algorithm = _AGREED[derivation.algorithm]
        _algorithm, material = self._use(private_key, algorithm, KeyType.X25519_KEY_PAIR, KeyUsage.DERIVE)
        self._take_secret(derivation, primitives.x25519(material, peer_key))

    def psa_key_derivation_output_bytes(self, operation: int, output_length: int) -> bytes:
        return self._output(self._derivation(operation), output_length)

    def psa_key_derivation_output_key(self, attributes: KeyAttributes, operation: int) -> int:
        """A new key from the next bytes; its id."""
        if attributes.key_type is KeyType.ED25519_PUBLIC_KEY:
            raise PSAError(PSAStatus.INVALID_ARGUMENT, "a public key is not derived")
        material = self._output(self._derivation(operation), material_bytes(attributes))
        return self._ring.add(self._owner, attributes, material)

    def psa_key_derivation_abort(self, operation: int) -> None:
        """Close a derivation; one that is not open is no error."""
        self._derivations.pop(operation, None)

    def _derivation(self, operation: int) -> _Derivation:
        derivation = self._derivations.get(operation)
        if derivation is None:
            raise _bad_state("the derivation is not open")
        return derivation

    def _take_secret(self, derivation: _Derivation, secret: bytes) -> None:
        if derivation.pseudo_random_key is not None:
            raise _bad_state("the secret comes once")
        derivation.pseudo_random_key = primitives.hkdf_extract(
            derivation.algorithm, derivation.salt or b"", secret
        )

    def _output(self, derivation: _Derivation, length: int) -> bytes:
        if derivation.pseudo_random_key is None:
            raise _bad_state("the secret is missing")
        start, end = derivation.used_bytes, derivation.used_bytes + length
        if length < 1 or end > primitives.hkdf_capacity(derivation.algorithm):
            raise PSAError(PSAStatus.INSUFFICIENT_DATA, "the derivation has not that many bytes left")
        output = primitives.hkdf_expand(
            derivation.algorithm, derivation.pseudo_random_key, derivation.info or b"", end
        )
        derivation.used_bytes = end
        return output[start:]

    def _use(self, key: int, alg: int, kind: KeyType, usage: KeyUsage) -> tuple[Algorithm, bytes]:
        """Algorithm and material, if the key's policy allows it; its type then follows, but is checked."""
        algorithm = _number(Algorithm, alg)
        found = self._ring.permitted(self._owner, key, algorithm, usage)
        if found.attributes.key_type is not kind:
            raise PSAError(PSAStatus.INVALID_ARGUMENT, f"this needs a key of type {kind.name}")
        return algorithm, found.material


def _number(kind: type[_Number], value: int) -> _Number:
    try:
        return kind(value)
    except ValueError:
        raise PSAError(
            PSAStatus.NOT_SUPPORTED, f"{kind.__name__} {value:#x} is not known to this service"
        ) from None


def _bad_state(message: str) -> PSAError:
    return PSAError(PSAStatus.BAD_STATE, message)
