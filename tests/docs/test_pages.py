"""Generated pages are up to date; links lead somewhere; files and tests that pages name exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.docs.console import ROOT

PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
LINK = re.compile(r"!?\[[^\]]*\]\(([^)#\s]+)(#[^)]*)?\)")
IMAGE = re.compile(r"^```\{image\} (\S+)$", re.MULTILINE)
NAMED = re.compile(r"`((?:aif|aims|partitioner|store|tests|workflows|docs|firmware)/[\w./]+?)(?:::(\w+))?`")
FOREIGN = re.compile(r"\b(?:issue \d+|/(?:work|root|home|tmp)/|localhost)", re.IGNORECASE)
MISSING_ON_PURPOSE = {"aif/mpai.py"}
"""Named where a page says that it does not exist yet."""
MAX_ADR_LINES = 40


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def test_generated_pages_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"],
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_link_and_picture_is_there() -> None:
    missing = []
    for page, text in TEXTS.items():
        targets = [target for target, _ in LINK.findall(text)] + IMAGE.findall(text)
        missing += [(name_of(page), t) for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert missing == []


def test_files_and_tests_that_pages_name_exist() -> None:
    missing = []
    for page, text in TEXTS.items():
        for path, test in NAMED.findall(text):
            named = ROOT / path
            if path in MISSING_ON_PURPOSE:
                assert not named.exists(), f"{path} exists now: say so, and take it off the list"
            elif not named.exists():
                missing.append((name_of(page), path))
            elif test and not re.search(rf"def {test}\(", named.read_text(encoding="utf-8")):
                missing.append((name_of(page), f"{path}::{test}"))
    assert missing == []


def test_pages_speak_of_the_project_alone() -> None:
    foreign = {name_of(page): FOREIGN.findall(text) for page, text in TEXTS.items()}
    assert {name: words for name, words in foreign.items() if words} == {}


def test_decisions_are_numbered_listed_and_short() -> None:
    folder = ROOT / "docs" / "adr"
    pages = sorted(folder.glob("[0-9]*.md"))
    listed = (folder / "index.md").read_text(encoding="utf-8")
    numbers = [page.name[:4] for page in pages]
    assert len(set(numbers)) == len(numbers)  # with gaps, where a decision is still being made
    for number, page in zip(numbers, pages, strict=True):
        lines = page.read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith(f"# {number} ")
        assert [line for line in lines if line.startswith("## ")] == [
            "## Context",
            "## Decision",
            "## Consequences",
        ]
        assert len(lines) <= MAX_ADR_LINES
        assert f"({page.name})" in listed


def test_every_page_is_in_a_table_of_contents() -> None:
    docs = ROOT / "docs"
    entries = set()
    for page in docs.rglob("*.md"):
        for block in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            entries |= {
                (page.parent / line).resolve()
                for line in block.splitlines()
                if line and not line.startswith(":")
            }
    pages = {page.with_suffix("") for page in docs.rglob("*.md")} - {docs / "index"}
    assert pages == entries


def test_no_lock_file_or_makefile_holds_an_address() -> None:
    for path in [ROOT / "Makefile", ROOT / ".ci" / "run", *ROOT.glob("requirements*")]:
        text = path.read_text(encoding="utf-8")
        assert "://" not in text, path
        assert not re.search(r"^--(?:index|extra-index|find-links|trusted)", text, re.MULTILINE), path


def test_every_locked_package_has_its_version_and_hashes() -> None:
    locks = sorted(ROOT.glob("requirements*.lock"))
    assert len(locks) == 6
    for lock in locks:
        entries = re.split(r"\n(?=\S)", lock.read_text(encoding="utf-8").strip())
        packages = [entry for entry in entries if not entry.startswith("#")]
        assert packages, lock
        for entry in packages:
            assert re.match(r"[A-Za-z0-9][\w.-]*==[\w.+!-]+(?: ;[^\n]*)? \\\n", entry), entry[:80]
            assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry[:80]
