"""Installing models: only under a valid ticket, only whole, and never trusted again unread."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from aif.errors import (
    AIFError,
    ArenaOverflow,
    Expired,
    FlashOverflow,
    LengthOrHashMismatch,
    NotAuthorised,
    NotFound,
    RemoteProtocolError,
    RollbackDetected,
    SignatureInvalid,
)
from aif.protocol.deployment import ModelRelease
from aif.protocol.ticket import FirmwareRange, ModelAEAD, Slot, Ticket, issue_ticket
from aif.trusted.model_service import FIRMWARE_ABI, FIRMWARE_VERSION, ModelService, SlotLimits
from aif.trusted.state import DeviceState, StateFile

TICKET_KEY = SigningKey(b"\x01" * 32)
DEVICE, HW = b"d" * 16, b"w" * 16
NOW_S = 1_000_000
LIMITS = SlotLimits(slot_bytes=10_000, arena_bytes=4096)
FIRMWARE = FirmwareRange(FIRMWARE_VERSION, FIRMWARE_VERSION, FIRMWARE_ABI)


def make_ticket(content: bytes, counter: int = 1, component: str = "kws", slot: Slot = Slot.A) -> Ticket:
    digest = hashlib.sha256(content).digest()
    return Ticket(
        DEVICE, b"n" * 16, counter, component, slot, digest, len(content), digest, len(content), 2048,
        FIRMWARE, NOW_S + 60, HW, ModelAEAD.NONE,
    )  # fmt: skip


def make_release(content: bytes, ticket: Ticket | None, *, key: SigningKey = TICKET_KEY) -> ModelRelease:
    signed = b"" if ticket is None else issue_ticket(ticket, lambda message: key.sign(message).signature)
    digest = hashlib.sha256(content).digest()
    component, counter = ("kws", 1) if ticket is None else (ticket.component, ticket.release_counter)
    return ModelRelease(component, "models/kws", counter, digest, len(content), 2048, signed)


def release(content: bytes = b"model one", counter: int = 1, slot: Slot = Slot.A) -> ModelRelease:
    return make_release(content, make_ticket(content, counter, slot=slot))


@dataclass
class Bench:
    """One device's slots, and a store that counts its downloads."""

    folder: Path
    service: ModelService
    state: StateFile[DeviceState]
    content: bytes = b"model one"
    downloads: list[ModelRelease] = field(default_factory=list)

    def fetch(self, wanted: ModelRelease) -> bytes:
        self.downloads.append(wanted)
        return self.content

    def install(self, wanted: ModelRelease, *, limits: SlotLimits = LIMITS) -> None:
        self.service.install(wanted, limits, self.fetch)

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir()) if self.folder.exists() else []


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    state = StateFile(tmp_path / "device.cbor", DeviceState)
    state.save(
        DeviceState(
            "left", "b/a", b"c" * 32, None,
            ticket_pk=bytes(TICKET_KEY.verify_key), time_floor_s=NOW_S,
        )
    )  # fmt: skip
    folder = tmp_path / "models"
    return Bench(folder, ModelService(folder, state, device_id=DEVICE, hw_class_id=HW), state)


def test_a_release_is_installed_and_read(bench: Bench) -> None:
    bench.install(release())
    assert bench.service.read("kws") == b"model one"
    installed = bench.service.installed("kws")
    assert installed is not None
    assert (installed.counter, installed.slot, installed.bytes_) == (1, "A", 9)


def test_a_release_that_is_installed_is_not_downloaded_again(bench: Bench) -> None:
    bench.install(release())
    bench.install(make_release(b"model one", None))  # nor does it need a ticket
    assert len(bench.downloads) == 1


def test_releases_take_the_slots_in_turn(bench: Bench) -> None:
    for counter, slot in ((1, Slot.A), (2, Slot.B), (3, Slot.A)):
        bench.content = b"model %d" % counter
        bench.install(release(bench.content, counter, slot))
        assert bench.service.read("kws") == bench.content
    assert bench.files == ["kws.A.tflite", "kws.B.tflite"]


GOOD = make_ticket(b"model one")


@pytest.mark.parametrize(
    ("ticket", "error"),
    [
        (replace(GOOD, device_id=b"e" * 16), NotAuthorised),
        (replace(GOOD, hw_class=b"v" * 16), NotAuthorised),
        (replace(GOOD, firmware=FirmwareRange(2, 3, 1)), NotAuthorised),
        (replace(GOOD, firmware=FirmwareRange(1, 1, 2)), NotAuthorised),
        (replace(GOOD, not_after_s=NOW_S - 1), Expired),
        (replace(GOOD, slot=Slot.B), NotAuthorised),
        (replace(GOOD, arena_bytes=5000), ArenaOverflow),
        (make_ticket(b"another 1"), NotAuthorised),
    ],
)
def test_a_ticket_that_does_not_allow_it_stops_the_download(
    bench: Bench, ticket: Ticket, error: type[AIFError]
) -> None:
    wanted = make_release(b"model one", ticket)
    with pytest.raises(error):
        bench.install(wanted)
    assert bench.downloads == []
    assert bench.files == []
    assert bench.service.installed("kws") is None


def test_a_model_that_is_too_large_stops_the_download(bench: Bench) -> None:
    with pytest.raises(FlashOverflow):
        bench.install(release(bytes(10_001)))
    assert bench.downloads == []


def test_a_ticket_by_another_key_is_refused(bench: Bench) -> None:
    with pytest.raises(SignatureInvalid):
        bench.install(make_release(b"model one", GOOD, key=SigningKey(b"\x02" * 32)))
    assert bench.downloads == []


def test_without_a_ticket_nothing_is_installed(bench: Bench) -> None:
    with pytest.raises(RemoteProtocolError):
        bench.install(make_release(b"model one", None))
    assert bench.downloads == []


def test_a_device_that_is_not_enrolled_installs_nothing(bench: Bench) -> None:
    bench.state.update(lambda state: replace(state, ticket_pk=None))
    with pytest.raises(NotAuthorised, match="not enrolled and installs nothing"):
        bench.install(release())


def test_ticket_and_deployment_must_name_the_same_release(bench: Bench) -> None:
    with pytest.raises(NotAuthorised, match="name different releases of kws"):
        bench.install(replace(release(), counter=1_000_000))
    with pytest.raises(NotAuthorised, match="name different bytes for kws"):
        bench.install(replace(release(), bytes_=8))
    assert bench.downloads == []


def test_an_older_release_is_refused(bench: Bench) -> None:
    bench.content = b"model two"
    bench.install(release(b"model two", 2))
    with pytest.raises(RollbackDetected):
        bench.install(release(b"model one", 1, Slot.B))
    assert bench.service.read("kws") == b"model two"


@pytest.mark.parametrize("content", [b"model twoo", b"model on", b"", b"Model one", b"model one."])
def test_what_comes_must_be_what_was_signed(bench: Bench, content: bytes) -> None:
    bench.content = content
    with pytest.raises(LengthOrHashMismatch, match="nothing was installed"):
        bench.install(release())
    assert bench.files == []
    assert bench.service.installed("kws") is None


def test_a_failed_download_leaves_the_installed_release_in_force(bench: Bench) -> None:
    bench.install(release())
    bench.content = b"cut off"
    with pytest.raises(LengthOrHashMismatch):
        bench.install(release(b"model two", 2, Slot.B))
    assert bench.service.read("kws") == b"model one"


@pytest.mark.parametrize("changed", [b"model two", b"model onee", b"", None])
def test_bytes_that_change_on_disk_are_refused_and_can_be_installed_again(
    bench: Bench, changed: bytes | None
) -> None:
    bench.install(release())
    file = bench.folder / "kws.A.tflite"
    if changed is None:
        file.unlink()
    else:
        file.write_bytes(changed)
    with pytest.raises(LengthOrHashMismatch, match="the installed model kws was changed on this device"):
        bench.service.read("kws")
    with pytest.raises(NotFound, match="no valid release of kws"):
        bench.service.read("kws")
    given_up = bench.service.installed("kws")
    assert given_up is not None
    assert given_up.sha256 != hashlib.sha256(b"model one").digest()  # so that the Controller sends a ticket
    bench.install(release(slot=Slot.B))
    assert bench.service.read("kws") == b"model one"


def test_damage_is_no_way_back_to_an_older_release(bench: Bench) -> None:
    bench.content = b"model two"
    bench.install(release(b"model two", 2))
    (bench.folder / "kws.A.tflite").unlink()
    with pytest.raises(LengthOrHashMismatch):
        bench.service.read("kws")
    with pytest.raises(RollbackDetected):
        bench.install(release(b"model one", 1, Slot.B))


def test_a_damaged_release_is_found_when_it_is_deployed_again(bench: Bench) -> None:
    bench.install(release())
    (bench.folder / "kws.A.tflite").write_bytes(b"model two")
    with pytest.raises(LengthOrHashMismatch, match="used no more"):
        bench.install(make_release(b"model one", None))
    bench.install(release(slot=Slot.B))
    assert bench.service.read("kws") == b"model one"


def test_what_was_never_installed_is_not_found(bench: Bench) -> None:
    with pytest.raises(NotFound):
        bench.service.read("kws")


def test_a_slot_that_cannot_be_read_is_not_given_up(bench: Bench) -> None:
    bench.install(release())
    file = bench.folder / "kws.A.tflite"
    file.unlink()
    file.mkdir()
    with pytest.raises(LengthOrHashMismatch, match="cannot be read: Is a directory"):
        bench.service.read("kws")
    installed = bench.service.installed("kws")
    assert installed is not None
    assert installed.counter == 1


@pytest.mark.parametrize("component", ["vendor/kws", "a/../../escaped", "a/.."])
def test_the_name_of_a_component_is_no_path(bench: Bench, component: str) -> None:
    outside = {path for path in bench.folder.parent.iterdir() if path != bench.folder}
    ticket = make_ticket(b"model one", component=component)
    bench.install(make_release(b"model one", ticket))
    assert bench.service.read(component) == b"model one"
    assert bench.files == [f"{component.replace('/', '~')}.A.tflite"]
    assert {p for p in bench.folder.parent.iterdir() if p != bench.folder} - outside <= {
        bench.folder.parent / "device.lock"
    }


def test_installed_files_are_private(bench: Bench) -> None:
    bench.install(release())
    assert (bench.folder / "kws.A.tflite").stat().st_mode & 0o077 == 0
    assert bench.folder.stat().st_mode & 0o077 == 0
