"""Model Service of a device: a release is installed only under a valid ticket, and only whole.

Order: ticket (who, what, where, how much), then the download, then length and digest, then one atomic write
into the inactive slot, then a trial there (``trials``); only what passed is the installed release. One that
is installed already needs neither ticket nor download. Every read verifies the digest again before anything
opens the bytes.

What a slot holds depends on the device. Where models run in the Security Engine it is the ciphertext, as
downloaded, with the ticket that the engine wants to see. A microcontroller executes from its slot in place:
there each chunk is opened by the engine before it is kept, and the whole plaintext is checked before the slot
counts. Releases that are not encrypted are refused unless the site allows them.

Invariants: the slot in use is never written; a slot counts as installed only after its file is complete; the
release counter of a component never goes back. A slot whose bytes have changed is given up: the device then
says that it has no valid release of that component, and takes the same one again under a new ticket.

Source: MPAI-AIF V2 Model Service; TUF and Uptane for the split between full and partial verification.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from aif.errors import (
    DecryptionFailed,
    DownloadInterrupted,
    LengthOrHashMismatch,
    NotAuthorised,
    NotFound,
)
from aif.protocol.chunks import SealedRelease, split_ciphertext
from aif.protocol.deployment import ModelRelease
from aif.protocol.ticket import (
    ComponentState,
    InstallTarget,
    ModelAEAD,
    Slot,
    Ticket,
    read_ticket,
    verify_ticket,
)
from aif.trusted.state import DeviceState, InstalledModel, SpoiltDownload, StateFile, write_atomically
from aif.trusted.trials import Trials


@dataclass(frozen=True, slots=True)
class Download:
    """What is to be fetched: bytes of this digest and length, which the Store lists under ``path``."""

    path: str
    sha256: bytes
    bytes_: int


Fetch = Callable[[Download], bytes]
"""Gets bytes from wherever they are; whatever it returns is verified here."""

OpenInPlace = Callable[[bytes, bytes, Sequence[bytes]], Iterable[bytes]]
"""Opens sealed chunks under a ticket and a wrapped key, for a device that executes from its slots."""

FIRMWARE_VERSION = 1
FIRMWARE_ABI = 1

SPOILT_PER_DAY = 8
"""Downloads of one release that may turn out to be wrong within a day; no more are begun then. One that was
interrupted is none: it goes on where it stopped."""

_DAY_S = 24 * 3600
_SPOILT_KEPT = 64

NOTHING = bytes(32)
"""Stands where the digest of an installed release would be, for a slot that was given up."""


@dataclass(frozen=True, slots=True)
class SlotLimits:
    """Capacity that the device has for one component, in bytes."""

    slot_bytes: int
    arena_bytes: int


@dataclass(frozen=True, slots=True)
class SlotContent:
    """A slot that was read and verified: plaintext, or the ciphertext of a release with its ticket."""

    content: bytes = field(repr=False)
    ticket: bytes
    sealed: SealedRelease | None


Prove = Callable[[SlotContent], str]
"""Runs what a slot holds and says what it takes and gives (``model_trial.interface``). An ``EngineError`` is
its verdict on the release; what else it raises says nothing about it."""


class ModelService:
    """Slots and installed releases of one device.

    Args:
        folder: holds one file per slot.
        state: says which release each component has.
        device_id: 16 bytes, as tickets name this device.
        hw_class_id: 16 bytes.
        open_in_place: for a device that executes models from its slots; None where they stay sealed.
    """

    def __init__(
        self,
        folder: Path,
        state: StateFile[DeviceState],
        *,
        device_id: bytes,
        hw_class_id: bytes,
        open_in_place: OpenInPlace | None,
    ) -> None:
        self._folder, self._state = folder, state
        self._device_id, self._hw_class_id = device_id, hw_class_id
        self._open_in_place = open_in_place
        self._trials = Trials(state)

    def installed(self, component: str) -> InstalledModel | None:
        return next((m for m in self._state.load().installed if m.component == component), None)

    def install(
        self,
        release: ModelRelease,
        limits: SlotLimits,
        fetch: Fetch,
        *,
        wrapped_key: bytes = b"",
        plain_models: bool = False,
        prove: Prove | None = None,
        package: bytes = b"",
    ) -> InstalledModel:
        """Make ``release`` the installed one of its component.

        Args:
            release: from a verified deployment document.
            limits: what this device has for it.
            fetch: gets the bytes.
            wrapped_key: the content key for this boot; needed where slots hold plaintext.
            plain_models: whether the site allows releases that are not encrypted.
            prove: runs the release that was written, before it counts; None where nothing can run it.
            package: digest of the AIM package that wants it.

        Raises:
            ModelRejected: it failed its trial, now or before; what was installed stays in force.
            TrustError, ResourceExceeded: the ticket does not allow it here; nothing was downloaded.
            PlainModelRefused: it is not encrypted; nothing was downloaded.
            RemoteProtocolError: what came as a ticket or key is none.
            DecryptionFailed: a chunk or the key is not of this release and device; nothing was installed.
            DownloadInterrupted: this release was wrong too often today; nothing was downloaded.
            LengthOrHashMismatch: what came is not what was signed, or the installed bytes have changed and
                there is no ticket to install them again; nothing was installed.
        """
        present = self.installed(release.component)
        if present is not None and present.sha256 == release.sha256 and present.counter == release.counter:
            try:
                self.read(release.component)
            except LengthOrHashMismatch:
                present = self.installed(release.component)
                if not release.ticket:
                    raise
            else:
                return present
        ticket = self._verified(release, limits, present, plain_models=plain_models)
        self._trials.refuse_rejected(ticket.component, ticket.release_counter)
        self._check_budget(release.path, ticket)
        try:
            content = self._fetched(release, ticket, fetch, wrapped_key)
        except (LengthOrHashMismatch, DecryptionFailed):
            self._note_spoilt(ticket)
            raise
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(self._path(release.component, ticket.slot), content)
        model = InstalledModel(
            ticket.component, ticket.release_counter, ticket.plaintext_sha256, ticket.plaintext_bytes,
            ticket.slot, release.ticket, package,
        )  # fmt: skip
        if prove is not None:
            sealed = self._sealed(ticket)
            present = self.installed(release.component)
            model = self._trials.passed(
                model, present, lambda: prove(SlotContent(content, release.ticket, sealed))
            )
        self._state.update(lambda current: _with_model(current, model))
        return model

    def _check_budget(self, path: str, ticket: Ticket) -> None:
        notes = self._state.load()
        today = [s for s in notes.spoilt if s.time_s > notes.time_floor_s - _DAY_S]
        count = sum(spoilt.sha256 == ticket.ciphertext_sha256 for spoilt in today)
        if count >= SPOILT_PER_DAY:
            raise DownloadInterrupted(
                f"{count} downloads of {path} were not what the ticket names; no more are begun today",
                hint="repair the store, then publish the release anew, or try tomorrow",
            )

    def _note_spoilt(self, ticket: Ticket) -> None:
        def change(notes: DeviceState) -> DeviceState:
            fresh = SpoiltDownload(ticket.ciphertext_sha256, notes.time_floor_s)
            return replace(notes, spoilt=(*notes.spoilt, fresh)[-_SPOILT_KEPT:])

        self._state.update(change)

    def _fetched(self, release: ModelRelease, ticket: Ticket, fetch: Fetch, wrapped_key: bytes) -> bytes:
        """What the slot is to hold, downloaded and checked."""
        downloaded = fetch(Download(release.path, ticket.ciphertext_sha256, ticket.ciphertext_bytes))
        if not _is(downloaded, ticket.ciphertext_sha256, ticket.ciphertext_bytes):
            raise LengthOrHashMismatch(
                f"what was downloaded as {release.path} is not what the ticket names; nothing was installed",
                hint="the store, or the way to it, changed the bytes",
            )
        return self._to_keep(downloaded, ticket, release.ticket, wrapped_key)

    def _verified(
        self,
        release: ModelRelease,
        limits: SlotLimits,
        present: InstalledModel | None,
        *,
        plain_models: bool,
    ) -> Ticket:
        """The ticket of a release, when this device must act on it."""
        state = self._state.load()
        if state.ticket_pk is None:
            raise NotAuthorised("this device is not enrolled and installs nothing")
        target_slot = Slot.B if present is not None and present.slot == Slot.A else Slot.A
        component = ComponentState(present.counter if present else 0, target_slot, limits.slot_bytes)
        ticket = verify_ticket(
            release.ticket,
            state.ticket_pk,
            InstallTarget(
                self._device_id, self._hw_class_id, FIRMWARE_VERSION, FIRMWARE_ABI, state.time_floor_s,
                {release.component: component}, limits.arena_bytes,
            ),
            allow_plain=plain_models,
        ).ticket  # fmt: skip
        if (ticket.plaintext_sha256, ticket.plaintext_bytes) != (release.sha256, release.bytes_):
            raise NotAuthorised(f"ticket and deployment name different bytes for {release.component}")
        if ticket.release_counter != release.counter:
            raise NotAuthorised(f"ticket and deployment name different releases of {release.component}")
        return ticket

    def _to_keep(self, downloaded: bytes, ticket: Ticket, signed: bytes, wrapped_key: bytes) -> bytes:
        """What the slot is to hold."""
        if ticket.aead is ModelAEAD.NONE or self._open_in_place is None:
            return downloaded
        chunks = split_ciphertext(SealedRelease.of_ticket(ticket), downloaded)
        plaintext = b"".join(self._open_in_place(signed, wrapped_key, chunks))
        if not _is(plaintext, ticket.plaintext_sha256, ticket.plaintext_bytes):
            raise LengthOrHashMismatch(
                f"the opened chunks of {ticket.component} are not the model that was signed; nothing was "
                "installed",
                hint="the publisher sealed other bytes than the ticket names: publish the release again",
            )
        return plaintext

    def _sealed(self, ticket: Ticket) -> SealedRelease | None:
        """What a slot with the release of this ticket holds sealed; None where it holds plaintext."""
        if ticket.aead is ModelAEAD.NONE or self._open_in_place is not None:
            return None
        return SealedRelease.of_ticket(ticket)

    def read(self, component: str) -> SlotContent:
        """What the slot of a component holds.

        Raises:
            NotFound: nothing is installed.
            LengthOrHashMismatch: the slot no longer holds what was installed, and is given up.
        """
        model = self.installed(component)
        if model is None or model.sha256 == NOTHING:
            raise NotFound(
                f"no valid release of {component} is installed here", hint="deploy the workflow again"
            )
        ticket = read_ticket(model.ticket) if model.ticket else None
        sealed = self._sealed(ticket) if ticket is not None else None
        sha256, length = model.sha256, model.bytes_
        if sealed is not None and ticket is not None:
            sha256, length = ticket.ciphertext_sha256, ticket.ciphertext_bytes
        try:
            with self._path(component, Slot(model.slot)).open("rb") as file:
                content = file.read(length + 1)
        except FileNotFoundError:
            content = b""
        except OSError as error:
            raise LengthOrHashMismatch(
                f"the installed model {component} cannot be read: {error.strerror}"
            ) from error
        if not _is(content, sha256, length):
            self._give_up(model)
            raise LengthOrHashMismatch(
                f"the installed model {component} was changed on this device, and is used no more",
                hint="deploy the workflow again: the device will ask for the release anew",
            )
        return SlotContent(content, model.ticket, sealed)

    def _give_up(self, damaged: InstalledModel) -> None:
        """Keep only what stops a rollback: older releases stay refused, the damaged one does not."""
        empty = replace(damaged, counter=damaged.counter - 1, sha256=NOTHING, bytes_=0, ticket=b"")
        self._state.update(
            lambda current: _with_model(current, empty) if damaged in current.installed else current
        )

    def _path(self, component: str, slot: Slot) -> Path:
        """A component's name may hold slashes, which are no folders here."""
        return self._folder / f"{component.replace('/', '~')}.{slot}"


def _is(content: bytes, sha256: bytes, length: int) -> bool:
    return len(content) == length and hashlib.sha256(content).digest() == sha256


def _with_model(state: DeviceState, model: InstalledModel) -> DeviceState:
    others = tuple(m for m in state.installed if m.component != model.component)
    return replace(state, installed=(*others, model))
