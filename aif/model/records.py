"""Record types: what a port carries, beside it what the numbers mean, and whether two ports fit.

Decides: equality of types after normalisation, the sizes of encodings, the annotations a tensor may have,
what two compatible ends agree on, and what a type becomes for installations that know the standard's
grammar only (`lower`). Does not decide: the grammar (``type_text.py``), the rules of its parts
(``type_tree.py``), the bytes (``codec.py``).

Invariants: ``RecordType.parse(str(record)) == record``; types are compared with member names and without
the outer name; nothing is ever converted implicitly.

Source: MPAI-AIF V2, "Information about types". Annotations are ours, with the words of TFLite's
quantisation specification (https://ai.google.dev/edge/litert/models/quantization_spec).
"""

from __future__ import annotations

import difflib
import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aif.errors import ModelError, RecordTypeMismatch, TypeSyntaxError
from aif.model.type_text import KEYWORDS, MAX_TEXT_CHARACTERS, read_type
from aif.model.type_tree import (
    MAX_NESTING,
    MAX_RECORD_BYTES,
    NAME,
    Array,
    Empty,
    FixedArray,
    Member,
    Node,
    Scalar,
    String,
    Struct,
    Variant,
    depth,
    dimensions,
    is_fixed,
    size_range,
    type_text,
    walk,
)

__all__ = [
    "MAX_NESTING",
    "MAX_RECORD_BYTES",
    "MAX_TEXT_CHARACTERS",
    "Annotation",
    "Array",
    "Empty",
    "Extension",
    "FixedArray",
    "Member",
    "Node",
    "PortType",
    "RecordType",
    "Scalar",
    "String",
    "Struct",
    "Variant",
    "compatible",
    "fixed_size",
    "lower",
    "max_size",
    "min_size",
    "resolve",
]

MAX_UNIT_CHARACTERS: Final = 64


class Extension(enum.Flag):
    """What a type uses beyond the grammar of MPAI-AIF V2."""

    NONE = 0
    BOOLEAN = enum.auto()  # V3
    STRING = enum.auto()  # seen in the metadata of MPAI's own AIMs
    NESTED_ARRAY = enum.auto()  # V3: an array whose elements hold arrays or empty members
    FIXED_LENGTH = enum.auto()  # ours


@dataclass(frozen=True, slots=True)
class RecordType:
    """The type of every record on a port: its structure and the optional outer name."""

    root: Node
    name: str = ""

    def __post_init__(self) -> None:
        if self.name:
            Member(self.root, self.name)  # the same rules as for a member
        if depth(self.root) > MAX_NESTING:
            raise ModelError(f"nested more than {MAX_NESTING} deep")
        if size_range(self.root)[0] > MAX_RECORD_BYTES:
            raise ModelError(f"every record would be larger than {MAX_RECORD_BYTES:,} B")

    @classmethod
    def parse(cls, text: str) -> RecordType:
        """The type that ``text`` (at most 4096 characters) describes.

        Raises:
            TypeSyntaxError: with the position, and what was expected there.

        >>> str(RecordType.parse("{int32 n; (byte)[] frame;} frame_t"))
        '{int32 n; uint8[] frame} frame_t'
        """
        root, name = read_type(text)
        try:
            return cls(root, name)
        except ModelError as error:
            raise TypeSyntaxError(str(error), text, 0) from error

    def __str__(self) -> str:
        return f"{type_text(self.root)} {self.name}".rstrip()

    @property
    def extensions(self) -> Extension:
        """What strict V2 readers would not understand; `lower` removes it."""
        found = Extension.NONE
        for node in walk(self.root):
            match node:
                case Scalar("boolean"):
                    found |= Extension.BOOLEAN
                case String():
                    found |= Extension.STRING
                case FixedArray():
                    found |= Extension.FIXED_LENGTH
                case Array(element) if not is_fixed(element):
                    found |= Extension.NESTED_ARRAY
                case _:
                    pass
        return found


def min_size(record: RecordType) -> int:
    """Bytes of the smallest encoding."""
    return size_range(record.root)[0]


def max_size(record: RecordType) -> int | None:
    """Bytes of the largest encoding, None when the type sets no limit (a port then needs `payload_bytes`)."""
    return size_range(record.root)[1]


def fixed_size(record: RecordType) -> int | None:
    """Bytes of every encoding, None when the size depends on the value."""
    low, high = size_range(record.root)
    return low if low == high else None


@dataclass(frozen=True, slots=True)
class Annotation:
    """What the numbers of a tensor mean: ``real = scale * (q - zero_point)``, measured in ``unit``.

    ``scale`` and ``zero_point`` come together. With ``axis`` (a dimension, outermost is 0) both are tuples,
    one value per index of that dimension.
    """

    scale: float | tuple[float, ...] | None = None
    zero_point: int | tuple[int, ...] | None = None
    axis: int | None = None
    unit: str | None = None

    def __post_init__(self) -> None:
        if (self.scale is None) != (self.zero_point is None):
            raise ModelError(
                "scale and zero_point belong together", hint="symmetric quantisation has zero_point: 0"
            )
        if self.unit is not None and not (
            0 < len(self.unit) <= MAX_UNIT_CHARACTERS and self.unit.isprintable()
        ):
            raise ModelError(
                f"a unit has 1..{MAX_UNIT_CHARACTERS} printable characters, not {self.unit!r:.80}"
            )
        scales, zero_points = self.scales, self.zero_points
        if self.axis is None:
            if isinstance(self.scale, tuple) or isinstance(self.zero_point, tuple):
                raise ModelError("several scales or zero points need the axis they run along")
        elif self.axis < 0 or not (isinstance(self.scale, tuple) and isinstance(self.zero_point, tuple)):
            raise ModelError("an axis is 0 or more, and makes scale and zero_point lists")
        if len(scales) != len(zero_points):
            raise ModelError(f"{len(scales)} scales but {len(zero_points)} zero points")
        if not all(math.isfinite(scale) and scale > 0 for scale in scales):
            raise ModelError("a scale is a finite number above 0")

    @property
    def scales(self) -> tuple[float, ...]:
        """All scales: none without quantisation, one without an axis."""
        if self.scale is None:
            return ()
        return self.scale if isinstance(self.scale, tuple) else (self.scale,)

    @property
    def zero_points(self) -> tuple[int, ...]:
        """All zero points, as many as there are scales."""
        if self.zero_point is None:
            return ()
        return self.zero_point if isinstance(self.zero_point, tuple) else (self.zero_point,)

    def __str__(self) -> str:
        fields = {"scale": self.scale, "zero_point": self.zero_point, "axis": self.axis, "unit": self.unit}
        return " ".join(f"{name}={value}" for name, value in fields.items() if value is not None)


@dataclass(frozen=True, slots=True)
class PortType:
    """A record type with what is known beside it.

    ``label`` names an opaque payload (a ``DataType`` such as OSD-SPO-V1.5) and must match on both ends.
    """

    record: RecordType
    annotation: Annotation | None = None
    label: str = ""

    def __post_init__(self) -> None:
        if self.annotation is None:
            return
        note = self.annotation
        shape, element = dimensions(self.record.root)
        if not isinstance(element, Scalar):
            raise ModelError(
                f"{note} needs a number or an array of numbers, not {type_text(self.record.root)}"
            )
        if not note.scales:
            return
        if element.bounds is None:
            raise ModelError(f"{note} quantises integers, not {element.name}")
        low, high = element.bounds
        if not all(low <= zero_point <= high for zero_point in note.zero_points):
            raise ModelError(f"the zero point of {element.name} is {low}..{high}, not {note.zero_point}")
        if note.axis is not None:
            length = shape[note.axis] if note.axis < len(shape) else None
            if length != len(note.scales):
                raise ModelError(
                    f"{self.record} does not have {len(note.scales)} scales along axis {note.axis}"
                )

    def __str__(self) -> str:
        return " ".join(str(part) for part in (self.record, self.annotation, self.label) if part)


def resolve(text_or_name: str, types: Mapping[str, PortType]) -> PortType:
    """The type a port declares: the name of an entry of ``types``, or a type text of its own.

    Raises:
        TypeSyntaxError: neither a known name nor a type.
    """
    wanted = text_or_name.strip() if len(text_or_name) <= MAX_TEXT_CHARACTERS else ""
    if wanted in types and wanted not in KEYWORDS:
        return types[wanted]
    if NAME.fullmatch(wanted) and wanted not in KEYWORDS:
        near = difflib.get_close_matches(wanted, sorted({*types, *KEYWORDS}), n=1)
        raise TypeSyntaxError(
            f"unknown type {wanted!r}" + (f"; did you mean {near[0]!r}?" if near else ""), text_or_name, 0
        )
    return PortType(RecordType.parse(text_or_name))


def compatible(source: PortType, destination: PortType) -> PortType:
    """What both ends of a channel agree on; an annotation that only one end has holds for both.

    Raises:
        RecordTypeMismatch: naming the first difference and what each side says there.
    """
    found = _difference(source.record.root, destination.record.root, "")
    if found is not None:
        raise RecordTypeMismatch(
            f"record types differ{found.where}: the source gives {found.source},"
            f" the destination takes {found.destination}",
            hint="make both types equal, or put an AIM between them that converts",
        )
    if source.label != destination.label:
        raise RecordTypeMismatch(
            f"data types differ: the source gives {source.label or 'none'},"
            f" the destination takes {destination.label or 'none'}"
        )
    name = source.record.name or destination.record.name
    note = _agreed(source.annotation, destination.annotation)
    return PortType(RecordType(source.record.root, name), note, source.label)


def _agreed(source: Annotation | None, destination: Annotation | None) -> Annotation | None:
    if source is None or destination is None:
        return source or destination
    said_twice: list[str] = []
    if source.scales and destination.scales:
        said_twice += ["scale", "zero_point", "axis"]
    if source.unit and destination.unit:
        said_twice += ["unit"]
    for what in said_twice:
        ours, theirs = getattr(source, what), getattr(destination, what)
        if ours != theirs:
            raise RecordTypeMismatch(
                f"annotations differ: the source has {what}={ours}, the destination {what}={theirs}",
                hint="requantise between them; equal bytes would mean different numbers",
            )
    quantised = source if source.scales else destination
    return Annotation(quantised.scale, quantised.zero_point, quantised.axis, source.unit or destination.unit)


@dataclass(frozen=True, slots=True)
class _Difference:
    where: str
    source: str
    destination: str


def _difference(source: Node, destination: Node, path: str) -> _Difference | None:
    """The first place, in declaration order, where two types differ."""
    if source == destination:
        return None
    where = f" at {path.removeprefix('.')}" if path else ""
    match source, destination:
        case (Struct(ours), Struct(theirs)) | (Variant(ours), Variant(theirs)):
            for one, other in zip(ours, theirs, strict=False):
                if one.name != other.name:
                    return _Difference(where, _member_words(one), _member_words(other))
                inside = _difference(one.type, other.type, f"{path}.{one.name}")
                if inside is not None:
                    return inside
            longer = ours[len(theirs) :] or theirs[len(ours) :]
            words = [f"{len(members)} members" for members in (ours, theirs)]
            words[len(theirs) > len(ours)] += f", among them {_member_words(longer[0])}"
            return _Difference(where, words[0], words[1])
        case (Array(ours_element), Array(theirs_element)):
            inside = _element_difference(ours_element, theirs_element, path)
        case (FixedArray(ours_element, ours_length), FixedArray(theirs_element, theirs_length)):
            same = ours_length == theirs_length
            inside = _element_difference(ours_element, theirs_element, path) if same else None
        case _:
            inside = None
    return inside or _Difference(where, type_text(source) or "nothing", type_text(destination) or "nothing")


def _element_difference(source: Node, destination: Node, path: str) -> _Difference | None:
    """Differences inside elements; arrays of plain numbers read better when shown whole."""
    (shape, ours), (other_shape, theirs) = dimensions(source), dimensions(destination)
    if shape != other_shape or not isinstance(ours, Struct | Variant) or type(ours) is not type(theirs):
        return None
    return _difference(ours, theirs, path + "[]" * (1 + len(shape)))


def _member_words(member: Member) -> str:
    return str(member) or "an empty alternative"


def lower(record: RecordType) -> RecordType:
    """The nearest type in the grammar of MPAI-AIF V2: no extension is left.

    ``T[n]``, ``T[n][m]`` and ``T[][m]`` become a flat ``T[]``, string ``uint8[]``, boolean ``uint8``.
    Where a fixed length goes, a count appears on the wire; everything else keeps its bytes.

    Raises:
        ModelError: for an array whose elements would hold arrays or empty alternatives.
    """
    return RecordType(_lower(record.root), record.name)


def _lower(node: Node) -> Node:
    match node:
        case Scalar("boolean"):
            return Scalar("uint8")
        case String():
            return Array(Scalar("uint8"))
        case Struct(members):
            return Struct(tuple(Member(_lower(member.type), member.name) for member in members))
        case Variant(alternatives):
            return Variant(tuple(Member(_lower(option.type), option.name) for option in alternatives))
        case Array(element) | FixedArray(element):
            while isinstance(element, FixedArray):
                element = element.element
            lowered = _lower(element)
            if not is_fixed(lowered):
                raise ModelError(
                    f"{type_text(node)} has no form in MPAI-AIF V2: elements of an array hold neither arrays,"
                    " strings nor empty alternatives",
                    hint="move the array or string out of the element, or give it several scalar members",
                )
            return Array(lowered)
        case _:
            return node
