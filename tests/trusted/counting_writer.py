"""Adds one to the mapping floor of a state file. Usage: ``python counting_writer.py FILE TIMES``."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from aif.trusted.state import DeviceState, StateFile


def main() -> None:
    state = StateFile(Path(sys.argv[1]), DeviceState)
    for _ in range(int(sys.argv[2])):
        state.update(lambda current: replace(current, mapping_floor=current.mapping_floor + 1))


if __name__ == "__main__":
    main()
