"""Deterministic CBOR for trust documents: one value has one encoding, and nothing else is accepted.

Decides which CBOR this project speaks: RFC 8949 §4.2.1 (shortest heads and floats, definite lengths, map
keys in bytewise order of their encodings) without tags, NaN, infinities and simple values other than
false, true and null. Does not decide what a document means.

Invariants: ``decode`` accepts exactly the bytes ``encode`` produces; the size is capped before anything is
parsed; nesting, tags and lengths are checked on the raw bytes before a value is built from them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping

import cbor2

from aif.errors import LocalProtocolError, RemoteProtocolError
from aif.protocol.limits import MAX_CBOR_DEPTH

_MAJOR_UINT, _MAJOR_NEGATIVE = 0, 1
_MAJOR_BYTES, _MAJOR_TEXT, _MAJOR_ARRAY, _MAJOR_MAP, _MAJOR_TAG, _MAJOR_SIMPLE = 2, 3, 4, 5, 6, 7
_INT_MIN, _INT_MAX = -(1 << 64), (1 << 64) - 1  # RFC 8949 §3.1, major types 0 and 1; more would need tags
_SIMPLE_VALUES = (20, 21, 22)  # RFC 8949 §3.3: false, true, null
_INFO_FIRST_WIDTH, _INFO_LAST_WIDTH = 24, 27  # RFC 8949 §3: the argument follows in 1, 2, 4 or 8 bytes
_SHORT_HEADS = tuple(bytes([first]) for first in range(256))
_LONG_HEADS = tuple(
    (struct.Struct(f">B{width}"), largest)
    for width, largest in (("B", 0xFF), ("H", 0xFFFF), ("I", 0xFFFFFFFF), ("Q", (1 << 64) - 1))
)
_FLOAT_HEADS = (25, 26, 27)  # RFC 8949 §3.3: the argument of these is a float of 2, 4 or 8 bytes


def encode(value: object) -> bytes:
    """The one deterministic encoding of a value (RFC 8949 §4.2.1).

    Args:
        value: None, bool, int (-2^64 .. 2^64 - 1), finite float, str, bytes-like, list or tuple, or mapping
            with int or str keys, nested at most ``MAX_CBOR_DEPTH`` deep.

    Raises:
        LocalProtocolError: the value holds something that documents do not carry.

    >>> encode({2: b"ab", 1: ["AIF-ID-1", True]}).hex()
    'a20182684149462d49442d31f502426162'
    """
    return _item(value, MAX_CBOR_DEPTH)


def decode(data: bytes, *, max_bytes: int, max_depth: int = MAX_CBOR_DEPTH) -> object:
    """The value of one deterministic encoding; arrays become lists, maps become dicts.

    Args:
        data: exactly one encoded item, nothing after it.
        max_bytes: size cap, checked first.
        max_depth: containers inside containers, 1 .. ``MAX_CBOR_DEPTH``.

    Raises:
        RemoteProtocolError: too large, malformed, nested too deeply, or not the deterministic encoding.
    """
    if len(data) > max_bytes:
        raise RemoteProtocolError(f"document of {len(data)} B is larger than the allowed {max_bytes} B")
    _refuse_unsafe(data, max_depth)
    try:
        value: object = cbor2.loads(data)
        canonical = encode(value)
    except (cbor2.CBORError, LocalProtocolError, UnicodeDecodeError, TypeError) as error:
        raise RemoteProtocolError(f"document is not valid CBOR: {error}") from error
    if canonical != data:
        raise RemoteProtocolError(
            "document is not in the deterministic encoding of RFC 8949 §4.2.1",
            hint="encode with shortest lengths, sorted unique keys and nothing after the item",
        )
    return value


def encode_document(value: object, read: Callable[[bytes], object]) -> bytes:
    """Encode a document and make sure that its own reader accepts it.

    The rules of a document stand once, in its reader; what is sent has passed them too.

    Args:
        value: as for ``encode``.
        read: the document's reader, which raises RemoteProtocolError.

    Raises:
        LocalProtocolError: the reader refuses this document; its message says which field.
    """
    data = encode(value)
    try:
        read(data)
    except RemoteProtocolError as error:
        raise LocalProtocolError(error.message, hint=error.hint) from error
    return data


class Fields:
    """Typed reader of one decoded map, whose errors name the document and the field.

    Every getter marks its key as read; ``done()`` then refuses what nobody asked for, so an unknown key can
    never travel silently in a signed document.
    """

    __slots__ = ("_items", "_unread", "what")

    def __init__(self, value: object, what: str) -> None:
        """Read ``value``, which must be a map, as the document called ``what`` in errors."""
        if not isinstance(value, dict):
            raise RemoteProtocolError(f"{what}: is not a map")
        self._items: dict[object, object] = value
        self._unread = set(value)
        self.what = what

    @classmethod
    def of_row(cls, value: object, what: str) -> Fields:
        """The same reader over an array, whose positions serve as keys 0, 1, 2, ..."""
        if not isinstance(value, list):
            raise RemoteProtocolError(f"{what}: is not an array")
        return cls(dict(enumerate(value)), what)

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def unread(self) -> frozenset[object]:
        """Keys that no getter has asked for yet."""
        return frozenset(self._unread)

    def done(self) -> None:
        """Refuse keys that this version of the document does not define."""
        if self._unread:
            keys = ", ".join(sorted(repr(key)[:40] for key in list(self._unread)[:4]))
            raise RemoteProtocolError(f"{self.what}: unknown key {keys}")

    def bytes(
        self, key: int, name: str, *, length: int | None = None, max_length: int | None = None
    ) -> bytes:
        """A byte string of exactly ``length`` bytes, or of 1 .. ``max_length`` bytes."""
        value = self._take(key, name)
        if type(value) is not bytes:
            raise self._wrong(name, "a byte string", value)
        if length is not None and len(value) != length:
            raise self._wrong(name, f"{length} bytes", value)
        if max_length is not None and not 1 <= len(value) <= max_length:
            raise self._wrong(name, f"1 to {max_length} bytes", value)
        return value

    def uint(self, key: int, name: str, *, maximum: int, minimum: int = 0) -> int:
        """An unsigned integer, ``minimum`` .. ``maximum``."""
        return self.integer(key, name, minimum=minimum, maximum=maximum)

    def integer(self, key: int, name: str, *, minimum: int, maximum: int) -> int:
        """An integer, ``minimum`` .. ``maximum``, either of which may be negative."""
        value = self._take(key, name)
        if type(value) is not int or not minimum <= value <= maximum:
            raise self._wrong(name, f"an integer from {minimum} to {maximum}", value)
        return value

    def flag(self, key: int, name: str) -> bool:
        """A boolean."""
        value = self._take(key, name)
        if type(value) is not bool:
            raise self._wrong(name, "true or false", value)
        return value

    def text(self, key: int, name: str, *, max_length: int) -> str:
        """A text string of 1 .. ``max_length`` characters."""
        value = self._take(key, name)
        if type(value) is not str or not 1 <= len(value) <= max_length:
            raise self._wrong(name, f"text of 1 to {max_length} characters", value)
        return value

    def array(self, key: int, name: str, *, max_items: int) -> list[object]:
        """An array of 0 .. ``max_items`` items."""
        value = self._take(key, name)
        if not isinstance(value, list) or len(value) > max_items:
            raise self._wrong(name, f"an array of at most {max_items} items", value)
        return value

    def map(self, key: int, name: str) -> Fields:
        """A nested map, as a reader of its own."""
        return Fields(self._take(key, name), f"{self.what}: {name}")

    def version(self, key: int, supported: int) -> None:
        """The document's version, which must be the one this code knows."""
        found = self.uint(key, "version", maximum=255)
        if found != supported:
            raise RemoteProtocolError(
                f"{self.what}: version {found} is not supported, only {supported}",
                hint="bring both ends to the same release",
            )

    def _take(self, key: int, name: str) -> object:
        if key not in self._items:
            raise RemoteProtocolError(f"{self.what}: {name} (key {key}) is missing")
        self._unread.discard(key)
        return self._items[key]

    def _wrong(self, name: str, expected: str, value: object) -> RemoteProtocolError:
        # Values may be secret or long, so only their kind and size are told.
        size = f" of length {len(value)}" if isinstance(value, bytes | str | list) else ""
        return RemoteProtocolError(
            f"{self.what}: {name} must be {expected}, not {type(value).__name__}{size}"
            + (f" {value}" if type(value) is int else "")
        )


def _item(value: object, depth: int) -> bytes:
    # Exact types first: this runs several times for each call of a Security Engine, and the general checks
    # below cost ten times as much.
    kind = type(value)
    if kind is bytes:
        return _head(_MAJOR_BYTES, len(value)) + value  # type: ignore[arg-type,operator]  # mypy: no narrowing
    if kind is int:
        return _integer(value)  # type: ignore[arg-type]
    if kind is str:
        return _text(value)  # type: ignore[arg-type]
    if isinstance(value, list | tuple):
        _check_depth(depth)
        return _head(_MAJOR_ARRAY, len(value)) + b"".join([_item(item, depth - 1) for item in value])
    if isinstance(value, Mapping):
        _check_depth(depth)
        pairs = sorted([(_key(key), _item(item, depth - 1)) for key, item in value.items()])
        return _head(_MAJOR_MAP, len(pairs)) + b"".join([key + item for key, item in pairs])
    return _other(value)


def _check_depth(depth: int) -> None:
    if depth == 0:
        raise LocalProtocolError(f"value is nested more than {MAX_CBOR_DEPTH} deep")


def _other(value: object) -> bytes:
    if value is None or isinstance(value, bool):
        return cbor2.dumps(value)
    if isinstance(value, int):
        return _integer(int(value))
    if isinstance(value, float) and math.isfinite(value):
        return cbor2.dumps(float(value), canonical=True)
    if isinstance(value, bytes | bytearray | memoryview):
        content = bytes(value)
        return _head(_MAJOR_BYTES, len(content)) + content
    if isinstance(value, str):
        return _text(str(value))
    raise LocalProtocolError(f"documents cannot carry this value of type {type(value).__name__}")


def _integer(value: int) -> bytes:
    if not _INT_MIN <= value <= _INT_MAX:
        raise LocalProtocolError("documents cannot carry this value of type int")
    return _head(_MAJOR_UINT, value) if value >= 0 else _head(_MAJOR_NEGATIVE, -1 - value)


def _text(value: str) -> bytes:
    try:
        content = value.encode()
    except UnicodeEncodeError as error:
        raise LocalProtocolError("text is not valid Unicode") from error
    return _head(_MAJOR_TEXT, len(content)) + content


def _key(key: object) -> bytes:
    if isinstance(key, bool) or not isinstance(key, int | str):
        raise LocalProtocolError(f"map keys are integers or text, not {type(key).__name__}")
    return _integer(int(key)) if isinstance(key, int) else _text(str(key))


def _head(major: int, argument: int) -> bytes:
    """Major type and argument, in the shortest form (RFC 8949 §3, §4.2.1)."""
    if argument < _INFO_FIRST_WIDTH:
        return _SHORT_HEADS[major << 5 | argument]
    for width, (form, largest) in enumerate(_LONG_HEADS, _INFO_FIRST_WIDTH):
        if argument <= largest:
            return form.pack(major << 5 | width, argument)
    raise LocalProtocolError("too long for one item")


def _refuse_unsafe(data: bytes, max_depth: int) -> None:
    """Walk the heads of ``data`` and refuse what a general decoder would act on or allocate for.

    A general decoder runs code for known tags (dates, big floats, shared references, MIME parsing); here
    none is reached. Every container must be able to fit in the bytes that are left.
    """
    end, position = len(data), 0
    missing, outer = 1, list[int]()  # items still expected in this container, and in those around it
    while missing or outer:
        if not missing:
            missing = outer.pop()
            continue
        missing -= 1
        major, argument, position = _read_head(data, position)
        if major in (_MAJOR_BYTES, _MAJOR_TEXT):
            position += argument
        elif major in (_MAJOR_ARRAY, _MAJOR_MAP):
            if len(outer) == max_depth:
                raise RemoteProtocolError(f"document is nested more than {max_depth} deep")
            outer.append(missing)
            missing = argument * (2 if major == _MAJOR_MAP else 1)
        if position + missing > end:
            raise RemoteProtocolError("document ends early")
    if position != end:
        raise RemoteProtocolError("bytes follow the document")


def _read_head(data: bytes, position: int) -> tuple[int, int, int]:
    """Major type, argument and the position behind the head (RFC 8949 §3)."""
    if position >= len(data):
        raise RemoteProtocolError("document ends early")
    major, info = data[position] >> 5, data[position] & 0x1F
    if info < _INFO_FIRST_WIDTH and major < _MAJOR_TAG:  # nearly all heads are of this kind
        return major, info, position + 1
    if info > _INFO_LAST_WIDTH:
        raise RemoteProtocolError("document holds an indefinite length or a reserved head")
    if major == _MAJOR_TAG:
        raise RemoteProtocolError("document holds a tag")
    if major == _MAJOR_SIMPLE and info not in (*_SIMPLE_VALUES, *_FLOAT_HEADS):
        raise RemoteProtocolError("document holds a simple value other than false, true and null")
    end = position + 1 + (0 if info < _INFO_FIRST_WIDTH else 1 << (info - _INFO_FIRST_WIDTH))
    argument = info if info < _INFO_FIRST_WIDTH else int.from_bytes(data[position + 1 : end])
    return major, argument, end
