"""What a person reads of an error: the place under a caret, the cause where it adds something."""

from __future__ import annotations

import pytest

from aif.errors import Diagnostic, PlacementError, SourceLocation


def test_the_caret_stands_below_its_column_behind_tabs_too() -> None:
    at = SourceLocation("w.yaml", 1, 9, 3, "\ta:\tb  xyz")
    _, _, _, caret = Diagnostic("AIF-E0101", "no", at).render().splitlines()
    assert caret == "  | \t  \t    ^^^"


@pytest.mark.parametrize(
    ("cause", "told"),
    [
        (FileNotFoundError(2, "No such file or directory", "a"), False),
        (ValueError("cannot read"), False),
        (ValueError("something else"), True),
    ],
)
def test_a_cause_that_is_in_the_message_is_not_told_twice(cause: Exception, told: bool) -> None:
    error = PlacementError("cannot read a: No such file or directory", hint="write it")
    error.__cause__ = cause
    lines = error.diagnostics().splitlines()
    assert lines[-1] == "   = help: write it"
    assert any(line.startswith("   = cause: ") for line in lines) is told
