from __future__ import annotations

import json
import math
from enum import StrEnum
from typing import Any

import numpy as np
import pytest

from aif.model.codec import compile_record
from aif.model.record_values import Alternative
from aif.model.records import RecordType
from aif.runtime.plain import plain_record


class Colour(StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("text", "value", "plain"),
    [
        ("{uint64 t_us; string label}", {"t_us": 1, "label": "wave"}, {"t_us": 1, "label": "wave"}),
        ("int16[2][2]", [[1, 2], [3, 4]], [[1, 2], [3, 4]]),
        ("uint8[]", b"ab", [97, 98]),
        ("{int32 i | float32 f}", ("f", 0.5), {"f": 0.5}),
        ("{int32 i | {int8 a} s}[]", [("i", 1), ("s", {"a": 2})], [{"i": 1}, {"s": {"a": 2}}]),
        ("{ | uint8 percent}", None, None),
        ("{ | uint8 percent}", 5, 5),
        ("float32[2]", [1.5, math.inf], [1.5, "inf"]),
        (
            "{{int8 name; int8 value} pair}",
            {"pair": {"name": 1, "value": 2}},
            {"pair": {"name": 1, "value": 2}},
        ),
    ],
)
def test_records_become_plain_json(text: str, value: Any, plain: Any) -> None:
    codec = compile_record(RecordType.parse(text))
    shown = plain_record(codec.decode(codec.encode(value)))
    assert shown == plain
    json.dumps(shown, allow_nan=False)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.arange(3, dtype=np.int8), [0, 1, 2]),
        (np.float32(0.5), 0.5),
        (np.float64("nan"), "nan"),
        (np.int64(5), 5),
        (np.bool_(True), True),
        (np.array([[np.nan]]), [["nan"]]),
        (bytearray(b"a"), [97]),
        (-math.inf, "-inf"),
        (Alternative("x", [1]), {"x": [1]}),
        ({1: (2, 3)}, {"1": [2, 3]}),
        (Colour.RED, "red"),
        (True, True),
        ({5}, "{5}"),
    ],
)
def test_what_an_aim_may_return_becomes_plain_json(value: Any, plain: Any) -> None:
    shown = plain_record(value)
    assert shown == plain
    assert type(shown) is type(plain) or isinstance(value, Colour)
    json.dumps(shown, allow_nan=False)
