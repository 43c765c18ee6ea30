"""Layout, keys, AEAD and signature of one AIF1 frame; integers are big-endian.

    0       version << 4 | type
    1       epoch, low 8 bits
    2..3    sender index
    4..9    counter
    10..    ciphertext || 16-byte tag [ || 64-byte Ed25519 signature over the ciphertext's digest ]

    nonce      00 00 || sender || 00 00 || counter
    AAD        "AIF1" || channel id || header
    signature  Ed25519("AIF1-SIG" || AAD || BLAKE2b-256(ciphertext || tag))

Decides how bytes become a frame and back. Does not decide which counter comes next or is acceptable, nor what
a plaintext means.

Invariants: one key belongs to one sender in one epoch, so (key, nonce) is unique as long as the counter is;
the signature covers a digest, never the bundle (Ed25519 would hash it twice); no error says which byte
failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from nacl.exceptions import CryptoError
from nacl.signing import SigningKey, VerifyKey

from aif.errors import DecryptionFailed, LocalProtocolError, SignatureInvalid
from aif.protocol.cbor import encode
from aif.protocol.numbers import (
    CHANNEL_ID_BYTES,
    DIGEST_BYTES,
    EPOCH_LIMIT,
    HEADER_BYTES,
    ID_BYTES,
    KEY_BYTES,
    OVERHEAD_BYTES,
    SENDER_INDEX_LIMIT,
    SIGNATURE_BYTES,
    SIGNED_OVERHEAD_BYTES,
    VERSION,
    AuthMode,
    Cause,
    FrameType,
)

Buffer = bytes | bytearray | memoryview

SIGNED_TYPES = frozenset(
    {
        FrameType.DATA_SIGNED,
        FrameType.BUNDLE_SIGNED,
        FrameType.FRAGMENT_SIGNED,
        FrameType.WATERMARK_SIGNED,
        FrameType.CONTROL_SIGNED,
    }
)
"""Types that carry a signature behind the tag."""

ALLOWED_TYPES: dict[AuthMode, frozenset[FrameType]] = {
    AuthMode.AEAD: frozenset(FrameType) - SIGNED_TYPES,
    AuthMode.SIGNED: SIGNED_TYPES,
    AuthMode.CHECKPOINT: frozenset(FrameType) - {FrameType.WATERMARK, FrameType.CONTROL},
}
"""What a receiver accepts in each mode; a mode never falls back to a weaker one."""


MINIMUM_BYTES = tuple(
    SIGNED_OVERHEAD_BYTES if kind in set(map(int, SIGNED_TYPES)) else OVERHEAD_BYTES for kind in range(16)
)
"""Shortest frame of each type; reserved types count as unsigned."""


def first_byte_verdicts(mode: AuthMode) -> tuple[Cause | None, ...]:
    """Why a frame with each of the 256 first bytes is refused in this mode, None where it is not."""
    verdicts: list[Cause | None] = []
    for first in range(256):
        kind = first & 15
        if first >> 4 != VERSION:
            verdicts.append(Cause.FRAME_VERSION)
        elif kind >= len(FrameType):
            verdicts.append(Cause.FRAME_TYPE)
        else:
            verdicts.append(None if FrameType(kind) in ALLOWED_TYPES[mode] else Cause.FRAME_MODE)
    return tuple(verdicts)


def digest(data: Buffer) -> bytes:
    """BLAKE2b-256 without key (RFC 7693)."""
    return blake2b(data, digest_size=DIGEST_BYTES).digest()


def channel_id(
    aiw_id: str, aiw_version: str, source: str, destinations: Sequence[str], *, data_type: str, topic: str
) -> bytes:
    """The 16 bytes that bind every frame to its channel.

    Args:
        aiw_id: AI Workflow id.
        aiw_version: its version.
        source: ``AIM.port`` that produces.
        destinations: every ``AIM.port`` that consumes, in any order.
        data_type: data type id of the port.
        topic: MQTT topic of the channel.

    >>> channel_id("aiw-demo", "1.0", "MicIn.audio", ["Kws.audio"],
    ...            data_type="Pcm16", topic="aif/ch/aiw-demo/MicIn/audio").hex()
    '095982704029d599cbaebc1a9b73caa3'
    """
    description = encode([aiw_id, aiw_version, source, sorted(destinations), data_type, topic])
    return blake2b(description, digest_size=CHANNEL_ID_BYTES).digest()


def sender_key(
    k_epoch: bytes, sender_index: int, aim_instance_id: bytes, host_id: bytes, grant_nonce: bytes
) -> bytes:
    """The key of one sender in one epoch: BLAKE2b-256 keyed with K_epoch.

    Args:
        k_epoch: 32-byte epoch key of the channel.
        sender_index: 0..65535, given by the Controller, never reused inside a channel and epoch.
        aim_instance_id: 16 bytes.
        host_id: 16 bytes.
        grant_nonce: 16 bytes, fresh for each boot and each mapping, so that a rebooted or moved sender never
            meets an old (key, nonce) again.
    """
    _require_length("K_epoch", k_epoch, KEY_BYTES)
    ids = {"AIM instance id": aim_instance_id, "host id": host_id, "grant nonce": grant_nonce}
    for name, value in ids.items():
        _require_length(name, value, ID_BYTES)
    _require_below("sender index", sender_index, SENDER_INDEX_LIMIT)
    text = b"aif1 send" + sender_index.to_bytes(2, "big") + b"".join(ids.values())
    return blake2b(text, key=k_epoch, digest_size=KEY_BYTES).digest()


def ratchet(k_epoch: bytes) -> bytes:
    """The next epoch key for the same members; the old one cannot be computed from it."""
    _require_length("K_epoch", k_epoch, KEY_BYTES)
    return blake2b(b"ratchet", key=k_epoch, digest_size=KEY_BYTES).digest()


class FrameSealer:
    """Seals frames of one sender in one epoch. The caller owns the counter and never repeats one."""

    __slots__ = ("_aad", "_encrypt", "_heads", "_nonce", "_sign_key")

    def __init__(self, channel: bytes, epoch: int, sender: int, key: bytes, sign_key: bytes | None) -> None:
        self._aad, self._nonce, tail = _prefixes(channel, epoch, sender, key)
        self._encrypt = ChaCha20Poly1305(key).encrypt
        self._heads = tuple(bytes([VERSION << 4 | kind]) + tail for kind in FrameType)
        if sign_key is not None:
            _require_length("sign key", sign_key, KEY_BYTES)
        self._sign_key = None if sign_key is None else SigningKey(sign_key)

    def seal(self, kind: FrameType, counter: int, plaintext: Buffer) -> bytes:
        """Header, ciphertext and tag; a signed type needs ``signature`` behind it."""
        count = counter.to_bytes(6, "big")
        head = self._heads[kind] + count
        return head + self._encrypt(self._nonce + count, plaintext, self._aad + head)

    def signature(self, body: bytes) -> bytes:
        """Ed25519 signature over what ``seal`` returned: header, ciphertext and tag."""
        if self._sign_key is None:
            raise LocalProtocolError(
                "this frame must be signed, but the sender has no frame-sign key",
                hint="give the channel the sign key listed in its roster",
            )
        covered = digest(memoryview(body)[HEADER_BYTES:])
        return self._sign_key.sign(b"AIF1-SIG" + self._aad + body[:HEADER_BYTES] + covered).signature


class FrameOpener:
    """Opens frames of one sender in one epoch; neither replay nor meaning is checked here."""

    __slots__ = ("_aad", "_decrypt", "_nonce", "_verify_key", "tail")

    def __init__(self, channel: bytes, epoch: int, sender: int, key: bytes, verify_key: bytes | None) -> None:
        self._aad, self._nonce, self.tail = _prefixes(channel, epoch, sender, key)
        self._decrypt = ChaCha20Poly1305(key).decrypt
        if verify_key is not None:
            _require_length("verify key", verify_key, KEY_BYTES)
        self._verify_key = None if verify_key is None else VerifyKey(verify_key)

    def open(self, body: bytes) -> bytes:
        """Plaintext of header, ciphertext and tag (the signature, if any, cut off).

        Raises:
            DecryptionFailed: the tag does not fit; nothing more is said.
        """
        head = body[:HEADER_BYTES]
        try:
            return self._decrypt(self._nonce + head[4:], body[HEADER_BYTES:], self._aad + head)
        except InvalidTag as error:
            raise DecryptionFailed("frame does not open") from error

    def verify(self, body: bytes, signature: bytes) -> None:
        """Check the signature of a frame over its header, ciphertext and tag.

        Raises:
            SignatureInvalid: it is not this sender's, or no verify key is known.
        """
        if self._verify_key is None or len(signature) != SIGNATURE_BYTES:
            raise SignatureInvalid("frame signature cannot be checked")
        covered = digest(memoryview(body)[HEADER_BYTES:])
        try:
            self._verify_key.verify(b"AIF1-SIG" + self._aad + body[:HEADER_BYTES] + covered, signature)
        except CryptoError as error:
            raise SignatureInvalid("frame signature is wrong") from error


def _prefixes(channel: bytes, epoch: int, sender: int, key: bytes) -> tuple[bytes, bytes, bytes]:
    """Constant parts of AAD, nonce and header (its bytes 1..3) of one sender in one epoch."""
    _require_length("channel id", channel, CHANNEL_ID_BYTES)
    _require_length("sender key", key, KEY_BYTES)
    _require_below("epoch", epoch, EPOCH_LIMIT)
    _require_below("sender index", sender, SENDER_INDEX_LIMIT)
    index = sender.to_bytes(2, "big")
    return b"AIF1" + channel, b"\0\0" + index + b"\0\0", bytes([epoch & 0xFF]) + index


def _require_length(name: str, value: bytes, length: int) -> None:
    if len(value) != length:
        raise LocalProtocolError(f"{name} has {len(value)} bytes, it must have {length}")


def _require_below(name: str, value: int, limit: int) -> None:
    if not 0 <= value < limit:
        raise LocalProtocolError(f"{name} {value} is outside 0..{limit - 1}")
