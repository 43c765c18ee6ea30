"""Names and numbers of the PSA Certified APIs, as far as this project speaks them.

Decides values only: status codes, storage flags, algorithms, key types, usage flags, and the values that
describe a key or a stored asset. Numbers are those of the PSA Certified Secure Storage API 1.0 and Crypto
API 1.x; algorithms marked *vendor* carry the vendor bit, because PSA has no number for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag

from aif.errors import PSAError as PSAError  # noqa: PLC0414  # part of these APIs; defined with all errors
from aif.errors import PSAStatus as PSAStatus  # noqa: PLC0414

# --- storage --------------------------------------------------------------------------------------


class StorageFlag(IntFlag):
    """Creation flags of an asset (psa_storage_create_flags_t)."""

    NONE = 0
    WRITE_ONCE = 1
    """It can be neither changed nor removed."""
    NO_CONFIDENTIALITY = 2
    """Authenticated, but readable by whoever reads the file."""
    NO_REPLAY_PROTECTION = 4
    """An older value of this asset may come back unnoticed."""


STORAGE_FLAGS = StorageFlag(7)


class StorageSupport(IntFlag):
    """Answer of psa_ps_get_support."""

    SET_EXTENDED = 1


@dataclass(frozen=True, slots=True)
class StorageInfo:
    """An asset (psa_storage_info_t)."""

    capacity_bytes: int
    size_bytes: int
    flags: StorageFlag


# --- cryptography ---------------------------------------------------------------------------------


class Algorithm(IntEnum):
    """Algorithms (psa_algorithm_t)."""

    SHA_256 = 0x02000009
    SHA_512 = 0x0200000B
    BLAKE2B_256 = 0x82000001
    """*Vendor*: BLAKE2b with a digest of 32 bytes (RFC 7693)."""
    HMAC_SHA_256 = 0x03800009
    HMAC_SHA_512 = 0x0380000B
    BLAKE2B_256_MAC = 0x83800001
    """*Vendor*: BLAKE2b keyed with 16 to 64 bytes, 32 bytes long (RFC 7693 §2.1)."""
    CHACHA20_POLY1305 = 0x05100500
    PURE_EDDSA = 0x06000800
    """Ed25519 (RFC 8032 §5.1)."""
    HKDF_SHA_256 = 0x08000109
    HKDF_SHA_512 = 0x0800010B
    ECDH = 0x09020000
    """X25519, with the raw shared secret as result (RFC 7748 §5)."""
    ECDH_HKDF_SHA_256 = 0x09020109
    """X25519 whose shared secret goes into HKDF and nowhere else."""
    ECDH_HKDF_SHA_512 = 0x0902010B


class KeyType(IntEnum):
    """Key types (psa_key_type_t)."""

    HMAC = 0x1100
    DERIVE = 0x1200
    CHACHA20 = 0x2004
    ED25519_PUBLIC_KEY = 0x4142
    ED25519_KEY_PAIR = 0x7142
    X25519_KEY_PAIR = 0x7141


class KeyUsage(IntFlag):
    """What a key may be used for (psa_key_usage_t). There is no EXPORT: secret halves never come out."""

    NONE = 0
    ENCRYPT = 0x0100
    DECRYPT = 0x0200
    SIGN_MESSAGE = 0x0400
    VERIFY_MESSAGE = 0x0800
    DERIVE = 0x4000


class KeyLifetime(IntEnum):
    """How long a key lives (psa_key_lifetime_t)."""

    VOLATILE = 0
    """Until it is destroyed or its process ends."""
    PERSISTENT = 1
    """Until it is destroyed; kept sealed in storage."""


class DerivationStep(IntEnum):
    """Inputs of a key derivation (psa_key_derivation_step_t)."""

    SECRET = 0x0101
    SALT = 0x0202
    INFO = 0x0203


KEY_ID_USER_MIN, KEY_ID_USER_MAX = 0x00000001, 0x3FFFFFFF
"""Ids that callers choose, for persistent keys."""
KEY_ID_VOLATILE_MIN, KEY_ID_VOLATILE_MAX = 0x40000000, 0x7FFFFFFF
"""Ids that the service chooses, for volatile keys."""


@dataclass(frozen=True, slots=True)
class KeyAttributes:
    """Type and policy of a key: one permitted algorithm, explicit uses.

    Attributes:
        key_type: what it is.
        algorithm: the only algorithm it may be used with.
        usage: the only uses it may be put to.
        bits: 256 for ChaCha20, 255 for both curves, 128 to 512 for HMAC and derivation keys.
        lifetime: volatile keys get their id from the service.
        key_id: for persistent keys, ``KEY_ID_USER_MIN`` to ``KEY_ID_USER_MAX``; else 0 until the key is made.
    """

    key_type: KeyType
    algorithm: Algorithm
    usage: KeyUsage
    bits: int
    lifetime: KeyLifetime = KeyLifetime.VOLATILE
    key_id: int = 0
