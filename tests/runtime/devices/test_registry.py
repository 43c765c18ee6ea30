"""The life of a device at its site: who may enrol when; what a reset, a revocation and a hand-over leave."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from nacl.public import PrivateKey
from nacl.signing import SigningKey

from aif.errors import AIFError, EnrolmentRefused, Expired, NotFound, RemoteProtocolError
from aif.protocol import documents
from aif.protocol.enrolment import EnrolmentRequest, build_request, open_response
from aif.protocol.identifiers import id16
from aif.protocol.limits import ENROLMENT_WINDOW_S
from aif.protocol.pairing import SecretState
from aif.runtime.devices.registry import Site, read_manifest, reset_device, secret_of
from aif.trusted.security_engine import DeviceKeys
from aif.trusted.state import DeviceState, StateFile

NOW_S = 1_700_000_000
HW = "board/arch"


class Device:
    """A device's folder and keys, without a host."""

    def __init__(self, folder: Path, name: str = "left") -> None:
        self.name = name
        self.state = StateFile(folder / name / "device.cbor", DeviceState)
        self.identity, self.exchange = SigningKey.generate(), PrivateKey.generate()

    def keys(self) -> DeviceKeys:
        return DeviceKeys(bytes(self.identity.verify_key), bytes(self.exchange.public_key))

    def request(self, secret: bytes | None = None) -> bytes:
        return build_request(
            EnrolmentRequest(
                id16("device", self.name), bytes(self.identity.verify_key), bytes(self.exchange.public_key),
                os.urandom(32), id16("hwclass", HW),
            ),
            secret or self.state.load().secret or b"", lambda message: self.identity.sign(message).signature,
        )  # fmt: skip

    def enrol(self, site: Site, *, now_s: int = NOW_S) -> None:
        state, request = self.state.load(), self.request()
        assert state.secret is not None
        answer = site.enrol(self.name, request, b"root", now_s=now_s)
        response = open_response(answer, request, state.secret, state.controller_pk)
        assert response.anchors.result_pk is not None


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site.open_or_create(tmp_path / "site", os.urandom)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def add(site: Site, device: Device, *, now_s: int = NOW_S) -> str:
    return site.provision(device.name, HW, device.state, device.keys, now_s=now_s)


def test_a_code_works_once(site: Site, device: Device) -> None:
    code = add(site, device)
    device.enrol(site)
    record = site.device("left")
    assert (record.enrolled_s, record.secret, record.secret_state) == (NOW_S, None, SecretState.USED)
    with pytest.raises(EnrolmentRefused, match="left is enrolled already") as refused:
        site.open_window("left", code, now_s=NOW_S)
    assert refused.value.hint == "use `aif device re-enrol left` to let it in anew"
    with pytest.raises(AIFError, match="has been used"):
        device.enrol(site)


def test_a_closed_window_needs_a_new_code(site: Site, device: Device) -> None:
    code = add(site, device)
    late = NOW_S + ENROLMENT_WINDOW_S
    with pytest.raises(Expired):
        device.enrol(site, now_s=late)
    assert secret_of(site.device("left")).at(late).state is SecretState.EXPIRED
    new = reset_device(device.state, os.urandom)
    assert new != code
    site.open_window("left", new, now_s=late)
    device.enrol(site, now_s=late)


def test_a_window_that_is_open_is_not_opened_again(site: Site, device: Device) -> None:
    code = add(site, device)
    with pytest.raises(EnrolmentRefused, match="is open already, for 600 s more"):
        site.open_window("left", code, now_s=NOW_S + ENROLMENT_WINDOW_S - 600)
    other = reset_device(device.state, os.urandom)
    with pytest.raises(EnrolmentRefused, match="not the pairing code of left"):
        site.open_window("left", other, now_s=NOW_S)


def test_five_wrong_attempts_burn_the_code(site: Site, device: Device) -> None:
    add(site, device)
    reset_device(device.state, os.urandom)  # the device has another secret than the site
    for attempt in range(5):
        assert site.device("left").wrong_macs == attempt
        with pytest.raises(EnrolmentRefused):
            device.enrol(site)
    assert site.device("left").secret_state is SecretState.BURNED
    assert site.device("left").secret is None


def flood(site: Site, requests: Iterable[bytes]) -> None:
    for request in requests:
        with pytest.raises(AIFError):
            site.enrol("left", request, b"root", now_s=NOW_S)


def test_garbage_and_guesses_of_others_burn_no_code(site: Site, device: Device, tmp_path: Path) -> None:
    """Who reaches the broker, and even who knows the code, but does not have the device."""
    add(site, device)
    stranger = Device(tmp_path, "left")
    secret = device.state.load().secret
    assert secret is not None
    unsigned = bytearray(device.request())
    unsigned[-1] ^= 1
    flood(site, [b"", bytes(200), bytes(4096), bytes(unsigned)] * 3)
    flood(site, (stranger.request(os.urandom(16)) for _ in range(20)))
    flood(site, (stranger.request(secret) for _ in range(20)))
    assert (site.device("left").wrong_macs, site.device("left").secret_state) == (0, SecretState.OPEN)
    device.enrol(site)


def test_a_request_that_is_sent_again_counts_once(site: Site, device: Device) -> None:
    """Not even with requests that the device itself made, earlier or with a wrong code."""
    add(site, device)
    enrolled = device.request()
    site.enrol("left", enrolled, b"root", now_s=NOW_S)
    site.re_enrol("left")
    site.open_window("left", reset_device(device.state, os.urandom), now_s=NOW_S)
    flood(site, [enrolled] * 10)
    assert site.device("left").wrong_macs == 0
    flood(site, [device.request(os.urandom(16))] * 10)
    assert site.device("left").wrong_macs == 1
    device.enrol(site)


def test_a_revoked_device_is_denied_until_it_enrols_anew(site: Site, device: Device) -> None:
    add(site, device)
    device.enrol(site)
    site.revoke("left", "stolen", now_s=NOW_S + 5)
    record = site.device("left")
    assert (record.revoked, record.reason, record.revoked_s) == (True, "stolen", NOW_S + 5)
    code = reset_device(device.state, os.urandom)
    with pytest.raises(EnrolmentRefused, match="left is revoked: stolen"):
        site.open_window("left", code, now_s=NOW_S)
    site.re_enrol("left")
    with pytest.raises(AIFError):
        device.enrol(site)  # not before its code was typed
    site.open_window("left", code, now_s=NOW_S)
    device.enrol(site)
    record = site.device("left")
    assert (record.revoked, record.reason, record.enrolled_s) == (False, "", NOW_S)


def test_revoking_burns_a_code_that_is_open(site: Site, device: Device) -> None:
    add(site, device)
    site.revoke("left", "mistake", now_s=NOW_S)
    assert site.device("left").secret_state is SecretState.BURNED
    with pytest.raises(EnrolmentRefused, match="burned"):
        device.enrol(site)


def test_a_lost_identity_never_comes_back(site: Site, device: Device, tmp_path: Path) -> None:
    add(site, device)
    device.enrol(site)
    site.revoke("left", "lost", now_s=NOW_S, lost=True)
    with pytest.raises(EnrolmentRefused, match="left was lost"):
        site.re_enrol("left")
    with pytest.raises(EnrolmentRefused, match="left was lost"):
        site.manifest("left")
    site.forget("left")
    for name in ("left", "right"):
        again = Device(tmp_path, name)
        again.identity = device.identity
        with pytest.raises(EnrolmentRefused, match="belongs to a device that was lost"):
            add(site, again)
    add(site, Device(tmp_path, "left"))  # with an identity of its own it may


def test_a_reset_keeps_the_identity_and_nothing_else(site: Site, device: Device) -> None:
    add(site, device)
    before = device.state.load()
    device.state.save(
        DeviceState(
            "left", HW, before.controller_pk, None, b"root", b"g" * 32, b"t" * 32, b"d" * 32, 5, 6, "floors",
            result_pk=b"r" * 32,
        )
    )  # fmt: skip
    reset_device(device.state, os.urandom)
    after = device.state.load()
    assert after.secret not in (None, before.secret)
    assert after == DeviceState("left", HW, before.controller_pk, after.secret)
    assert not after.enrolled


def test_another_site_takes_a_device_over(site: Site, device: Device, tmp_path: Path) -> None:
    add(site, device)
    device.enrol(site)
    handed = documents.encode(site.manifest("left"))
    site.forget("left")
    other = Site.open_or_create(tmp_path / "other", os.urandom)
    other.register(read_manifest(handed))
    code = reset_device(device.state, os.urandom, site_pk=other.enrolment_pk)
    other.open_window("left", code, now_s=NOW_S)
    device.enrol(other)
    with pytest.raises(NotFound):
        device.enrol(site)
    with pytest.raises(EnrolmentRefused, match="registered already"):
        other.register(read_manifest(handed))


@pytest.mark.parametrize("damage", [b"", b"\xa0", b"x" * 600])
def test_what_is_no_manifest_is_refused(damage: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read_manifest(damage)


def test_no_secret_is_shown(site: Site, device: Device) -> None:
    code = add(site, device)
    state = site.state
    shown = repr(state) + str(state) + repr(device.state.load())
    for secret in (state.audit_seed, state.result_seed, state.grant_seed, site.device("left").secret):
        assert secret is not None
        assert str(secret)[2:-1] not in shown
        assert secret.hex() not in shown
    assert code not in shown
