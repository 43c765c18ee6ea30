"""A run's summary as a person reads it: what came out, whether it was safe, where everything ran.

Decides the order and words of the last screen. Does not decide the figures: it shows what ``summary`` holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from aif.gateway import cells
from aif.gateway.causes import in_words
from aif.gateway.cells import Column, Glyphs


def print_summary(console: Console, content: Mapping[str, Any]) -> None:
    """Print a summary; ``content`` is what ``summary.summary`` made."""
    signs = cells.glyphs(console.encoding)
    console.print()
    for line in _headlines(content, signs):
        console.print(line, soft_wrap=True, highlight=False)
    for part in (_devices(content, signs), _channels(content, signs), _models(content)):
        if part.row_count:
            console.print()
            console.print(part, highlight=False)


def _headlines(content: Mapping[str, Any], signs: Glyphs) -> Iterable[Text]:
    state = cells.state(content["state"])
    mark = signs.yes if content["state"] == "completed" else signs.dot
    yield Text.assemble(
        (f"{mark} ", state.style), (content["workflow"], "bold"), " ", state,
        f": {content['windows']:,} windows on {len(content['devices'])} devices",
        f" in {content['seconds']:.1f} s",
    )  # fmt: skip
    anomaly = content["anomaly"]
    if anomaly["known_windows"]:
        yield Text.assemble(
            "  recognised ", (cells.percent(content["accuracy"]), "bold"),
            f" of {anomaly['known_windows']:,} windows of known kinds; ",
            f"false alarms in {cells.percent(anomaly['false_alarm'])}",
        )  # fmt: skip
    if anomaly["unseen_windows"]:
        yield Text.assemble(
            "  noticed ", (cells.percent(anomaly["detection"]), "bold"),
            f" of {anomaly['unseen_windows']:,} windows of a kind never trained on",
        )  # fmt: skip
    latency = content["end_to_end"]
    if latency["p50_ms"] is not None:
        yield Text(
            f"  from sensor to result in {cells.milliseconds(latency['p50_ms'])} ms (p50), "
            f"{cells.milliseconds(latency['p99_ms'])} ms (p99)"
        )
    counts = content["messages"]
    yield Text.assemble(
        f"  {counts['sealed']:,} messages sealed, {counts['verified']:,} verified, ",
        cells.trouble("rejected", counts["rejected"]), ", ", cells.trouble("lost", counts["lost"]),
    )  # fmt: skip
    for name, seen in content["channels"].items():
        if seen["troubles"]:
            causes = in_words(dict(sorted(seen["troubles"].items())))
            yield Text(f"  {name.replace('->', signs.arrow)}: {causes}", style="yellow")
    for name, seen in content["acknowledged"].items():
        words = ", ".join(f"{n:,} {what}" for what, n in seen.items() if n or what == "acknowledged")
        style = "yellow" if seen["abandoned"] or seen["held"] else ""
        yield Text(f"  {name.replace('->', signs.arrow)}: {words}", style=style)
    for device, causes in content["control"].items():
        words = in_words(dict(sorted(causes.items())))
        yield Text(f"  control messages and grants at {device}: {words}", style="yellow")
    yield _wire(counts["plaintext_on_wire"], counts["frames_watched"])
    yield _placement(content["placement"])


def _wire(plaintext: int | None, watched: int | None) -> Text:
    if plaintext is None or watched is None:
        return Text("  the wire was not watched", style="yellow")
    if plaintext:
        return Text(f"  {plaintext:,} of {watched:,} frames on the wire held known plaintext", "bold red")
    if not watched:
        return Text("  no frame was seen on the wire", style="yellow")
    return Text(f"  none of {watched:,} frames on the wire held known plaintext")


def _placement(placement: Mapping[str, Any]) -> Text:
    objective, gap = placement["objective"], placement["proven_gap"]
    if objective is None:
        return Text("  placement: none", style="dim")
    proof = "proven optimal" if gap == 0 else f"at most {cells.percent(gap)} above the optimum"
    return Text(f"  placement: objective {objective:.5g}, {proof}")


def _devices(content: Mapping[str, Any], signs: Glyphs) -> Table:
    """One row per AIM; what belongs to the device stands in its first row."""
    table = cells.grid(
        Column("device"), Column("class"), Column("attested"), Column("AIM", grows=True),
        Column("runs", right=True), Column("p50 µs", right=True), Column("p99 µs", right=True), Column("RAM"),
        Column("flash"),
    )  # fmt: skip
    figures = {one["aim"]: one for one in content["aims"]}
    memory = {one["device"]: one for one in content["memory"]}
    results = {one["device"]: one["result"] for one in content["attestation"]}
    for device in content["devices"]:
        used = memory.get(device["id"])
        result = results.get(device["id"], "unknown").split(":")[0]
        head: list[RenderableType] = [Text(device["id"]), Text(device["class"]), cells.state(result)]
        tail: list[RenderableType] = [cells.NONE, cells.NONE] if used is None else [
            cells.budget(used["ram_bytes"], used["ram_limit_bytes"], 3, signs),
            cells.budget(used["flash_bytes"], used["flash_limit_bytes"], 3, signs),
        ]  # fmt: skip
        for aim in device["aims"] or [""]:
            seen = figures.get(aim)
            spent = ["", "", ""] if seen is None else [
                f"{seen['invocations']:,}", cells.microseconds(seen["p50_us"]),
                cells.microseconds(seen["p99_us"]),
            ]  # fmt: skip
            table.add_row(*head, Text(aim), *spent, *tail)
            head, tail = ["", "", ""], ["", ""]
    return table


def _channels(content: Mapping[str, Any], signs: Glyphs) -> Table:
    table = cells.grid(
        Column("channel", grows=True),
        Column("records", right=True),
        Column("p50 ms", right=True),
        Column("p99 ms", right=True),
    )
    for name, seen in content["channels"].items():
        table.add_row(
            Text(name.replace("->", signs.arrow)), f"{seen['records']:,}",
            cells.milliseconds(seen["p50_ms"]), cells.milliseconds(seen["p99_ms"]),
        )  # fmt: skip
    return table


def _models(content: Mapping[str, Any]) -> Table:
    table = cells.grid(
        Column("model", grows=True), Column("version", right=True), Column("SHA-256"), Column("device"),
        Column("size", right=True), Column("arena", right=True),
    )  # fmt: skip
    for model in content["models"]:
        arena = cells.size(model["arena_bytes"]) if model["arena_bytes"] else cells.NONE
        table.add_row(
            Text(model["name"]), Text(model["version"]), Text(model["sha256"][:12]), Text(model["device"]),
            cells.size(model["bytes"]), arena,
        )  # fmt: skip
    return table
