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
from typing import Annotated, Final

import typer

from aif.cli._options import AimsOption, HomeOption, InventoryOption
from aif.errors import NotFound, TransportError
from aif.model.inventory import Inventory
from aif.transport import mosquitto_config
from aif.transport.address import TLS_PORT
from aif.transport.mosquitto_config import BrokerSettings, ChannelAccess, Member
from aif.trusted.certificates import PRIVATE_MODE, CertificateAuthority, Subject
from aif.trusted.state import write_atomically

app = typer.Typer(add_completion=False)

LOOPBACK: Final = ("localhost", "127.0.0.1")
MAX_DEPLOYMENTS: Final = 1_000


@dataclass(frozen=True, slots=True)
class BrokerFiles:
    """Where everything lies: ``broker`` for the broker's machine, each file of ``clients`` for its client."""

    root: Path

    @property
    def broker(self) -> Path:
        return self.root / "broker"

    @property
    def configuration(self) -> Path:
        return self.broker / mosquitto_config.CONFIG_FILE

    @property
    def pid(self) -> Path:
        return self.broker / mosquitto_config.PID_FILE

    @property
    def clients(self) -> Path:
        return self.root / "clients"

    @property
    def authority(self) -> Path:
        """What every client trusts."""
        return self.clients / "authority.pem"

    def credentials(self, subject: Subject) -> Path:
        """A client's key and certificate."""
        return self.clients / subject.role.value / f"{subject.common_name}.pem"


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
    """Write a broker's files and every client's credentials; credentials that are still good stay.

    Each file is replaced in one step, and the one that names the others is written last.

    Args:
        authority: the site's.
        devices: all devices of the site, by name.
        channels: all data topics of the mappings in force.
        output: its ``broker`` and ``clients`` folders are made private.
        now: certificates are issued then.
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
    settings = BrokerSettings(
        files.broker, clients=2 * len(members) + 1, port=port, bind=bind, account=account
    )
    configuration = mosquitto_config.configuration(settings)
    rules = mosquitto_config.access_rules(Subject.controller().user, members, channels)
    counts = f"{len(members)} devices, {len(channels)} channels"
    try:
        for folder in (files.broker, files.clients):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(PRIVATE_MODE)
        certificate = files.broker / mosquitto_config.CREDENTIALS_FILE
        written = [_credentials(authority, Subject.broker(), certificate, now, hosts)]
        for name in sorted(gone):
            for subject in (Subject.device(name), Subject.enrolment(name)):
                authority.revoke(subject, now=now)
                files.credentials(subject).unlink(missing_ok=True)
        written += [
            _credentials(authority, subject, files.credentials(subject), now, ())
            for subject in (Subject.controller(), *_subjects(members))
        ]
        lists = authority.revocation_lists_pem(now=now)
        for path, content, note in (
            (files.authority, authority.site_pem, "what every client trusts"),
            (
                files.broker / mosquitto_config.CLIENT_AUTHORITIES_FILE,
                authority.client_authorities_pem,
                "whom the broker trusts",
            ),
            (files.broker / mosquitto_config.REVOCATION_FILE, lists, "certificates taken back"),
            (files.broker / mosquitto_config.ACCESS_FILE, rules.encode(), f"access rules: {counts}"),
            (files.configuration, configuration.encode(), "the broker's settings"),
        ):
            write_atomically(path, content)
            written.append(Written(path, note))
        if account:
            _give(files.broker, account)
    except OSError as error:
        raise TransportError(
            f"the broker's files cannot be written: {error}", hint="choose another --output"
        ) from error
    return tuple(written)


def _subjects(members: Sequence[Member]) -> Iterator[Subject]:
    for member in members:
        if not member.revoked:
            yield Subject.device(member.device)
            yield Subject.enrolment(member.device)


def _credentials(
    authority: CertificateAuthority, subject: Subject, path: Path, now: datetime, hosts: Sequence[str]
) -> Written:
    reason = "new"
    if path.exists():
        reason = authority.replacement_reason(path.read_bytes(), subject, now=now, hosts=hosts)
        if not reason:
            return Written(path, f"{subject.user}, kept")
    path.parent.mkdir(exist_ok=True, mode=PRIVATE_MODE)
    write_atomically(path, authority.issue(subject, now=now, hosts=hosts).pem)
    return Written(path, f"{subject.user}, {reason}")


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
    """Write a complete Mosquitto set-up: mutual TLS 1.3, access rules per device and channel, limits."""
    from aif.cli import _wiring as wiring
    from aif.config import load_inventory

    _check_account(account)
    place, known = wiring.Home(home), load_inventory(inventory)
    channels = [channel for file in workflow for channel in _planned_channels(file, known, aims, deployments)]
    now = wiring.now()
    authority = CertificateAuthority.open_or_create(place.site / "authority", os.urandom, now=now)
    written = broker_config(
        authority,
        [device.id for device in known.devices],
        channels,
        output,
        now=now,
        revoked=_revoked(place.site),
        port=port,
        hosts=host or LOOPBACK,
        bind="" if host else LOOPBACK[1],
        account=account or ("root" if os.geteuid() == 0 else ""),
    )
    for file in written:
        print(f"{file.path}  {file.note}")
    files = BrokerFiles(output.resolve())
    print(f"\nstart it:             mosquitto -c {shlex.quote(str(files.configuration))}")
    print(f'after writing again:  kill -HUP "$(cat {shlex.quote(str(files.pid))})"')
    print(f"clients connect to    mqtts://{(host or LOOPBACK)[0]}:{port}")
    if os.geteuid() == 0 and not account:
        print("warning: the broker will run as root; give --user an account of its own")


def _planned_channels(
    workflow: Path, inventory: Inventory, aims: Sequence[Path], deployments: int
) -> Iterator[ChannelAccess]:
    """The sealed channels of a workflow as it will be placed, for each id that a Controller may give it."""
    from aif.cli import _wiring as wiring
    from aif.config import load_workflow
    from aif.runtime.deployer import remote_channels

    loaded = load_workflow(workflow, wiring.catalogue(aims)).workflow
    device_of = {a.aim: a.device for a in wiring.plan_workflow(loaded, inventory).assignments}
    for number in range(1, deployments + 1):
        for channel in remote_channels(f"{loaded.name}-{number}", loaded, device_of):
            yield ChannelAccess(channel.topic, channel.source_device, channel.destination_devices)


def _revoked(site_folder: Path) -> list[str]:
    """Devices that the site's registry has revoked."""
    from aif.runtime.devices import Site

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
