"""dora-rs: driver and receiver are two nodes of one dataflow, arrays built outside the loop.

The nodes are started by dora itself, from the dataflow that :func:`dataflow` describes.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cell import Role, Run
from benchmarks.contenders.link import Intake, Link
from benchmarks.contenders.peer_link import PeerLink
from benchmarks.workload import WINDOW_PUBLISHES

QUEUE = 2 * WINDOW_PUBLISHES
"""Inputs a node may leave unread before dora holds its sender back."""


def program() -> str | None:
    """Path of dora's command, None where it is not installed."""
    return shutil.which("dora", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")


def dataflow(run: Run, file: Path) -> Path:
    """Write the two nodes of a run, in YAML (as JSON, which is YAML), and say where."""
    lossless = {"queue_size": QUEUE, "queue_policy": "backpressure"}
    back = {"back": {"source": "receiver/back", **lossless}}
    there = {"there": {"source": "driver/there", **lossless}}
    ping = run.task == "ping"
    flow = {
        "nodes": [
            _node("driver", file, back if ping else {}, ["there"]),
            _node("receiver", file, there, ["back"] if ping else []),
        ]
    }
    path = Path(run.folder) / "dataflow.yml"
    path.write_text(json.dumps(flow))
    return path


def _node(role: Role, file: Path, inputs: dict[str, Any], outputs: list[str]) -> dict[str, Any]:
    arguments = f"-m benchmarks.peer {file} {role}"
    return {"id": role, "path": sys.executable, "args": arguments, "inputs": inputs, "outputs": outputs}


class DoraLink(PeerLink):
    """One node; its inputs are read by a thread."""

    def __init__(self, run: Run, role: Role, intake: Intake) -> None:
        super().__init__(run, role, intake)
        arrow: Any = importlib.import_module("pyarrow")  # it and dora are in the extra `bench` only
        self._array, self._buffer, self._uint8 = arrow.Array.from_buffers, arrow.py_buffer, arrow.uint8()
        self._output = "there" if role == "driver" else "back"

    async def open(self) -> None:
        dora: Any = importlib.import_module("dora")
        self._node = dora.Node()
        if self.role == "receiver" or self.run.task == "ping":
            self._reader = threading.Thread(target=self._read, daemon=True)
            self._reader.start()

    def _read(self) -> None:
        for event in self._node:
            if event["type"] == "INPUT":
                self.arrived(event["value"].to_numpy().tobytes())

    def prepare(self, sequence: int, data: bytes) -> Any:
        message = super().prepare(sequence, data)
        return self._array(self._uint8, len(message), [None, self._buffer(message)])

    def send_burst(self, messages: Sequence[Any]) -> None:
        for message in messages:
            self._node.send_output(self._output, message)

    async def close(self) -> None:
        """A node ends with its process."""


def open_link(run: Run, role: Role, intake: Intake) -> Link:
    return DoraLink(run, role, intake)
