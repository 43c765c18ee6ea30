"""Arrays of numbers between the host's buffers and their canonical bytes.

Decides: which values an array of scalars accepts and what it gives back. Does not decide: counts, order
and what stands around an array (``codec.py``), nor what the numbers mean (``records.Annotation``).

Accepted: any object with a buffer (numpy array, `array.array`, memoryview) of exactly the declared element
type and shape; nested sequences of numbers; ``bytes`` and ``bytearray``, which are taken as canonical bytes.
Given back: a read-only memoryview with element type and shape, on the received bytes where the host is
little-endian. An empty variable array is one-dimensional, because a memoryview cannot say more.

Invariants: nothing is converted, cast or broadcast; bytes of NaNs are kept; booleans are 00 or 01.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from aif.model.type_tree import Node, Scalar, dimensions

_HOST_PREFIXES: Final = ("", "@", "=", "<" if sys.byteorder == "little" else ">")
_KINDS: Final = ("bhilqn", "BHILQN", "fd", "?")  # codes of the buffer protocol that differ in size only
PACK_ERRORS: Final = (struct.error, TypeError, OverflowError, ValueError)


class MemberError(Exception):
    """A defect on its way out of a nested value; every level it passes adds its part of the path."""

    def __init__(self, message: str, *path: str) -> None:
        super().__init__(message)
        self.message = message
        self.path = list(path)  # innermost first

    def within(self, part: str) -> MemberError:
        self.path.append(part)
        return self

    def located(self, label: str) -> str:
        return label + "".join(reversed(self.path)) + ": " + self.message


def kind_of(value: object) -> str:
    """What a value is, without its content: ``int16 buffer 100x6``-like for arrays, else its class."""
    try:
        view = memoryview(value)  # type: ignore[arg-type]  # the question is whether it has a buffer
    except (TypeError, ValueError, BufferError):
        return type(value).__name__
    shape = "".join(f"[{n}]" for n in view.shape or ())
    return f"{type(value).__name__} of format {view.format!r}, shape {shape}"


def scalar_error(scalar: Scalar, value: object) -> MemberError:
    """Why ``value`` is not one ``scalar``; numbers are shown, other content is not."""
    if isinstance(value, int | float) and not (scalar.name == "boolean" or isinstance(value, bool)):
        shown = f"{value!r:.40}"
    else:
        shown = kind_of(value)
    if scalar.bounds:
        return MemberError(
            f"{scalar.name} takes an integer {scalar.bounds[0]}..{scalar.bounds[1]}, not {shown}"
        )
    return MemberError(
        f"{scalar.name} takes a {'bool' if scalar.name == 'boolean' else 'number'}, not {shown}"
    )


def as_boolean(value: object) -> bool:
    """True or False from a bool, numpy's included.

    Raises:
        TypeError: for anything else, integers included.
    """
    if isinstance(value, bool) or str(getattr(value, "dtype", "")) == "bool":
        return bool(value)
    raise TypeError


def float32_bytes(value: float) -> bytes:
    """Canonical bytes of a NaN; the processor would set the quiet bit when it narrows a signalling one."""
    bits = int.from_bytes(struct.pack("<d", value), "little")
    payload = bits >> 29 & 0x7F_FFFF or 0x40_0000  # a payload that only float64 can hold stays a NaN
    return (bits >> 63 << 31 | 0x7F80_0000 | payload).to_bytes(4, "little")


def float32_nan(raw: bytes) -> float:
    """The float that keeps sign and payload of a float32 NaN, the inverse of `float32_bytes`."""
    bits = int.from_bytes(raw, "little")
    wide = bits >> 31 << 63 | 0x7FF << 52 | (bits & 0x7F_FFFF) << 29
    nan: float = struct.unpack("<d", wide.to_bytes(8, "little"))[0]
    return nan


def swapped(raw: bytes, size: int) -> bytes:
    """``raw`` with the bytes of each element of ``size`` bytes reversed, for big-endian hosts."""
    out = bytearray(len(raw))
    for i in range(size):
        out[i::size] = raw[size - 1 - i :: size]
    return bytes(out)


@dataclass(frozen=True, slots=True)
class Tensor:
    """Codec of one array of scalars; ``shape`` holds the fixed dimensions, outermost first.

    With ``variable`` one more dimension of any length stands before them.
    """

    scalar: Scalar
    shape: tuple[int, ...]
    variable: bool
    formats: frozenset[str] = field(init=False)
    code: str = field(init=False)
    row_bytes: int = field(init=False)
    flat_bytes: bool = field(init=False)

    def __post_init__(self) -> None:
        kind = next(codes for codes in _KINDS if self.scalar.code in codes)
        formats = frozenset(prefix + code for prefix in _HOST_PREFIXES for code in kind)
        object.__setattr__(self, "formats", formats)
        object.__setattr__(self, "code", self.scalar.code)
        object.__setattr__(self, "row_bytes", math.prod(self.shape) * self.scalar.size_bytes)
        flat = self.scalar.name == "uint8" and len(self.shape) + self.variable == 1
        object.__setattr__(self, "flat_bytes", flat)

    @classmethod
    def of(cls, node: Node) -> Tensor | None:
        """The tensor that ``node`` is; None where elements are no scalars or an inner dimension varies."""
        shape, element = dimensions(node)
        fixed = tuple(n for n in shape if n is not None)
        variable = len(fixed) < len(shape)
        if not shape or not isinstance(element, Scalar) or shape != (None,) * variable + fixed:
            return None
        return cls(element, fixed, variable)

    def __str__(self) -> str:
        return f"{self.scalar.name}{'[]' * self.variable}{''.join(f'[{n}]' for n in self.shape)}"

    def encode(self, value: Any) -> bytes:
        """Canonical bytes of the elements, without a count.

        Raises:
            MemberError: wrong element type, shape, length or range.
        """
        if isinstance(value, bytes | bytearray):
            raw = bytes(value)
            if len(raw) % self.row_bytes if self.variable else len(raw) != self.row_bytes:
                raise MemberError(
                    f"{self} takes {self.row_bytes} bytes{' each' * self.variable}, not {len(raw)}"
                )
        else:
            try:
                view = memoryview(value)
            except (TypeError, ValueError, BufferError):
                return self._from_sequence(value)
            raw = self._from_buffer(view, value)
        if self.code == "?":
            _check_booleans(raw)
        return raw

    def decode(self, view: memoryview) -> memoryview:
        """The elements in ``view``, which is read-only and has the right size.

        Raises:
            MemberError: a boolean that is neither 00 nor 01.
        """
        if self.flat_bytes:
            return view
        if self.code == "?":
            _check_booleans(view)
        if sys.byteorder == "big":
            view = memoryview(swapped(bytes(view), self.scalar.size_bytes))
        cast: Callable[..., memoryview] = view.cast  # its overloads want the code as a literal
        if not self.variable:
            return cast(self.code, self.shape)
        if not view:  # zeros cannot be cast, but a slice of something can become empty
            something: Callable[..., memoryview] = memoryview(bytes(8)).cast
            return something(self.code)[:0]
        return cast(self.code, (len(view) // self.row_bytes, *self.shape))

    def _from_buffer(self, view: memoryview, value: object) -> bytes:
        shape = view.shape or ()
        if self.variable:
            fits = shape[1:] == self.shape if shape else False
            fits = fits or (view.ndim == 1 and not view.nbytes)
        else:
            fits = shape == self.shape
        if not (fits and view.format in self.formats and view.itemsize == self.scalar.size_bytes):
            raise MemberError(
                f"{self} takes a buffer of exactly its element type and shape, not {kind_of(value)}"
            )
        raw = view.tobytes()
        return raw if sys.byteorder == "little" else swapped(raw, view.itemsize)

    def _from_sequence(self, value: Any) -> bytes:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise MemberError(f"{self} takes a buffer or a sequence of numbers, not {kind_of(value)}")
        if not self.variable and len(value) != self.shape[0]:
            raise MemberError(f"{self} takes {self.shape[0]} elements, not {len(value)}")
        inner = self.shape if self.variable else self.shape[1:]
        return self._from_rows(inner, value) if inner else self._from_numbers(value)

    def _from_rows(self, inner: tuple[int, ...], value: Sequence[Any]) -> bytes:
        numbers = value
        for length in inner:
            if not all(isinstance(row, list | tuple) and len(row) == length for row in numbers):
                break  # rows may be buffers, or wrong
            numbers = list(itertools.chain.from_iterable(numbers))
        else:
            with contextlib.suppress(MemberError):  # said below, with the whole path
                return self._from_numbers(numbers)
        row = Tensor(self.scalar, inner, variable=False)
        rows: list[bytes] = []
        try:
            rows.extend(map(row.encode, value))
        except MemberError as error:
            raise error.within(f"[{len(rows)}]") from None
        return b"".join(rows)

    def _from_numbers(self, numbers: Sequence[Any]) -> bytes:
        try:
            if self.code == "?":
                return bytes(map(as_boolean, numbers))
            raw = struct.pack(f"<{len(numbers)}{self.code}", *numbers)
        except PACK_ERRORS:
            raise self._misfit(numbers) from None
        if self.code == "f" and any(map(math.isnan, numbers)):
            return b"".join(
                float32_bytes(number) if math.isnan(number) else raw[4 * i : 4 * i + 4]
                for i, number in enumerate(numbers)
            )
        return raw

    def _misfit(self, value: Sequence[Any]) -> MemberError:
        for i, number in enumerate(value):
            error = misfit(self.scalar, number)
            if error is not None:
                return error.within(f"[{i}]")
        return MemberError(f"{self} takes numbers")


def misfit(scalar: Scalar, value: Any) -> MemberError | None:
    """Why ``value`` is not one ``scalar``, None if it is."""
    try:
        if scalar.code == "?":
            as_boolean(value)
        else:
            struct.pack("<" + scalar.code, value)
    except PACK_ERRORS:
        return scalar_error(scalar, value)
    return None


def _check_booleans(raw: bytes | memoryview) -> None:
    if bytes(raw).translate(None, b"\0\1"):
        at = next(i for i, byte in enumerate(bytes(raw)) if byte > 1)
        raise MemberError("a boolean is 00 or 01", f"[{at}]")
