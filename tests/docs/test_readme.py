"""The README and the pages that tell a reader what to type do what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.console import ROOT, TEST_TIMEOUT_S, run_page, steps

MAX_README_LINES = 120


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.timeout(TEST_TIMEOUT_S)
def test_the_readme_runs_as_written(tmp_path: Path) -> None:
    printed = run_page(ROOT / "README.md", tmp_path)
    assert "600 windows on 4 devices" in printed
    assert "none of" in printed.split("frames on the wire held known plaintext")[0].splitlines()[-1]
    assert "objective" in printed
    assert "proven optimal" in printed


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.timeout(TEST_TIMEOUT_S)
def test_the_tutorial_runs_as_written(tmp_path: Path) -> None:
    printed = run_page(ROOT / "docs" / "tutorial.md", tmp_path)
    assert "Shaking@1.0 completed: 600 windows" in printed
    assert "600 messages sealed, 600 verified, rejected 0, lost 0" in printed


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.timeout(TEST_TIMEOUT_S)
def test_the_page_about_inventories_runs_as_written(tmp_path: Path) -> None:
    printed = run_page(ROOT / "docs" / "howto" / "inventory.md", tmp_path)
    # a busy machine may lose windows on the way, which is counted; that none is lost is shown by the README
    assert re.search(r"GestureRecognition@1\.0 completed: \d+ windows on 3 devices", printed)


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.timeout(TEST_TIMEOUT_S)
def test_the_page_about_placements_runs_as_written(tmp_path: Path) -> None:
    printed = run_page(ROOT / "docs" / "howto" / "placement.md", tmp_path)
    assert "4 AIMs stayed" in printed
    assert "any one of these makes it possible: +662 B RAM on mcu-1" in printed
    assert "exit code 4" in printed
    assert "planned in order as --objective devices=100,latency=" in printed
    for name in ("placement", "choice"):
        shown = (ROOT / "docs" / "pictures" / f"{name}.svg").read_bytes()
        drawn = (tmp_path / f"{name.replace('placement', 'plan')}.svg").read_bytes()
        assert shown == drawn, f"draw {name}.svg again as the page says"


def test_the_readme_is_short_and_shows_both_commands() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= MAX_README_LINES
    assert [step.splitlines()[-1] for step in steps(readme)][:2] == ["make run", "make test"]


def test_the_picture_is_the_one_that_the_tools_draw(tmp_path: Path) -> None:
    plan, drawn = tmp_path / "plan.json", tmp_path / "gesture.svg"
    aif = [sys.executable, "-m", "aif.cli.main"]
    workflow = str(ROOT / "workflows" / "gesture")
    subprocess.run([*aif, "plan", workflow, "--format", "json", "--output", str(plan)], check=True)
    subprocess.run([*aif, "graph", workflow, "--placement", str(plan), "-o", str(drawn)], check=True)
    shown = (ROOT / "docs" / "pictures" / "gesture.svg").read_bytes()
    assert shown == drawn.read_bytes(), "draw it again with aif plan and aif graph"


def test_a_command_that_fails_is_shown_with_its_output(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```console\n$ echo before\n$ aif nonsense\n$ echo after\n```\n", encoding="utf-8")
    folder = tmp_path / "root"
    folder.mkdir()
    with pytest.raises(AssertionError, match="exit code 2") as caught:
        run_page(page, folder)
    assert "aif has no verb 'nonsense'" in str(caught.value)
    assert "$ echo after" not in str(caught.value)


def test_files_and_commands_are_taken_in_their_order() -> None:
    file = "<!-- file: a/b.txt -->\n```yaml\nx: $HOME\n```\n"
    page = f"{file}text\n```console\n$ cat a/b.txt\nx: 1\n```\n```text\n$ no\n```\n"
    assert list(steps(page)) == [
        "cat > a/b.txt <<'END OF FILE'\nx: $HOME\nEND OF FILE\n",
        "echo '$ cat a/b.txt'\ncat a/b.txt\n",
    ]
