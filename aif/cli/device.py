"""``aif device``: the devices a site knows, from the first pairing code to their revocation.

A verb that takes trust away goes through the running Controller, so that keys change at once; without one it
changes the registry, and the next Controller finds it so. Each verb says which of the two it did.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from aif.cli._options import HomeOption, InventoryOption

if TYPE_CHECKING:
    from aif.cli._wiring import Home
    from aif.runtime.devices.registry import Site
    from aif.trusted.state import DeviceRecord

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Add, enrol, show and revoke the devices a site knows."
)


DeviceArgument = Annotated[str, typer.Argument(help="Device id, as `aif device list` shows it.")]
JSONOption = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


@app.command()
def add(
    device: Annotated[str, typer.Argument(help="Device id in the inventory.")],
    inventory: InventoryOption,
    home: HomeOption = Path(".aif"),
) -> None:
    """Give a device its identity and open its enrolment window for 15 minutes."""
    from aif.cli import _wiring as wiring
    from aif.cli._equipment import equip_device
    from aif.config import load_inventory
    from aif.runtime.devices.registry import Site

    place = wiring.Home(home)
    declared = load_inventory(inventory).device(device)
    site = Site.open_or_create(place.site, os.urandom)
    now_s = int(wiring.now().timestamp())
    hw_class = wiring.device_hw_class(declared.board, declared.arch)
    keys = wiring.identity_of(place, device, hw_class)
    code = site.provision(device, hw_class, place.device_state(device), keys, now_s=now_s)
    _admit(place, device)
    equip_device(place, device, now=wiring.now())
    print(f"device {device} added ({hw_class}); its identity is in {place.device(device)}")
    print(f"pairing code {code}; it may enrol for the next 15 minutes")


@app.command()
def accept(
    manifest: Annotated[Path, typer.Argument(help="What `aif device transfer` wrote at the other site.")],
    home: HomeOption = Path(".aif"),
) -> None:
    """Take a device over that another site has handed on."""
    from aif.cli import _wiring as wiring
    from aif.errors import NotFound
    from aif.runtime.devices.registry import MAX_MANIFEST_BYTES, Site, read_manifest

    try:
        with manifest.open("rb") as file:
            data = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise NotFound(f"{manifest} cannot be read: {error.strerror}") from error
    read = read_manifest(data)
    site = Site.open_or_create(wiring.Home(home).site, os.urandom)
    site.register(read)
    _admit(wiring.Home(home), read.device)
    _note(wiring.Home(home), "accepted from another site", read.device, manifest=_digest(data))
    print(f"device {read.device} is registered ({read.hw_class})")
    print(
        f"reset it where it is:      aif device factory-reset {read.device} --site {site.enrolment_pk.hex()}"
    )
    print(f"then, with its new code:   aif device enrol {read.device} CODE")


@app.command()
def enrol(
    device: DeviceArgument,
    code: Annotated[str, typer.Argument(help="Its pairing code: seven groups of four characters.")],
    home: HomeOption = Path(".aif"),
) -> None:
    """Let a device enrol for 15 minutes; its pairing code proves that you have it."""
    site = _site(home)
    site.open_window(device, code, now_s=_now_s())
    print(f"device {device} may enrol for the next 15 minutes, once, with at most 5 wrong attempts")


@app.command()
def show(device: DeviceArgument, home: HomeOption = Path(".aif"), as_json: JSONOption = False) -> None:
    """Show what the registry says of a device, and where its pairing code is in its life."""
    record = _described(_site(home).device(device))
    if as_json:
        print(json.dumps(record, indent=1))
        return
    for name, value in record.items():
        if value:  # what did not happen needs no line
            print(f"{name.replace('_', ' '):<16} {'yes' if value is True else value}")


@app.command()
def revoke(
    device: DeviceArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the log.")] = "revoked",
    home: HomeOption = Path(".aif"),
) -> None:
    """Take a device's trust back now: rights at the broker, certificates, keys of its channels, registry."""
    _revoke(home, device, reason)
    print(f"`aif device re-enrol {device}` lets it come back")


@app.command()
def lost(device: DeviceArgument, home: HomeOption = Path(".aif")) -> None:
    """Revoke a device that may be in foreign hands: its identity is never admitted again."""
    _revoke(home, device, "lost", lost=True)
    print(f"if you find it: `aif device remove {device}`, then add it with a new identity")


@app.command()
def drain(device: DeviceArgument, home: HomeOption = Path(".aif")) -> None:
    """Move all AIMs of a device to others, while they work; none is put there until `undrain`."""
    import asyncio

    from aif.cli import _wiring as wiring
    from aif.transport import local

    moves = asyncio.run(local.call(wiring.Home(home).socket, "drain", device=device))
    print(f"device {device} is drained; `aif device undrain {device}` lets it work again")
    for aiw, of_one in moves.items():
        for move in of_one:
            print(f"  {aiw}  {move}")


@app.command()
def undrain(device: DeviceArgument, home: HomeOption = Path(".aif")) -> None:
    """Let a drained device run AIMs again; what has left it stays where it is."""
    _site(home).set_drained(device, drained=False)
    print(f"device {device} may run AIMs again")


@app.command("re-enrol")
def re_enrol(device: DeviceArgument, home: HomeOption = Path(".aif")) -> None:
    """Let a device, revoked or not, enrol anew with the identity that it has."""
    site = _site(home)
    record = site.device(device)
    if record.enrolled_s is not None and not record.revoked:
        _revoke(home, device, "it enrols anew")
    from aif.cli import _wiring as wiring
    from aif.cli._equipment import equip_device
    from aif.runtime.devices.registry import reset_device

    place = wiring.Home(home)
    site.re_enrol(device)
    _note(place, "may enrol anew", device, reason=record.reason)
    _admit(place, device)
    state = place.device_state(device)
    if not state.exists():
        print(f"reset it where it is:      aif device factory-reset {device}")
        print(f"then, with its new code:   aif device enrol {device} CODE")
        return
    code = reset_device(state, os.urandom)
    equip_device(place, device, now=wiring.now())
    site.open_window(device, code, now_s=_now_s())
    print(f"device {device} was reset; restart its host")
    print(f"pairing code {code}; it may enrol for the next 15 minutes")


@app.command()
def transfer(
    device: DeviceArgument,
    output: Annotated[Path, typer.Option("--output", help="File for the other site; no secret is in it.")],
    home: HomeOption = Path(".aif"),
) -> None:
    """Hand a device on to another site: it loses its trust here, and keeps its identity."""
    from aif.cli import _wiring as wiring
    from aif.protocol import documents
    from aif.trusted.state import write_atomically

    site = _site(home)
    manifest = documents.encode(site.manifest(device))
    write_atomically(output.resolve(), manifest)
    _revoke(home, device, "it was handed to another site")
    site.forget(device)
    _note(wiring.Home(home), "handed to another site", device, manifest=_digest(manifest))
    print(f"device {device} is not of this site any more")
    print(f"at the other site:         aif device accept {output.name}")


@app.command("factory-reset")
def factory_reset(
    device: DeviceArgument,
    site: Annotated[
        str, typer.Option("--site", help="Key of another site that takes it over, as `accept` prints it.")
    ] = "",
    home: HomeOption = Path(".aif"),
) -> None:
    """Forget on the device everything that a site gave it; its identity stays. Stop its host first."""
    import shutil

    from aif.cli import _wiring as wiring
    from aif.errors import EnrolmentRefused
    from aif.runtime.devices.registry import reset_device

    place = wiring.Home(home)
    try:
        site_pk = bytes.fromhex(site) if site else None
    except ValueError:
        raise EnrolmentRefused("the key of a site is 64 hexadecimal digits") from None
    code = reset_device(place.known_device(device), os.urandom, site_pk=site_pk)
    for folder in ("models", "store-cache"):
        shutil.rmtree(place.device(device) / folder, ignore_errors=True)
    print(f"device {device} was reset: keys, models and floors of its site are gone")
    print(f"pairing code {code}; type it at the site: aif device enrol {device} CODE")


@app.command()
def remove(device: DeviceArgument, home: HomeOption = Path(".aif")) -> None:
    """Forget a device: it gets no key any more, and may be added anew."""
    from aif.cli import _wiring as wiring

    site = _site(home)
    site.device(device)
    wiring.withdraw_rights(wiring.Home(home), device)
    site.forget(device)
    _note(wiring.Home(home), "removed", device)
    print(f"device {device} removed")


@app.command("list")
def list_devices(home: HomeOption = Path(".aif"), as_json: JSONOption = False) -> None:
    """Show every device of the site's registry."""
    records = sorted(_site(home).state.devices, key=lambda record: record.device)
    if as_json:
        print(json.dumps([_described(record) for record in records], indent=1))
        return
    if not records:
        print("no device; `aif device add` brings one in")
    for record in records:
        known = _described(record)
        drained = ", drained" if record.drained else ""
        print(f"{record.device:<16} {record.hw_class:<28} {known['state']}{drained}")


@app.command()
def scan(
    inventory: Annotated[
        Path | None,
        typer.Option("--inventory", help="Write what usable devices announced into this inventory file."),
    ] = None,
    home: HomeOption = Path(".aif"),
    as_json: JSONOption = False,
) -> None:
    """Show what devices announced to the running Controller: hardware, runtimes, what is free; and strangers.

    With --inventory, capacities and speeds go into the file and its version grows; comments, links and what
    people decide (zone, attestation, energy and the like) stay.
    """
    import asyncio

    from aif.cli import _wiring as wiring
    from aif.cli._scan import print_scan, write_inventory
    from aif.transport import local

    found = asyncio.run(local.call(wiring.Home(home).socket, "scan"))
    if as_json:
        print(json.dumps(found, indent=1))
    elif inventory is None:
        print_scan(found)
    if inventory is None:
        return
    update = write_inventory(inventory, found)
    talk = sys.stderr if as_json else sys.stdout
    for device, reason in update.refused.items():
        print(f"{device} is left out: {reason}", file=talk)
    for change in update.changes:
        print(change, file=talk)
    print(f"wrote {inventory}" if update.changes else f"{inventory} is up to date", file=talk)


def _site(home: Path) -> Site:
    from aif.cli import _wiring as wiring
    from aif.runtime.devices.registry import Site

    return Site.open(wiring.Home(home).site, os.urandom)


def _admit(place: Home, device: str) -> None:
    """The broker lets it enrol, also if it was revoked before."""
    from aif.runtime.devices.site_broker import SiteBroker

    SiteBroker(place.site).admit(device)


def _note(place: Home, kind: str, device: str, **facts: str) -> None:
    """An entry of the audit log, signed at once; a Controller that runs may write to it too."""
    from aif.runtime.clock import SystemClock
    from aif.runtime.devices.audit_log import AuditLog

    audit = AuditLog(place.site, SystemClock().time_us)
    audit.note(kind, device, **facts)
    audit.sign()
    if audit.failure:
        typer.echo(f"warning: the audit log has no entry of this: {audit.failure}", err=True)


def _digest(document: bytes) -> str:
    import hashlib

    return hashlib.sha256(document).hexdigest()


def _now_s() -> int:
    from aif.cli import _wiring as wiring

    return int(wiring.now().timestamp())


_NOT_ENROLLED: Final = {
    "created": "not enrolled: no window is open",
    "open": "may enrol until {closes}",
    "used": "not enrolled: it needs a new code",
    "expired": "not enrolled: its window is over",
    "burned": "not enrolled: its code was burned by wrong attempts",
}
"""State in the life of a pairing code, of a device that has not enrolled."""


def _described(record: DeviceRecord) -> dict[str, Any]:
    """What anybody may know of a device; its code is not among it."""
    from aif.runtime.devices.registry import secret_of

    secret = secret_of(record).at(_now_s())
    closes = _time(secret.closes_s)
    state = "enrolled" if record.enrolled_s else _NOT_ENROLLED[secret.state].format(closes=closes)
    return {
        "device": record.device,
        "hardware": record.hw_class,
        "state": "lost" if record.lost else "revoked" if record.revoked else state,
        "pairing_code": str(secret.state),
        "window_closes": closes if secret.state == "open" else None,
        "drained": record.drained,
        "wrong_attempts": record.wrong_macs,
        "enrolled": _time(record.enrolled_s),
        "revoked": _time(record.revoked_s),
        "reason": record.reason,
        "identity": record.identity_pk.hex(),
    }


def _time(seconds: int | None) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).isoformat() if seconds else None


def _revoke(home: Path, device: str, reason: str, *, lost: bool = False) -> None:
    """Through the running Controller, or in the registry when none runs; print every step."""
    import asyncio

    from aif.cli import _wiring as wiring
    from aif.errors import NotConnected, StopFailed
    from aif.transport import local

    place = wiring.Home(home)
    try:
        steps = asyncio.run(local.call(place.socket, "revoke", device=device, reason=reason, lost=lost))
        print(f"device {device} is revoked, by the running Controller:")
    except NotConnected:
        steps = wiring.revoke_in_registry(place, device, reason, lost=lost)
        print(f"device {device} is revoked in the registry; no Controller runs here:")
    for step in steps:
        print(f"  {step['step']:<9} {'' if step['ok'] else 'FAILED: '}{step['outcome']}")
    if not all(step["ok"] for step in steps):
        raise StopFailed(
            f"{device} is revoked, but not every step was taken", hint="do what is missing by hand"
        )
