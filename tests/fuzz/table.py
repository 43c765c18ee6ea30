"""The result of a campaign as a table to read (Markdown) and as one to reckon with (JSON).

Decides how results look, and where an input that broke a decoder is kept; it runs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.fuzz.campaign import DecoderDefect, Tally

SHOWN_BYTES: Final = 24
"""Bytes of the slowest input that the table shows."""


@dataclass(slots=True)
class Result:
    """One decoder in a campaign: the sum of what has ended so far, and the first defect."""

    wanted: int
    tally: Tally = field(default_factory=Tally)
    defect: DecoderDefect | None = None

    @property
    def verdict(self) -> str:
        if self.defect is not None:
            return "DEFECT"
        return "done" if self.tally.inputs >= self.wanted else "not finished"


def line(name: str, result: Result) -> str:
    """One decoder on one line of a terminal."""
    tally = result.tally
    accepted = tally.accepted / tally.inputs if tally.inputs else 0.0
    return (
        f"{name:26} {tally.inputs:>10,} inputs {accepted:>6.1%} accepted, "
        f"slowest {tally.slowest_s * 1e3:>7.2f} ms, memory +{tally.grown_bytes / 1e6:.1f} MB, "
        f"{tally.cpu_s:.0f} s of CPU, {result.verdict}"
    )


def markdown(results: Mapping[str, Result], seed: int) -> str:
    """Everything, one row per decoder."""
    rows = [
        f"| {name} | {result.tally.inputs:,} | {result.tally.accepted:,} | {_refused(result.tally)} "
        f"| {result.tally.slowest_s * 1e3:.2f} ms: `{_shown(result.tally.slowest)}` | {result.verdict} |"
        for name, result in results.items()
    ]
    inputs = sum(result.tally.inputs for result in results.values())
    cpu_s = sum(result.tally.cpu_s for result in results.values())
    return "\n".join(
        [
            f"{inputs:,} inputs to {len(results)} decoders, seed {seed}, {cpu_s:,.0f} s of CPU time\n",
            "| decoder | inputs | accepted | refused, by class of error | slowest input | verdict |",
            "|---|---:|---:|---|---|---|",
            *rows,
            "",
        ]
    )


def _refused(tally: Tally) -> str:
    ordered = sorted(tally.refused.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {count:,}" for name, count in ordered)


def _shown(data: bytes) -> str:
    return data.hex() if len(data) <= SHOWN_BYTES else f"{data[:SHOWN_BYTES].hex()}… ({len(data):,} B)"


def to_json(results: Mapping[str, Result], seed: int) -> str:
    """The same figures; inputs in hexadecimal."""
    decoders = {
        name: {
            "wanted": result.wanted, "inputs": result.tally.inputs, "accepted": result.tally.accepted,
            "refused": dict(result.tally.refused), "slowest_ms": result.tally.slowest_s * 1e3,
            "slowest_input": result.tally.slowest.hex(), "grown_bytes": result.tally.grown_bytes,
            "cpu_s": result.tally.cpu_s, "verdict": result.verdict, "defect": str(result.defect or ""),
        }
        for name, result in results.items()
    }  # fmt: skip
    return json.dumps({"seed": seed, "decoders": decoders}, indent=1) + "\n"


def write_tables(folder: Path, results: Mapping[str, Result], seed: int) -> Path:
    """Both tables, whole or not at all; returns the readable one."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "fuzz.json", to_json(results, seed).encode())
    _write(folder / "fuzz.md", markdown(results, seed).encode())
    return folder / "fuzz.md"


def write_reproducer(folder: Path, name: str, defect: DecoderDefect) -> Path:
    """Keep the input that broke a decoder, to be fed again with ``--decoder NAME --input FILE``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name.replace(' ', '-').replace(':', '-')}.input"
    _write(path, defect.data)
    return path


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)
