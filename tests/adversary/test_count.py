"""Figures of attacks are sums of what tests said, and an expected failure refuses nothing."""

from __future__ import annotations

import pytest

from tests.adversary.count import PROPERTY, Counter, table


def report(
    test: str, *said: tuple[str, int, int], outcome: str = "passed", when: str = "call"
) -> pytest.TestReport:
    return pytest.TestReport(
        f"tests/adversary/{test}", (test, 0, test), {}, outcome, None, when,  # type: ignore[arg-type]  # from literals
        user_properties=[(PROPERTY, each) for each in said],
    )  # fmt: skip


def test_what_tests_say_is_added_up() -> None:
    counter = Counter()
    for each in (
        report("test_attacks.py::a", ("replay", 5, 5), ("tamper", 2, 2)),
        report("test_attacks.py::b", ("replay", 3, 2)),
        report("test_attacks.py::b", ("replay", 3, 2), when="setup"),
        report("test_members.py::c"),
        report("test_proxy.py::d"),
        report("test_attacks.py::e", ("tamper", 7, 7), outcome="failed"),
    ):
        counter.pytest_runtest_logreport(each)
    rows = table(counter.counts).splitlines()
    assert "| replay | 2 | 8 | 7 |" in rows
    assert "| tamper | 2 | 9 | 2 |" in rows
    assert "| member against its producer | 1 | 1 | 1 |" in rows
    assert rows[-1] == "| all | | 18 | 10 |"


def test_an_expected_failure_refused_nothing() -> None:
    counter, failed = Counter(), report("test_members.py::c", ("forgery", 4, 4), outcome="skipped")
    failed.wasxfail = "known"
    counter.pytest_runtest_logreport(failed)
    assert (counter.counts["forgery"].tried, counter.counts["forgery"].refused) == (4, 0)
