"""Records as plain JSON values, for User Agents. Arrays become lists, variants ``{alternative: value}``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from aif.model.record_values import Alternative, Record


def plain_record(value: Any) -> Any:
    """Lists, dicts, numbers and texts only; NaN and infinities become text, since JSON has none."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(k): plain_record(v) for k, v in value.items()}
    if isinstance(value, bytes | bytearray):
        return list(value)
    if isinstance(value, Alternative):
        return {value.name: plain_record(value.value)}
    if isinstance(value, Record):
        return {k: plain_record(v) for k, v in value._asdict().items()}
    if isinstance(value, list | tuple):
        return [plain_record(v) for v in value]
    if hasattr(value, "tolist"):  # arrays and numbers of array libraries
        return plain_record(value.tolist())
    return str(value)
