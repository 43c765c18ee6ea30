"""``aif new``: make the folder of a new AIM, which is valid and passes its own test from the start."""

from __future__ import annotations

import keyword
import re
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Final

import typer

from aif.errors import ConfigError, Diagnostic

app = typer.Typer(add_completion=False, help="Make something new.")

MAX_NAME_CHARACTERS: Final = 48
_NAME: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


@app.callback()
def new() -> None:
    """Keeps the kind of thing a word of its own: ``aif new aim NAME``."""


@app.command()
def aim(
    name: Annotated[str, typer.Argument(help="Name of the folder: lower case, words joined by underscores.")],
    into: Annotated[Path, typer.Option("--in", help="Folder to make it in.")] = Path(),
) -> None:
    """Make an AIM that passes its own test: contract, code, README and test."""
    folder = into / check_name(name)
    if folder.exists() or folder.is_symlink():
        raise _refusal(f"{folder.as_posix()} exists already", hint="choose another name, or remove it first")
    try:
        partial = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=into))
    except OSError as error:
        raise _refusal(
            f"cannot make a folder in {into.as_posix()}: {error.strerror}", hint="--in: a folder that exists"
        ) from error
    try:
        for file, text in aim_files(name).items():
            (partial / file).write_text(text, encoding="utf-8")
        partial.chmod(0o755)
        partial.rename(folder)
    except OSError as error:
        raise _refusal(f"cannot make {folder.as_posix()}: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shown = folder.as_posix()
    print(f"made {shown}\ntry it: pytest {shown}\ncheck it: aif validate {shown}")


def check_name(name: str) -> str:
    """``name`` if a folder, a Python module and an AIM can be called so.

    Raises:
        ConfigError: they cannot; the message says why.
    """
    if not _NAME.fullmatch(name):
        words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name)
        better = "_".join(words).lower()
        hint = f"did you mean {better!r}?" if _NAME.fullmatch(better) else "such as moving_average"
        raise _refusal(
            f"{name[:100]!r} is not a name for an AIM folder: lower-case words joined by underscores",
            hint=hint,
        )
    if len(name) > MAX_NAME_CHARACTERS:
        raise _refusal(f"{name[:100]!r} is too long a name: at most {MAX_NAME_CHARACTERS} characters")
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise _refusal(
            f"{name!r} is a word of Python and cannot name a module", hint=f"such as {name}_filter"
        )
    return name


def aim_files(name: str) -> dict[str, str]:
    """Content of the files of a new AIM, by file name."""
    words = {"@NAME@": name, "@CLASS@": "".join(word.capitalize() for word in name.split("_"))}
    files = {
        "aim.yaml": _CONTRACT,
        "module.py": _MODULE,
        "README.md": _README,
        f"test_{name}.py": _TEST,
    }
    for word, value in words.items():
        files = {file: text.replace(word, value) for file, text in files.items()}
    return files


def _refusal(message: str, *, hint: str = "") -> ConfigError:
    return ConfigError([Diagnostic(ConfigError.code, message, hint=hint)])


_CONTRACT: Final = """\
# The contract of this AIM. Everything else is checked against it.
schema: 1
aim:
  name: @CLASS@
  version: "1.0"
  implementer: me
  description: Scales a window of samples.
profile: basic
types:
  # type texts: int8 .. uint64, float32, float64, boolean, string, T[n], T[], {member; member}
  Window_t: float32[4]
parameters:
  gain:
    type: number
    default: 2.0
    minimum: 0
    description: factor for every sample
inputs:
  # what to do when records come faster than they are taken: block, drop_oldest or drop_newest
  window: {type: Window_t, queue_depth: 8, overflow: block}
outputs:
  scaled: {type: Window_t}
implementations:
  # one entry for each way to run it; the planner chooses by these figures
  - id: computer
    runtime: python
    entry: module:@CLASS@
    ram_bytes: 1048576  # peak of one instance, without the queues
    instructions: 10000  # per invocation, an estimate until it is measured
"""

_MODULE: Final = '''\
"""@CLASS@: scales a window of samples."""

from __future__ import annotations

from typing import Any

import numpy as np

from aif.sdk import AIM, Records


class @CLASS@(AIM):
    """Arguments of ``process`` are the inputs in aim.yaml; the keys of its result are the outputs."""

    def process(self, window: Any) -> Records:
        """Scale one window (float32[4])."""
        gain = self.context.parameters["gain"]
        return {"scaled": np.asarray(window) * np.float32(gain)}
'''

_README: Final = """\
# @CLASS@

Scales a window of samples.

| port | type | meaning |
|---|---|---|
| in `window` | `float32[4]` | samples |
| out `scaled` | `float32[4]` | the same samples, times `gain` |

| parameter | default | meaning |
|---|---|---|
| `gain` | 2.0 | factor, at least 0 |

The figures in `aim.yaml` are estimates. Try it with `pytest .` and check it with `aif validate .`.
"""

_TEST: Final = '''\
"""Runs the AIM as a host would: real contract, real queues, records encoded by their types."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aif.errors import InvalidRecord
from aif.runtime.host.trial import try_aim

FOLDER = Path(__file__).parent


def test_every_sample_is_scaled() -> None:
    windows = [[1.0, 2.0, 3.0, 4.0], [0.0, -1.0, 0.5, 8.0]]
    outputs = asyncio.run(try_aim(FOLDER, {"window": windows}, parameters={"gain": 3.0}))
    assert [list(record) for record in outputs["scaled"]] == [[3.0, 6.0, 9.0, 12.0], [0.0, -3.0, 1.5, 24.0]]


def test_a_window_of_another_length_is_refused() -> None:
    with pytest.raises(InvalidRecord, match="takes 4 elements, not 3"):
        asyncio.run(try_aim(FOLDER, {"window": [[1.0, 2.0, 3.0]]}))
'''
