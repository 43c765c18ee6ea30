"""Floors of a device: numbers in its notes that never fall, and the second copy in its Security Engine.

The notes (``state.DeviceState``) are a file that anybody who can write the folder can put back. What must not
go back in it, the site's time, the mapping, the newest versions of the Store and of each model, is told to
the engine with every change, which keeps it in its protected storage. When the device starts, notes below
these floors are lifted to them: what an older file would bring back is refused as before.

Order: the file first, then the engine. A device that dies between both has a file above its floors, which is
no older one. Putting back the engine's storage as well is found at attestation, by its generation.

Invariants: a floor rises or stays; floors of one site are none of another's; a model below its floor is not
used, and the same release may be installed again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from aif.errors import RemoteProtocolError
from aif.protocol import documents
from aif.protocol.limits import UINT63_MAX
from aif.protocol.ticket import Slot
from aif.trusted.model_service import NOTHING
from aif.trusted.psa import PSAError, PSAStatus
from aif.trusted.records import UID_BYTES, RecordId
from aif.trusted.sealed_store import SealedStore
from aif.trusted.state import DeviceState, InstalledModel

TIME: Final = "time"
MAPPING: Final = "mapping"
MODEL: Final = "model "
"""Followed by the name of a component."""
STORE: Final = "store "
"""Followed by a top-level role; older versions of one publisher are found by their models' counters."""
_STORE_ROLES: Final = ("root", "timestamp", "snapshot")

MAX_FLOORS: Final = 256
MAX_NAME: Final = 256
_OWNER: Final = b"AIF device floor"
_MAX_RECORD_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class _Record:
    floors: Mapping[str, int]


class FloorStore:
    """The engine's copy, for the site that it is enrolled at.

    Args:
        store: protected storage of the engine.
        site: the site's public keys, in one order; empty before enrolment.
    """

    def __init__(self, store: SealedStore, site: bytes) -> None:
        self._store, self._enrolled = store, bool(site)
        self._record = RecordId(_OWNER, hashlib.blake2b(site, digest_size=UID_BYTES).digest())

    def read(self) -> dict[str, int]:
        """All floors of this site.

        Raises:
            PSAError: ``DATA_CORRUPT``.
        """
        if not self._enrolled or not self._store.contains(self._record):
            return {}
        try:
            record = documents.decode(_Record, self._store.get(self._record), max_bytes=_MAX_RECORD_BYTES)
        except RemoteProtocolError as error:
            raise PSAError(PSAStatus.DATA_CORRUPT, "the floors of this device are damaged") from error
        return dict(record.floors)

    def lift(self, floors: Mapping[str, int]) -> None:
        """Raise floors, each for itself; lower ones change nothing.

        Raises:
            PSAError: ``BAD_STATE`` before enrolment; ``INVALID_ARGUMENT``; ``INSUFFICIENT_STORAGE``.
        """
        if not self._enrolled:
            raise PSAError(PSAStatus.BAD_STATE, "this device is not enrolled and has no floors")
        if any(not 0 <= value <= UINT63_MAX or len(name) > MAX_NAME for name, value in floors.items()):
            raise PSAError(PSAStatus.INVALID_ARGUMENT, "a floor has a short name and a value from 0 on")
        known = self.read()
        risen = {name: value for name, value in floors.items() if value > known.get(name, 0)}
        if not risen:
            return
        if len(known | risen) > MAX_FLOORS:
            raise PSAError(PSAStatus.INSUFFICIENT_STORAGE, f"a device keeps at most {MAX_FLOORS} floors")
        self._store.put(self._record, documents.encode(_Record(known | risen)))


def floors_of(state: DeviceState) -> dict[str, int]:
    """What the notes say must not fall."""
    store = _store_floors(state)
    return {
        TIME: state.time_floor_s,
        MAPPING: state.mapping_floor,
        **{STORE + role: store[role] for role in _STORE_ROLES if role in store},
        **{MODEL + model.component: _counter(model) for model in state.installed},
    }


def lifted(state: DeviceState, floors: Mapping[str, int]) -> tuple[DeviceState, tuple[str, ...]]:
    """Notes with no number below ``floors``, and the names of those that were.

    A model below its floor is given up: it is not run, and a release from the floor on may come.
    """
    known = floors_of(state)
    fallen = {name: value for name, value in floors.items() if known.get(name, 0) < value}
    roles = {name.removeprefix(STORE): value for name, value in fallen.items() if name.startswith(STORE)}
    if roles:
        nothing_seen = {"root": 0, "timestamp": 0, "snapshot": 0, "targets": {}}
        state = replace(state, store_floors=json.dumps(nothing_seen | _document(state) | roles))
    given_up = {name.removeprefix(MODEL): value for name, value in fallen.items() if name.startswith(MODEL)}
    slots = {model.component: model.slot for model in state.installed}
    models = (
        *(model for model in state.installed if model.component not in given_up),
        *(
            InstalledModel(component, value - 1, NOTHING, 0, slots.get(component, str(Slot.A)))
            for component, value in given_up.items()
        ),
    )
    changed = replace(
        state, installed=models, time_floor_s=max(state.time_floor_s, fallen.get(TIME, 0)),
        mapping_floor=max(state.mapping_floor, fallen.get(MAPPING, 0)),
    )  # fmt: skip
    return changed, tuple(sorted(fallen))


def _counter(model: InstalledModel) -> int:
    """The lowest release that may be used now; of one that was given up, the same may come again."""
    return model.counter + (model.sha256 == NOTHING)


def _document(state: DeviceState) -> dict[str, object]:
    """The floors of the Store; damaged ones are none here, and whoever uses them refuses them."""
    try:
        document = json.loads(state.store_floors) if state.store_floors else {}
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _store_floors(state: DeviceState) -> dict[str, int]:
    return {role: value for role, value in _document(state).items() if type(value) is int and value >= 0}


__all__ = ["MAX_FLOORS", "FloorStore", "floors_of", "lifted"]
