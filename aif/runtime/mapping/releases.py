"""Model releases in a plan: whether a device may have one, its slot there, and the ticket that it needs.

Models are encrypted once per release. A device gets a ticket for the ciphertext, and the content key apart
from it, wrapped for its current boot. What a content key may be used for follows from the device: a
microcontroller executes from its slot in place, every other device runs the model in its Security Engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from aif.errors import PlainModelRefused, StartFailed
from aif.protocol.chunks import SealedRelease
from aif.protocol.content_keys import KeyUse, check_commitment
from aif.protocol.control import InstalledRelease
from aif.protocol.deployment import ModelRelease
from aif.protocol.identifiers import id16
from aif.protocol.limits import DEFAULT_CHUNK_BYTES
from aif.protocol.numbers import HOST_LIMITS, ChannelLimits
from aif.protocol.ticket import FirmwareRange, ModelAEAD, Slot, Ticket, issue_ticket, ticket_digest
from aif.trusted.content_keys import SiteVault
from aif.trusted.model_service import FIRMWARE_ABI, FIRMWARE_VERSION

TICKET_VALIDITY_S = 3600


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model release in the Store, as its publisher signed it.

    Attributes:
        sha256: of the plaintext; ``bytes_`` is its length.
        stored_sha256: of what the Store keeps; ``stored_bytes`` is its length.
        sealed: what its chunks are bound to; None for a plain release.
        key_commitment: what it says about its content key.
        hw_classes: what it was built for; empty for any.
    """

    component: str
    path: str
    counter: int
    sha256: bytes
    bytes_: int
    arena_bytes: int
    stored_sha256: bytes
    stored_bytes: int
    sealed: SealedRelease | None
    key_commitment: bytes = b""
    hw_classes: tuple[str, ...] = ()
    parameters: Mapping[str, float] = field(default_factory=dict)
    """What the AIM around the model must know, such as a threshold found in training."""


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What the deployer must know about a device."""

    hw_class: str
    installed: tuple[InstalledRelease, ...]
    in_place: bool = False
    """Whether it executes models from its slots, which then hold plaintext."""
    limits: ChannelLimits = HOST_LIMITS


@dataclass(frozen=True, slots=True)
class PlacedModel:
    """A release and where it goes. ``key_use`` is None for a plain one."""

    device: str
    aim: str
    component: str
    path: str
    counter: int
    sha256: bytes
    bytes_: int
    arena_bytes: int
    slot: str
    ticket_digest: bytes
    key_use: KeyUse | None


class Ticketing:
    """Says whether a device may have a release, and signs the tickets for it."""

    def __init__(
        self, *, sign: Callable[[bytes], bytes], random: Callable[[int], bytes], vault: SiteVault
    ) -> None:
        self._sign, self._random, self._vault = sign, random, vault

    def check(self, model: ResolvedModel, device: str, hw_class: str, *, plain_models: bool) -> None:
        """See that a device may have a release, before any document names it.

        Raises:
            PlainModelRefused: it is not encrypted, and this site has not allowed that.
            NotFound, DecryptionFailed: the site has no key for it, or another one.
            StartFailed: it was built for other hardware.
        """
        if model.hw_classes and hw_class not in model.hw_classes:
            raise StartFailed(
                f"{model.path} is built for {', '.join(sorted(model.hw_classes))}, {device} is {hw_class}",
                hint="publish the model for that hardware class too, or place its AIM elsewhere",
            )
        if model.sealed is not None:
            check_commitment(self._vault.key(model.path), model.sealed.release_id, model.key_commitment)
        elif not plain_models:
            raise PlainModelRefused(
                f"{model.path} is not encrypted, and this site takes only encrypted models",
                hint="publish it with `aif store publish`, which encrypts; or allow plain models with "
                "`aif site policy --plain-models allow`",
            )

    def ticket(
        self, model: ResolvedModel, arena_bytes: int, device: str, facts: DeviceFacts, now_us: int
    ) -> bytes:
        """A signed ticket for one device, into the slot that it does not use."""
        sealed = model.sealed
        return issue_ticket(
            Ticket(
                id16("device", device), self._random(16), model.counter, model.component,
                _slot(model.component, (model.sha256, model.counter), facts),
                model.sha256, model.bytes_, model.stored_sha256, model.stored_bytes, max(arena_bytes, 1),
                FirmwareRange(FIRMWARE_VERSION, FIRMWARE_VERSION, FIRMWARE_ABI),
                now_us // 1_000_000 + TICKET_VALIDITY_S, id16("hwclass", facts.hw_class),
                ModelAEAD.NONE if sealed is None else sealed.aead,
                DEFAULT_CHUNK_BYTES if sealed is None else sealed.chunk_bytes,
            ),
            self._sign,
        )  # fmt: skip


class DeviceReleases:
    """Releases and tickets of one device in one plan; AIMs that share a model share its ticket."""

    def __init__(
        self, ticketing: Ticketing, device: str, facts: DeviceFacts, now_us: int, *, plain_models: bool
    ) -> None:
        self._ticketing, self._device, self._facts, self._now_us = ticketing, device, facts, now_us
        self._plain_models = plain_models
        self._tickets: dict[str, bytes] = {}
        self.placed: list[PlacedModel] = []

    def release(self, aim: str, model: ResolvedModel, arena_bytes: int) -> ModelRelease:
        """What the document says about the model of one AIM."""
        facts = self._facts
        self._ticketing.check(model, self._device, facts.hw_class, plain_models=self._plain_models)
        arena = arena_bytes or model.arena_bytes
        present = next((i for i in facts.installed if i.component == model.component), None)
        ticket = b""
        if present is not None and (present.sha256, present.counter) == (model.sha256, model.counter):
            digest = present.ticket_digest
        else:
            if model.component not in self._tickets:
                issued = self._ticketing.ticket(model, arena, self._device, facts, self._now_us)
                self._tickets[model.component] = issued
            ticket = self._tickets[model.component]
            digest = ticket_digest(ticket)
        use = KeyUse.IN_PLACE if facts.in_place else KeyUse.RUN
        self.placed.append(
            PlacedModel(
                self._device, aim, model.component, model.path, model.counter, model.sha256, model.bytes_,
                arena, _slot(model.component, (model.sha256, model.counter), facts), digest,
                None if model.sealed is None else use,
            )
        )  # fmt: skip
        return ModelRelease(
            model.component, model.path, model.counter, model.sha256, model.bytes_, arena, ticket
        )


def _slot(component: str, release: tuple[bytes, int], facts: DeviceFacts) -> Slot:
    """Where a release (digest, counter) is, or will be: never the slot that another one is run from."""
    present = next((i for i in facts.installed if i.component == component), None)
    if present is None:
        return Slot.A
    if (present.sha256, present.counter) == release:
        return Slot(present.slot)
    return Slot.B if present.slot == Slot.A else Slot.A
