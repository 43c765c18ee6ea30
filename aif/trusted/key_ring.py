"""Keys and their policy: which key exists, what it is, who owns it and what it may be used for.

Decides which attributes a key can have and refuses every other use. Does not compute anything with a key
(``primitives``) nor know the functions that need one (``encryption``).

Invariants: a key has one algorithm and explicit uses, fixed when it is made; a secret half goes into an
algorithm and nowhere else; a key of another owner looks like one that does not exist.

Source: PSA Certified Crypto API 1.x, key management.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from aif.errors import AIFError
from aif.protocol.cbor import Fields, decode, encode
from aif.protocol.limits import KEY_BYTES
from aif.trusted.primitives import ed25519_public_key, x25519_public_key
from aif.trusted.psa import (
    KEY_ID_USER_MAX,
    KEY_ID_USER_MIN,
    KEY_ID_VOLATILE_MAX,
    KEY_ID_VOLATILE_MIN,
    Algorithm,
    KeyAttributes,
    KeyLifetime,
    KeyType,
    KeyUsage,
    PSAError,
    PSAStatus,
)
from aif.trusted.records import OWNER_BYTES, UID_BYTES, RecordId, corrupt
from aif.trusted.sealed_store import Random, SealedStore

MAX_VOLATILE_KEYS_PER_OWNER: Final = 64
MAX_VOLATILE_KEYS: Final = 1024
_MAX_RECORD_BYTES: Final = 256
_DERIVATIONS: Final = frozenset({Algorithm.HKDF_SHA_256, Algorithm.HKDF_SHA_512})
_AGREEMENTS: Final = frozenset({Algorithm.ECDH, Algorithm.ECDH_HKDF_SHA_256, Algorithm.ECDH_HKDF_SHA_512})


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a key type allows."""

    algorithms: frozenset[Algorithm]
    usage: KeyUsage
    bits: range


_SIGNING: Final = KeyUsage.SIGN_MESSAGE | KeyUsage.VERIFY_MESSAGE
_SYMMETRIC_BITS: Final = range(128, 513, 8)
_KINDS: Final[Mapping[KeyType, _Kind]] = MappingProxyType(
    {
        KeyType.CHACHA20: _Kind(
            frozenset({Algorithm.CHACHA20_POLY1305}), KeyUsage.ENCRYPT | KeyUsage.DECRYPT, range(256, 257)
        ),
        KeyType.HMAC: _Kind(
            frozenset({Algorithm.HMAC_SHA_256, Algorithm.HMAC_SHA_512, Algorithm.BLAKE2B_256_MAC}),
            _SIGNING,
            _SYMMETRIC_BITS,
        ),
        KeyType.DERIVE: _Kind(_DERIVATIONS, KeyUsage.DERIVE, _SYMMETRIC_BITS),
        KeyType.ED25519_KEY_PAIR: _Kind(frozenset({Algorithm.PURE_EDDSA}), _SIGNING, range(255, 256)),
        KeyType.ED25519_PUBLIC_KEY: _Kind(
            frozenset({Algorithm.PURE_EDDSA}), KeyUsage.VERIFY_MESSAGE, range(255, 256)
        ),
        KeyType.X25519_KEY_PAIR: _Kind(_AGREEMENTS, KeyUsage.DERIVE, range(255, 256)),
    }
)


@dataclass(frozen=True, slots=True)
class Key:
    """A key with its material, which no text shows."""

    attributes: KeyAttributes
    material: bytes = field(repr=False)

    def public_half(self) -> bytes:
        """The public key of 32 bytes.

        Raises:
            PSAError: ``INVALID_ARGUMENT``, a symmetric key.
        """
        match self.attributes.key_type:
            case KeyType.ED25519_KEY_PAIR:
                return ed25519_public_key(self.material)
            case KeyType.X25519_KEY_PAIR:
                return x25519_public_key(self.material)
            case KeyType.ED25519_PUBLIC_KEY:
                return self.material
            case _:
                raise PSAError(PSAStatus.INVALID_ARGUMENT, "a symmetric key has no public half")


class KeyRing:
    """Keys of all owners: volatile ones in memory, persistent ones in a sealed store (or not at all)."""

    def __init__(self, store: SealedStore | None, *, random: Random) -> None:
        self._store, self._random = store, random
        self._volatile: dict[tuple[bytes, int], Key] = {}

    def generate(self, owner: bytes, attributes: KeyAttributes) -> int:
        """Make a key from random bytes and return its id.

        Raises:
            PSAError: ``NOT_SUPPORTED`` or ``INVALID_ARGUMENT`` for the attributes, ``ALREADY_EXISTS``,
                ``INSUFFICIENT_MEMORY``, ``INSUFFICIENT_STORAGE``, ``STORAGE_FAILURE``.
        """
        if attributes.key_type is KeyType.ED25519_PUBLIC_KEY:
            raise PSAError(PSAStatus.INVALID_ARGUMENT, "a public key is imported, not generated")
        return self.add(owner, attributes, self._random(material_bytes(attributes)))

    def add(self, owner: bytes, attributes: KeyAttributes, material: bytes) -> int:
        """Keep a key and return its id.

        Raises:
            PSAError: as ``generate``; ``INVALID_ARGUMENT`` also when the material has another length.
        """
        _check_policy(attributes)
        if len(material) != material_bytes(attributes):
            raise PSAError(PSAStatus.INVALID_ARGUMENT, f"a key of {attributes.bits} bits has another length")
        if attributes.lifetime is KeyLifetime.PERSISTENT:
            return self._persist(owner, attributes, material)
        mine = sum(of == owner for of, _ in self._volatile)
        if mine >= MAX_VOLATILE_KEYS_PER_OWNER or len(self._volatile) >= MAX_VOLATILE_KEYS:
            raise PSAError(
                PSAStatus.INSUFFICIENT_MEMORY, "too many volatile keys", hint="destroy what is not needed"
            )
        key_id = self._fresh_id(owner)
        self._volatile[owner, key_id] = Key(replace(attributes, key_id=key_id), material)
        return key_id

    def find(self, owner: bytes, key_id: int) -> Key:
        """A key of this owner.

        Raises:
            PSAError: ``INVALID_HANDLE``, there is none; ``DATA_CORRUPT``.
        """
        volatile = self._volatile.get((owner, key_id))
        if volatile is not None:
            return volatile
        record = _record(owner, key_id)
        if self._store is None or record is None or not self._store.contains(record):
            raise PSAError(PSAStatus.INVALID_HANDLE, "there is no such key")
        return _read(self._store.get(record), key_id)

    def permitted(self, owner: bytes, key_id: int, algorithm: Algorithm, usage: KeyUsage) -> Key:
        """The key, if its policy has this algorithm and use.

        Raises:
            PSAError: ``NOT_PERMITTED``, and as ``find``.
        """
        key = self.find(owner, key_id)
        if key.attributes.algorithm is not algorithm or usage not in key.attributes.usage:
            raise PSAError(
                PSAStatus.NOT_PERMITTED,
                f"the key's policy does not have {usage.name} with {algorithm.name}",
                hint="make a key of its own for this purpose",
            )
        return key

    def destroy(self, owner: bytes, key_id: int) -> None:
        """Forget a key for good.

        Raises:
            PSAError: ``INVALID_HANDLE``, ``STORAGE_FAILURE``.
        """
        self.find(owner, key_id)
        if self._volatile.pop((owner, key_id), None) is None:
            record = _record(owner, key_id)
            if self._store is not None and record is not None:
                self._store.remove(record)

    def _persist(self, owner: bytes, attributes: KeyAttributes, material: bytes) -> int:
        record = _record(owner, attributes.key_id)
        if self._store is None:
            raise PSAError(PSAStatus.NOT_SUPPORTED, "this service keeps no persistent keys")
        if record is None:
            raise PSAError(
                PSAStatus.INVALID_ARGUMENT,
                f"a persistent key has an id from {KEY_ID_USER_MIN:#x} to {KEY_ID_USER_MAX:#x}",
            )
        if self._store.contains(record):
            raise PSAError(PSAStatus.ALREADY_EXISTS, "there is a persistent key with this id")
        numbers = (attributes.key_type, attributes.algorithm, attributes.usage, attributes.bits)
        self._store.put(record, encode([*(int(number) for number in numbers), material]))
        return attributes.key_id

    def _fresh_id(self, owner: bytes) -> int:
        """Random, so that an id of an earlier boot is not by chance one of this boot."""
        span = KEY_ID_VOLATILE_MAX - KEY_ID_VOLATILE_MIN + 1
        while True:
            key_id = KEY_ID_VOLATILE_MIN + int.from_bytes(self._random(4)) % span
            if (owner, key_id) not in self._volatile:
                return key_id


def material_bytes(attributes: KeyAttributes) -> int:
    """Length of the material of such a key."""
    asymmetric = attributes.key_type not in (KeyType.CHACHA20, KeyType.HMAC, KeyType.DERIVE)
    return KEY_BYTES if asymmetric else attributes.bits // 8


def _check_policy(attributes: KeyAttributes) -> None:
    kind = _KINDS[attributes.key_type]
    if attributes.algorithm not in kind.algorithms:
        raise PSAError(
            PSAStatus.NOT_SUPPORTED,
            f"a key of type {attributes.key_type.name} is of no use to {attributes.algorithm.name}",
        )
    if not attributes.usage or attributes.usage & ~kind.usage:
        raise PSAError(
            PSAStatus.INVALID_ARGUMENT,
            f"a key of type {attributes.key_type.name} may be for one or more of {kind.usage!r}",
        )
    if attributes.bits not in kind.bits:
        raise PSAError(PSAStatus.INVALID_ARGUMENT, f"a key of {attributes.bits} bits is not of this type")


def _record(owner: bytes, key_id: int) -> RecordId | None:
    if not KEY_ID_USER_MIN <= key_id <= KEY_ID_USER_MAX:
        return None
    # The store holds other secrets too: no owner that a caller can name is one of theirs.
    ring = hashlib.blake2b(b"AIF-KEYS-1" + owner, digest_size=OWNER_BYTES).digest()
    return RecordId(ring, key_id.to_bytes(UID_BYTES))


def _read(body: bytes, key_id: int) -> Key:
    try:
        row = Fields.of_row(decode(body, max_bytes=_MAX_RECORD_BYTES), "key")
        numbers = [row.uint(n, "attribute", maximum=(1 << 32) - 1) for n in range(4)]
        attributes = KeyAttributes(
            KeyType(numbers[0]),
            Algorithm(numbers[1]),
            KeyUsage(numbers[2]),
            numbers[3],
            KeyLifetime.PERSISTENT,
            key_id,
        )
        return Key(attributes, row.bytes(4, "material", max_length=64))
    except (AIFError, ValueError) as error:
        raise corrupt("a stored key cannot be read by this release") from error
