"""``aif trust``: why a device is trusted or not, a challenge now, and the audit log."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from aif.cli._options import HomeOption

if TYPE_CHECKING:
    from aif.protocol.audit import Entry

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Explain the trust in devices, and check the audit log."
)
JSONOption = Annotated[bool, typer.Option("--json", help="Print as JSON, with the signed result in base64.")]

IN_WORDS: Final[Mapping[str, str]] = {
    "format": "the evidence is one well-formed token",
    "key": "its key is registered and not revoked",
    "signature": "this device signed it",
    "profile": "it follows this project's profile",
    "nonce": "it answers this very challenge, for this session and mapping",
    "lifecycle": "the device is in operation",
    "implementation": "the hardware class is the one it was provisioned with",
    "measurement": "every part it measured is what its publisher signed",
    "unknown": "it runs no part that nobody vouches for",
    "debug": "it is not in a debug state",
    "generation": "its storage was not restored from an old copy",
    "policy": "it has every part that the site demands",
}

NO_ENTRY: Final = "the audit log has no entry yet"


@app.command()
def show(
    device: Annotated[str, typer.Argument(help="Device id; none shows all.")] = "",
    home: HomeOption = Path(".aif"),
    as_json: JSONOption = False,
) -> None:
    """Show each device's last verdict; of one device when, every step in words, and what it runs."""
    import asyncio

    from aif.cli import _wiring as wiring
    from aif.transport import local

    known = asyncio.run(local.call(wiring.Home(home).socket, "trust", device=device))
    if as_json:
        print(json.dumps(known, indent=1))
        return
    for entry in known:
        if device:
            _print(entry)
        else:
            print(_line(entry))
    if not known:
        print("no device has said hello")


@app.command()
def verify(device: Annotated[str, typer.Argument(help="Device id.")], home: HomeOption = Path(".aif")) -> int:
    """Challenge a device now and print every step of the appraisal; exit code 1 when it does not pass."""
    import asyncio

    from aif.cli import _wiring as wiring
    from aif.transport import local

    entry = asyncio.run(local.call(wiring.Home(home).socket, "verify", device=device))
    _print(entry)
    return 0 if entry["appraisal"]["passed"] and entry["trust"] == "trusted" else 1


audit = typer.Typer(add_completion=False, help="Read and check the audit log.")
app.add_typer(audit, name="audit")


@audit.callback(invoke_without_command=True)
def audit_show(context: typer.Context, home: HomeOption = Path(".aif"), as_json: JSONOption = False) -> None:
    """Print the audit log; it is checked first."""
    if context.invoked_subcommand is not None:
        return
    entries, _ = _read_audit(home)
    for entry in entries:
        print(_entry_json(entry) if as_json else _entry_line(entry))
    if not entries and not as_json:
        print(NO_ENTRY)


def _entry_json(entry: Entry) -> str:
    return json.dumps(
        {
            "number": entry.number, "time_us": entry.time_us, "kind": entry.kind,
            "subject": entry.subject, "facts": dict(entry.facts),
        }
    )  # fmt: skip


def _entry_line(entry: Entry) -> str:
    facts = " ".join(f"{name}={value}" for name, value in entry.facts.items())
    when = _when(entry.time_us)
    return f"{entry.number:>6} {when} {entry.kind:<18} {entry.subject:<16} {facts}".rstrip()


@audit.command("verify")
def audit_verify(home: HomeOption = Path(".aif")) -> None:
    """Check that nothing was deleted from the audit log, edited in it, or cut off its end."""
    entries, signed = _read_audit(home)
    if not entries:
        print(NO_ENTRY)
        return
    print(f"the audit log is whole: entries {entries[0].number} to {entries[-1].number}")
    print(f"the Controller signed it up to entry {signed}")


def _read_audit(home: Path) -> tuple[list[Entry], int]:
    from aif.cli import _wiring as wiring
    from aif.runtime.clock import SystemClock
    from aif.runtime.devices.audit_log import AuditLog
    from aif.runtime.devices.registry import Site

    place = wiring.Home(home)
    Site.open(place.site, os.urandom)
    return AuditLog(place.site, SystemClock().time_us).verify()


def _headline(entry: Mapping[str, Any]) -> str:
    return f"{entry['device']}: {entry['trust']}" + (f", {entry['reason']}" if entry["reason"] else "")


def _line(entry: Mapping[str, Any]) -> str:
    """One device among all."""
    appraisal = entry["appraisal"]
    if appraisal is None:
        return f"{_headline(entry)}; not appraised since the Controller started"
    steps, when = appraisal["steps"], _when(appraisal["time_us"])
    failed = next((step for step in steps if not step.endswith(": ok")), "")
    verdict = f"passed all {len(steps)} steps" if appraisal["passed"] else f"failed at {failed}"
    return f"{_headline(entry)}; {verdict} at {when}, runs {len(appraisal['components'])} measured parts"


def _print(entry: Mapping[str, Any]) -> None:
    print(_headline(entry))
    appraisal = entry["appraisal"]
    if appraisal is None:
        print("  it has not been appraised since the Controller started")
        return
    verdict = "passed" if appraisal["passed"] else "did not pass"
    if appraisal["passed"] and entry["trust"] in {"rejected", "lost"}:
        verdict = "before that, its last evidence passed"
    print(f"  {verdict} at {_when(appraisal['time_us'])}")
    for line in appraisal["steps"]:
        step, _, outcome = line.partition(": ")
        words = IN_WORDS.get(step, step)
        print(f"  {'ok  ' if outcome == 'ok' else 'FAIL'} {step:<15} {words if outcome == 'ok' else outcome}")
    for part in appraisal["components"]:
        print(f"  runs {part['type']} {part['version']} sha256:{part['sha256'][:16]}")


def _when(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
