"""Changes a state file once per system call, each time in a process that is killed just before that call.

Usage: ``python crash_writer.py FILE OUTPUT``. OUTPUT gets one folder per call with what the crash left, and
``steps.json`` with their names. A program of its own, because forking wants a process with a single thread.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

from aif.trusted.state import DeviceState, StateFile

WATCHED = ("open", "os.rename", "os.remove", "os.listdir", "os.scandir", "fcntl.flock")


def die_at(moment: int, log: Path) -> None:
    """Kill this process at its ``moment``-th watched call."""
    left = moment

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event not in WATCHED or str(arguments[0]).startswith(str(log)):
            return
        left -= 1
        if left < 0:
            os.write(handle, f"{event} {Path(str(arguments[0])).name}".encode())
            os.kill(os.getpid(), signal.SIGKILL)

    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    sys.addaudithook(hook)


def main() -> None:
    file, output = Path(sys.argv[1]), Path(sys.argv[2])
    steps: list[str] = []
    while True:
        copy = output / str(len(steps))
        shutil.copytree(file.parent, copy)
        log = output / "step"
        pid = os.fork()
        if pid == 0:
            state = StateFile(copy / file.name, DeviceState)
            die_at(len(steps), log)
            state.update(lambda current: replace(current, mapping_floor=current.mapping_floor + 1))
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status):
            if os.WEXITSTATUS(status) != 0:
                sys.exit("the change failed by itself")
            break
        steps.append(log.read_text())
    (output / "steps.json").write_text(json.dumps(steps))


if __name__ == "__main__":
    main()
