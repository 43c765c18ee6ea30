"""What a neighbour in the same process sees of a record that was never encoded.

A reader must not be able to tell whether its writer is near or far. Far records come out of the codec; near
ones are handed over so that they look the same: structs are `Record` values, arrays read-only memoryviews of
the declared element type and shape, variants what the codec gives. Arrays with a buffer are not copied,
so a writer leaves an array alone once it has written it. Scalars go over as they are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from aif.errors import InvalidRecord
from aif.model.record_plans import compile_plan
from aif.model.record_values import member_reader, record_class
from aif.model.records import RecordType
from aif.model.tensors import MemberError, Tensor
from aif.model.type_tree import Array, FixedArray, Node, Struct, Variant

Conform = Callable[[Any], Any]


def conforming(record: RecordType, label: str = "record") -> Conform:
    """A function from what an author may write to what a reader expects.

    It looks only at how a value is built; whether the numbers fit is the codec's business.

    Args:
        record: the type of the output port.
        label: what the errors call the record, such as ``imu.samples``.

    Raises:
        InvalidRecord: by the function, for a value that is not built like the type.
    """
    conform = _conform(record.root)
    if conform is None:
        return lambda value: value

    def named(value: Any) -> Any:
        try:
            return conform(value)
        except MemberError as error:
            raise InvalidRecord(error.located(label)) from None

    return named


@functools.lru_cache(maxsize=1024)
def _conform(node: Node) -> Conform | None:
    """None where a value is handed over as it is."""
    tensor = Tensor.of(node)
    if tensor is not None:
        return _tensor(tensor)
    if isinstance(node, Struct):
        return _struct(node)
    if isinstance(node, Variant):
        plan = compile_plan(node)
        return lambda value: plan.decode(memoryview(plan.encode(value)), 0)[0]
    if isinstance(node, Array | FixedArray):
        inner = _conform(node.element)
        return tuple if inner is None else lambda values: tuple(map(inner, values))
    return None


def _tensor(tensor: Tensor) -> Conform:
    rank = len(tensor.shape) + tensor.variable

    def conform(value: Any) -> memoryview:
        if not isinstance(value, bytes | bytearray):
            try:
                view = memoryview(value)
            except (TypeError, ValueError, BufferError):
                pass  # a sequence of numbers, or something that encode() refuses with the reason
            else:
                shape = view.shape or ()
                fits = view.ndim == rank and shape[len(shape) - len(tensor.shape) :] == tensor.shape
                if fits and view.format in tensor.formats and view.c_contiguous and view.nbytes:
                    if view.format != tensor.code:
                        view = view.cast("B").cast(tensor.code, shape)  # type: ignore[call-overload]
                    return view.toreadonly()
        return tensor.decode(memoryview(tensor.encode(value)))

    return conform


def _struct(node: Struct) -> Conform:
    own, read = record_class(node), member_reader(node)
    inner = [_conform(member.type) for member in node.members]
    plain = not any(inner)

    def conform(value: Any) -> Any:
        if plain and type(value) is own:
            return value
        members = read(value)
        if plain:
            return tuple.__new__(own, members)
        return tuple.__new__(own, [m if f is None else f(m) for m, f in zip(members, inner, strict=True)])

    return conform
