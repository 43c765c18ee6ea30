"""Decoders of the data path: AIF1 frames in each mode, and every plaintext inside them.

Crafted frames are sealed with the true keys (a member that does not keep the rules), because anything else
ends at the tag.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from random import Random

from nacl.signing import SigningKey

from aif.errors import InvalidRecord, RemoteProtocolError, TypeSyntaxError
from aif.model.codec import Codec, compile_batches, compile_record
from aif.model.packed import Packed
from aif.model.records import RecordType
from aif.model.type_tree import size_range
from aif.protocol import cbor, message
from aif.protocol.aif1 import HOST_LIMITS, AuthMode, ChannelReceiver, ChannelSender, ControlCode, RosterSender
from aif.protocol.bundle import decode_bundle, encode_bundle
from aif.protocol.carried_state import CarriedState, pack_state, unpack_state
from aif.protocol.fragment import Reassembler, decode_fragment, encode_fragments
from aif.protocol.frame import ALLOWED_TYPES, FrameSealer
from aif.protocol.numbering import (
    Acknowledgement,
    Kind,
    pack_acknowledgement,
    pack_numbered,
    unpack_acknowledgement,
    unpack_numbered,
)
from aif.protocol.numbers import FrameType
from aif.protocol.watermark import Watermark, decode_watermark
from tests.fuzz.campaign import Decoder, without_folder
from tests.fuzz.inputs import EDGES, damaged, damaged_text, noise

CHANNEL, KEY, SEED = b"channel-id-of-16", bytes([7]) * 32, bytes([5]) * 32
VERIFY_KEY = bytes(SigningKey(SEED).verify_key)
EPOCH, SENDER = 0x1_02, 7
POLL_EVERY = 50
NUMBERS = (0, 1, (1 << 32) - 1, 1 << 32, (1 << 64) - 1, -1)

RECORD_TYPES = (
    "uint8", "float64", "string", "{int32 number; int32 twice}", "{uint64 t_us; int16[6] sample}",
    "{float32[] values; string name}", "{int8[16][6] window; {uint8 label | string text} what}",
    "{ | uint8 percent}", "{ | }", "{{uint16 a; uint16 b}[] pairs; uint8[] rest}", "{float32[3][3] rotation}",
    "string[]", "{int64[2] a | float32 b | }[]", "{{uint8 a; { | string s} b}[3] c}", "{uint8[] left}[]",
)  # fmt: skip

FIXED_TYPES = (
    "{uint32 n; uint8[6] data}", "{uint8 a; boolean b}", "{float32 a; float64 b}", "int16[3]", "boolean",
    "{{int8 a; int16 b} x; uint8 c}", "{uint8[300] long}",
)  # fmt: skip


def receiver(mode: AuthMode) -> Decoder:
    """A receiver that lives through a batch; it raises nothing, whatever comes."""
    counter = 0

    def start() -> Callable[[bytes], object]:
        nonlocal counter
        counter = 0
        channel = ChannelReceiver(CHANNEL, mode)
        channel.install_epoch(EPOCH, [RosterSender(SENDER, KEY, VERIFY_KEY)], now_ms=0)
        arrived = 0

        def feed(frame: bytes) -> object:
            nonlocal arrived
            arrived += 1
            delivered = channel.receive(frame, now_ms=arrived * 10, retained=arrived % 97 == 0)
            if arrived % POLL_EVERY == 0:
                channel.poll(arrived * 10)
                channel.statistics()
            if not delivered:
                raise RemoteProtocolError("dropped")
            return delivered

        return feed

    def craft(rng: Random) -> bytes:
        nonlocal counter
        kind = rng.choice(allowed) if rng.random() < 0.9 else FrameType(rng.randrange(len(FrameType)))
        counter += rng.choice((1, 1, 1, 1, 2, -1, 70))
        used = max(0, counter) if rng.random() < 0.9998 else (1 << 48) - 1
        body = sealer.seal(kind, used, rng.choice(_PLAINTEXTS)(rng, used))
        if rng.random() < 0.9:
            body += sealer.signature(body) if kind in _SIGNED else b""
        return damaged(rng, (body,)) if rng.random() < 0.1 else body

    allowed = sorted(ALLOWED_TYPES[mode])
    sealer = FrameSealer(CHANNEL, EPOCH, SENDER, KEY, SEED)
    sender = ChannelSender(CHANNEL, EPOCH, SENDER, KEY, mode, sign_key=SEED, max_frame_bytes=300)
    seeds = [
        sender.seal(b"hello"), sender.seal_bundle([b"a", b"bc", b""]), *sender.seal_fragments(bytes(700)),
        sender.seal_control(ControlCode.PORT_RESET, b"\xa0"), sender.seal_watermark(),
    ]  # fmt: skip
    return Decoder(f"aif1:{mode}", tuple(seeds), start, (RemoteProtocolError,), craft)


_SIGNED = frozenset(kind for kind in FrameType if "SIGNED" in kind.name)


def _watermark(rng: Random, counter: int) -> bytes:
    first = max(0, counter - rng.randrange(40))
    mark = Watermark(
        first, counter - first, rng.choice((0, 5, 200, 1 << 40)), rng.random() < 0.1,
        noise(rng, 32).ljust(32, b"\0") if rng.random() < 0.4 else None,
    )  # fmt: skip
    return damaged(rng, (mark.encode(),)) if rng.random() < 0.2 else mark.encode()


def _fragment(rng: Random, _counter: int) -> bytes:
    total = rng.choice((1, 2, 3, 65_535))
    size = rng.choice((0, 1, 30, 4 << 20, 0xFFFF_FFFF))
    head = (
        rng.randrange(4).to_bytes(4, "big") + rng.randrange(total + 1).to_bytes(3, "big")[1:]
        + total.to_bytes(2, "big") + size.to_bytes(4, "big")
    )  # fmt: skip
    return head + noise(rng, 40)


def _bundle(rng: Random, _counter: int) -> bytes:
    whole = encode_bundle([noise(rng, 20) for _ in range(rng.randrange(1, 6))])
    return damaged(rng, (whole,)) if rng.random() < 0.7 else whole


_PLAINTEXTS: tuple[Callable[[Random, int], bytes], ...] = (
    _watermark, _fragment, _bundle, lambda rng, _: noise(rng),
    lambda rng, _: rng.choice(EDGES) + noise(rng, 300),
)  # fmt: skip


def bundle() -> Decoder:
    def feed(data: bytes) -> None:
        assert encode_bundle(decode_bundle(data)) == data

    seeds = (encode_bundle([b""]), encode_bundle([b"a", b"bc", b""]), encode_bundle([bytes(9)] * 40))
    return Decoder("bundle", seeds, lambda: feed, (RemoteProtocolError,), lambda rng: _bundle(rng, 0))


def watermark() -> Decoder:
    def feed(data: bytes) -> None:
        for mode in AuthMode:
            try:
                mark = decode_watermark(data, counter=37, mode=mode)
            except RemoteProtocolError:
                continue
            assert mark.encode() == data
            return
        raise RemoteProtocolError("in no mode")

    seeds = (Watermark(0, 37, 40).encode(), Watermark(30, 7, 1 << 40, final=True, hash=bytes(32)).encode())
    return Decoder("watermark", seeds, lambda: feed, (RemoteProtocolError,), lambda rng: _watermark(rng, 37))


def fragment() -> Decoder:
    """Fragments into one reassembler, which must stay small whatever is announced."""

    def start() -> Callable[[bytes], object]:
        reassembler = Reassembler(HOST_LIMITS)
        arrived = 0

        def feed(data: bytes) -> object:
            nonlocal arrived
            arrived += 1
            piece = decode_fragment(data, HOST_LIMITS.max_message_bytes)
            reassembler.make_room("peer", piece)
            done = reassembler.add("peer", piece, now_ms=arrived)
            assert len(reassembler) <= HOST_LIMITS.max_partial_messages
            return done

        return feed

    seeds = tuple(encode_fragments(3, bytes(range(100)), 40))
    return Decoder("fragment", seeds, start, (RemoteProtocolError,), lambda rng: _fragment(rng, 0))


def inter_module_message() -> Decoder:
    def feed(data: bytes) -> None:
        origin_us, sent_us, record = message.unpack(data)
        assert message.pack(origin_us, sent_us, record) == data

    return Decoder("message", (message.pack(5, 9, b"abc"),), lambda: feed, (RemoteProtocolError,))


def record() -> Decoder:
    """Records of many types; the first byte of an input chooses the type."""
    codecs = [compile_record(RecordType.parse(text)) for text in RECORD_TYPES]

    def feed(data: bytes) -> None:
        codec: Codec = codecs[data[0] % len(codecs)] if data else codecs[0]
        value = codec.decode(data[1:])
        assert codec.encode(value) == data[1:]

    def craft(rng: Random) -> bytes:
        """Counts and tags where the encodings have them."""
        parts = [rng.choice((b"\0", b"\1", b"\2", b"\3\0\0\0", b"\0\0\0\0", noise(rng, 8))) for _ in range(6)]
        return bytes([rng.randrange(len(codecs))]) + b"".join(parts[: rng.randrange(7)])

    bodies = (*map(bytes, range(100)), b"\1\0\0\0a", b"\1\0\0\0\1\0\0\0a")
    seeds = tuple(
        bytes([n]) + body for n, codec in enumerate(codecs) for body in bodies if _fits(codec, body)
    )
    return Decoder("record", seeds, lambda: feed, (InvalidRecord,), craft)


def _fits(codec: Codec, body: bytes) -> bool:
    try:
        codec.decode(body)
    except InvalidRecord:
        return False
    return True


def records() -> Decoder:
    """Records of fixed size, side by side as a bundle brings them: read together as one by one, or refused.

    The first byte of an input chooses the type, the second says by how much a length is wrong.
    """
    types = [RecordType.parse(text) for text in FIXED_TYPES]
    kinds = [(compile_record(kind), compile_batches(kind, lead_bytes=1)) for kind in types]
    sizes = [1 + size_range(kind.root)[0] for kind in types]

    def feed(data: bytes) -> None:
        which = data[0] % len(kinds) if data else 0
        size = sizes[which] + (data[1] % 3 if len(data) > 1 else 0)
        body = data[2 : 2 + (len(data) - 2) // size * size]
        if not body:
            raise InvalidRecord("none")
        (one, many), packed = kinds[which], Packed(body, size)
        values = many.decode_all(packed)
        assert [raw[:1] + one.encode(value) for raw, value in zip(packed, values, strict=True)] == list(
            packed
        )

    def craft(rng: Random) -> bytes:
        which = rng.randrange(len(kinds))
        return bytes([which, 0]) + rng.choice((rng.randbytes, bytes))(sizes[which] * rng.randrange(1, 150))

    seeds = tuple(bytes([which, 0]) + bytes(size * 3) for which, size in enumerate(sizes))
    return Decoder("records", seeds, lambda: feed, (InvalidRecord,), craft)


def record_type() -> Decoder:
    words = (
        "{",
        "}",
        "[",
        "]",
        ";",
        "|",
        "(",
        ")",
        "int8 ",
        "string ",
        "uint8[] ",
        "a",
        "[3]",
        "99999999999",
        " ",
    )

    def feed(data: bytes) -> None:
        parsed = RecordType.parse(data.decode())
        assert RecordType.parse(str(parsed)) == parsed

    def craft(rng: Random) -> bytes:
        if rng.random() < 0.3:
            return "".join(rng.choices(words, k=rng.randrange(40))).encode()
        return damaged_text(rng, RECORD_TYPES, words).encode()

    seeds = tuple(text.encode() for text in RECORD_TYPES)
    return Decoder("record type", seeds, lambda: feed, (TypeSyntaxError, UnicodeDecodeError), craft)


def numbered_message() -> Decoder:
    def feed(data: bytes) -> object:
        numbered = unpack_numbered(memoryview(data))
        packed = pack_numbered(numbered.kind, numbered.identity, numbered.previous, bytes(numbered.record))
        assert packed == data
        return numbered

    seeds = (pack_numbered(Kind.RECORD, 9 << 64 | 7, 9 << 64 | 6, b"abc"), pack_numbered(Kind.END, 5, 0, b""))
    return Decoder("numbered message", seeds, lambda: feed, (RemoteProtocolError,))


def acknowledgement() -> Decoder:
    def feed(data: bytes) -> object:
        said = unpack_acknowledgement(data)
        assert pack_acknowledgement(said) == data
        return said

    said = (
        Acknowledgement(7 << 64 | 1, 7 << 64 | 2, state=b"state"),
        Acknowledgement(0, 5, again=True, gone=True),
    )
    return Decoder(
        "acknowledgement", tuple(map(pack_acknowledgement, said)), lambda: feed, (RemoteProtocolError,)
    )


def carried_state() -> Decoder:
    def feed(data: bytes) -> object:
        state = unpack_state(data)
        assert unpack_state(pack_state(state)) == state
        return state

    def craft(rng: Random) -> bytes:
        entries = [
            [noise(rng, 16).ljust(16, b"\0"), rng.choice(NUMBERS), rng.choice(NUMBERS), noise(rng, 20)]
            for _ in range(rng.randrange(3))
        ]
        return cbor.encode([rng.choice((None, b"", b"own")), entries])

    seeds = (
        pack_state(CarriedState(b"own", {CHANNEL: (3 << 64 | 5, b"behind")})),
        pack_state(CarriedState(None, {})),
    )
    return Decoder("carried state", seeds, lambda: feed, (RemoteProtocolError,), craft)


FACTORIES: Mapping[str, Callable[[Path], Decoder]] = {
    **{f"aif1:{mode}": without_folder(partial(receiver, mode)) for mode in AuthMode},
    "bundle": without_folder(bundle),
    "watermark": without_folder(watermark),
    "fragment": without_folder(fragment),
    "numbered message": without_folder(numbered_message),
    "acknowledgement": without_folder(acknowledgement),
    "carried state": without_folder(carried_state),
    "message": without_folder(inter_module_message),
    "record": without_folder(record),
    "records": without_folder(records),
    "record type": without_folder(record_type),
}
"""Decoders by name; they need no folder."""
