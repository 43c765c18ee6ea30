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
    from aif.config.document import MAX_DOCUMENT_BYTES
    from partitioner.report.written import from_json

    try:
        with path.open("rb") as file:
            data = file.read(MAX_DOCUMENT_BYTES + 1)
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as reason:
        raise PlacementError(
            f"cannot read {path.as_posix()}: {reason}", hint="write it with aif plan --format json"
        ) from reason
    if len(data) > MAX_DOCUMENT_BYTES:
        raise PlacementError(f"{path.as_posix()} is larger than {MAX_DOCUMENT_BYTES:,} B")
    return from_json(text)
