"""Publishes once per disk operation, each time in a process that is killed in the middle of that operation.

Usage: ``python crash_publisher.py REPOSITORY KEYS OUTPUT MOMENT``. OUTPUT gets one copy of the repository per
operation, and ``steps.json`` with their names in order. A program of its own, because forking wants a process
with a single thread.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from datetime import datetime
from pathlib import Path

from store.files import FileLayer
from store.keys import RoleKeys
from store.repository import Repository

NEW_CONTENT = b"the second model" * 1000


class DyingFileLayer(FileLayer):
    """Kills its process in the middle of disk operation number ``dies_at``."""

    def __init__(self, dies_at: int, log: Path) -> None:
        self.left = dies_at
        self.log = log

    def _die_when_due(self, step: str) -> bool:
        self.log.write_text(step)
        self.left -= 1
        return self.left < 0

    def write(self, path: Path, content: bytes, mode: int) -> None:
        if self._die_when_due(f"write {path.name}"):
            path.write_bytes(content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        super().write(path, content, mode)

    def replace(self, source: Path, target: Path) -> None:
        if self._die_when_due(f"replace {target.name}"):
            os.kill(os.getpid(), signal.SIGKILL)
        super().replace(source, target)

    def sync_directory(self, directory: Path) -> None:
        if self._die_when_due(f"sync {directory.name}"):
            os.kill(os.getpid(), signal.SIGKILL)
        super().sync_directory(directory)


def main() -> None:
    repository, keys, output = (Path(argument) for argument in sys.argv[1:4])
    now = datetime.fromisoformat(sys.argv[4])
    steps: list[str] = []
    while True:
        copy = output / str(len(steps))
        shutil.copytree(repository, copy)
        log = output / "step"
        pid = os.fork()
        if pid == 0:
            files = DyingFileLayer(len(steps), log)
            store = Repository.open(copy, RoleKeys.load(keys), files=files)
            store.publish("acme", "kws", 2, NEW_CONTENT, kind="model", custom={}, now=now)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status):
            if os.WEXITSTATUS(status) != 0:
                sys.exit("publishing failed by itself")
            break
        steps.append(log.read_text())
    (output / "steps.json").write_text(json.dumps(steps))


if __name__ == "__main__":
    main()
