"""Runs of scalars and small arrays of scalars, each handled by one `struct.Struct`.

Decides: how consecutive members of fixed layout are packed and unpacked together. Does not decide: which
runs a struct has, nor what follows them (``codec.py``).

Invariants: exactly the bytes that members would have one by one; NaN bits are kept; a boolean is 00 or 01.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aif.model.tensors import PACK_ERRORS, MemberError, Tensor, as_boolean, float32_bytes, float32_nan, misfit
from aif.model.type_tree import Node, Scalar

_FUSED_ARRAY_BYTES: Final = 64  # up to here a copy is cheaper than a view that keeps the message alive


def is_fusible(node: Node) -> bool:
    """Whether `Fused` takes it: a scalar, or an array of scalars of fixed and small size."""
    tensor = Tensor.of(node)
    if tensor is not None:
        return not tensor.variable and tensor.row_bytes <= _FUSED_ARRAY_BYTES
    return isinstance(node, Scalar)


@dataclass(frozen=True, slots=True)
class _Cells:
    """Where the members of a run lie, as (index, byte offset), and which need more than `struct` does."""

    types: tuple[Node, ...]
    paths: tuple[str, ...]
    layout: struct.Struct
    floats: tuple[tuple[int, int], ...]
    booleans: tuple[tuple[int, int], ...]
    tensors: tuple[tuple[int, Tensor], ...]
    ends: tuple[int, ...]

    @classmethod
    def of(cls, types: tuple[Node, ...], paths: tuple[str, ...]) -> _Cells:
        codes = ["<"]
        ends: list[int] = []
        floats: list[tuple[int, int]] = []
        booleans: list[tuple[int, int]] = []
        tensors: list[tuple[int, Tensor]] = []
        for index, node in enumerate(types):
            place = (index, struct.calcsize("".join(codes)))
            tensor = Tensor.of(node)
            if tensor is not None:
                tensors.append((index, tensor))
                codes.append(f"{tensor.row_bytes}s")
            elif isinstance(node, Scalar):
                codes.append(node.code)
                floats += [place] * (node.name == "float32")
                booleans += [place] * (node.name == "boolean")
            ends.append(struct.calcsize("".join(codes)))
        layout = struct.Struct("".join(codes))
        return cls(types, paths, layout, tuple(floats), tuple(booleans), tuple(tensors), tuple(ends))

    def misfit(self, values: Sequence[Any]) -> MemberError:
        """The first value that its member does not take."""
        for index, (node, value) in enumerate(zip(self.types, values, strict=True)):
            error = misfit(node, value) if isinstance(node, Scalar) else None
            if error is not None:
                return error.within(self.paths[index])
        return MemberError("a value changed while it was encoded")

    def short(self, view: memoryview, offset: int) -> MemberError:
        """The first member that the bytes left do not hold."""
        left = max(0, len(view) - offset)
        index = next(i for i, end in enumerate(self.ends) if end > left)
        message = f"ends too early: {self.ends[-1]} B needed at byte {offset}, {left} B are left"
        return MemberError(message, self.paths[index])


@dataclass(frozen=True, slots=True)
class Fused:
    """The compiled run of ``types``, all of them `is_fusible`; ``paths`` say where, in error messages.

    Attributes:
        encode: values in order -> `size_bytes` bytes; raises `MemberError`.
        decode: (view, offset) -> values in order; raises `MemberError`.
    """

    length: int
    size_bytes: int
    encode: Callable[[Sequence[Any]], bytes]
    decode: Callable[[memoryview, int], Sequence[Any]]

    @classmethod
    def of(cls, types: tuple[Node, ...], paths: tuple[str, ...]) -> Fused:
        cells = _Cells.of(types, paths)
        plain = not (cells.floats or cells.booleans or cells.tensors)
        encode = _plain_encoder(cells) if plain else _checking_encoder(cells)
        decode = _plain_decoder(cells) if plain else _checking_decoder(cells)
        return cls(len(types), cells.layout.size, encode, decode)


def _plain_encoder(cells: _Cells) -> Callable[[Sequence[Any]], bytes]:
    pack = cells.layout.pack

    def encode(values: Sequence[Any]) -> bytes:
        try:
            return pack(*values)
        except PACK_ERRORS:
            raise cells.misfit(values) from None

    return encode


def _checking_encoder(cells: _Cells) -> Callable[[Sequence[Any]], bytes]:
    pack, floats, booleans, tensors = cells.layout.pack, cells.floats, cells.booleans, cells.tensors
    isnan = math.isnan

    def encode(given: Sequence[Any]) -> bytes:
        values = list(given)
        try:
            for index, _ in booleans:
                if values[index] is not True and values[index] is not False:
                    values[index] = as_boolean(values[index])
            for index, tensor in tensors:
                values[index] = tensor.encode(values[index])
            raw = pack(*values)
        except PACK_ERRORS:
            raise cells.misfit(given) from None
        except MemberError as error:
            raise error.within(cells.paths[index]) from None
        for index, offset in floats:
            if isnan(values[index]):
                raw = raw[:offset] + float32_bytes(values[index]) + raw[offset + 4 :]
        return raw

    return encode


def _plain_decoder(cells: _Cells) -> Callable[[memoryview, int], Sequence[Any]]:
    unpack_from = cells.layout.unpack_from

    def decode(view: memoryview, offset: int) -> Sequence[Any]:
        try:
            return unpack_from(view, offset)
        except struct.error:
            raise cells.short(view, offset) from None

    return decode


def _checking_decoder(cells: _Cells) -> Callable[[memoryview, int], Sequence[Any]]:
    unpack_from, floats, booleans, tensors = (
        cells.layout.unpack_from,
        cells.floats,
        cells.booleans,
        cells.tensors,
    )
    isnan = math.isnan

    def decode(view: memoryview, offset: int) -> Sequence[Any]:
        try:
            values = list(unpack_from(view, offset))
        except struct.error:
            raise cells.short(view, offset) from None
        for index, at in booleans:
            if view[offset + at] > 1:
                raise MemberError("a boolean is 00 or 01", cells.paths[index])
        for index, at in floats:
            if isnan(values[index]):
                values[index] = float32_nan(bytes(view[offset + at : offset + at + 4]))
        for index, tensor in tensors:
            try:
                values[index] = tensor.decode(memoryview(values[index]))
            except MemberError as error:
                raise error.within(cells.paths[index]) from None
        return values

    return decode
