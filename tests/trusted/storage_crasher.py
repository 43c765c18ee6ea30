"""Makes one change to a storage folder and dies at one step of it. Started by the storage tests.

Usage: ``python storage_crasher.py FOLDER CHANGE STEP``: at step number STEP of the change (from 0) the
process kills itself. If the change has fewer steps, it prints the names of all of them and ends normally.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from aif.trusted.storage import DataLocation, SecureData, StorageService

STORAGE_KEY = bytes(range(32))
OWNER = bytes([1]) * 16


def change(service: StorageService, what: str) -> None:
    storage = service.of(OWNER)
    match what:
        case "ps set":
            storage.psa_ps_set(1, b"new" * 3000)
        case "ps set new":
            storage.psa_ps_set(2, b"new" * 3000)
        case "ps extend":
            storage.psa_ps_set_extended(3, 2, b"new")
        case "ps remove":
            storage.psa_ps_remove(1)
        case "its set":
            storage.psa_its_set(1, b"new" * 3000)
        case "disk write":
            storage.area(SecureData(DataLocation.LOCAL_DISK)).write("name", b"new" * 3000)
        case _:
            raise SystemExit(2)


def main() -> None:
    folder, what, step = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    seen: list[str] = []
    armed = False

    def failpoint(name: str) -> None:
        if armed:
            seen.append(name)
            if len(seen) == step + 1:
                os.kill(os.getpid(), signal.SIGKILL)

    service = StorageService(folder, STORAGE_KEY, random=os.urandom, failpoint=failpoint)
    armed = True
    change(service, what)
    sys.stdout.write("\n".join(seen))


if __name__ == "__main__":
    main()
