"""The JSON Schema of each file kind (draft 2020-12), made from the same tables that check the files.

It serves editors: completion, descriptions and first checks. ``aif validate`` checks more.
"""

from __future__ import annotations

from typing import Final

from aif.config.aim_file import AIMFile
from aif.config.aiw_file import AIWFile
from aif.config.fields import Table
from aif.config.inventory_file import InventoryFile

FILES: Final[dict[str, type[Table]]] = {"aim": AIMFile, "aiw": AIWFile, "inventory": InventoryFile}
"""The top table of each kind of file."""

TITLES: Final = {"aim": "AIM file", "aiw": "AIW file", "inventory": "inventory file"}


_KEYWORDS: Final = {"le": "maximum", "lt": "exclusiveMaximum", "ge": "minimum", "gt": "exclusiveMinimum"}


def _close(schema: object) -> None:
    """Say in the schema's own words what pydantic leaves open or in its words.

    Where only names of a certain form are keys, others are none; a bound of a quantity holds for the number.
    """
    if isinstance(schema, dict):
        for word, keyword in _KEYWORDS.items():
            if isinstance(schema.get(word), int | float):
                schema[keyword] = schema.pop(word)
        if "patternProperties" in schema:
            schema.setdefault("additionalProperties", False)
        for inside in schema.values():
            _close(inside)
    elif isinstance(schema, list):
        for inside in schema:
            _close(inside)


def json_schema(kind: str) -> dict[str, object]:
    """The JSON Schema of ``kind`` (aim, aiw or inventory).

    Raises:
        KeyError: no such kind.
    """
    made = FILES[kind].model_json_schema(by_alias=True, mode="validation")
    _close(made)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:tinyaif:schema:{kind}:1",
        **made,
        "title": f"tinyaif {TITLES[kind]}",
    }
