"""Numbers with units: ``64KiB``, ``0.25s``, ``6Mbps``.

Decides which units measure what and converts exactly into the unit a key carries. Not rounded: a value
that a whole-number key cannot hold is refused.

Source: SI prefixes; IEC 80000-13 for KiB, MiB, GiB.
"""

from __future__ import annotations

import difflib
import re
from fractions import Fraction
from typing import Final

UNITS: Final[dict[str, dict[str, Fraction]]] = {
    "an amount of data": {
        "B": Fraction(1), "kB": Fraction(10**3), "MB": Fraction(10**6), "GB": Fraction(10**9),
        "KiB": Fraction(2**10), "MiB": Fraction(2**20), "GiB": Fraction(2**30),
    },
    "a time": {
        "us": Fraction(1), "µs": Fraction(1), "ms": Fraction(10**3), "s": Fraction(10**6),
        "min": Fraction(60 * 10**6), "h": Fraction(3600 * 10**6),
    },
    "a frequency": {
        "Hz": Fraction(1), "kHz": Fraction(10**3), "MHz": Fraction(10**6), "GHz": Fraction(10**9),
    },
    "a data rate": {
        "bps": Fraction(1), "kbps": Fraction(10**3), "Mbps": Fraction(10**6), "Gbps": Fraction(10**9),
    },
    "a power": {"uW": Fraction(1, 1000), "µW": Fraction(1, 1000), "mW": Fraction(1), "W": Fraction(1000)},
    "an energy": {
        "uJ": Fraction(1), "µJ": Fraction(1), "mJ": Fraction(10**3), "J": Fraction(10**6),
        "kJ": Fraction(10**9), "mWh": Fraction(36 * 10**5), "Wh": Fraction(36 * 10**8),
    },
    "an energy per byte": {
        "nJ/B": Fraction(1, 1000), "uJ/B": Fraction(1), "µJ/B": Fraction(1), "mJ/B": Fraction(10**3),
    },
    "a number per second": {
        "/s": Fraction(1), "k/s": Fraction(10**3), "M/s": Fraction(10**6), "G/s": Fraction(10**9),
    },
    "a share": {"1": Fraction(1), "%": Fraction(1, 100)},
}  # fmt: skip
"""What each unit measures, and how much of the dimension's base it is."""

_DIMENSION: Final = {unit: dimension for dimension, units in UNITS.items() for unit in units}
_WITH_UNIT = re.compile(
    r"([-+]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][-+]?[0-9]{1,2})?)\s*([^0-9.\s].*)?"
)
MAX_CHARACTERS: Final = 64


class QuantityError(ValueError):
    """A text that is not an amount of what is asked for. ``hint`` says what to write."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def dimension_of(unit: str) -> str:
    """What ``unit`` measures, in words."""
    return _DIMENSION[unit]


def convert(text: str, unit: str) -> int | float:
    """The amount that ``text`` names, as a plain number of ``unit``.

    Raises:
        QuantityError: no number, no unit, an unknown unit, or a unit of something else.

    >>> convert("64KiB", "B"), convert("0.25s", "ms"), convert("1.5Mbps", "bps"), convert("40%", "1")
    (65536, 250, 1500000, 0.4)
    """
    wanted = _DIMENSION[unit]
    example = f"such as {example_of(unit)}"
    found = _WITH_UNIT.fullmatch(text.strip()) if len(text) <= MAX_CHARACTERS else None
    if found is None:
        raise QuantityError(
            f"must be {wanted}, not the text {text[:MAX_CHARACTERS]!r}",
            f"write a number{_in(unit)}, or one with a unit, {example}",
        )
    number, given = found[1], found[2] or ""
    if not given:
        raise QuantityError(
            f"must be {wanted}, but {text!r} has no unit",
            f"write {number}{_in(unit)} without quotes, or add a unit, {example}",
        )
    if given not in _DIMENSION or given == "1":
        known = [name for name in UNITS[wanted] if name != "1"]
        close = difflib.get_close_matches(given, known, n=1, cutoff=0.3)
        folded = [name for name in known if name.lower() == given.lower()]
        best = (folded or close)[:1]
        raise QuantityError(
            f"has the unknown unit {given!r}",
            (f"did you mean {number}{best[0]}? " if best else "") + "units: " + ", ".join(known),
        )
    if _DIMENSION[given] != wanted:
        raise QuantityError(
            f"must be {wanted}, but {text.strip()!r} is {_DIMENSION[given]}",
            "units: " + ", ".join(name for name in UNITS[wanted] if name != "1"),
        )
    amount = Fraction(number) * UNITS[wanted][given] / UNITS[wanted][unit]
    return amount.numerator if amount.denominator == 1 else float(amount)


def _in(unit: str) -> str:
    return "" if unit in ("1", "/s") else f" in {unit}"


def example_of(unit: str) -> str:
    """An amount of ``unit``, as a user may write it."""
    return "40%" if unit == "1" else f"2{unit}"
