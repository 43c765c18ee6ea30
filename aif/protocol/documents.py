"""Frozen dataclasses as documents on the wire: deterministic CBOR maps with small integer keys.

A field's key is its position in the class (from 0), so fields are only ever appended, and with a default: a
document that was written before has that value. ``None`` is left out. Decoding is strict: exact types, no
unknown keys, bounded texts and lists.

Decides how a value is written; not who signs it (``cose``) nor what it means.

Invariants: ``decode(cls, encode(x)) == x`` for tuples, mappings and scalars of the declared types;
``decode`` raises RemoteProtocolError and nothing else. Where a float is declared an integer is taken too, and
``Any`` gives lists for tuples.

Source: RFC 8949 §4.2 for the encoding.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from aif.errors import AIFError, RemoteProtocolError
from aif.protocol import cbor

MAX_TEXT = 65_536
"""Characters of one text field."""

MAX_BYTES = 64 * MAX_TEXT
"""Bytes of one byte string."""

MAX_ITEMS = 8_192
"""Elements of one list or map."""

_SHOWN = 60  # characters of a foreign value in an error

D = TypeVar("D")


def encode(document: object) -> bytes:
    """Deterministic CBOR of a dataclass instance.

    Raises:
        LocalProtocolError: it holds something that no document carries, such as NaN or 2**64.
    """
    return cbor.encode(_plain(document))


def decode(cls: type[D], data: bytes, *, max_bytes: int) -> D:
    """Read one document.

    Raises:
        RemoteProtocolError: not deterministic CBOR, or not exactly the fields of ``cls``.
    """
    return _build(cls, cbor.decode(data, max_bytes=max_bytes), cls.__name__)


def _plain(value: object) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        pairs = ((n, getattr(value, f.name)) for n, f in enumerate(fields(value)))
        return {n: _plain(v) for n, v in pairs if v is not None}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return value


@cache
def _schema(cls: type) -> tuple[tuple[str, Any, bool], ...]:
    """Name, type and whether there is a default, of every field by its key."""
    hints = get_type_hints(cls)
    return tuple(
        (f.name, hints[f.name], f.default is not MISSING or f.default_factory is not MISSING)
        for f in fields(cls)
    )


def _build(cls: type[D], plain: object, what: str) -> D:
    if not isinstance(plain, dict):
        raise RemoteProtocolError(f"{what} must be a map, not {type(plain).__name__}")
    schema = _schema(cls)  # type: ignore[arg-type]  # classes are hashable
    unknown = set(plain) - set(range(len(schema)))
    if unknown:
        raise RemoteProtocolError(f"{what} holds the unknown field {_shown(min(unknown, key=str))}")
    values = {}
    for key, (name, hint, has_default) in enumerate(schema):
        if plain.get(key) is not None:
            values[name] = _value(hint, plain[key], f"{what}.{name}")
        elif key in plain:
            raise RemoteProtocolError(f"{what}.{name} is null, where it must be left out")
        elif _optional(hint):
            values[name] = None
        elif not has_default:
            raise RemoteProtocolError(f"{what} lacks the field {name}")
    try:
        return cls(**values)
    except (ValueError, TypeError, AIFError) as wrong:
        raise RemoteProtocolError(f"{what}: {wrong}") from wrong


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _optional(hint: Any) -> bool:
    return type(None) in get_args(hint)


def _value(hint: Any, plain: object, what: str) -> Any:
    origin = get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _union(hint, plain, what)
    if origin is tuple:
        return _tuple(hint, plain, what)
    if origin in (dict, Mapping):
        return _mapping(hint, plain, what)
    if hint is Any:
        return plain
    if is_dataclass(hint) and isinstance(hint, type):
        return _build(hint, plain, what)
    if isinstance(hint, type) and issubclass(hint, Enum):
        for member in hint:
            if type(plain) is type(member.value) and plain == member.value:
                return member
        raise RemoteProtocolError(f"{what} is {_shown(plain)}, not a {hint.__name__}")
    return _scalar(hint, plain, what)


def _tuple(hint: Any, plain: object, what: str) -> tuple[Any, ...]:
    items = get_args(hint)
    if not isinstance(plain, list) or len(plain) > MAX_ITEMS:
        raise RemoteProtocolError(f"{what} must be a list of at most {MAX_ITEMS} items")
    if items[-1] is not Ellipsis and len(items) != len(plain):
        raise RemoteProtocolError(f"{what} must be a list of {len(items)} items, not {len(plain)}")
    hints = [items[0]] * len(plain) if items[-1] is Ellipsis else items
    return tuple(
        _value(item, v, f"{what}[{n}]") for n, (item, v) in enumerate(zip(hints, plain, strict=True))
    )


def _union(hint: Any, plain: object, what: str) -> Any:
    options = [option for option in get_args(hint) if option is not type(None)]
    if plain is None and len(options) < len(get_args(hint)):
        return None
    if len(options) == 1:
        return _value(options[0], plain, what)
    for option in options:
        try:
            return _value(option, plain, what)
        except RemoteProtocolError:
            continue
    raise RemoteProtocolError(f"{what} has a value of the wrong type ({type(plain).__name__})")


def _mapping(hint: Any, plain: object, what: str) -> dict[Any, Any]:
    key_hint, value_hint = get_args(hint)
    if not isinstance(plain, dict) or len(plain) > MAX_ITEMS:
        raise RemoteProtocolError(f"{what} must be a map of at most {MAX_ITEMS} items")
    return {
        _value(key_hint, k, what): _value(value_hint, v, f"{what}[{_shown(k)}]") for k, v in plain.items()
    }


def _scalar(hint: Any, plain: object, what: str) -> Any:
    if hint is float and type(plain) in (int, float):
        return float(plain)  # type: ignore[arg-type]  # the line above proved it
    if type(plain) is not hint:
        raise RemoteProtocolError(
            f"{what} must be {getattr(hint, '__name__', hint)}, not {type(plain).__name__}"
        )
    if isinstance(plain, str | bytes) and len(plain) > (MAX_BYTES if isinstance(plain, bytes) else MAX_TEXT):
        raise RemoteProtocolError(f"{what} is too long")
    return plain
