"""Runs what a page tells its reader to type, in the order of the page, in one shell.

Commands are the ``$ `` lines of console blocks; other lines there are what the reader sees, and not compared.
A fenced block after ``<!-- file: PATH -->`` is written to that file. Two commands are changed:
``make run`` uses the environment of the test instead of making one, and ``make test`` is only resolved, since
it would run this very test.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
TIMEOUT_S: Final = 300
"""One page, on a machine that is busy with other things too; a calm one takes a fifth."""
TEST_TIMEOUT_S: Final = TIMEOUT_S + 30
"""For ``pytest.mark.timeout``: later, so that the page's output is shown."""

_PROJECT: Final = ("Makefile", "pyproject.toml", "aims", "workflows", "docs", *(
    lock.name for lock in sorted(ROOT.glob("requirements*.lock"))
))  # fmt: skip
_BLOCK: Final = re.compile(
    r"^(?:<!-- file: (?P<file>\S+) -->\n)?```(?P<kind>\w*)[^\n]*\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_MAKE: Final = """
make() {
    if [ "$1" = test ]
    then command make --dry-run BIN="$BIN" "$@" > dry-run.txt && grep -q pytest dry-run.txt
    else command make --old-file=.venv/.run BIN="$BIN" "$@"
    fi
}
"""


def steps(page: str) -> Iterator[str]:
    """Shell text of every command and file of a page."""
    for block in _BLOCK.finditer(page):
        if block["file"]:
            yield f"cat > {shlex.quote(block['file'])} <<'END OF FILE'\n{block['text']}END OF FILE\n"
        elif block["kind"] == "console":
            for line in block["text"].splitlines():
                if line.startswith("$ "):
                    yield f"echo {shlex.quote(line)}\n{line.removeprefix('$ ')}\n"


def commands(page: str) -> list[str]:
    """What a page tells its reader to type, without the shell's ``&``; each is for a shell of its own."""
    blocks = [block["text"] for block in _BLOCK.finditer(page) if block["kind"] == "console"]
    lines = [line for text in blocks for line in text.splitlines() if line.startswith("$ ")]
    return [line.removeprefix("$ ").removesuffix("&").rstrip() for line in lines]


def run_page(page: Path, folder: Path) -> str:
    """Run a page in ``folder``, which becomes a copy of the project's root; what the commands printed.

    Raises:
        AssertionError: a command failed; its output is in the message.
    """
    for name in _PROJECT:
        (folder / name).symlink_to(ROOT / name)
    commands = list(steps(page.read_text(encoding="utf-8")))
    assert commands, f"{page} has nothing to run"
    binaries = Path(sys.executable).parent
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AIF_", "PYTEST_"))},
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "BIN": str(binaries),
        "NO_COLOR": "1",
        "COLUMNS": "120",
    }
    done = subprocess.run(
        ["/usr/bin/env", "bash", "-euo", "pipefail", "-c", _MAKE + "".join(commands)],
        cwd=folder, env=environment, text=True, timeout=TIMEOUT_S, check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, (
        f"{page.name} stopped with exit code {done.returncode}:\n{done.stdout[-6000:]}"
    )
    return done.stdout
