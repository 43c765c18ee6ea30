"""Every error code has its page, and every page is about a code."""

from __future__ import annotations

import inspect
import re
from itertools import chain, pairwise
from pathlib import Path

import aif.errors
from aif.config.codes import Code
from aif.errors import AIFError
from tests.docs.console import ROOT

PAGES = ROOT / "docs" / "errors"
SECTIONS = ["## Why it happens", "## What to do"]
CODE = re.compile(r'"(AIF-[EW]\d{4})"')


CLASSES = [
    member
    for _, member in inspect.getmembers(aif.errors, inspect.isclass)
    if issubclass(member, AIFError) and member.__module__ == aif.errors.__name__
]


def codes_in_the_sources() -> set[str]:
    sources = chain.from_iterable(
        (ROOT / name).rglob("*.py") for name in ("aif", "aims", "partitioner", "store")
    )
    return {code for source in sources for code in CODE.findall(source.read_text(encoding="utf-8"))}


def test_no_page_is_missing_and_none_is_extra() -> None:
    codes = {error.code for error in CLASSES} | {str(code) for code in Code} | codes_in_the_sources()
    assert {page.stem for page in PAGES.glob("AIF-*.md")} == codes


def test_no_two_errors_share_a_code() -> None:
    codes = [error.code for error in CLASSES]
    assert len(codes) == len(set(codes))


def test_each_page_says_what_why_and_what_to_do() -> None:
    for page in PAGES.glob("AIF-*.md"):
        check(page)


def check(page: Path) -> None:
    heading, what, *rest = [line for line in page.read_text(encoding="utf-8").splitlines() if line]
    assert re.fullmatch(rf"# {page.stem} [A-Za-z_]+", heading), page
    assert what.endswith("."), page
    assert [line for line in rest if line.startswith("#")] == SECTIONS, page
    assert not any(a.startswith("#") and b.startswith("#") for a, b in pairwise([*rest, "#"])), page


def test_the_page_of_a_class_is_named_after_it() -> None:
    for error in CLASSES:
        heading = (PAGES / f"{error.code}.md").read_text(encoding="utf-8").splitlines()[0]
        assert heading == f"# {error.code} {error.__name__}"
