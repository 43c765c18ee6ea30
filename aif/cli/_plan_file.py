"""Plans that ``aif plan --format json`` wrote, read back for other verbs and options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from aif.errors import PlacementError

if TYPE_CHECKING:
    from aif.model.placement import Placement


def read_plan(path: Path) -> Placement:
    """The plan in a file.

    Raises:
        PlacementError: the file cannot be read, is too large, or holds something else.
    """
    from partitioner.report.written import MAX_DOCUMENT_BYTES, from_json

    hint = "write it with aif plan --format json"
    try:
        with path.open("rb") as file:
            data = file.read(MAX_DOCUMENT_BYTES + 1)
        text = data.decode("utf-8")
    except OSError as wrong:
        raise PlacementError(f"cannot read {path.as_posix()}: {wrong.strerror}", hint=hint) from wrong
    except UnicodeDecodeError as wrong:
        raise PlacementError(f"{path.as_posix()} is not UTF-8 text", hint=hint) from wrong
    try:
        return from_json(text)
    except PlacementError as wrong:
        raise PlacementError(f"{path.as_posix()}: {wrong}", hint=wrong.hint or hint) from wrong
