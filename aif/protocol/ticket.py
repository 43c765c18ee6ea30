"""Install tickets: the Director's order that one device installs one model release into one slot.

Decides the bytes of a ticket and the order in which a device checks one, before it downloads anything.
Does not decide time, versions or slots: the device's own facts are arguments. Invariant: every check has
passed before a caller holds a ``VerifiedTicket``, so no flash is written for a ticket that fails any.

A ticket is an untagged COSE_Sign1 (RFC 9052) with external_aad "AIF-TICKET-1". Its fields follow the SUIT
manifest's: device and hardware class, sequence number, component, digest and size, use-before.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final

from aif.errors import (
    ArenaOverflow,
    Expired,
    FlashOverflow,
    NotAuthorised,
    PlainModelRefused,
    RemoteProtocolError,
    RollbackDetected,
)
from aif.protocol.cbor import Fields, decode, encode_document
from aif.protocol.cose import Sign, parse1, sign1
from aif.protocol.limits import (
    DEFAULT_CHUNK_BYTES,
    HASH_BYTES,
    ID_BYTES,
    MAX_CHUNK_BYTES,
    MAX_MODEL_BYTES,
    MAX_TICKET_BYTES,
    MIN_CHUNK_BYTES,
    TAG_BYTES,
    UINT32_MAX,
    UINT63_MAX,
)

TICKET_VERSION: Final = 1
_AAD: Final = b"AIF-TICKET-1"
_COMPONENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]{0,63}")


class Slot(StrEnum):
    """The two places a component can be in."""

    A = "A"
    B = "B"


class ModelAEAD(IntEnum):
    """How the chunks of the release are sealed."""

    NONE = 0
    """Not encrypted; accepted only where the device's policy says so."""
    CHACHA20_POLY1305 = 1


class TicketCheck(StrEnum):
    """The checks of ``verify_ticket``, in their order."""

    FORMAT = "format"
    SIGNATURE = "signature"
    DEVICE = "device"
    HW_CLASS = "hw_class"
    FIRMWARE = "firmware"
    TIME = "time"
    COUNTER = "counter"
    SLOT = "slot"
    LENGTH = "length"
    ARENA = "arena"
    ENCRYPTION = "encryption"


@dataclass(frozen=True, slots=True)
class FirmwareRange:
    """Firmware that can run the release: versions ``minimum`` .. ``maximum`` with exactly this ``abi``."""

    minimum: int
    maximum: int
    abi: int


@dataclass(frozen=True, slots=True)
class Ticket:
    """One release for one device."""

    device_id: bytes
    nonce: bytes
    release_counter: int
    """Grows with every release of the component; a rollback is a new release."""
    component: str
    slot: Slot
    plaintext_sha256: bytes
    plaintext_bytes: int
    ciphertext_sha256: bytes
    ciphertext_bytes: int
    arena_bytes: int
    firmware: FirmwareRange
    not_after_s: int
    hw_class: bytes
    aead: ModelAEAD = ModelAEAD.CHACHA20_POLY1305
    chunk_bytes: int = DEFAULT_CHUNK_BYTES


@dataclass(frozen=True, slots=True)
class VerifiedTicket:
    """A ticket that passed every check. ``digest`` names it in key wraps and journals."""

    ticket: Ticket
    digest: bytes


@dataclass(frozen=True, slots=True)
class ComponentState:
    """What a device knows about one of its components."""

    counter_floor: int
    """Release counter of the accepted release; a new one must be higher."""
    inactive_slot: Slot
    slot_bytes: int


@dataclass(frozen=True, slots=True)
class InstallTarget:
    """The facts a device holds against a ticket."""

    device_id: bytes
    hw_class: bytes
    firmware_version: int
    abi: int
    time_floor_s: int
    """Highest authenticated Unix time seen; it never goes back."""
    components: Mapping[str, ComponentState]
    arena_bytes: int
    """Tensor arena that the device has for this component."""


def issue_ticket(ticket: Ticket, sign: Sign) -> bytes:
    """Sign a ticket with the site's ticket key.

    Raises:
        LocalProtocolError: a field is out of its range or contradicts another.
    """
    return sign1(encode_document(_document(ticket), _read), sign, external_aad=_AAD, tagged=False)


def verify_ticket(
    data: bytes,
    ticket_pk: bytes,
    target: InstallTarget,
    *,
    allow_plain: bool,
    passed: list[TicketCheck] | None = None,
) -> VerifiedTicket:
    """The ticket in ``data``, if this device must act on it.

    Args:
        data: as received.
        ticket_pk: the ticket key, an anchor from enrolment.
        target: this device's facts.
        allow_plain: whether the site allows releases without encryption.
        passed: receives each check as it passes; after an error the one that failed is the next.

    Raises:
        RemoteProtocolError: too large, malformed or contradictory.
        SignatureInvalid: not by the ticket key.
        NotAuthorised: for another device, hardware class, firmware, component or slot.
        PlainModelRefused: not encrypted.
        Expired: not-after is below the time floor.
        RollbackDetected: the release counter is not above the floor.
        FlashOverflow: larger than the slot.
        ArenaOverflow: needs a larger arena than there is.
    """
    log: list[TicketCheck] = [] if passed is None else passed
    envelope = parse1(data, tagged=False, max_bytes=MAX_TICKET_BYTES)
    ticket = _read(envelope.unverified_payload)
    if envelope.kid is not None:
        raise RemoteProtocolError("ticket: the unprotected header must be empty")
    log.append(TicketCheck.FORMAT)
    payload = envelope.verify(ticket_pk, external_aad=_AAD)
    log.append(TicketCheck.SIGNATURE)
    _check_addressee(ticket, target, log)
    _check_release(ticket, target, log)
    if ticket.aead is ModelAEAD.NONE and not allow_plain:
        raise PlainModelRefused(
            f"ticket: release {ticket.release_counter} of {ticket.component!r} is not encrypted",
            hint="publish it encrypted, which `aif store publish` does; or let the site allow plain models "
            "with `aif site policy --plain-models allow`",
        )
    log.append(TicketCheck.ENCRYPTION)
    return VerifiedTicket(ticket, _digest(payload))


def read_ticket(data: bytes) -> Ticket:
    """The fields of a ticket that was verified when it came, and has been in private state since.

    Raises:
        RemoteProtocolError: not a ticket.
    """
    return _read(parse1(data, tagged=False, max_bytes=MAX_TICKET_BYTES).unverified_payload)


def ticket_digest(data: bytes) -> bytes:
    """The digest of a ticket that was verified before, or has just been made; never over the signature.

    Raises:
        RemoteProtocolError: not a ticket.
    """
    return _digest(parse1(data, tagged=False, max_bytes=MAX_TICKET_BYTES).unverified_payload)


def _digest(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=HASH_BYTES).digest()


def _check_addressee(ticket: Ticket, target: InstallTarget, log: list[TicketCheck]) -> None:
    if ticket.device_id != target.device_id:
        raise NotAuthorised("ticket: made for another device")
    log.append(TicketCheck.DEVICE)
    if ticket.hw_class != target.hw_class:
        raise NotAuthorised("ticket: made for another hardware class")
    log.append(TicketCheck.HW_CLASS)
    firmware = ticket.firmware
    if not firmware.minimum <= target.firmware_version <= firmware.maximum or firmware.abi != target.abi:
        raise NotAuthorised(
            f"ticket: needs firmware {firmware.minimum} to {firmware.maximum} with ABI {firmware.abi}, "
            f"this is {target.firmware_version} with ABI {target.abi}",
            hint="update the firmware first",
        )
    log.append(TicketCheck.FIRMWARE)


def _check_release(ticket: Ticket, target: InstallTarget, log: list[TicketCheck]) -> None:
    if ticket.not_after_s < target.time_floor_s:
        raise Expired(
            f"ticket: not valid after {ticket.not_after_s}, and it is {target.time_floor_s} or later"
        )
    log.append(TicketCheck.TIME)
    state = target.components.get(ticket.component)
    if state is None:
        raise NotAuthorised(f"ticket: this device has no component {ticket.component!r}")
    if ticket.release_counter <= state.counter_floor:
        raise RollbackDetected(
            f"ticket: release {ticket.release_counter} of {ticket.component!r} is not above "
            f"{state.counter_floor}",
            hint="publish the wanted content again as a new release",
        )
    log.append(TicketCheck.COUNTER)
    if ticket.slot is not state.inactive_slot:
        raise NotAuthorised(f"ticket: slot {ticket.slot} of {ticket.component!r} is in use")
    log.append(TicketCheck.SLOT)
    if ticket.plaintext_bytes > state.slot_bytes:
        raise FlashOverflow(
            f"release {ticket.release_counter} of {ticket.component!r}",
            needed_bytes=ticket.plaintext_bytes,
            available_bytes=state.slot_bytes,
        )
    log.append(TicketCheck.LENGTH)
    if ticket.arena_bytes > target.arena_bytes:
        raise ArenaOverflow(
            f"release {ticket.release_counter} of {ticket.component!r}",
            needed_bytes=ticket.arena_bytes,
            available_bytes=target.arena_bytes,
        )
    log.append(TicketCheck.ARENA)


def _document(ticket: Ticket) -> dict[int, object]:
    return {
        1: TICKET_VERSION,
        2: ticket.device_id,
        3: ticket.nonce,
        4: ticket.release_counter,
        5: f"{ticket.component}:{ticket.slot}",
        6: ticket.plaintext_sha256,
        7: ticket.plaintext_bytes,
        8: ticket.ciphertext_sha256,
        9: ticket.ciphertext_bytes,
        10: ticket.chunk_bytes,
        11: int(ticket.aead),
        12: ticket.arena_bytes,
        13: [ticket.firmware.minimum, ticket.firmware.maximum, ticket.firmware.abi],
        14: ticket.not_after_s,
        15: ticket.hw_class,
    }


def _read(payload: bytes) -> Ticket:
    fields = Fields(decode(payload, max_bytes=MAX_TICKET_BYTES), "ticket")
    fields.version(1, TICKET_VERSION)
    component, _, slot = fields.text(5, "component:slot", max_length=66).rpartition(":")
    if not _COMPONENT.fullmatch(component) or slot not in list(Slot):
        raise RemoteProtocolError("ticket: component:slot must be a component name, ':' and A or B")
    ticket = Ticket(
        device_id=fields.bytes(2, "device id", length=ID_BYTES),
        nonce=fields.bytes(3, "ticket nonce", length=ID_BYTES),
        release_counter=fields.uint(4, "release counter", minimum=1, maximum=UINT32_MAX),
        component=component,
        slot=Slot(slot),
        plaintext_sha256=fields.bytes(6, "plaintext sha256", length=HASH_BYTES),
        plaintext_bytes=fields.uint(7, "plaintext length", minimum=1, maximum=MAX_MODEL_BYTES),
        ciphertext_sha256=fields.bytes(8, "ciphertext sha256", length=HASH_BYTES),
        ciphertext_bytes=fields.uint(9, "ciphertext length", minimum=1, maximum=2 * MAX_MODEL_BYTES),
        chunk_bytes=fields.uint(10, "chunk size", minimum=MIN_CHUNK_BYTES, maximum=MAX_CHUNK_BYTES),
        aead=ModelAEAD(fields.uint(11, "AEAD id", maximum=max(ModelAEAD))),
        arena_bytes=fields.uint(12, "arena bytes", maximum=UINT32_MAX),
        firmware=_read_firmware(fields),
        not_after_s=fields.uint(14, "not-after", maximum=UINT63_MAX),
        hw_class=fields.bytes(15, "hw class", length=ID_BYTES),
    )
    fields.done()
    _refuse_contradictions(ticket)
    return ticket


def _read_firmware(fields: Fields) -> FirmwareRange:
    row = Fields.of_row(fields.array(13, "compatible firmware", max_items=3), "ticket: compatible firmware")
    names = ("min", "max", "abi")
    firmware = FirmwareRange(
        *(row.uint(position, name, maximum=UINT32_MAX) for position, name in enumerate(names))
    )
    if firmware.minimum > firmware.maximum:
        raise RemoteProtocolError("ticket: compatible firmware: min is above max")
    return firmware


def _refuse_contradictions(ticket: Ticket) -> None:
    plain = ticket.aead is ModelAEAD.NONE
    chunks = -(-ticket.plaintext_bytes // ticket.chunk_bytes)
    expected = ticket.plaintext_bytes + (0 if plain else chunks * TAG_BYTES)
    if ticket.ciphertext_bytes != expected:
        raise RemoteProtocolError(
            f"ticket: ciphertext length {ticket.ciphertext_bytes} does not follow from the plaintext length, "
            f"chunk size and AEAD ({expected})"
        )
    if plain and ticket.ciphertext_sha256 != ticket.plaintext_sha256:
        raise RemoteProtocolError("ticket: without encryption both digests must be equal")
