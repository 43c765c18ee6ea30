"""Model Service of a device: a release is installed only under a valid ticket, and only whole.

Order: ticket (who, what, where, how much), then the download, then length and digest, then one atomic write
into the inactive slot. A release that is already installed needs neither ticket nor download. Every read
verifies the digest again before an engine may parse the bytes.

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


@dataclass(slots=True)
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
            LengthOrHashMismatch: what came is not what was signed; nothing was installed.
        """
        present = self.installed(release.component)
        if present is not None and present.sha256 == release.sha256 and present.counter == release.counter:
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
        model = InstalledModel(release.component, release.counter, release.sha256, len(content), ticket.slot)
        self._state.update(lambda current: _with_model(current, model))
        return model

    def read(self, component: str) -> bytes:
        """The installed bytes of a component.

        Raises:
            NotFound: nothing is installed.
            LengthOrHashMismatch: the slot no longer holds what was installed.
        """
        model = self.installed(component)
        if model is None:
            raise NotFound(f"no release of {component} is installed here")
        content = self._path(component, Slot(model.slot)).read_bytes()
        if hashlib.sha256(content).digest() != model.sha256:
            raise LengthOrHashMismatch(
                f"the installed model {component} was changed on this device", hint="install it again"
            )
        return content

    def _path(self, component: str, slot: Slot) -> Path:
        return self._folder / f"{component}.{slot}.tflite"


def _with_model(state: DeviceState, model: InstalledModel) -> DeviceState:
    others = tuple(m for m in state.installed if m.component != model.component)
    return replace(state, installed=(*others, model), generation=state.generation + 1)
