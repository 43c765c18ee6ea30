"""``aif status``: workflows, AIMs and devices, as the Controller sees them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from aif.cli._options import HomeOption
from aif.gateway.causes import LOST, in_words
from aif.gateway.site_view import LOST as DEVICE_LOST

app = typer.Typer(add_completion=False)

SKEW_SHOWN_S = 2.0
"""A smaller difference between clocks disturbs nothing."""


@app.command()
def status(
    home: HomeOption = Path(".aif"),
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show devices with their trust, and workflows with the state of every AIM."""
    import asyncio

    from aif.cli import _wiring as wiring
    from aif.transport import local

    seen = asyncio.run(local.call(wiring.Home(home).socket, "status"))
    if as_json:
        print(json.dumps(seen, indent=1))
        return
    print("devices:" if seen["devices"] else "devices: none has said hello")
    for device in seen["devices"]:
        skew_s = device["clock_skew_s"]
        words = [
            device["reason"],
            "drained: no AIM is put there" if device["drained"] else "",
            f"its clock is {skew_s:+.1f} s off" if abs(skew_s) > SKEW_SHOWN_S else "",
            *sensed(device["sensed"]),
        ]
        print(f"  {device['device']:<12} {device['trust']:<11} {'; '.join(filter(None, words))}".rstrip())
        if device["troubles"]:
            print(f"    control messages from it: {in_words(device['troubles'])}")
    trust = {device["device"]: device["trust"] for device in seen["devices"]}
    print("workflows:" if seen["workflows"] else "workflows: none")
    for workflow in seen["workflows"]:
        print(f"  {workflow['aiw']:<24} {workflow['state']:<10} {workflow['note']}".rstrip())
        for device, part in workflow["devices"].items():
            print(f"    {device:<12} {in_part(part, trust.get(device))}")
        for line in acknowledged(workflow):
            print(f"    {line}")
        for trouble in troubles(workflow):
            print(f"    {trouble}")


def in_part(part: Mapping[str, Any], trust: str | None) -> str:
    """What a device does in a workflow; where it is lost, that was before."""
    aims = part["aims"].items()
    if trust != DEVICE_LOST:
        return f"{part['phase']:<10} {', '.join(f'{aim} {state}' for aim, state in aims)}"
    return f"{trust:<10} {', '.join(f'{aim} was {state}' for aim, state in aims)}"


def sensed(figures: Mapping[str, Any]) -> Iterator[str]:
    """What was measured of a device, where it is not as it should be; all figures are in ``--json``."""
    link, battery = figures.get("link"), figures.get("battery")
    if link and link["slow"]:
        yield (
            f"it answers in {link['rtt_p50_ms']:g} ms (95 % within {link['rtt_p95_ms']:g} ms, "
            f"{link['loss']:.0%} lost), planned are {link['planned_rtt_ms']:g} ms"
        )
    if battery and battery["state"] != "good":
        state = "nearly empty" if battery["state"] == "reserve" else "low"
        yield f"its battery is {state}: {battery['level']:.0%}"


def acknowledged(workflow: Mapping[str, Any]) -> Iterator[str]:
    """What becomes of the messages of acknowledged channels, one line per end and channel."""
    for device, figures in workflow["metrics"].items():
        for name, seen in figures.get("acknowledged", {}).items():
            words = ", ".join(f"{count:,} {what}" for what, count in seen.items() if count)
            yield f"{name} at {device}: {words or 'no message yet'}"


def troubles(workflow: Mapping[str, Any]) -> Iterator[str]:
    """What went wrong on the channels of a workflow, one line per end and channel."""
    for device, figures in workflow["metrics"].items():
        for name, seen in figures.get("channels", {}).items():
            if words := in_words({LOST: seen.get("lost", 0), **seen.get("causes", {})}):
                yield f"{name} at {device}: {words}"
        for name, causes in figures.get("sending", {}).items():
            yield f"{name} from {device}: {in_words(causes)}"
        if words := in_words(figures.get("control", {})):
            yield f"control messages and grants at {device}: {words}"
    for device, channels in workflow["unaccounted"].items():
        for name, count in channels.items():
            yield f"{name} at {device}: {count:,} lost without a word"
