"""Model Service of a device: a release is installed only under a valid ticket, and only whole.

Order: ticket (who, what, where, how much), then the download, then length and digest, then one atomic write
into the inactive slot. A release that is already installed needs neither ticket nor download. Every read
verifies the digest again before an engine may parse the bytes.

Invariants: the slot in use is never written; a slot counts as installed only after its file is complete; the
release counter of a component never goes back. A slot whose bytes have changed is given up: the device then
says that it has no valid release of that component, and takes the same one again under a new ticket.

Source: MPAI-AIF V2 Model Service; TUF and Uptane for the split between full and partial verification.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from aif.errors import LengthOrHashMismatch, NotAuthorised, NotFound
from aif.protocol.deployment import ModelRelease
from aif.protocol.ticket import ComponentState, InstallTarget, Slot, verify_ticket
from aif.trusted.state import DeviceState, InstalledModel, StateFile, write_atomically

Fetch = Callable[[ModelRelease], bytes]
"""Gets a release's bytes from wherever they are; whatever it returns is verified here."""

FIRMWARE_VERSION = 1
FIRMWARE_ABI = 1

NOTHING = bytes(32)
"""Stands where the digest of an installed release would be, for a slot that was given up."""


@dataclass(frozen=True, slots=True)
class SlotLimits:
    """Capacity that the device has for one component, in bytes."""

    slot_bytes: int
    arena_bytes: int


class ModelService:
    """Slots and installed releases of one device."""

    def __init__(
        self, folder: Path, state: StateFile[DeviceState], *, device_id: bytes, hw_class_id: bytes
    ) -> None:
        self._folder, self._state = folder, state
        self._device_id, self._hw_class_id = device_id, hw_class_id

    def installed(self, component: str) -> InstalledModel | None:
        return next((m for m in self._state.load().installed if m.component == component), None)

    def install(self, release: ModelRelease, limits: SlotLimits, fetch: Fetch) -> InstalledModel:
        """Make ``release`` the installed one of its component.

        Raises:
            TrustError, ResourceExceeded: the ticket does not allow it here; nothing was downloaded.
            RemoteProtocolError: what came as a ticket is none.
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
        state = self._state.load()
        target_slot = Slot.B if present is not None and present.slot == Slot.A else Slot.A
        component = ComponentState(present.counter if present else 0, target_slot, limits.slot_bytes)
        if state.ticket_pk is None:
            raise NotAuthorised("this device is not enrolled and installs nothing")
        ticket = verify_ticket(
            release.ticket,
            state.ticket_pk,
            InstallTarget(
                self._device_id, self._hw_class_id, FIRMWARE_VERSION, FIRMWARE_ABI, state.time_floor_s,
                {release.component: component}, limits.arena_bytes,
            ),
            allow_plain=True,
        ).ticket  # fmt: skip
        if (ticket.plaintext_sha256, ticket.plaintext_bytes) != (release.sha256, release.bytes_):
            raise NotAuthorised(f"ticket and deployment name different bytes for {release.component}")
        if ticket.release_counter != release.counter:
            raise NotAuthorised(f"ticket and deployment name different releases of {release.component}")
        content = fetch(release)
        if (
            len(content) != ticket.plaintext_bytes
            or hashlib.sha256(content).digest() != ticket.plaintext_sha256
        ):
            raise LengthOrHashMismatch(
                f"what was downloaded as {release.path} is not what the ticket names; nothing was installed",
                hint="the store, or the way to it, changed the bytes",
            )
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(self._path(release.component, ticket.slot), content)
        model = InstalledModel(
            ticket.component, ticket.release_counter, ticket.plaintext_sha256, len(content), ticket.slot
        )
        self._state.update(lambda current: _with_model(current, model))
        return model

    def read(self, component: str) -> bytes:
        """The installed bytes of a component.

        Raises:
            NotFound: nothing is installed.
            LengthOrHashMismatch: the slot no longer holds what was installed, and is given up.
        """
        model = self.installed(component)
        if model is None or model.sha256 == NOTHING:
            raise NotFound(
                f"no valid release of {component} is installed here", hint="deploy the workflow again"
            )
        try:
            with self._path(component, Slot(model.slot)).open("rb") as file:
                content = file.read(model.bytes_ + 1)
        except FileNotFoundError:
            content = b""
        except OSError as error:
            raise LengthOrHashMismatch(
                f"the installed model {component} cannot be read: {error.strerror}"
            ) from error
        if len(content) != model.bytes_ or hashlib.sha256(content).digest() != model.sha256:
            self._give_up(model)
            raise LengthOrHashMismatch(
                f"the installed model {component} was changed on this device, and is used no more",
                hint="deploy the workflow again: the device will ask for the release anew",
            )
        return content

    def _give_up(self, damaged: InstalledModel) -> None:
        """Keep only what stops a rollback: older releases stay refused, the damaged one does not."""
        empty = replace(damaged, counter=damaged.counter - 1, sha256=NOTHING, bytes_=0)
        self._state.update(
            lambda current: _with_model(current, empty) if damaged in current.installed else current
        )

    def _path(self, component: str, slot: Slot) -> Path:
        """A component's name may hold slashes, which are no folders here."""
        return self._folder / f"{component.replace('/', '~')}.{slot}.tflite"


def _with_model(state: DeviceState, model: InstalledModel) -> DeviceState:
    others = tuple(m for m in state.installed if m.component != model.component)
    return replace(state, installed=(*others, model))
