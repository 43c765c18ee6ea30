"""The published AIF1 vectors, and that no single bit of a frame can change."""

import pytest
from nacl.bindings import crypto_aead_chacha20poly1305_ietf_encrypt as libsodium_encrypt
from nacl.signing import SigningKey

from aif.errors import DecryptionFailed, LocalProtocolError, SignatureInvalid
from aif.protocol.aif1 import AuthMode, Cause, ChannelReceiver, RosterSender, channel_id, ratchet, sender_key
from aif.protocol.bundle import encode_bundle
from aif.protocol.frame import ALLOWED_TYPES, FrameOpener, FrameSealer, first_byte_verdicts
from aif.protocol.numbers import FrameType
from aif.protocol.watermark import Watermark

K_EPOCH = bytes(range(32))
SEED = bytes(range(0x20, 0x40))
VERIFY_KEY = bytes(SigningKey(SEED).verify_key)
CHANNEL = channel_id(
    "aiw-demo",
    "1.0",
    "MicIn.audio",
    ["Kws.audio"],
    data_type="Pcm16",
    topic="aif/ch/aiw-demo/MicIn/audio",
)
KEY = sender_key(K_EPOCH, 7, b"\x11" * 16, b"\x22" * 16, b"\x33" * 16)
SEALER = FrameSealer(CHANNEL, 1, 7, KEY, SEED)

DATA = bytes.fromhex("10010007000000000000d22045a6ade9cfb40108b791318f0a6e41c807274e")
BUNDLE = bytes.fromhex("150100070000000000010e1b3a669b6c1c04f2ec6e4bf11dde207982c3987345692bdb3913")
SIGNED = bytes.fromhex(
    "110100070000000000021c7620f32fa7fb1d2e2d0c9ce5bd4590ca47d76d2c"
    "852ae8463e73e1a358a578ffca4c299499ebd96faa23022a29d451cda60ae84f251de85498fa8dfda347c6435a1c06c689ade618"
    "f781b9ba7000af19f165110d"
)
WATERMARK = bytes.fromhex(
    "12010007000000000003bdfdde42ba031380325f8ed1277e39d9799bec25cda75eac4d1591df47e2778d91"
)
MARK = Watermark(first=0, count=3, messages=5)


def test_channel_id_sender_key_and_ratchet_match_the_vectors() -> None:
    assert CHANNEL.hex() == "095982704029d599cbaebc1a9b73caa3"
    assert KEY.hex() == "e6c0b04a2e941c7a4081bfbea9c3555ea7076b3ad89705b0ac3e7f76666d5bf4"
    assert ratchet(K_EPOCH).hex() == "db3fe237b65dcb6dfe38a27089aa829b015e9378e47f59c14f802024d5365473"


@pytest.mark.parametrize(
    ("kind", "counter", "plaintext", "expected"),
    [
        (FrameType.DATA, 0, b"hello", DATA),
        (FrameType.BUNDLE, 1, encode_bundle([b"a", b"bc", b""]), BUNDLE),
        (FrameType.DATA_SIGNED, 2, b"hello", SIGNED),
        (FrameType.WATERMARK, 3, MARK.encode(), WATERMARK),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_frames_match_the_vectors(kind: FrameType, counter: int, plaintext: bytes, expected: bytes) -> None:
    body = SEALER.seal(kind, counter, plaintext)
    frame = body + SEALER.signature(body) if kind is FrameType.DATA_SIGNED else body
    assert frame == expected


def test_the_nonce_and_additional_data_are_those_of_the_layout() -> None:
    head = bytes([0x10, 1, 0, 7]) + (2**40 + 5).to_bytes(6, "big")
    nonce = b"\0\0" + head[2:4] + b"\0\0" + head[4:]
    sealed = libsodium_encrypt(b"payload", b"AIF1" + CHANNEL + head, nonce, KEY)
    assert SEALER.seal(FrameType.DATA, 2**40 + 5, b"payload") == head + sealed


def test_the_order_of_destinations_does_not_matter_but_everything_else_does() -> None:
    def make(**change: str) -> bytes:
        inputs = {"aiw_id": "w", "aiw_version": "1", "source": "A.o", "data_type": "t", "topic": "x"} | change
        return channel_id(destinations=["B.i", "C.i"], **inputs)

    assert channel_id("w", "1", "A.o", ["C.i", "B.i"], data_type="t", topic="x") == make()
    for name in ("aiw_id", "aiw_version", "source", "data_type", "topic"):
        assert make(**{name: "other"}) != make()


@pytest.mark.parametrize(
    ("index", "lengths"),
    [(-1, (32, 16, 16, 16)), (65536, (32, 16, 16, 16)), (7, (31, 16, 16, 16)), (7, (32, 15, 16, 16)),
     (7, (32, 16, 17, 16)), (7, (32, 16, 16, 0))],
)  # fmt: skip
def test_sender_key_refuses_wrong_inputs(index: int, lengths: tuple[int, int, int, int]) -> None:
    k_epoch, *ids = (bytes(length) for length in lengths)
    with pytest.raises(LocalProtocolError):
        sender_key(k_epoch, index, ids[0], ids[1], ids[2])


@pytest.mark.parametrize(
    ("mode", "frame"),
    [
        (AuthMode.AEAD, DATA),
        (AuthMode.AEAD, BUNDLE),
        (AuthMode.SIGNED, SIGNED),
        (AuthMode.AEAD, WATERMARK),
    ],
    ids=["data", "bundle", "signed", "watermark"],
)
def test_every_single_bit_flip_is_rejected(mode: AuthMode, frame: bytes) -> None:
    """A fresh receiver each time, so that no window hides a frame that would open."""
    for bit in range(8 * len(frame)):
        receiver = ChannelReceiver(CHANNEL, mode)
        receiver.install_epoch(1, [RosterSender(7, KEY, VERIFY_KEY)], now_ms=0)
        flipped = bytearray(frame)
        flipped[bit // 8] ^= 1 << bit % 8
        assert receiver.receive(flipped, now_ms=0) == [], bit
        receiver.poll(1_000)  # a changed epoch or sender may have waited for its roster
        statistics = receiver.statistics()
        assert statistics.verified_frames == 0, bit
        assert statistics.rejected_frames == 1, bit
        assert receiver.receive(frame, now_ms=1_000) or frame is WATERMARK, "the real frame is still good"


def test_a_foreign_signature_or_none_is_refused() -> None:
    body = SEALER.seal(FrameType.DATA_SIGNED, 9, b"x")
    own = FrameOpener(CHANNEL, 1, 7, KEY, VERIFY_KEY)
    own.verify(body, SEALER.signature(body))
    forger = FrameSealer(CHANNEL, 1, 7, KEY, b"\x01" * 32)
    with pytest.raises(SignatureInvalid):
        own.verify(body, forger.signature(body))
    with pytest.raises(SignatureInvalid):
        own.verify(body, b"")
    with pytest.raises(SignatureInvalid):
        FrameOpener(CHANNEL, 1, 7, KEY, None).verify(body, SEALER.signature(body))
    with pytest.raises(SignatureInvalid):  # a small-order key would accept forgeries elsewhere
        FrameOpener(CHANNEL, 1, 7, KEY, b"\x01" + bytes(31)).verify(body, b"\x01" + bytes(63))
    with pytest.raises(LocalProtocolError):
        FrameSealer(CHANNEL, 1, 7, KEY, None).signature(body)


def test_another_channel_key_or_sender_does_not_open() -> None:
    body = SEALER.seal(FrameType.DATA, 0, b"x")
    assert FrameOpener(CHANNEL, 1, 7, KEY, None).open(body) == b"x"
    for opener in (
        FrameOpener(b"\0" * 16, 1, 7, KEY, None),
        FrameOpener(CHANNEL, 1, 7, bytes(32), None),
        FrameOpener(CHANNEL, 1, 8, sender_key(K_EPOCH, 8, b"\x11" * 16, b"\x22" * 16, b"\x33" * 16), None),
    ):
        with pytest.raises(DecryptionFailed):
            opener.open(body)


def test_the_type_table_is_the_one_of_the_format() -> None:
    """Rows: types 0..9; columns: aead, signed, checkpoint."""
    table = ["y-y", "-yy", "y--", "y-y", "y--", "y-y", "-yy", "-yy", "-yy", "-yy"]
    for column, mode in enumerate((AuthMode.AEAD, AuthMode.SIGNED, AuthMode.CHECKPOINT)):
        assert [row[column] == "y" for row in table] == [kind in ALLOWED_TYPES[mode] for kind in FrameType]
        verdicts = first_byte_verdicts(mode)
        for first in range(256):
            if first >> 4 != 1:
                assert verdicts[first] is Cause.FRAME_VERSION
            elif first & 15 > 9:
                assert verdicts[first] is Cause.FRAME_TYPE
            else:
                expected = None if table[first & 15][column] == "y" else Cause.FRAME_MODE
                assert verdicts[first] is expected


def test_keys_never_show_in_a_repr() -> None:
    assert KEY.hex() not in repr(RosterSender(7, KEY))
    assert repr(KEY) not in repr(RosterSender(7, KEY))
