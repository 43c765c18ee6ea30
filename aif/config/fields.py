"""What the keys of all file kinds are made of: tables, quantities with units, names, and short forms.

Decides how one key is checked and described in the JSON Schema. The tables themselves are in
``aim_file.py``, ``aiw_file.py`` and ``inventory_file.py``; their field order is the canonical key order.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from aif.config.quantities import QuantityError, convert, dimension_of, example_of
from aif.model.ports import PORT_NAME

MAX_ENTRIES: Final = 4096
"""Entries of one list or map of a file."""

MAX_TEXT: Final = 4096
MAX_NAME: Final = 64


class Table(BaseModel):
    """A map with known keys; any other key is an error."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )


def problem(message: str, *, hint: str = "", code: str = "value") -> PydanticCustomError:
    """A finding about one value; ``message`` continues the key's name, as in ``must be a name``."""
    return PydanticCustomError(code, "{message}", {"message": message, "hint": hint})


@dataclass(frozen=True, slots=True)
class Quantity:
    """Marks a number in ``unit``; a text with another unit of the same dimension is converted."""

    unit: str

    def number(self, value: object) -> object:
        if isinstance(value, str):
            try:
                return convert(value, self.unit)
            except QuantityError as wrong:
                raise problem(str(wrong), hint=wrong.hint, code="unit") from wrong
        return int(value) if isinstance(value, float) and value.is_integer() else value

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.number, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        inner = handler(schema)
        text = {
            "type": "string",
            "description": f"{dimension_of(self.unit)} with its unit, such as {example_of(self.unit)}",
        }
        return {"anyOf": [inner, text]}


Bytes = Annotated[int, Field(ge=0, le=1 << 50), Quantity("B")]
Ms = Annotated[float, Field(gt=0, le=1e12), Quantity("ms")]
MsOrZero = Annotated[float, Field(ge=0, le=1e12), Quantity("ms")]
Us = Annotated[float, Field(gt=0, le=1e15), Quantity("us")]
Hz = Annotated[float, Field(gt=0, le=1e12), Quantity("Hz")]
RecordHz = Annotated[float, Field(gt=0, le=1e6), Quantity("Hz")]
Bps = Annotated[float, Field(gt=0, le=1e15), Quantity("bps")]
PerSecond = Annotated[float, Field(gt=0, le=1e18), Quantity("/s")]
Milliwatt = Annotated[float, Field(ge=0, le=1e12), Quantity("mW")]
MilliwattHours = Annotated[float, Field(gt=0, le=1e12), Quantity("mWh")]
Microjoule = Annotated[float, Field(ge=0, le=1e15), Quantity("uJ")]
MicrojoulePerByte = Annotated[float, Field(ge=0, le=1e12), Quantity("uJ/B")]
Share = Annotated[float, Field(ge=0, le=1), Quantity("1")]


@dataclass(frozen=True, slots=True)
class Matches:
    """Marks text of a certain form; ``words`` says so to the user after ``must be``."""

    pattern: str
    words: str
    longest: int = MAX_NAME

    def check(self, text: str) -> str:
        if len(text) > self.longest:
            raise problem(f"must have at most {self.longest} characters, it has {len(text)}")
        if not re.fullmatch(self.pattern, text, re.ASCII):
            raise problem(f"must be {self.words}")
        return text

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {**handler(schema), "pattern": f"^(?:{self.pattern})$", "maxLength": self.longest}


def either(alternatives: Any, make: Callable[[object], object]) -> BeforeValidator:
    """A short form: ``make`` turns it into the long one; the JSON Schema shows ``alternatives``."""
    return BeforeValidator(make, json_schema_input_type=alternatives)


def under(key: str) -> Callable[[object], object]:
    """The short form of a table whose only value given is ``key``."""
    return lambda value: {key: value} if isinstance(value, str) else value


def as_list(value: object) -> object:
    """One text stands for a list of one."""
    return [value] if isinstance(value, str) else value


AimId = Annotated[
    str, Matches(r"[a-z][a-z0-9_]*", "an id: a lower-case letter, then lower-case letters, digits or _")
]
DeviceId = Annotated[str, Matches(r"[A-Za-z0-9][A-Za-z0-9_-]*", "an id: letters, digits, _ and -")]
Name = Annotated[str, Matches(PORT_NAME.pattern, "a name: a letter or _, then letters, digits or _")]
ComponentName = Annotated[
    str, Matches(r"[A-Za-z][A-Za-z0-9_-]*", "a name: a letter, then letters, digits, _ or -")
]
Version = Annotated[str, Matches(r"[A-Za-z0-9][A-Za-z0-9.+_-]*", "a version such as 1.0", 32)]
Use = Annotated[
    str,
    Matches(r"[A-Za-z][A-Za-z0-9_-]*@[A-Za-z0-9][A-Za-z0-9.+_-]*", "Name@version, such as EventSink@1.0", 97),
]
EndPoint = Annotated[
    str,
    Matches(r"[a-z][a-z0-9_]*\.[A-Za-z_][A-Za-z0-9_]*", "aim.port, such as classifier.event", 129),
]
PythonEntry = Annotated[
    str,
    Matches(
        r"[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_.]*",
        "module:Class, such as aims.event_sink:EventSink",
        200,
    ),
]
RelativeFile = Annotated[
    str,
    Matches(r"(?![/\\])(?!.*(^|[/\\])\.\.([/\\]|$))[^\x00-\x1f\\:]+", "a relative path without ..", 255),
]
Sha256 = Annotated[str, Matches(r"[0-9a-f]{64}", "64 lower-case hexadecimal digits")]
Word = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
Text = Annotated[str, Field(max_length=MAX_TEXT)]
SchemaNumber = Annotated[Literal[1], Field(alias="schema", description="version of the file format: 1")]


def inner(annotation: Any, step: str | int) -> Any:
    """The annotation of what ``annotation`` holds under ``step``; None when nothing is known there."""
    for plain in alternatives(annotation):
        if isinstance(plain, type) and issubclass(plain, Table):
            found = next((f for name, f in plain.model_fields.items() if step in (f.alias, name)), None)
            if found is not None:
                return Annotated[found.annotation, *found.metadata] if found.metadata else found.annotation
        elif get_origin(plain) is list and isinstance(step, int):
            return get_args(plain)[0]
        elif get_origin(plain) is dict:
            return get_args(plain)[1]
    return None


def alternatives(annotation: Any) -> list[Any]:
    """The members of an optional or a union, without what ``Annotated`` adds."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return alternatives(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [plain for member in get_args(annotation) for plain in alternatives(member)]
    return [annotation]


def table_of(annotation: Any) -> type[Table] | None:
    """The Table that ``annotation`` is or may be."""
    return next((a for a in alternatives(annotation) if isinstance(a, type) and issubclass(a, Table)), None)


def keys_of(table: type[Table]) -> dict[str, str]:
    """The keys of a table in canonical order, with their descriptions."""
    return {field.alias or name: field.description or "" for name, field in table.model_fields.items()}


def quantity_of(annotation: Any) -> Quantity | None:
    """The unit mark of a key, if it has one."""
    if get_origin(annotation) is Annotated:
        plain, *marks = get_args(annotation)
        found = next((mark for mark in marks if isinstance(mark, Quantity)), None)
        return found or quantity_of(plain)
    if get_origin(annotation) in (Union, UnionType):
        return next((q for member in get_args(annotation) if (q := quantity_of(member))), None)
    return None
