"""The text of a Mosquitto 2.0 set-up: its settings, and who may read and write which topic.

Decides limits, TLS requirements and the access rules. Writes no file, makes no key, starts nothing.

Every rule names one user and, but for the Controller's, one device's topics; there is no pattern that serves
whoever connects. So a user that is taken off the list can do nothing from the next reload on, also over a
connection that is already open, and no client can make the broker retain more than a few messages.

Invariants: what is not listed is refused; a device writes only its own reports and the channels it produces,
reads only its own orders and the channels it consumes; an enrolment user sees one request and one response
topic; the Controller reads and writes no channel. All topic strings come from ``aif.protocol.topics``.

Source: mosquitto.conf(5) of Mosquitto 2.0; MQTT 3.1.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from aif.errors import LocalProtocolError
from aif.protocol import topics
from aif.protocol.topics import (
    Attestation,
    AttestationTopic,
    DataTopic,
    Enrolment,
    EnrolmentTopic,
    Retained,
    Up,
    UpTopic,
)
from aif.transport.address import TLS_PORT
from aif.transport.base import MAX_PACKET_BYTES

CONFIG_FILE: Final = "mosquitto.conf"
ACCESS_FILE: Final = "access-rules"
CREDENTIALS_FILE: Final = "broker.pem"
CLIENT_AUTHORITIES_FILE: Final = "client-authorities.pem"
REVOCATION_FILE: Final = "revoked.pem"
PID_FILE: Final = "mosquitto.pid"

MAX_INFLIGHT_MESSAGES: Final = 100
MAX_QUEUED_MESSAGES: Final = 10_000
"""Per client. Mosquitto's own 1 000 lost messages in bursts of 5 000 while their sender saw success."""

MAX_QUEUED_BYTES: Final = 32 * 1024 * 1024
MAX_KEEP_ALIVE_S: Final = 60
CONNECTIONS_PER_CLIENT: Final = 2
"""A client that comes back is there twice until its old connection is given up."""

_USER = re.compile(r"[A-Za-z0-9=,._-]{1,128}")
_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """Where the broker listens and finds its files.

    ``bind`` is an address, or empty for all; ``account`` is what a broker that is started as root becomes.
    """

    folder: Path
    clients: int
    port: int = TLS_PORT
    bind: str = "127.0.0.1"
    account: str = ""

    def __post_init__(self) -> None:
        if not self.folder.is_absolute() or _UNWRITABLE.search(str(self.folder)):
            raise LocalProtocolError(f"{str(self.folder)!r} cannot be written in {CONFIG_FILE}")
        if not 1 <= self.port <= 65_535:
            raise LocalProtocolError(f"port {self.port} does not exist", hint="use 1 to 65535")
        if self.clients < 1:
            raise LocalProtocolError("a broker has at least one client")
        if self.account and not _ACCOUNT.fullmatch(self.account):
            raise LocalProtocolError(f"{self.account[:40]!r} is not the name of an account")
        if self.bind:
            try:
                ip_address(self.bind)
            except ValueError as error:
                raise LocalProtocolError(f"{self.bind[:80]!r} is not an address to listen on") from error


@dataclass(frozen=True, slots=True)
class Member:
    """A device and the users that its two certificates make it; a revoked one keeps its row and no right."""

    device: str
    user: str
    enrolment_user: str
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class ChannelAccess:
    """One data topic under a mapping: the device that writes it and those that read it."""

    topic: str
    source: str
    destinations: tuple[str, ...]


def configuration(settings: BrokerSettings) -> str:
    """The text of ``mosquitto.conf``."""
    at = settings.folder
    lines = [
        "per_listener_settings false",
        *([f"user {settings.account}"] if settings.account else []),
        f"pid_file {at / PID_FILE}",
        "log_dest stderr",
        "persistence false",
        "",
        "# The subject of a client's certificate is its user and its client id: nobody takes over another's",
        "# connection. The whole subject, because an issuer's name constraint binds only that: by common",
        "# name alone, a factory could make itself a device or the Controller.",
        f"listener {settings.port} {settings.bind}".rstrip(),
        "tls_version tlsv1.3",
        f"cafile {at / CLIENT_AUTHORITIES_FILE}",
        f"certfile {at / CREDENTIALS_FILE}",
        f"keyfile {at / CREDENTIALS_FILE}",
        f"crlfile {at / REVOCATION_FILE}",
        "require_certificate true",
        "use_subject_as_username true",
        "use_username_as_clientid true",
        f"max_connections {settings.clients * CONNECTIONS_PER_CLIENT}",
        "max_qos 1",
        "",
        "allow_anonymous false",
        f"acl_file {at / ACCESS_FILE}",
        "",
        "set_tcp_nodelay true",
        f"max_packet_size {MAX_PACKET_BYTES}",
        f"max_inflight_messages {MAX_INFLIGHT_MESSAGES}",
        f"max_queued_messages {MAX_QUEUED_MESSAGES}",
        f"max_queued_bytes {MAX_QUEUED_BYTES}",
        f"max_keepalive {MAX_KEEP_ALIVE_S}",
    ]
    return "\n".join(lines) + "\n"


def access_rules(controller: str, members: Sequence[Member], channels: Iterable[ChannelAccess]) -> str:
    """The text of the access rules.

    Args:
        controller: the Controller's user.
        members: every device of the site, each once.
        channels: every data topic of the mappings in force.

    Raises:
        LocalProtocolError: a user, a device or a topic that cannot be, or a channel of an unknown device.
    """
    produced: dict[str, set[str]] = {member.device: set() for member in members}
    consumed: dict[str, set[str]] = {member.device: set() for member in members}
    if len(produced) != len(members):
        raise LocalProtocolError("a device is listed twice")
    for channel in channels:
        if not isinstance(topics.parse(channel.topic), DataTopic):
            raise LocalProtocolError(f"{channel.topic} is not the topic of a channel")
        for table, device in ((produced, channel.source), *((consumed, d) for d in channel.destinations)):
            if device not in table:
                raise LocalProtocolError(
                    f"{channel.topic} has an end on {device[:40]!r}, which is not a device of the site",
                    hint="give the inventory on which the workflow is placed",
                )
            table[device].add(channel.topic)
    users = [controller, *(m.user for m in members), *(m.enrolment_user for m in members)]
    if len(set(users)) != len(users):
        raise LocalProtocolError("two clients would be the same user")
    blocks = [_block(controller, *_controller_rules(members))]
    for member in sorted(members, key=lambda member: member.device):
        if member.revoked:
            blocks.append(f"# {member.device} is revoked")
            continue
        device = member.device
        writes = [str(UpTopic(device, what)) for what in Up]
        writes += [str(AttestationTopic(device, Attestation.EVIDENCE)), *sorted(produced[device])]
        reads = [topics.down_filter(device), str(AttestationTopic(device, Attestation.REQUEST))]
        blocks.append(_block(member.user, [*reads, *sorted(consumed[device])], writes))
        blocks.append(
            _block(
                member.enrolment_user,
                [str(EnrolmentTopic(device, Enrolment.RESPONSE))],
                [str(EnrolmentTopic(device, Enrolment.REQUEST))],
            )
        )
    return "\n\n".join(blocks) + "\n"


def _controller_rules(members: Sequence[Member]) -> tuple[list[str], list[str]]:
    """What the Controller reads, and what it writes."""
    reads = [
        topics.up_filter(),
        topics.attestation_filter(Attestation.EVIDENCE),
        topics.enrolment_filter(Enrolment.REQUEST),
        topics.retained_filter(Retained.ANNOUNCE),
    ]
    writes = [
        topics.attestation_filter(Attestation.REQUEST),
        topics.enrolment_filter(Enrolment.RESPONSE),
        *(topics.down_filter(member.device) for member in members if not member.revoked),
        topics.retained_filter(Retained.ANNOUNCE),  # of a revoked device it is taken away
    ]
    return reads, writes


def _block(user: str, reads: Iterable[str], writes: Iterable[str]) -> str:
    if not _USER.fullmatch(user):
        raise LocalProtocolError(f"{user[:80]!r} cannot be a user of the broker")
    lines = [f"user {user}", *(f"topic read {t}" for t in reads), *(f"topic write {t}" for t in writes)]
    return "\n".join(lines)
