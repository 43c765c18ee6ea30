"""The production broker of a site, as far as the site changes it while it runs: rights and revocations.

Keeps who has which certificate and which channels are deployed, writes access rules and revocation lists from
that, and tells the broker to read them again (SIGHUP to the process in its pid file). A site on the embedded
broker has no such set-up; then nothing is written, and revoking only puts certificates on the list.

Invariants: a device may use a channel's topic only between the deployment of its workflow and the end of it;
a revoked device has no rule at all; every file is replaced as a whole before the broker is told; only a
process that is a Mosquitto is ever signalled.

Source: mosquitto(8) for SIGHUP. It applies rules to open connections at once, lists to new ones only, which
is why revoking does both.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from aif.errors import NotFound, TransportError
from aif.transport import mosquitto_config
from aif.transport.mosquitto_config import ChannelAccess, Member
from aif.trusted.authority import CertificateAuthority
from aif.trusted.certificates import Subject
from aif.trusted.state import SiteState, StateFile, write_atomically


class Reload(StrEnum):
    """What became of a change at the broker."""

    TOLD = "the broker reads it now"
    NOT_RUNNING = "no broker runs from this set-up; one that is started reads it"
    NOT_CONFIGURED = "this site has no broker set-up (`aif broker config` writes one)"


@dataclass(frozen=True, slots=True)
class Deployed:
    """The channels of one workflow."""

    aiw: str
    channels: tuple[ChannelAccess, ...]


@dataclass(frozen=True, slots=True)
class BrokerRecord:
    """What must be known to write the rules anew, in the site's folder."""

    folder: str
    """Where the broker's files are."""
    url: str = ""
    """Where clients reach it."""
    account: str = ""
    """Who owns them, when it is not who writes them."""
    devices: tuple[str, ...] = ()
    """Devices that the set-up was made for; those of the registry are added."""
    revoked: tuple[str, ...] = ()
    standing: tuple[ChannelAccess, ...] = ()
    """Channels that are open whether or not their workflow is deployed."""
    deployed: tuple[Deployed, ...] = ()


class SiteBroker:
    """Rights and revocations of one site, in its state folder."""

    def __init__(self, site_folder: Path) -> None:
        self._site = StateFile(site_folder / "site.cbor", SiteState)
        self._record = StateFile(site_folder / "broker.cbor", BrokerRecord)
        self._authority = site_folder / "authority"

    @property
    def configured(self) -> bool:
        return self._record.exists()

    def authority(self, random: Callable[[int], bytes], *, now: datetime) -> CertificateAuthority:
        """The site's authority; made when there is none."""
        return CertificateAuthority.open_or_create(self._authority, random, now=now)

    @property
    def folder(self) -> Path:
        """Where the broker's files are.

        Raises:
            NotFound: there is no set-up.
        """
        return Path(self._record.load().folder)

    @property
    def url(self) -> str:
        """Where clients reach the broker; empty when there is no set-up."""
        return self._record.load().url if self.configured else ""

    def configure(self, record: BrokerRecord) -> None:
        """Remember a set-up; what is deployed and who is revoked stay as they are."""
        if self.configured:
            known = self._record.load()
            record = replace(record, revoked=known.revoked, deployed=known.deployed)
        self._record.save(record)

    # --- rights ------------------------------------------------------------------------------------

    def deployed(self, aiw: str, channels: Iterable[ChannelAccess]) -> Reload:
        """Open the channels of a workflow, and of nothing else that went by its name.

        Raises:
            TransportError: the rules cannot be written, or the broker may not be signalled.
        """
        now_deployed = Deployed(aiw, tuple(channels))
        return self._change(lambda others: (*(d for d in others if d.aiw != aiw), now_deployed))

    def undeployed(self, aiw: str) -> Reload:
        """Close the channels of a workflow."""
        return self._change(lambda all_: tuple(d for d in all_ if d.aiw != aiw))

    def only(self, aiws: Collection[str]) -> Reload:
        """Close the channels of all workflows but these."""
        return self._change(lambda all_: tuple(d for d in all_ if d.aiw in aiws))

    def admit(self, device: str) -> Reload:
        """A device of that name was added; it may enrol, also if an earlier one was revoked."""
        if not self.configured:
            return Reload.NOT_CONFIGURED
        self._record.update(lambda r: replace(r, revoked=tuple(name for name in r.revoked if name != device)))
        return self.refresh()

    def revoke(self, device: str, *, now: datetime) -> Reload:
        """Take all rights and certificates of a device back, for open connections and for new ones.

        Raises:
            TransportError: the rules cannot be written, or the broker may not be signalled; the device's
                certificates are on the list all the same.
        """
        if (self._authority / "authority.cbor").exists():
            authority = CertificateAuthority(self._authority)
            for subject in (Subject.device(device), Subject.enrolment(device)):
                authority.revoke(subject, now=now)
        if not self.configured:
            return Reload.NOT_CONFIGURED
        self._record.update(lambda r: replace(r, revoked=tuple(sorted({*r.revoked, device}))))
        return self.refresh(now=now)

    def _change(self, change: Callable[[tuple[Deployed, ...]], tuple[Deployed, ...]]) -> Reload:
        if not self.configured:
            return Reload.NOT_CONFIGURED
        self._record.update(lambda record: replace(record, deployed=change(record.deployed)))
        return self.refresh()

    # --- files -------------------------------------------------------------------------------------

    def members(self) -> list[Member]:
        """Every device that has or had a right."""
        record = self._record.load()
        try:
            registry = self._site.load().devices
        except NotFound:
            registry = ()
        revoked = {*record.revoked, *(device.device for device in registry if device.revoked)}
        names = {*record.devices, *(device.device for device in registry)}
        return [
            Member(d, Subject.device(d).user, Subject.enrolment(d).user, revoked=d in revoked)
            for d in sorted(names)
        ]

    def rules(self) -> str:
        """The text of the access rules as they should be now."""
        record, members = self._record.load(), self.members()
        known = {member.device for member in members}
        channels = {
            channel.topic: channel
            for channel in (*record.standing, *(c for d in record.deployed for c in d.channels))
            if {channel.source, *channel.destinations} <= known
        }
        return mosquitto_config.access_rules(Subject.controller().user, members, channels.values())

    def refresh(self, *, now: datetime | None = None) -> Reload:
        """Write the rules, and with ``now`` the revocation lists too; tell the broker.

        Raises:
            TransportError: a file cannot be written, or the broker may not be signalled.
        """
        if not self.configured:
            return Reload.NOT_CONFIGURED
        record = self._record.load()
        folder = Path(record.folder)
        contents = {mosquitto_config.ACCESS_FILE: self.rules().encode()}
        if now is not None:
            lists = CertificateAuthority(self._authority).revocation_lists_pem(now=now)
            contents[mosquitto_config.REVOCATION_FILE] = lists
        try:
            for name, content in contents.items():
                write_atomically(folder / name, content)
                if record.account:
                    shutil.chown(folder / name, record.account)
        except OSError as error:
            raise TransportError(
                f"the broker's files in {folder} cannot be written: {error.strerror}",
                hint="run `aif broker config` again where the Controller may write",
            ) from error
        return _tell(folder / mosquitto_config.PID_FILE)


def _tell(pid_file: Path) -> Reload:
    """SIGHUP to the Mosquitto of a pid file."""
    try:
        pid = int(pid_file.read_text(encoding="ascii")[:20])
        if sys.platform == "linux" and Path(f"/proc/{pid}/comm").read_text().strip() != "mosquitto":
            return Reload.NOT_RUNNING  # it crashed, and something else has its number now
        os.kill(pid, signal.SIGHUP)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return Reload.NOT_RUNNING
    except PermissionError as error:
        raise TransportError(
            f"the broker (process {pid_file}) cannot be told to read its access rules again",
            hint="run broker and Controller under one account, or send it SIGHUP",
        ) from error
    return Reload.TOLD
