"""``aif broker config``: a Mosquitto set-up in which every client is who its certificate says."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from aif.cli._options import AimsOption, HomeOption, InventoryOption
from aif.errors import NotFound, TransportError
from aif.model.inventory import Inventory
from aif.transport import mosquitto_config
from aif.transport.address import TLS_PORT
from aif.transport.mosquitto_config import BrokerSettings, ChannelAccess, Member
from aif.trusted.authority import CertificateAuthority, renewed
from aif.trusted.certificates import PRIVATE_MODE, Subject
from aif.trusted.state import write_atomically

if TYPE_CHECKING:
    from aif.cli._wiring import Home

app = typer.Typer(add_completion=False)

LOOPBACK: Final = ("localhost", "127.0.0.1")
MAX_DEPLOYMENTS: Final = 1_000
SPARE_CLIENTS: Final = 33
"""The Controller, and devices that are added while the broker runs."""


@dataclass(frozen=True, slots=True)
class BrokerFiles:
    """Where the broker's files lie."""

    root: Path

    @property
    def configuration(self) -> Path:
        return self.root / mosquitto_config.CONFIG_FILE

    @property
    def pid(self) -> Path:
        return self.root / mosquitto_config.PID_FILE


@dataclass(frozen=True, slots=True)
class Written:
    """One file and what became of it."""

    path: Path
    note: str


def broker_config(
    authority: CertificateAuthority,
    devices: Sequence[str],
    channels: Sequence[ChannelAccess],
    output: Path,
    *,
    now: datetime,
    revoked: Iterable[str] = (),
    port: int = TLS_PORT,
    hosts: Sequence[str] = LOOPBACK,
    bind: str = LOOPBACK[1],
    account: str = "",
) -> tuple[Written, ...]:
    """Write a broker's files; its certificate stays while it is good.

    Each file is replaced in one step, and the one that names the others is written last.

    Args:
        authority: the site's.
        devices: all devices of the site, by name.
        channels: all data topics of the mappings in force.
        output: made private.
        now: the certificate is issued then.
        revoked: devices, also former ones, that lose their certificates and rights.
        port: of the TLS listener.
        hosts: names and addresses by which clients reach the broker.
        bind: address to listen on; empty for all.
        account: what a broker that is started as root becomes; it then owns the broker's files.

    Raises:
        LocalProtocolError: a name, a topic, a host or an address that cannot be.
        TransportError: the files cannot be written there.
    """
    files, gone = BrokerFiles(output.resolve()), frozenset(revoked)
    members = [
        Member(d, Subject.device(d).user, Subject.enrolment(d).user, revoked=d in gone) for d in devices
    ]
    clients = 2 * len(members) + SPARE_CLIENTS
    settings = BrokerSettings(files.root, clients=clients, port=port, bind=bind, account=account)
    configuration = mosquitto_config.configuration(settings)
    rules = mosquitto_config.access_rules(Subject.controller().user, members, channels)
    counts = f"{len(members)} devices, {len(channels)} channels"
    try:
        files.root.mkdir(parents=True, exist_ok=True)
        files.root.chmod(PRIVATE_MODE)
        certificate = files.root / mosquitto_config.CREDENTIALS_FILE
        pem, reason = renewed(authority, Subject.broker(), certificate, now, hosts)
        written = [Written(certificate, f"{Subject.broker().user}, {reason}")]
        for name in sorted(gone):
            for subject in (Subject.device(name), Subject.enrolment(name)):
                authority.revoke(subject, now=now)
        lists = authority.revocation_lists_pem(now=now)
        for path, content, note in (
            (certificate, pem, ""),
            (
                files.root / mosquitto_config.CLIENT_AUTHORITIES_FILE,
                authority.client_authorities_pem,
                "whom the broker trusts",
            ),
            (files.root / mosquitto_config.REVOCATION_FILE, lists, "certificates taken back"),
            (files.root / mosquitto_config.ACCESS_FILE, rules.encode(), f"access rules: {counts}"),
            (files.configuration, configuration.encode(), "the broker's settings"),
        ):
            if content:
                write_atomically(path, content)
            if note:
                written.append(Written(path, note))
        if account:
            _give(files.root, account)
    except OSError as error:
        raise TransportError(
            f"the broker's files cannot be written: {error}", hint="choose another --output"
        ) from error
    return tuple(written)


@dataclass(frozen=True, slots=True)
class SetUp:
    """A broker set-up that was written, and what clients were given for it."""

    configuration: Path
    url: str
    written: tuple[Written, ...]
    reload: str
    """What became of it at a broker that runs already."""


def set_up(
    place: Home,
    devices: Sequence[str],
    output: Path,
    *,
    channels: Sequence[ChannelAccess] = (),
    port: int = TLS_PORT,
    hosts: Sequence[str] = (),
    account: str = "",
) -> SetUp:
    """Write a broker's files, and what the Controller and the devices of a home folder need to reach it.

    Args:
        place: the home folder; it remembers the set-up.
        devices: all devices of the site; those that have an identity in the folder are equipped.
        output: the broker's own folder.
        channels: open whether or not their workflow is deployed.
        port: of the TLS listener.
        hosts: by which clients reach the broker; none for this machine only.
        account: as for ``broker_config``.

    Raises:
        LocalProtocolError, TransportError: as ``broker_config``.
    """
    from aif.cli import _wiring as wiring
    from aif.cli._equipment import equip_controller, equip_device
    from aif.runtime.devices.site_broker import BrokerRecord, SiteBroker

    now, site, files = wiring.now(), SiteBroker(place.site), BrokerFiles(output.resolve())
    names = hosts or LOOPBACK
    url = f"mqtts://{f'[{names[0]}]' if ':' in names[0] else names[0]}:{port}"
    written = list(
        broker_config(
            site.authority(os.urandom, now=now), devices, channels, output,
            now=now, revoked=_revoked(place.site), port=port, hosts=names,
            bind="" if hosts else LOOPBACK[1], account=account or ("root" if os.geteuid() == 0 else ""),
        )
    )  # fmt: skip
    site.configure(BrokerRecord(str(files.root), url, account, tuple(devices), (), tuple(channels)))
    reload = site.refresh(now=now)
    equip_controller(place, now=now)
    written.append(Written(place.controller_tls, "what the Controller needs to reach it"))
    for device in devices:
        if place.device_state(device).exists():
            equip_device(place, device, now=now)
            written.append(Written(place.device_tls(device), f"what {device} needs to enrol"))
    return SetUp(files.configuration, url, tuple(written), str(reload))


def _give(folder: Path, account: str) -> None:
    """Let an account own the broker's files, so that a broker without root's rights can read them."""
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, account)


@app.command()
def config(
    inventory: InventoryOption,
    output: Annotated[Path, typer.Option("--output", help="Folder for the broker's and the clients' files.")],
    workflow: Annotated[
        list[Path], typer.Option("--workflow", help="Workflow that will run, file or folder; repeatable.")
    ] = [],  # noqa: B006  # typer copies it
    home: HomeOption = Path(".aif"),
    aims: AimsOption = [],  # noqa: B006  # typer copies it
    port: Annotated[
        int, typer.Option("--port", min=1, max=65_535, help="TCP port of the broker.")
    ] = TLS_PORT,
    host: Annotated[
        list[str],
        typer.Option("--host", help="Name or address by which clients reach it; default: this machine only."),
    ] = [],  # noqa: B006  # typer copies it
    account: Annotated[
        str, typer.Option("--user", help="Account the broker changes to when root starts it.")
    ] = "",
    deployments: Annotated[
        int,
        typer.Option(
            "--deployments", min=1, max=MAX_DEPLOYMENTS, help="Deployments to cover after a Controller start."
        ),
    ] = 16,
) -> None:
    """Write a complete Mosquitto set-up: mutual TLS 1.3, access rules per device and channel, limits.

    The Controller keeps its access rules up to date while it runs. --workflow is for a broker that it cannot
    signal, such as one on another machine.
    """
    from aif.cli import _wiring as wiring
    from aif.config import load_inventory

    _check_account(account)
    place, known = wiring.Home(home), load_inventory(inventory)
    channels = [channel for file in workflow for channel in _planned_channels(file, known, aims, deployments)]
    devices = [device.id for device in known.devices]
    made = set_up(place, devices, output, channels=channels, port=port, hosts=host, account=account)
    for file in made.written:
        print(f"{file.path}  {file.note}")
    print(f"\nstart it:             mosquitto -c {shlex.quote(str(made.configuration))}")
    print(f"if it runs already:   {made.reload}")
    print(f"clients connect to    {made.url}, which this home folder knows now")
    if os.geteuid() == 0 and not account:
        print("warning: the broker will run as root; give --user an account of its own")


def _planned_channels(
    workflow: Path, inventory: Inventory, aims: Sequence[Path], deployments: int
) -> Iterator[ChannelAccess]:
    """The sealed channels of a workflow as it will be placed, for each id that a Controller may give it."""
    from aif.cli import _wiring as wiring
    from aif.config import load_workflow
    from aif.runtime.mapping.channels import remote_channels
    from partitioner.site import SitePlanner

    contracts = wiring.catalogue(aims)
    loaded = load_workflow(workflow, contracts).workflow
    planned, placement = SitePlanner().place(loaded, inventory, contracts)
    device_of = {a.aim: a.device for a in placement.assignments}
    for number in range(1, deployments + 1):
        for channel in remote_channels(f"{planned.name}-{number}", planned, device_of):
            yield ChannelAccess(channel.topic, channel.source_device, channel.destination_devices)


def _revoked(site_folder: Path) -> list[str]:
    """Devices that the site's registry has revoked."""
    from aif.runtime.devices.registry import Site

    try:
        records = Site(site_folder, os.urandom).state.devices
    except NotFound:
        return []  # no site yet: nobody was enrolled, nobody revoked
    return [record.device for record in records if record.revoked]


def _check_account(account: str) -> None:
    if not account:
        return
    try:
        uid = pwd.getpwnam(account).pw_uid
    except KeyError:
        raise NotFound(f"this machine has no account {account[:40]!r}", hint="see --user") from None
    if os.geteuid() not in {0, uid}:
        raise TransportError("only root can give the files to another account", hint="leave out --user")
