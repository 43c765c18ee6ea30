# ruff: noqa: E501
# Each row of the tables is one mistake and the exact words said about it; they read best in one line.

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aif.config.quantities import UNITS, QuantityError, convert, dimension_of


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("64KiB", "B", 65_536), ("1.5 KiB", "B", 1_536), ("16GB", "B", 16_000_000_000), ("0.25s", "ms", 250),
        ("5min", "ms", 300_000), ("50us", "ms", 0.05), ("64MHz", "Hz", 64_000_000), ("6Mbps", "bps", 6_000_000),
        ("115.2kbps", "bps", 115_200), ("2.5W", "mW", 2_500), ("2.6Wh", "mWh", 2_600), ("9.36kJ", "mWh", 2_600),
        ("5nJ/B", "uJ/B", 0.005), ("60M/s", "/s", 60_000_000), ("1%", "1", 0.01), ("1e3 ms", "ms", 1_000),
    ],
)  # fmt: skip
def test_units_convert_exactly(text: str, unit: str, value: float) -> None:
    read = convert(text, unit)
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "unit", "message", "hint"),
    [
        ("64KiB", "ms", "must be a time, but '64KiB' is an amount of data", "units: us, µs, ms, s, min, h"),
        ("6MBps", "bps", "has the unknown unit 'MBps'", "did you mean 6Mbps? units: bps, kbps, Mbps, Gbps"),
        ("64kib", "B", "has the unknown unit 'kib'", "did you mean 64KiB? units: B, kB, MB, GB, KiB, MiB, GiB"),
        ("64", "B", "must be an amount of data, but '64' has no unit", "write 64 in B without quotes, or add a unit, such as 2B"),
        ("much", "B", "must be an amount of data, not the text 'much'", "write a number in B, or one with a unit, such as 2B"),
        ("64 KiB KiB", "B", "has the unknown unit 'KiB KiB'", None),
        ("1" * 40 + "B", "B", "must be an amount of data, not the text", None),
        ("1e999B", "B", "has the unknown unit 'e999B'", None),
    ],
)  # fmt: skip
def test_wrong_amounts_are_refused_in_words(text: str, unit: str, message: str, hint: str | None) -> None:
    with pytest.raises(QuantityError) as wrong:
        convert(text, unit)
    assert str(wrong.value).startswith(message)
    assert hint is None or wrong.value.hint == hint


@given(
    st.sampled_from([(dimension, unit) for dimension in UNITS for unit in UNITS[dimension] if unit != "1"]),
    st.decimals(min_value=0, max_value=10**9, places=6, allow_nan=False),
    st.data(),
)
def test_every_amount_is_the_same_in_every_unit_of_its_dimension(
    given_in: tuple[str, str], amount: object, data: st.DataObject
) -> None:
    dimension, unit = given_in
    target = data.draw(st.sampled_from(sorted(UNITS[dimension])))
    exact = Fraction(str(amount)) * UNITS[dimension][unit] / UNITS[dimension][target]
    assert convert(f"{amount:f}{unit}", target) == (int(exact) if exact.denominator == 1 else float(exact))


@given(st.text(max_size=80), st.sampled_from([unit for units in UNITS.values() for unit in units]))
def test_any_text_is_an_amount_or_refused(text: str, unit: str) -> None:
    try:
        value = convert(text, unit)
    except QuantityError as wrong:
        said = str(wrong)
    else:
        assert isinstance(value, int | float)
        return
    assert dimension_of(unit) in said or "unknown unit" in said
