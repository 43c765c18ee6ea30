"""Straight-line code for one record type: written once per type, compiled, then run for every message.

Decides: how values of the usual kinds become canonical bytes and back in the fewest steps. Does not decide:
what a value may be. Whatever this code does not take as it is (a mapping with members missing, a NaN whose
bits must be kept, a cut-off message) it leaves by `Detour` to the long way (``record_plans.py``), which
accepts it or says what is wrong. So this code holds no error messages, and is right as long as it accepts
nothing that the long way refuses, and gives the same where both accept.

Why code is generated: a closure per member costs a call of 60 ns and more, `struct.Struct` packs a whole run
of members in about that. A record of a number and 96 bytes is encoded in 0.10 and decoded in 0.24 µs, with
closures in 1.2 and 0.8 (CPython 3.11, ``python -m benchmarks micro``).

Invariants: the source holds identifiers made here and integers, never text from a type: names, classes and
plans are reached through a table. It grows linearly with the type, without loops except the one over
messages. Bytes from outside never make it allocate more than they pay for: slices end where the bytes do,
and the last check is that all of them were used.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, Final

from aif.model.packed import Packed, pack
from aif.model.record_plans import compile_plan
from aif.model.record_values import member_reader, record_class
from aif.model.tensors import PACK_ERRORS, MemberError, Tensor
from aif.model.type_tree import Array, Empty, FixedArray, Node, Scalar, String, Struct, Variant

COPIED_ARRAY_BYTES: Final = 256
"""Up to here an array is unpacked with its neighbours: the copy costs less than a slice of the message."""

BLOCK_RECORDS: Final = 64
"""Records side by side that one call unpacks, where a loop in Python is not needed for each."""


class Detour(Exception):  # noqa: N818  # it is no error: the long way decides
    """The value or the bytes need the long way."""


_PACKED: Final = "pack(results) if len(results) > 1 and results[0] else results"

_DETOURS: Final = (Detour, MemberError, *PACK_ERRORS)
"""What the generated lines raise where they do not know."""


@dataclass(frozen=True, slots=True)
class LongWay:
    """What is called for everything that is not usual; it decides, and raises what the author shall see."""

    encode: Callable[..., bytes]
    decode: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class RecordCode:
    """The generated functions.

    Attributes:
        encode: value -> bytes; with a lead (lead, value) -> bytes.
        decode: bytes -> value; the lead is skipped.
        encode_all: values, or (lead, values), -> sequence of bytes, `Packed` where the type has a fixed size;
            all or, on error, none.
        decode_all: sequence of bytes -> list of values; all or, on error, none.
        source: what was compiled, for those who want to read it.
    """

    encode: Callable[..., bytes]
    decode: Callable[[Any], Any]
    encode_all: Callable[..., Sequence[bytes]]
    decode_all: Callable[[Sequence[bytes]], list[Any]]
    source: str


def generate(root: Node, long_way: LongWay, *, payload_bytes: int, lead_bytes: int = 0) -> RecordCode:
    """Code for records of type ``root``.

    Args:
        root: the type.
        long_way: takes the same arguments as ``encode`` and ``decode`` of the result.
        payload_bytes: largest record in either direction; at least the smallest one.
        lead_bytes: what stands before every record, given as it is to ``encode``, skipped by ``decode``.
    """
    table: dict[str, Any] = {
        "Detour": Detour, "DETOURS": _DETOURS, "long_encode": long_way.encode, "long_decode": long_way.decode,
        "Packed": Packed, "pack": pack, "repeat": repeat,
    }  # fmt: skip
    writer, reader = _Encoder(table, lead_bytes), _Decoder(table, lead_bytes)
    write, written = writer.whole(root, payload_bytes + lead_bytes)
    read, value = reader.whole(root, payload_bytes + lead_bytes)
    lead = "lead, " if lead_bytes else ""
    led = [f"if len(lead) != {lead_bytes}: raise Detour"] if lead_bytes else []
    source = "\n".join([
        *_function(f"encode({lead}value)", [*led, *write, f"return {written}"], f"long_encode({lead}value)"),
        *_function("decode(buffer)", [*read, f"return {value}"], "long_decode(buffer)"),
        *_function(
            f"encode_all({lead}values)",
            [*led, *_loop("value in values", write, written, _PACKED if reader.layout else "results")],
            f"[long_encode({lead}value) for value in values]",
        ),
        *_function(
            "decode_all(buffers)",
            [*reader.of_packed(), *_loop("buffer in buffers", read, value)],
            "[long_decode(buffer) for buffer in buffers]",
        ),
    ])  # fmt: skip
    exec(compile(source, "<record code>", "exec"), table)  # noqa: S102  # identifiers and integers made here only
    return RecordCode(table["encode"], table["decode"], table["encode_all"], table["decode_all"], source)


def _function(signature: str, body: Sequence[str], otherwise: str) -> list[str]:
    return [
        f"def {signature}:",
        "    try:",
        *("        " + line for line in body),
        "    except DETOURS:",
        "        pass",
        f"    return {otherwise}",
    ]


def _loop(each: str, body: Sequence[str], result: str, results: str = "results") -> list[str]:
    turn = ["    " + line for line in (*body, f"append({result})")]
    return ["results = []", "append = results.append", f"for {each}:", *turn, f"return {results}"]


@dataclass(slots=True)
class _Writer:
    """Lines, and the table through which they reach objects."""

    table: dict[str, Any]
    lead_bytes: int
    lines: list[str] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)  # of the run of fixed members that is being collected
    cells: list[str] = field(default_factory=list)  # the run's expressions or names, one per code
    count: int = 0

    def name(self) -> str:
        self.count += 1
        return f"m{self.count}"

    def known(self, thing: Any) -> str:
        """The name by which the code reaches ``thing``."""
        found = f"k{len(self.table)}"
        self.table[found] = thing
        return found

    def detour_if(self, condition: str) -> None:
        self.lines.append(f"if {condition}: raise Detour")

    def take_run(self) -> tuple[struct.Struct, list[str]]:
        run = struct.Struct("<" + "".join(self.codes)), self.cells
        self.codes, self.cells = [], []
        return run


@dataclass(slots=True)
class _Encoder(_Writer):
    """Writes the code that makes bytes."""

    def whole(self, root: Node, limit_bytes: int) -> tuple[list[str], str]:
        """Lines for ``value``, and the expression of its bytes."""
        parts: list[str] = []
        if self.lead_bytes:
            self.codes.append(f"{self.lead_bytes}s")
            self.cells.append("lead")
        self.put(root, "value", parts)
        self.end_run(parts)
        if not parts:
            return self.lines, "b''"
        if len(parts) == 1 and parts[0].startswith("k"):
            return self.lines, parts[0]  # of fixed size, which fits
        self.lines.append(f"raw = {' + '.join(parts) if len(parts) < 4 else _joined(parts)}")
        self.detour_if(f"len(raw) > {limit_bytes}")
        return self.lines, "raw"

    def end_run(self, parts: list[str]) -> None:
        if self.codes:
            layout, cells = self.take_run()
            parts.append(f"{self.known(layout.pack)}({', '.join(cells)})")

    def cell(self, code: str, expression: str) -> None:
        self.codes.append(code)
        self.cells.append(expression)

    def put(self, node: Node, value: str, parts: list[str]) -> None:
        match node:
            case Empty():
                self.detour_if(f"{value} is not None")
            case Scalar("boolean"):
                self.detour_if(f"{value} is not True and {value} is not False")
                self.cell("?", value)
            case Scalar(name):
                if name == "float32":
                    self.detour_if(f"{value} != {value}")  # pack would set a bit of a signalling NaN
                self.cell(node.code, value)
            case String():
                self.detour_if(f"type({value}) is not str")
                raw = self.name()
                self.lines.append(f"{raw} = {value}.encode()")
                self.counted(raw, f"len({raw})", parts)
            case Struct():
                self.struct(node, value, parts)
            case Array() | FixedArray() if (tensor := Tensor.of(node)) is not None:
                self.tensor(tensor, value, parts)
            case Variant() | Array() | FixedArray():
                self.end_run(parts)
                raw = self.name()
                self.lines.append(f"{raw} = {self.known(compile_plan(node).encode)}({value})")
                parts.append(raw)

    def counted(self, raw: str, count: str, parts: list[str]) -> None:
        self.cell("I", count)
        self.end_run(parts)
        parts.append(raw)

    def struct(self, node: Struct, value: str, parts: list[str]) -> None:
        own, read = self.known(record_class(node)), self.known(member_reader(node))
        names = [self.name() for _ in node.members]
        taken = f"{value} if type({value}) is {own} else {read}({value})"
        self.lines.append(f"({', '.join(names)},) = {taken}" if names else taken)
        for member, name in zip(node.members, names, strict=True):
            self.put(member.type, name, parts)

    def tensor(self, tensor: Tensor, value: str, parts: list[str]) -> None:
        raw, convert = self.name(), self.known(tensor.encode)
        if tensor.code == "?" or (tensor.variable and tensor.row_bytes > 1):
            self.lines.append(f"{raw} = {convert}({value})")
        else:  # bytes are canonical as they are
            self.lines.append(f"{raw} = {value} if type({value}) is bytes else {convert}({value})")
        if tensor.variable:
            count = f"len({raw})" if tensor.row_bytes == 1 else f"len({raw}) // {tensor.row_bytes}"
            self.counted(raw, count, parts)
        else:
            self.detour_if(f"len({raw}) != {tensor.row_bytes}")  # pack would pad or cut it
            self.cell(f"{tensor.row_bytes}s", raw)


def _joined(parts: Sequence[str]) -> str:
    return f"b''.join(({', '.join(parts)}))"


@dataclass(slots=True)
class _Decoder(_Writer):
    """Writes the code that reads bytes."""

    checks: list[str] = field(default_factory=list)  # of the run's cells, to follow its unpacking
    base: str = ""  # name of the position where the last part of variable size ended
    offset: int = 0  # from there to the next run
    in_one: bool = True  # no run has ended yet
    viewed: bool = False
    layout: struct.Struct | None = None  # of everything, where that is of fixed size, lead included
    value: str = ""  # the expression that its cells make
    outermost: tuple[str, str, Sequence[str]] = ("", "", ())  # of the structs: maker, class, members

    def whole(self, root: Node, limit_bytes: int) -> tuple[list[str], str]:
        """Lines for ``buffer``, and the expression of its value."""
        self.offset = self.lead_bytes
        value = self.get(root)
        if self.in_one:
            layout, self.cells = self.take_run()
            lead = f"{self.lead_bytes}x" if self.lead_bytes else ""
            layout = struct.Struct("<" + lead + layout.format[1:])
            self.layout, self.value = layout, value
            unpack = f"{self.known(layout.unpack)}(buffer)"  # it checks the length too
            everything = _tuple(self.cells)
            if self.cells and not self.checks and value.endswith(everything + ")"):  # the cells as they are
                return [], value.removesuffix(everything + ")") + unpack + ")"
            return [f"{everything} = {unpack}" if self.cells else unpack, *self.checks], value
        self.end_run()
        first = ["if type(buffer) is not bytes: raise Detour"]
        first += ["view = memoryview(buffer)"] * self.viewed
        # slices are cut where the bytes end, so this is also what finds a message that ends too early
        self.detour_if(f"len(buffer) != {self.here()}")
        self.detour_if(f"len(buffer) > {limit_bytes}")
        return [*first, *self.lines], value

    def of_packed(self) -> list[str]:
        """What comes before the loop over ``buffers``: one over records of fixed size, side by side."""
        if self.layout is None or not self.cells:
            return []
        columns = self.columns()
        unpack = f"{self.known(self.layout.iter_unpack)}(data)"
        turns = _loop(f"{_tuple(self.cells)} in {unpack}", self.checks, self.value)
        if columns:
            block = struct.Struct("<" + self.layout.format[1:] * BLOCK_RECORDS)
            turns[2:2] = [
                f"whole = len(data) // {block.size} * {block.size}",
                f"for cells in {self.known(block.iter_unpack)}(data[:whole]): results += {columns}",
                "data = data[whole:]",
            ]
        size = f"if buffers.size_bytes != {self.layout.size}: raise Detour"
        lines = [size, "data = buffers.data", *turns]
        return ["if type(buffers) is Packed:", *("    " + line for line in lines)]

    def columns(self) -> str:
        """The records whose members are in ``cells``, one record's behind the other's; "" if that is not all.

        The interpreter's own loops make them, one per member, in place of a loop in Python.
        """
        make, own, members = self.outermost
        if len(members) != len(self.cells) or self.checks:
            return ""
        columns = []
        for at, (member, cell) in enumerate(zip(members, self.cells, strict=True)):
            column = f"cells[{at}::{len(members)}]"
            if member not in (cell, f"memoryview({cell})"):
                return ""
            columns.append(column if member == cell else f"map(memoryview, {column})")
        return f"map({make}, repeat({own}), zip({', '.join(columns)}))"

    def here(self) -> str:
        if not self.base:
            return str(self.offset)
        return f"{self.base} + {self.offset}" if self.offset else self.base

    def end_run(self) -> None:
        self.in_one = False
        if self.codes:
            layout, cells = self.take_run()
            unpack = self.known(layout.unpack_from)
            self.lines += [f"{_tuple(cells)} = {unpack}(buffer, {self.here()})", *self.checks]
            self.offset += layout.size
            self.checks = []

    def cell(self, code: str) -> str:
        name = self.name()
        self.codes.append(code)
        self.cells.append(name)
        return name

    def part(self, size: str) -> tuple[str, str]:
        """Begin and end of what follows the run, ``size`` bytes long."""
        self.end_run()
        begin, end = self.here(), self.name()
        self.lines.append(f"{end} = {begin} + {size}")
        self.base, self.offset = end, 0
        return begin, end

    def get(self, node: Node) -> str:
        """The expression of the value of ``node``, which comes next."""
        match node:
            case Empty():
                return "None"
            case Scalar("boolean"):
                name = self.cell("B")
                self.checks.append(f"if {name} > 1: raise Detour")
                return f"{name} == 1"
            case Scalar(kind):
                name = self.cell(node.code)
                if kind == "float32":
                    self.checks.append(f"if {name} != {name}: raise Detour")  # a NaN keeps its bits
                return name
            case String():
                begin, end = self.part(self.cell("I"))
                text = self.name()
                self.lines.append(f"{text} = buffer[{begin}:{end}].decode()")
                return text
            case Struct(members):
                make, own = self.known(tuple.__new__), self.known(record_class(node))
                values = [self.get(member.type) for member in members]
                self.outermost = make, own, values
                return f"{make}({own}, {_tuple(values)})"
            case Array() | FixedArray() if (tensor := Tensor.of(node)) is not None:
                return self.tensor(tensor)
            case Variant() | Array() | FixedArray():
                self.end_run()
                self.viewed = True
                value, end = self.name(), self.name()
                decode = self.known(compile_plan(node).decode)
                self.lines.append(f"{value}, {end} = {decode}(view, {self.here()})")
                self.base, self.offset = end, 0
                return value

    def tensor(self, tensor: Tensor) -> str:
        if not tensor.variable and tensor.row_bytes <= COPIED_ARRAY_BYTES:
            return self.elements(tensor, f"memoryview({self.cell(f'{tensor.row_bytes}s')})")
        self.viewed = True
        if not tensor.variable:
            begin, end = self.part(str(tensor.row_bytes))
            return self.elements(tensor, f"view[{begin}:{end}]")
        count = self.cell("I")
        begin, end = self.part(count if tensor.row_bytes == 1 else f"{count} * {tensor.row_bytes}")
        return self.elements(tensor, f"view[{begin}:{end}]", count)

    def elements(self, tensor: Tensor, raw: str, count: str = "1") -> str:
        """The array in ``raw``: an expression or, where that could fail, the name that a line gives it."""
        if tensor.flat_bytes:
            return raw
        name, decode = self.name(), tensor.decode
        call = f"{self.known(decode)}({raw})"
        if sys.byteorder == "little" and tensor.code != "?" and len(tensor.shape) + tensor.variable == 1:
            call = f"{raw}.cast('{tensor.code}')"  # all that `decode` does, unless there are no elements
            if tensor.variable:
                call += f" if {count} else {self.known(decode(memoryview(b'')))}"
        (self.checks if self.codes else self.lines).append(f"{name} = {call}")
        return name


def _tuple(expressions: Sequence[str]) -> str:
    return f"({', '.join(expressions)}{',' * (len(expressions) == 1)})"
