"""Installing models: only under a valid ticket, only whole, and never trusted again unread.

Most run for both kinds of device: one whose slots stay sealed, and one that executes from them in place.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from nacl.bindings import crypto_scalarmult_base
from nacl.signing import SigningKey

from aif.engines.registry import open_engine
from aif.errors import (
    AIFError,
    ArenaOverflow,
    DecryptionFailed,
    DownloadInterrupted,
    Expired,
    FlashOverflow,
    LengthOrHashMismatch,
    NotAuthorised,
    NotFound,
    PlainModelRefused,
    RemoteProtocolError,
    RollbackDetected,
    SignatureInvalid,
)
from aif.protocol.chunks import ChunkCipher, ModelAssembly, SealedRelease, seal_model, split_ciphertext
from aif.protocol.content_keys import KeyUse, wrap_content_key
from aif.protocol.deployment import ModelRelease
from aif.protocol.limits import MAX_MODEL_BYTES
from aif.protocol.ticket import FirmwareRange, ModelAEAD, Slot, Ticket, issue_ticket, ticket_digest
from aif.trusted.model_service import (
    FIRMWARE_ABI,
    FIRMWARE_VERSION,
    SPOILT_PER_DAY,
    Download,
    ModelService,
    OpenInPlace,
    SlotLimits,
)
from aif.trusted.protected_models import DeviceFacts, ProtectedModels
from aif.trusted.state import DeviceState, StateFile
from aif.trusted.storage import StorageService

TICKET_KEY = SigningKey(b"\x01" * 32)
DEVICE, HW = b"d" * 16, b"w" * 16
NOW_S = 1_000_000
LIMITS = SlotLimits(slot_bytes=10_000, arena_bytes=4096)
FIRMWARE = FirmwareRange(FIRMWARE_VERSION, FIRMWARE_VERSION, FIRMWARE_ABI)
CONTENT_KEY, SESSION_SK = b"\x0c" * 32, b"\x0d" * 32
LONG = bytes(range(256)) * 36
"""A model of three chunks."""


def sealed_release(content: bytes, counter: int = 1, component: str = "kws") -> SealedRelease:
    return SealedRelease(component, counter, hashlib.sha256(content).digest(), len(content))


def ciphertext(content: bytes, counter: int = 1, component: str = "kws") -> bytes:
    return b"".join(seal_model(CONTENT_KEY, sealed_release(content, counter, component), content))


def make_ticket(content: bytes, counter: int = 1, component: str = "kws", slot: Slot = Slot.A) -> Ticket:
    stored = ciphertext(content, counter, component)
    return Ticket(
        DEVICE, b"n" * 16, counter, component, slot, hashlib.sha256(content).digest(), len(content),
        hashlib.sha256(stored).digest(), len(stored), 2048, FIRMWARE, NOW_S + 60, HW,
    )  # fmt: skip


def make_release(content: bytes, ticket: Ticket | None, *, key: SigningKey = TICKET_KEY) -> ModelRelease:
    signed = b"" if ticket is None else issue_ticket(ticket, lambda message: key.sign(message).signature)
    digest = hashlib.sha256(content).digest()
    component, counter = ("kws", 1) if ticket is None else (ticket.component, ticket.release_counter)
    return ModelRelease(component, "models/kws", counter, digest, len(content), 2048, signed)


def release(content: bytes = b"model one", counter: int = 1, slot: Slot = Slot.A) -> ModelRelease:
    return make_release(content, make_ticket(content, counter, slot=slot))


def plain_release(content: bytes = b"model one") -> ModelRelease:
    digest = hashlib.sha256(content).digest()
    ticket = replace(
        make_ticket(content), aead=ModelAEAD.NONE, ciphertext_sha256=digest, ciphertext_bytes=len(content)
    )
    return make_release(content, ticket)


def opener(folder: Path) -> OpenInPlace:
    """What the Security Engine of a device does, in this process."""

    def open_in_place(ticket: bytes, wrapped_key: bytes, chunks: Sequence[bytes]) -> Iterable[bytes]:
        facts = DeviceFacts(DEVICE, HW, FIRMWARE_VERSION, FIRMWARE_ABI, bytes(TICKET_KEY.verify_key))
        with closing(StorageService(folder, b"\x0e" * 32, random=os.urandom)) as storage:
            models = ProtectedModels(
                facts, SESSION_SK, storage.keys, open_model=lambda: open_engine, random=os.urandom
            )
            return models.open_in_place(ticket, wrapped_key, 0, chunks)

    return open_in_place


@dataclass
class Bench:
    """One device's slots, and a store that counts its downloads."""

    folder: Path
    service: ModelService
    state: StateFile[DeviceState]
    in_place: bool
    content: bytes = field(default_factory=lambda: ciphertext(b"model one"))
    downloads: list[Download] = field(default_factory=list)

    def fetch(self, wanted: Download) -> bytes:
        self.downloads.append(wanted)
        return self.content

    def key(self, wanted: ModelRelease) -> bytes:
        """The content key, wrapped as a Controller does for this device."""
        if not wanted.ticket:
            return b""
        use = KeyUse.IN_PLACE if self.in_place else KeyUse.RUN
        session_pk = crypto_scalarmult_base(SESSION_SK)
        try:
            digest = ticket_digest(wanted.ticket)
        except RemoteProtocolError:
            digest = bytes(32)
        return wrap_content_key(CONTENT_KEY, session_pk, os.urandom(32), digest, use)

    def install(
        self, wanted: ModelRelease, *, limits: SlotLimits = LIMITS, plain_models: bool = False
    ) -> None:
        self.service.install(
            wanted, limits, self.fetch, wrapped_key=self.key(wanted), plain_models=plain_models
        )

    def publish(self, content: bytes, counter: int, slot: Slot) -> ModelRelease:
        """Offer a release for download and name it."""
        self.content = ciphertext(content, counter)
        return release(content, counter, slot)

    def model(self, component: str = "kws") -> bytes:
        """The plaintext of what is installed, as whoever has the key sees it."""
        slot = self.service.read(component)
        assert (slot.sealed is None) is self.in_place
        if slot.sealed is None:
            return slot.content
        assembly = ModelAssembly(ChunkCipher(CONTENT_KEY, slot.sealed))
        for index, chunk in enumerate(split_ciphertext(slot.sealed, slot.content)):
            assembly.add(index, chunk)
        return assembly.finish()

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir()) if self.folder.exists() else []


def make_bench(folder: Path, *, in_place: bool) -> Bench:
    state = StateFile(folder / "device.cbor", DeviceState)
    state.save(
        DeviceState(
            "left", "b/a", b"c" * 32, None, ticket_pk=bytes(TICKET_KEY.verify_key), time_floor_s=NOW_S
        )
    )
    return again(folder, in_place=in_place)


def again(folder: Path, *, in_place: bool) -> Bench:
    """The device after a restart."""
    state = StateFile(folder / "device.cbor", DeviceState)
    service = ModelService(
        folder / "models", state, device_id=DEVICE, hw_class_id=HW,
        open_in_place=opener(folder / "engine") if in_place else None,
    )  # fmt: skip
    return Bench(folder / "models", service, state, in_place)


@pytest.fixture(params=[False, True], ids=["sealed", "in place"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    return make_bench(tmp_path, in_place=request.param)


def test_a_release_is_installed_and_read(bench: Bench) -> None:
    bench.install(release())
    assert bench.model() == b"model one"
    installed = bench.service.installed("kws")
    assert installed is not None
    assert (installed.counter, installed.slot, installed.bytes_) == (1, "A", 9)


def test_a_release_that_is_installed_is_not_downloaded_again(bench: Bench) -> None:
    bench.install(release())
    bench.install(make_release(b"model one", None))  # nor does it need a ticket
    assert len(bench.downloads) == 1


def test_releases_take_the_slots_in_turn(bench: Bench) -> None:
    for counter, slot in ((1, Slot.A), (2, Slot.B), (3, Slot.A)):
        content = b"model %d" % counter
        bench.install(bench.publish(content, counter, slot))
        assert bench.model() == content
    assert bench.files == ["kws.A", "kws.B"]


GOOD = make_ticket(b"model one")


@pytest.mark.parametrize(
    ("ticket", "error", "words"),
    [
        (replace(GOOD, device_id=b"e" * 16), NotAuthorised, "for another device"),
        (replace(GOOD, hw_class=b"v" * 16), NotAuthorised, "for another hardware class"),
        (replace(GOOD, firmware=FirmwareRange(2, 3, 1)), NotAuthorised, "needs firmware 2 to 3"),
        (replace(GOOD, firmware=FirmwareRange(1, 1, 2)), NotAuthorised, "with ABI 2"),
        (replace(GOOD, not_after_s=NOW_S - 1), Expired, "not valid after"),
        (replace(GOOD, slot=Slot.B), NotAuthorised, "slot B of 'kws' is in use"),
        (replace(GOOD, component="other"), NotAuthorised, "no component 'other'"),
        (replace(GOOD, arena_bytes=5000), ArenaOverflow, "an arena of 5,000 B"),
        (
            replace(GOOD, plaintext_bytes=MAX_MODEL_BYTES, ciphertext_bytes=MAX_MODEL_BYTES + (16 << 14)),
            FlashOverflow,
            "67,108,864 B of flash",
        ),
        (replace(GOOD, release_counter=2), NotAuthorised, "name different releases"),
        (make_ticket(b"another 1"), NotAuthorised, "name different bytes"),
    ],
)
def test_a_ticket_that_does_not_allow_it_stops_the_download(
    bench: Bench, ticket: Ticket, error: type[AIFError], words: str
) -> None:
    wanted = replace(make_release(b"model one", ticket), component="kws", counter=1)
    with pytest.raises(error, match=words):
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
    bench.install(bench.publish(b"model two", 2, Slot.A))
    with pytest.raises(RollbackDetected):
        bench.install(release(b"model one", 1, Slot.B))
    assert bench.model() == b"model two"


def test_no_changed_bit_of_a_ticket_is_believed(bench: Bench) -> None:
    good = release()
    state = bench.state.load()
    for position in range(8 * len(good.ticket)):
        changed = bytearray(good.ticket)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(AIFError):
            bench.service.install(
                replace(good, ticket=bytes(changed)), LIMITS, bench.fetch, wrapped_key=bytes(80)
            )
    assert bench.downloads == []
    assert bench.files == []
    assert bench.state.load() == state


def test_no_changed_bit_of_a_download_is_kept(bench: Bench) -> None:
    good = bench.content
    for position in range(8 * len(good)):
        changed = bytearray(good)
        changed[position // 8] ^= 1 << position % 8
        bench.content = bytes(changed)
        with pytest.raises(LengthOrHashMismatch, match="nothing was installed"):
            bench.install(release())
        if position % SPOILT_PER_DAY == 0:
            bench.state.update(lambda notes: replace(notes, spoilt=()))
    assert bench.files == []
    assert bench.service.installed("kws") is None


@pytest.mark.parametrize(
    "change", [lambda c: c[:-1], lambda c: c + b".", lambda _: b"", lambda _: b"model one"]
)
def test_what_comes_must_be_what_was_signed(bench: Bench, change: Callable[[bytes], bytes]) -> None:
    bench.content = change(bench.content)
    with pytest.raises(LengthOrHashMismatch, match="nothing was installed"):
        bench.install(release())
    assert bench.files == []
    assert bench.service.installed("kws") is None


def test_a_release_that_is_wrong_again_and_again_is_downloaded_no_more_today(bench: Bench) -> None:
    good, bench.content = bench.content, b"wrong"
    for attempt in range(2 * SPOILT_PER_DAY):
        spoilt = attempt < SPOILT_PER_DAY
        with pytest.raises(LengthOrHashMismatch if spoilt else DownloadInterrupted):
            again(bench.folder.parent, in_place=bench.in_place).service.install(
                release(), LIMITS, bench.fetch, wrapped_key=bench.key(release())
            )
    assert len(bench.downloads) == SPOILT_PER_DAY
    assert bench.files == []
    bench.content = good
    with pytest.raises(DownloadInterrupted, match="8 downloads of models/kws were not what"):
        bench.install(release())
    bench.state.update(lambda notes: replace(notes, time_floor_s=notes.time_floor_s + 24 * 3600))
    bench.install(make_release(b"model one", replace(make_ticket(b"model one"), not_after_s=NOW_S + 90_000)))


def test_one_release_that_is_wrong_costs_the_others_nothing(bench: Bench) -> None:
    bench.content = b"wrong"
    for _ in range(SPOILT_PER_DAY):
        with pytest.raises(LengthOrHashMismatch):
            bench.install(release())
    bench.install(bench.publish(b"another", 2, Slot.A))


def test_a_download_that_was_interrupted_may_be_tried_as_often_as_it_takes(bench: Bench) -> None:
    def interrupted(_: Download) -> bytes:
        raise DownloadInterrupted("cut")

    for _ in range(2 * SPOILT_PER_DAY):
        with pytest.raises(DownloadInterrupted, match="cut"):
            bench.service.install(release(), LIMITS, interrupted, wrapped_key=bench.key(release()))
    bench.install(release())


def test_slots_hold_plaintext_only_where_it_is_executed_in_place(bench: Bench) -> None:
    bench.content = ciphertext(LONG)
    bench.install(release(LONG))
    kept = b"".join(path.read_bytes() for path in bench.folder.parent.rglob("*") if path.is_file())
    assert any(LONG[n : n + 64] in kept for n in range(0, len(LONG) - 64, 32)) is bench.in_place
    assert bench.model() == LONG


@pytest.mark.parametrize(
    ("key", "error"),
    [
        (b"", RemoteProtocolError),
        (bytes(80), DecryptionFailed),
        (bytes(79), RemoteProtocolError),
    ],
)
def test_without_its_key_nothing_is_executed_in_place(
    tmp_path: Path, key: bytes, error: type[AIFError]
) -> None:
    bench = make_bench(tmp_path, in_place=True)
    with pytest.raises(error):
        bench.service.install(release(), LIMITS, bench.fetch, wrapped_key=key)
    assert bench.files == []


def test_a_key_that_may_only_run_a_model_does_not_give_it_away(tmp_path: Path) -> None:
    bench, wanted = make_bench(tmp_path, in_place=True), release()
    for digest, use in ((ticket_digest(wanted.ticket), KeyUse.RUN), (bytes(32), KeyUse.IN_PLACE)):
        key = wrap_content_key(CONTENT_KEY, crypto_scalarmult_base(SESSION_SK), os.urandom(32), digest, use)
        with pytest.raises(DecryptionFailed):
            bench.service.install(wanted, LIMITS, bench.fetch, wrapped_key=key)
    assert bench.files == []


def test_sealed_bytes_that_are_not_the_model_of_the_ticket_are_not_executed_in_place(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, in_place=True)
    # a publisher who seals other bytes under the release's name: every tag is right, the model is not
    claimed = sealed_release(b"model one")
    cipher = ChunkCipher(CONTENT_KEY, claimed)
    bench.content = cipher.seal(0, b"model 0ne")
    ticket = replace(GOOD, ciphertext_sha256=hashlib.sha256(bench.content).digest())
    with pytest.raises(LengthOrHashMismatch, match="not the model that was signed"):
        bench.install(make_release(b"model one", ticket))
    assert bench.files == []


def test_plain_models_are_refused_unless_the_site_allows_them(bench: Bench) -> None:
    bench.content = b"model one"
    with pytest.raises(PlainModelRefused, match="is not encrypted") as refused:
        bench.install(plain_release())
    assert "aif site policy --plain-models allow" in refused.value.hint
    assert bench.downloads == []
    bench.install(plain_release(), plain_models=True)
    slot = bench.service.read("kws")
    assert (slot.content, slot.sealed) == (b"model one", None)


def test_a_device_that_was_away_too_long_keeps_what_it_has(bench: Bench) -> None:
    bench.install(release())
    late = bench.publish(b"model two", 2, Slot.B)
    bench.state.update(
        lambda state: replace(state, time_floor_s=NOW_S + 61)
    )  # the Controller's time, on rejoining
    with pytest.raises(Expired):
        bench.install(late)
    assert bench.model() == b"model one"


def test_an_interrupted_download_changes_nothing_and_can_be_tried_again(bench: Bench) -> None:
    bench.install(release())
    wanted = bench.publish(b"model two", 2, Slot.B)

    def cut(_: Download) -> bytes:
        raise DownloadInterrupted("the link is gone")

    with pytest.raises(DownloadInterrupted):
        bench.service.install(wanted, LIMITS, cut, wrapped_key=bench.key(wanted))
    assert bench.model() == b"model one"
    bench.install(wanted)
    assert bench.model() == b"model two"


FILE_EVENTS = frozenset(
    {"open", "os.rename", "os.remove", "os.mkdir", "os.listdir", "os.scandir", "tempfile.mkstemp"}
)


def die_at(step: int) -> None:
    """Kill this process at the n-th time that it touches a file (PEP 578)."""
    count = 0

    def hook(event: str, _: object) -> None:
        nonlocal count
        if event in FILE_EVENTS:
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def test_a_kill_at_every_step_of_an_installation_leaves_the_old_or_the_new_model(
    tmp_path: Path,
) -> None:
    sweep(tmp_path / "sealed", in_place=False)
    sweep(tmp_path / "in place", in_place=True)


def sweep(folder: Path, *, in_place: bool) -> None:
    outcomes = []
    for step in range(1, 200):
        home = folder / str(step)
        bench = make_bench(home, in_place=in_place)
        bench.install(bench.publish(LONG, 1, Slot.A))
        wanted = bench.publish(LONG[::-1], 2, Slot.B)
        child = os.fork()
        if child == 0:
            die_at(step)
            try:
                bench.install(wanted)
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        after = again(home, in_place=in_place)
        outcomes.append(after.model())
        assert outcomes[-1] in (LONG, LONG[::-1])
        after.install(after.publish(LONG[::-1], 2, Slot.B))  # and nothing stands in the way of the rest
        assert after.model() == LONG[::-1]
        if os.WIFEXITED(status):
            assert outcomes[-1] == LONG[::-1]
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
    else:
        raise AssertionError("the installation has more steps than were tried")
    assert outcomes.count(LONG) >= 5  # kills before the new release counts
    assert outcomes == sorted(outcomes, key=lambda model: model == LONG[::-1])  # and never back


def test_a_failed_download_leaves_the_installed_release_in_force(bench: Bench) -> None:
    bench.install(release())
    bench.content = b"cut off"
    with pytest.raises(LengthOrHashMismatch):
        bench.install(release(b"model two", 2, Slot.B))
    assert bench.model() == b"model one"


@pytest.mark.parametrize("changed", [b"model two", b"model onee", b"", None])
def test_bytes_that_change_on_disk_are_refused_and_can_be_installed_again(
    bench: Bench, changed: bytes | None
) -> None:
    bench.install(release())
    file = bench.folder / "kws.A"
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
    assert bench.model() == b"model one"


def test_damage_is_no_way_back_to_an_older_release(bench: Bench) -> None:
    bench.install(bench.publish(b"model two", 2, Slot.A))
    (bench.folder / "kws.A").unlink()
    with pytest.raises(LengthOrHashMismatch):
        bench.service.read("kws")
    with pytest.raises(RollbackDetected):
        bench.install(release(b"model one", 1, Slot.B))


def test_a_damaged_release_is_found_when_it_is_deployed_again(bench: Bench) -> None:
    bench.install(release())
    (bench.folder / "kws.A").write_bytes(b"model two")
    with pytest.raises(LengthOrHashMismatch, match="used no more"):
        bench.install(make_release(b"model one", None))
    bench.install(release(slot=Slot.B))
    assert bench.model() == b"model one"


def test_what_was_never_installed_is_not_found(bench: Bench) -> None:
    with pytest.raises(NotFound):
        bench.service.read("kws")


def test_a_slot_that_cannot_be_read_is_not_given_up(bench: Bench) -> None:
    bench.install(release())
    file = bench.folder / "kws.A"
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
    bench.content = ciphertext(b"model one", component=component)
    bench.install(make_release(b"model one", ticket))
    assert bench.model(component) == b"model one"
    assert bench.files == [f"{component.replace('/', '~')}.A"]
    assert {p for p in bench.folder.parent.iterdir() if p != bench.folder} - outside <= {
        bench.folder.parent / name for name in ("device.lock", "engine")
    }


def test_installed_files_are_private(bench: Bench) -> None:
    bench.install(release())
    assert (bench.folder / "kws.A").stat().st_mode & 0o077 == 0
    assert bench.folder.stat().st_mode & 0o077 == 0
