"""The page on security cannot lie: no row disappears, no test it names is missing, no defect is hidden."""

from __future__ import annotations

import importlib.util
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.docs.console import ROOT

ROWS = {
    "T1", "T2", "T3", "T4", "T5", "T6", "S1", "S2", "S3", "S4", "S5", "TM1", "TM2", "TM3", "TM4", "TM5",
    "TM6", "R1", "I1", "I2", "I3", "D1", "D2", "D3", "D4", "E1", "E2", "E3", "E4", "E5", "E6", "E7", "E8",
    "E9", "E10", "B1", "B2",
}  # fmt: skip
"""Threats of OTA-TinyML and of STRIDE that the page answers. A row may be added; none may go."""


def _page() -> ModuleType:
    spec = importlib.util.spec_from_file_location("security_page", ROOT / "docs" / "security_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


page = _page()
SOURCE: dict[str, Any] = page.load()


def test_every_threat_has_its_row() -> None:
    assert {row["id"] for row in SOURCE["threats"]} >= ROWS


def test_every_row_stands_on_the_page_with_its_state() -> None:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    for row in SOURCE["threats"]:
        assert f"| {row['id']} **{page.state(row)}** |" in text
        assert all(f"`{test}`" in text for test in row["tests"])


@pytest.mark.parametrize(
    "test",
    [
        "tests/fuzz/test_fuzz.py::test_that_was_renamed",
        "tests/fuzz/gone.py::test_a_batch_is_the_same_every_time",
        "tests/fuzz/test_fuzz.py",
        "tests/fuzz/inputs.py::noise",
        "../tests/fuzz/test_fuzz.py::test_a_batch_is_the_same_every_time",
    ],
)
def test_a_missing_or_renamed_test_stops_the_page(test: str) -> None:
    changed = deepcopy(SOURCE)
    changed["threats"][0]["tests"].append(test)
    with pytest.raises(page.ThreatsError, match="which is not there"):
        page.security(changed)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tests": [], "gap": ""}, "does not say what is missing"),
        ({"id": "T2"}, "occurs twice"),
        ({"kind": "X"}, "unknown kind"),
        ({"proof": "trust me"}, "keys other than"),
    ],
)
def test_a_row_that_claims_without_saying_how_is_refused(change: dict[str, object], said: str) -> None:
    changed = deepcopy(SOURCE)
    changed["threats"][0] |= change
    with pytest.raises(page.ThreatsError, match=said):
        page.security(changed)


def test_an_expected_failure_is_no_evidence(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_x.py").write_text(
        "import pytest\n"
        "@pytest.mark.xfail(reason='x', strict=True)\n"
        "def test_fails() -> None: ...\n"
        "@pytest.mark.parametrize('a', [pytest.param(1, marks=pytest.mark.xfail), 2])\n"
        "def test_mostly_passes(a: int) -> None: ...\n"
    )
    row = {"tests": ["tests/test_x.py::test_fails"]}
    assert page.state(row, tmp_path) == "open"
    row["tests"].append("tests/test_x.py::test_mostly_passes")
    assert page.state(row, tmp_path) == "partly"
    assert page.state({"tests": row["tests"][1:]}, tmp_path) == "shown"
    assert page.state({"tests": row["tests"][1:], "gap": "much"}, tmp_path) == "partly"
