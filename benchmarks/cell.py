"""What one run measures, and what its two processes must be told.

Decides the vocabulary: a :class:`Cell` is one row of a table (who, how large, how bundled, how protected), a
:class:`Run` adds what differs from run to run (ports, keys, durations). Starts nothing.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

ADAPTIVE = 0
"""Bundle size that stands for the framework's default: 64 messages, 1 ms or 32 KiB, at once when idle."""

Task = Literal["stream", "ping"]
Role = Literal["driver", "receiver"]
Broker = Literal["tuned", "stock", "tls", "none"]
Plant = Literal["", "lose", "repeat", "swap", "alter"]
"""A fault put into a run on purpose, to show that verification notices it."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One row: a contender in one setting."""

    contender: str
    size_bytes: int = 100
    bundle: int = 1
    mode: str = ""
    qos: int = 0
    broker: Broker = "tuned"

    @property
    def name(self) -> str:
        """Short and unique within a benchmark, such as ``aif signed K=256, 100 B``."""
        mode = f" {self.mode}" if self.mode else ""
        bundle = "" if self.bundle == 1 else " adaptive" if self.bundle == ADAPTIVE else f" K={self.bundle}"
        qos = f", QoS {self.qos}" if self.qos else ""
        stock = ", stock broker" if self.broker == "stock" else ""
        return f"{self.contender}{mode}{bundle}, {self.size_bytes} B{qos}{stock}"


@dataclass(frozen=True, slots=True)
class Durations:
    """How long one run lasts."""

    warm_up_s: float = 1.0
    run_s: float = 2.0
    round_trips: int = 2_000
    """At least so many, unless ``longest_s`` comes first."""
    longest_s: float = 6.0


@dataclass(frozen=True, slots=True)
class Run:
    """Everything the two processes of one run need; written as JSON into ``folder``."""

    task: Task
    cell: Cell
    durations: Durations
    folder: str
    seed: int
    secret_hex: str
    """32 fresh bytes of which the run's keys are made; it never leaves this machine."""
    port: int = 0
    plant: Plant = ""

    @classmethod
    def read(cls, file: Path) -> Self:
        fields = json.loads(file.read_text())
        fields["cell"] = Cell(**fields["cell"])
        fields["durations"] = Durations(**fields["durations"])
        return cls(**fields)

    def write(self) -> Path:
        file = Path(self.folder) / "run.json"
        file.write_text(json.dumps(asdict(self)))
        return file

    @property
    def control_path(self) -> str:
        return f"{self.folder}/control"

    @property
    def progress_path(self) -> str:
        return f"{self.folder}/progress"
