"""Records as plain JSON values, for User Agents. Arrays become lists, variants ``{alternative: value}``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def plain_record(value: Any) -> Any:
    """Lists, dicts, numbers and texts only; NaN and infinities become text, since JSON has none."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(k): plain_record(v) for k, v in value.items()}
    if isinstance(value, memoryview):
        return value.tolist()
    if hasattr(value, "_asdict"):
        return {k: plain_record(v) for k, v in value._asdict().items()}
    if hasattr(value, "name") and hasattr(value, "value"):
        return {str(value.name): plain_record(value.value)}
    if isinstance(value, list | tuple):
        return [plain_record(v) for v in value]
    return str(value)
