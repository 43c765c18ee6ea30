"""A workflow of numbered messages: a source counts, an AIM in the middle works, a tally says what came twice.

The tally is an AIM with state: which numbers it has seen. Its output goes to the User Agent at best effort,
so what counts is the last one: how many numbers were seen, the highest of them, and how many came again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aif.runtime.mapping.workflows import RunningWorkflow
from tests.runtime.site import AIMS, BenchSite

TALLY = (
    """
    schema: 1
    aim: {name: Tally, version: "1.0", implementer: tinyaif, description: Notes which numbers it has seen.}
    inputs: {pair: {type: "{int32 number; int32 twice}", queue_depth: 32}}
    outputs: {tally: {type: "{int32 number; int32 seen; int32 again}"}}
    implementations:
      - {id: any, runtime: python, entry: "module:Tally", ram_bytes: 1000, flash_bytes: 0,
         instructions: 1000, security: attested, state: checkpointable, state_bytes: 16KiB}
    """,
    """
    from aif.sdk import AIM


    class Tally(AIM):
        def setup(self):
            self.seen, self.again = 0, 0

        def process(self, pair):
            bit = 1 << pair.number
            self.again += bool(self.seen & bit)
            self.seen |= bit
            return {"tally": {"number": pair.number, "seen": self.seen.bit_count(), "again": self.again}}

        def checkpoint(self):
            length = (self.seen.bit_length() + 7) // 8
            return self.again.to_bytes(4, "big") + self.seen.to_bytes(length, "big")

        def restore(self, state):
            self.again = int.from_bytes(state[:4], "big")
            self.seen = int.from_bytes(state[4:], "big")
    """,
)

NUMBERS = (
    """
    schema: 1
    aim: {name: Numbers, version: "1.0", implementer: tinyaif, description: Counts until it is told to stop.}
    parameters: {until: {type: string, description: a file whose appearance ends it}}
    outputs: {number: {type: int32, rate_hz: 200}}
    period_ms: 5
    implementations:
      - {id: any, runtime: python, entry: "module:Numbers", ram_bytes: 1000, flash_bytes: 0,
         instructions: 1000, security: attested}
    """,
    """
    from pathlib import Path

    from aif.sdk import AIM, EndOfData


    class Numbers(AIM):
        def setup(self):
            self.count, self.until = 0, Path(self.context.parameters["until"])

        def process(self):
            if self.until.exists():
                raise EndOfData("told to stop")
            self.count += 1
            return {"number": self.count}
    """,
)

NUMBERED_AIMS: Mapping[str, tuple[str, str]] = {**AIMS, "tally": TALLY, "numbers": NUMBERS}

NUMBERED = """
schema: 1
aiw: {name: Numbered, version: "1.0", implementer: tinyaif, description: "Counts, doubles and notes."}
aims:
  - {id: count, use: Ticker@1.0, parameters: {last: LAST}, placement: {device: left}}
  - {id: double, use: Doubler@1.0, inputs: {number: count.number}, placement: DOUBLE}
  - {id: note, use: Tally@1.0, inputs: {pair: double.pair}, placement: NOTE}
outputs: {tally: note.tally}
channels:
  - {output: count.number, input: double.number, delivery: acknowledged}
  - {output: double.pair, input: note.pair, delivery: acknowledged}
availability: {on_degraded: continue}
"""


def numbered(*, last: int, double: str, note: str) -> str:
    """The workflow with its source counting to ``last``, and where the others may run."""
    return NUMBERED.replace("LAST", str(last)).replace("DOUBLE", double).replace("NOTE", note)


def numbered_until(file: Path, *, double: str, note: str) -> str:
    """The workflow with a source that counts until a file appears."""
    counting = f"use: Numbers@1.0, parameters: {{until: {file}}}"
    workflow = numbered(last=0, double=double, note=note)
    return workflow.replace("use: Ticker@1.0, parameters: {last: 0}", counting)


def figures(site: BenchSite, running: RunningWorkflow) -> dict[str, dict[str, int]]:
    """Of the acknowledged channels by name, from the hosts that run now."""
    found: dict[str, dict[str, int]] = {}
    for name in site.tasks:
        part = site.hosts[name]._parts.get(running.aiw_id) if name in site.hosts else None
        if part is not None and part.workflow is not None:
            seen: Mapping[str, Any] = part.workflow.metrics()["acknowledged"]
            for channel, values in seen.items():
                found.setdefault(channel, {}).update(values)
    return found
