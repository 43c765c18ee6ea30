"""The schemas are checked by a small reader of the keywords they use: editors must agree with the loader."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aif.config.document import parse_document
from aif.config.findings import Findings, read_shape
from aif.config.schema import FILES, json_schema
from aif.errors import ConfigError

EXAMPLES = Path(__file__).parent / "examples"
KNOWN = {
    "$defs", "$id", "$ref", "$schema", "additionalProperties", "anyOf", "const", "default", "description",
    "enum", "exclusiveMaximum", "exclusiveMinimum", "items", "maxItems", "maxLength", "maximum", "minItems",
    "minLength", "minimum", "pattern", "patternProperties", "properties", "propertyNames", "required",
    "title", "type",
}  # fmt: skip
PYTHON = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


def problems(value: Any, schema: Any, root: dict[str, Any], path: str = "") -> Iterator[str]:
    if schema is True or schema == {}:
        return
    assert set(schema) <= KNOWN, set(schema) - KNOWN
    if "$ref" in schema:
        target = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        yield from problems(value, target, root, path)
    if "anyOf" in schema and all(list(problems(value, one, root, path)) for one in schema["anyOf"]):
        yield f"{path}: no alternative fits"
    if "const" in schema and value != schema["const"]:
        yield f"{path}: not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: not one of {schema['enum']}"
    if "type" in schema and not is_a(value, schema["type"]):
        yield f"{path}: not a {schema['type']}"
        return
    if isinstance(value, dict):
        known = schema.get("properties", {})
        yield from (f"{path}: lacks {key}" for key in schema.get("required", []) if key not in value)
        for key, inside in value.items():
            if "propertyNames" in schema:
                yield from problems(key, schema["propertyNames"], root, f"{path}/{key} as a key")
            fitting = [
                one for form, one in schema.get("patternProperties", {}).items() if re.search(form, key)
            ]
            rule = known.get(key, fitting[0] if fitting else schema.get("additionalProperties", True))
            if rule is False:
                yield f"{path}: unknown {key}"
            else:
                yield from problems(inside, rule, root, f"{path}/{key}")
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", 10**9):
            yield f"{path}: {len(value)} items"
        for position, item in enumerate(value):
            yield from problems(item, schema.get("items", True), root, f"{path}/{position}")
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        yield f"{path}: {value!r} does not match {schema['pattern']}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            yield f"{path}: {value} out of range"
        if value <= schema.get("exclusiveMinimum", value - 1) or value >= schema.get(
            "exclusiveMaximum", value + 1
        ):
            yield f"{path}: {value} out of range"


def is_a(value: object, kind: str) -> bool:
    if kind in ("integer", "number"):
        return isinstance(value, int if kind == "integer" else int | float) and not isinstance(value, bool)
    return isinstance(value, PYTHON[kind])


@pytest.mark.parametrize("file", sorted(EXAMPLES.rglob("*.yaml")), ids=lambda file: file.parent.name)
def test_every_example_fits_its_schema(file: Path) -> None:
    document = parse_document(file.read_text(), file.name)
    schema = json_schema(document.kind)
    assert list(problems(document.plain(), schema, schema)) == []


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("gesture/gesture.aiw.yaml", "aims:", "amis:"),
        ("gesture/gesture.aiw.yaml", "percentile: 0.99", "percentile: 1.5"),
        ("gesture/gesture.aiw.yaml", "schema: 1", "schema: 2"),
        ("gesture/gesture.aiw.yaml", "use: IMUSource@1.0", "use: IMUSource"),
        ("gesture/gesture.aiw.yaml", "id: imu,", "id: 1mu,"),
        ("gesture/inventory.yaml", "class: mcu", "class: mpu"),
        ("gesture/inventory.yaml", "ram_bytes: 65536", "ram_bytes: -1"),
        ("gesture/inventory.yaml", "id: gw, ", ""),
        ("aims/event_sink/aim.yaml", "payload_bytes: 48", "payload_bytes: [48]"),
        ("aims/event_sink/aim.yaml", "event: {", "2event: {"),
    ],
)
def test_what_the_schema_refuses_the_loader_refuses_too(name: str, old: str, new: str) -> None:
    text = (EXAMPLES / name).read_text()
    assert old in text
    document = parse_document(text.replace(old, new), name)
    schema = json_schema(document.kind)
    assert list(problems(document.plain(), schema, schema))
    findings = Findings(document)
    read_shape(findings, FILES[document.kind])
    with pytest.raises(ConfigError):
        findings.raise_errors()


@pytest.mark.parametrize("kind", FILES)
def test_schemas_say_what_they_are_and_what_the_keys_mean(kind: str) -> None:
    schema: Any = json_schema(kind)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:tinyaif:schema:{kind}:1"
    assert schema["additionalProperties"] is False
    assert schema["required"][:2] == ["schema", kind]


def test_a_quantity_is_a_number_or_text_with_its_unit() -> None:
    schema: Any = json_schema("inventory")
    ram = schema["$defs"]["DeviceEntry"]["properties"]["ram_bytes"]
    assert ram["description"] == "RAM left for AIMs (bytes)"
    assert [one["type"] for one in ram["anyOf"]] == ["integer", "string"]
    assert ram["anyOf"][1]["description"] == "an amount of data with its unit, such as 2B"
