"""Security Engine: handles and results only, protected from outside, and its loss is never silent."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey, VerifyKey

from aif.authoring.int8 import build
from aif.authoring.layers import Dense, Layer, Softmax
from aif.engines.registry import open_engine
from aif.errors import (
    AIFError,
    DecryptionFailed,
    EngineError,
    EngineUnavailable,
    LengthOrHashMismatch,
    NotAuthorised,
    RemoteProtocolError,
    ReplayDetected,
    RollbackDetected,
    SignatureInvalid,
)
from aif.protocol import cbor
from aif.protocol.appraisal import AppraisalPolicy
from aif.protocol.chunks import SealedRelease, seal_model
from aif.protocol.content_keys import KeyUse, wrap_content_key
from aif.protocol.control import Hello, sign_hello
from aif.protocol.cose import parse1
from aif.protocol.grant import Grant, Role, RosterRow, issue_grant
from aif.protocol.numbers import AuthMode
from aif.protocol.ticket import FirmwareRange, Slot, Ticket, issue_ticket
from aif.protocol.wrap import wrap
from aif.trusted.attestation import RUNTIME_COMPONENT, Verifier, part
from aif.trusted.encryption import OwnerCrypto
from aif.trusted.engine_messages import (
    CRYPTO_OPERATIONS,
    STORAGE_OPERATIONS,
    Request,
    decode_answer,
    decode_request,
    encode_error,
    encode_request,
    encode_result,
)
from aif.trusted.engine_owner import EngineCrypto, EngineStorage
from aif.trusted.psa import (
    Algorithm,
    KeyAttributes,
    KeyLifetime,
    KeyType,
    KeyUsage,
    PSAError,
    PSAStatus,
    StorageFlag,
    StorageInfo,
)
from aif.trusted.records import derive_key
from aif.trusted.security_engine import EngineSettings, ProtectedModel, SecurityEngine, make_identity
from aif.trusted.storage import DataLocation, OwnerStorage, SecureData
from tests.trusted.process_memory import holds, may_trace_anything

TICKET_KEY, GRANT_KEY = SigningKey(bytes([1]) * 32), SigningKey(bytes([2]) * 32)
DEVICE, HW_CLASS, OWNER = bytes([3]) * 16, bytes([4]) * 16, bytes([5]) * 16
CONTENT_KEY = hashlib.sha256(b"a content key that is in no table").digest()
HOST = Path(__file__).with_name("engine_host.py")
OPENER = "aif.engines.registry:open_engine"


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def settings(folder: Path, **changes: object) -> EngineSettings:
    plain = EngineSettings(
        folder, DEVICE, "hw", HW_CLASS, 1, 1, bytes(GRANT_KEY.verify_key), bytes(TICKET_KEY.verify_key),
        OPENER, create=True,
    )  # fmt: skip
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def model() -> bytes:
    rng = np.random.default_rng(1)
    layers: list[Layer] = [
        Dense(rng.normal(size=(8, 256)), rng.normal(size=256), relu=True),
        Dense(rng.normal(size=(256, 4)), rng.normal(size=4)),
        Softmax(),
    ]
    return build(layers, rng.normal(size=(100, 8)))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecurityEngine]:
    with SecurityEngine(settings(tmp_path_factory.mktemp("engine") / "e"), clock=Clock()) as engine:
        yield engine


@pytest.fixture
def own_engine(tmp_path: Path) -> Iterator[SecurityEngine]:
    with SecurityEngine(settings(tmp_path / "e"), clock=Clock()) as engine:
        yield engine


@dataclass(frozen=True)
class Package:
    """A sealed release and the ticket for it."""

    ticket: bytes
    chunks: tuple[bytes, ...]

    def wrapped(self, session_pk: bytes, key: bytes = CONTENT_KEY, *, use: KeyUse = KeyUse.RUN) -> bytes:
        payload = parse1(self.ticket, tagged=False, max_bytes=512).unverified_payload
        digest = hashlib.blake2b(payload, digest_size=32).digest()
        if len(key) != 32:
            return wrap(key, session_pk, os.urandom(32), digest)
        return wrap_content_key(key, session_pk, os.urandom(32), digest, use)


def package(
    model: bytes,
    counter: int = 5,
    *,
    device: bytes = DEVICE,
    hw_class: bytes = HW_CLASS,
    signer: SigningKey = TICKET_KEY,
    component: str = "kws",
) -> Package:
    digest = hashlib.sha256(model).digest()
    release = SealedRelease(component, counter, digest, len(model))
    chunks = seal_model(CONTENT_KEY, release, model)
    sealed = b"".join(chunks)
    ticket = Ticket(
        device, bytes(16), counter, component, Slot.A, digest, len(model),
        hashlib.sha256(sealed).digest(), len(sealed), 20_000, FirmwareRange(1, 1, 1), 0, hw_class,
    )  # fmt: skip
    return Package(issue_ticket(ticket, signer), chunks)


def load(engine: SecurityEngine, sealed: Package) -> ProtectedModel:
    return engine.load_model(
        sealed.ticket, sealed.wrapped(engine.session_pk), sealed.chunks, runtime="tflite"
    )


def refused(status: PSAStatus) -> pytest.RaisesExc[PSAError]:
    return pytest.RaisesExc(PSAError, check=lambda error: error.status is status)


# --- services through the engine ------------------------------------------------------------------


def test_every_function_of_the_services_is_offered() -> None:
    def functions(kind: type) -> set[str]:
        return {name for name in vars(kind) if name.startswith("psa_")}

    assert functions(OwnerCrypto) == set(CRYPTO_OPERATIONS)
    assert functions(OwnerStorage) == set(STORAGE_OPERATIONS)
    assert functions(EngineCrypto) == set(CRYPTO_OPERATIONS)
    assert functions(EngineStorage) == set(STORAGE_OPERATIONS)


@pytest.mark.integration
def test_storage(engine: SecurityEngine) -> None:
    owner, other = engine.owner(OWNER), engine.owner(bytes(16))
    before = engine.storage_generation()
    owner.psa_its_set(1, b"its")
    owner.psa_ps_set(1, b"ps")
    assert engine.storage_generation() == before + 2
    assert (owner.psa_its_get(1, 0, 9), owner.psa_ps_get(1, 1, 1)) == (b"its", b"s")
    assert owner.psa_its_get_info(1) == StorageInfo(3, 3, StorageFlag.NONE)
    assert owner.psa_ps_get_support() == 1
    owner.psa_ps_create(2, 4)
    owner.psa_ps_set_extended(2, 0, b"ab")
    assert owner.psa_ps_get_info(2) == StorageInfo(4, 2, StorageFlag.NONE)
    with refused(PSAStatus.DOES_NOT_EXIST):
        other.psa_its_get(1, 0, 1)
    owner.psa_its_remove(1)
    owner.psa_ps_remove(1)
    with refused(PSAStatus.DOES_NOT_EXIST):
        owner.psa_its_get_info(1)
    area = owner.area(SecureData(DataLocation.LOCAL_DISK))
    area.create("log", 3)
    area.write("name", b"value")
    assert (area.read("name"), area.info("log").capacity_bytes) == (b"value", 3)
    area.delete("name")
    with refused(PSAStatus.DOES_NOT_EXIST):
        area.read("name")
    with refused(PSAStatus.NOT_SUPPORTED):
        owner.area(SecureData(DataLocation.REMOTE_DISK)).read("name")


@pytest.mark.integration
def test_cryptography(engine: SecurityEngine) -> None:
    owner = engine.owner(OWNER)
    pair = KeyAttributes(
        KeyType.ED25519_KEY_PAIR, Algorithm.PURE_EDDSA, KeyUsage.SIGN_MESSAGE | KeyUsage.VERIFY_MESSAGE, 255
    )
    key = owner.psa_generate_key(pair)
    signature = owner.psa_sign_message(key, Algorithm.PURE_EDDSA, b"message")
    VerifyKey(owner.psa_export_public_key(key)).verify(b"message", signature)
    owner.psa_verify_message(key, Algorithm.PURE_EDDSA, b"message", signature)
    with refused(PSAStatus.INVALID_SIGNATURE):
        owner.psa_verify_message(key, Algorithm.PURE_EDDSA, b"other", signature)
    assert owner.psa_get_key_attributes(key) == replace(pair, key_id=key)
    owner.psa_destroy_key(key)
    with refused(PSAStatus.INVALID_HANDLE):
        owner.psa_get_key_attributes(key)
    hmac = KeyAttributes(
        KeyType.HMAC, Algorithm.HMAC_SHA_256, KeyUsage.SIGN_MESSAGE | KeyUsage.VERIFY_MESSAGE, 160
    )
    key = owner.psa_import_key(hmac, b"\x0b" * 20)  # RFC 4231 case 1
    mac = owner.psa_mac_compute(key, Algorithm.HMAC_SHA_256, b"Hi There")
    assert mac.hex() == "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
    owner.psa_mac_verify(key, Algorithm.HMAC_SHA_256, b"Hi There", mac)
    assert owner.psa_hash_compute(Algorithm.SHA_256, b"abc") == hashlib.sha256(b"abc").digest()
    agree = KeyAttributes(KeyType.X25519_KEY_PAIR, Algorithm.ECDH_HKDF_SHA_256, KeyUsage.DERIVE, 255)
    raw = replace(agree, algorithm=Algorithm.ECDH)
    alice, bob, carol = (owner.psa_generate_key(a) for a in (agree, raw, raw))
    peer = owner.psa_export_public_key(carol)
    shared = owner.psa_raw_key_agreement(Algorithm.ECDH, bob, peer)
    assert shared == owner.psa_raw_key_agreement(Algorithm.ECDH, carol, owner.psa_export_public_key(bob))
    operation = owner.psa_key_derivation_setup(Algorithm.HKDF_SHA_256)
    owner.psa_key_derivation_input_bytes(operation, 0x0203, b"info")
    owner.psa_key_derivation_key_agreement(operation, 0x0101, alice, peer)
    assert len(owner.psa_key_derivation_output_bytes(operation, 9)) == 9
    seal = KeyAttributes(
        KeyType.CHACHA20, Algorithm.CHACHA20_POLY1305, KeyUsage.ENCRYPT | KeyUsage.DECRYPT, 256
    )
    key = owner.psa_key_derivation_output_key(seal, operation)
    owner.psa_key_derivation_abort(operation)
    sealed = owner.psa_aead_encrypt(key, Algorithm.CHACHA20_POLY1305, bytes(12), b"aad", b"text")
    opened = owner.psa_aead_decrypt(key, Algorithm.CHACHA20_POLY1305, bytes(12), b"aad", sealed)
    assert opened == b"text"
    secret = owner.psa_generate_key(
        KeyAttributes(KeyType.DERIVE, Algorithm.HKDF_SHA_512, KeyUsage.DERIVE, 256)
    )
    operation = owner.psa_key_derivation_setup(Algorithm.HKDF_SHA_512)
    owner.psa_key_derivation_input_key(operation, 0x0101, secret)
    assert len(owner.psa_generate_random(33)) == 33


@pytest.mark.integration
@pytest.mark.parametrize(
    ("operation", "arguments", "status"),
    [
        ("unknown", (), PSAStatus.NOT_SUPPORTED),
        ("psa_export_key", (OWNER, 1), PSAStatus.NOT_SUPPORTED),
        ("configure", (), PSAStatus.NOT_SUPPORTED),
        ("__class__", (), PSAStatus.NOT_SUPPORTED),
        ("psa_generate_random", (OWNER,), PSAStatus.INVALID_ARGUMENT),
        ("psa_generate_random", (OWNER, "8"), PSAStatus.INVALID_ARGUMENT),
        ("psa_generate_random", (OWNER, True), PSAStatus.INVALID_ARGUMENT),
        ("psa_generate_random", (b"short", 8), PSAStatus.INVALID_ARGUMENT),
        ("psa_generate_key", (OWNER, [1, 2, 3, 4, 5, 6]), PSAStatus.INVALID_ARGUMENT),
        ("psa_generate_key", (OWNER, {}), PSAStatus.INVALID_ARGUMENT),
        ("read", (OWNER, "moon", 0, "name"), PSAStatus.NOT_SUPPORTED),
        ("write", (OWNER, "ram", 64, "name", b""), PSAStatus.NOT_SUPPORTED),
        ("infer", (1, []), PSAStatus.INVALID_HANDLE),
        ("attest", (b"", [1], 0), PSAStatus.INVALID_ARGUMENT),
        ("model_chunks", (1, 0, [b"chunk"]), PSAStatus.INVALID_HANDLE),
        ("psa_hash_compute", (OWNER, 2**63, b""), PSAStatus.NOT_SUPPORTED),
    ],
)
def test_requests_that_cannot_be_are_refused(
    engine: SecurityEngine, operation: str, arguments: tuple[object, ...], status: PSAStatus
) -> None:
    with refused(status):
        engine.call(operation, *arguments)
    engine.selftest()


@pytest.mark.integration
def test_messages_are_bounded(engine: SecurityEngine) -> None:
    owner = engine.owner(OWNER)
    assert (
        owner.psa_hash_compute(Algorithm.SHA_256, bytes(15 << 20)) == hashlib.sha256(bytes(15 << 20)).digest()
    )
    with refused(PSAStatus.INVALID_ARGUMENT):
        owner.psa_hash_compute(Algorithm.SHA_256, bytes(16 << 20))
    engine.selftest()


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_protocol_error(data: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        decode_request(data)
    with contextlib.suppress(AIFError):
        decode_answer(data, 1)


@given(
    st.integers(0, 2**62),
    st.text(min_size=1, max_size=30),
    st.lists(
        st.one_of(st.integers(-(2**60), 2**60), st.binary(max_size=40), st.text(max_size=9)), max_size=8
    ),
)
def test_messages_round_trip(number: int, operation: str, arguments: list[object]) -> None:
    request = Request(number, operation, arguments)
    assert decode_request(encode_request(request)) == request
    assert decode_answer(encode_result(number, arguments), number) == arguments
    with pytest.raises(RemoteProtocolError):
        decode_answer(encode_result(number, arguments), number + 1)


@pytest.mark.parametrize(
    "error",
    [
        PSAError(PSAStatus.DATA_CORRUPT, "words", hint="do this"),
        RollbackDetected("words", hint="do that"),
        EngineError("words"),
        RemoteProtocolError("words"),
    ],
)
def test_errors_cross_as_themselves(error: AIFError) -> None:
    with pytest.raises(type(error)) as caught:
        decode_answer(encode_error(1, error), 1)
    assert (str(caught.value), caught.value.hint) == (str(error), error.hint)
    assert getattr(caught.value, "status", None) is getattr(error, "status", None)


# --- grants, evidence, identity -------------------------------------------------------------------


def grant_for(
    session_pk: bytes, serial: int = 1, mapping: int = 3, *, channel: bytes = bytes(16)
) -> tuple[Grant, bytes]:
    grant = Grant(
        channel, 1, Role.SEND | Role.RECEIVE, 7, bytes(range(32)), 100, 200, 1000, mapping, serial,
        AuthMode.SIGNED, 4096, (RosterRow(7, bytes(16), bytes(16), bytes(16), bytes(32)),),
    )  # fmt: skip
    return grant, issue_grant(grant, session_pk, GRANT_KEY, os.urandom(32))


@pytest.mark.integration
def test_a_grant_opens_once_and_for_this_boot_only(own_engine: SecurityEngine) -> None:
    grant, blob = grant_for(own_engine.session_pk)
    assert own_engine.open_grant(blob, 150) == grant
    with pytest.raises(ReplayDetected):
        own_engine.open_grant(blob, 150)
    with pytest.raises(RollbackDetected):
        own_engine.open_grant(grant_for(own_engine.session_pk, 2, 2)[1], 150)
    other, blob_of_other = grant_for(own_engine.session_pk, 3, 0, channel=bytes([1]) * 16)
    assert own_engine.open_grant(blob_of_other, 150) == other  # each channel has a mapping of its own
    own_engine.close()
    own_engine.restart()
    with pytest.raises(DecryptionFailed):
        own_engine.open_grant(blob, 150)


@pytest.mark.integration
def test_evidence_satisfies_the_verifier(engine: SecurityEngine) -> None:
    runtime = part(RUNTIME_COMPONENT, bytes(32), "1", b"root")
    verifier = Verifier(
        AppraisalPolicy("policy"), os.urandom, lambda m: SigningKey(b"\x07" * 32).sign(m).signature
    )
    request = verifier.challenge("gw-1", mapping_version=4, now_s=1000)
    verdict = verifier.appraise(
        "gw-1",
        DEVICE,
        engine.attest(request, [runtime], 4),
        identity_pk=engine.identity_pk,
        revoked=False,
        hw_class="hw",
        reference={RUNTIME_COMPONENT: [runtime]},
        last_generation=0,
        now_s=1001,
    )
    assert verdict.session_pk == engine.session_pk
    assert verdict.generation == engine.storage_generation()
    with pytest.raises(RemoteProtocolError):
        engine.attest(b"no challenge", [], 4)


@pytest.mark.integration
def test_the_identity_signs_nothing_but_what_it_is_for(engine: SecurityEngine) -> None:
    verify_key = VerifyKey(engine.identity_pk)
    verify_key.verify(b"AIF-ENROL-Drequest", engine.sign_as_device(b"AIF-ENROL-Drequest"))
    hello = Hello("gw-1", bytes(16), engine.session_pk, bytes(32), 1, 0, ())
    assert sign_hello(hello, engine.sign_as_device)
    evidence = cbor.encode(["Signature1", cbor.encode({1: -8}), b"", b"forged evidence"])
    for message in (b"", b"anything", evidence, b"AIF-GRANT-1"):
        with refused(PSAStatus.NOT_PERMITTED):
            engine.sign_as_device(message)


@pytest.mark.integration
def test_a_device_that_is_not_enrolled_takes_neither_grants_nor_models(tmp_path: Path, model: bytes) -> None:
    with SecurityEngine(settings(tmp_path / "e", grant_pk=None, ticket_pk=None), clock=Clock()) as engine:
        with pytest.raises(NotAuthorised):
            engine.open_grant(grant_for(engine.session_pk)[1], 150)
        with pytest.raises(NotAuthorised):
            load(engine, package(model))


@pytest.mark.integration
def test_anchors_are_taken_once_and_kept_over_a_restart(tmp_path: Path) -> None:
    site = {"grant_pk": bytes(GRANT_KEY.verify_key), "ticket_pk": bytes(TICKET_KEY.verify_key)}
    with SecurityEngine(settings(tmp_path / "e", grant_pk=None, ticket_pk=None), clock=Clock()) as engine:
        with refused(PSAStatus.INVALID_ARGUMENT):
            engine.enrolled(grant_pk=bytes(31), ticket_pk=bytes(32))
        engine.enrolled(**site)
        with refused(PSAStatus.BAD_STATE):
            engine.enrolled(grant_pk=bytes(32), ticket_pk=bytes(32))
        grant, blob = grant_for(engine.session_pk)
        assert engine.open_grant(blob, 150) == grant
        os.kill(engine.pid, signal.SIGKILL)
        engine._link.process.wait(10)
        engine.restart()
        grant, blob = grant_for(engine.session_pk)
        assert engine.open_grant(blob, 150) == grant


@pytest.mark.integration
def test_the_identity_that_was_made_is_the_one_that_starts(tmp_path: Path) -> None:
    plain = settings(tmp_path / "e", create=False)
    keys = make_identity(plain)
    with SecurityEngine(plain, clock=Clock()) as engine:
        assert (engine.identity_pk, engine.exchange_pk) == (keys.identity_pk, keys.exchange_pk)
    assert make_identity(plain) == keys
    assert len({keys.identity_pk, keys.exchange_pk, engine.session_pk}) == 3


@pytest.mark.integration
def test_a_remote_disk_keeps_what_it_cannot_read_or_exchange(tmp_path: Path) -> None:
    disk, kind = tmp_path / "mounted", SecureData(DataLocation.REMOTE_DISK)
    disk.mkdir()
    with SecurityEngine(settings(tmp_path / "e", remote_disk=disk), clock=Clock()) as engine:
        area = engine.owner(OWNER).area(kind)
        area.write("name", b"first value, in clear nowhere")
        (first,) = disk.iterdir()
        old = first.read_bytes()
        area.write("name", b"second value, in clear nowhere")
        (second,) = disk.iterdir()
        assert second != first
        assert area.read("name") == b"second value, in clear nowhere"
        assert b"clear" not in old + second.read_bytes()
        kept = second.read_bytes()
        second.write_bytes(old)
        with refused(PSAStatus.DATA_CORRUPT):
            area.read("name")
        second.unlink()
        with refused(PSAStatus.COMMUNICATION_FAILURE):
            area.read("name")
        second.write_bytes(kept)
        assert engine.owner(bytes(16)).area(kind) is not area
        with refused(PSAStatus.DOES_NOT_EXIST):
            engine.owner(bytes(16)).area(kind).read("name")
        area.delete("name")
        assert not list(disk.iterdir())
    with (
        SecurityEngine(settings(tmp_path / "e"), clock=Clock()) as engine,
        pytest.raises(PSAError, match=r"no remote_disk \(NOT_SUPPORTED\)$") as missing,
    ):
        engine.owner(OWNER).area(kind).write("name", b"")
    assert "--remote-disk FOLDER" in missing.value.hint


# --- protected models -----------------------------------------------------------------------------


@pytest.mark.integration
@pytest.mark.parametrize("runtime", ["tflite", "tflm"])
def test_a_protected_model_answers_as_the_plain_one(
    engine: SecurityEngine, model: bytes, runtime: str
) -> None:
    sealed = package(model, component=f"answers-{runtime}")
    protected = engine.load_model(
        sealed.ticket, sealed.wrapped(engine.session_pk), sealed.chunks, runtime=runtime
    )
    with open_engine(runtime, model, sha256=hashlib.sha256(model).hexdigest(), arena_bytes=20_000) as plain:
        for mine, theirs in zip(
            protected.inputs + protected.outputs, plain.inputs + plain.outputs, strict=True
        ):
            for name in ("name", "shape", "dtype", "scale", "zero_point"):
                assert getattr(mine, name) == getattr(theirs, name)
        for seed in range(5):
            x = np.random.default_rng(seed).integers(-128, 128, (1, 8), np.int8)
            assert protected.infer([x.tobytes()]) == tuple(y.tobytes() for y in plain.infer([x]))
    protected.reset()
    for wrong in ([], [bytes(7)], [bytes(8), bytes(8)]):
        with pytest.raises(EngineError):
            protected.infer(wrong)
    protected.unload()
    protected.unload()
    with refused(PSAStatus.INVALID_HANDLE):
        protected.infer([bytes(8)])


@pytest.mark.integration
def test_every_wrong_part_of_a_release_is_refused(engine: SecurityEngine, model: bytes) -> None:
    good = package(model)
    wrapped = good.wrapped(engine.session_pk)

    def attempt(
        sealed: Package, key: bytes, chunks: tuple[bytes, ...], runtime: str = "tflite"
    ) -> Callable[[], object]:
        return lambda: engine.load_model(sealed.ticket, key, chunks, runtime=runtime)

    changed = bytes([good.chunks[0][0] ^ 1]) + good.chunks[0][1:]
    for kind, act in (
        (NotAuthorised, attempt(package(model, device=bytes(16)), wrapped, good.chunks)),
        (NotAuthorised, attempt(package(model, hw_class=bytes(16)), wrapped, good.chunks)),
        (SignatureInvalid, attempt(package(model, signer=GRANT_KEY), wrapped, good.chunks)),
        (RemoteProtocolError, attempt(Package(b"no ticket", ()), wrapped, good.chunks)),
        (DecryptionFailed, attempt(package(model, 6), wrapped, good.chunks)),
        (DecryptionFailed, attempt(good, good.wrapped(bytes([9] * 32)), good.chunks)),
        (DecryptionFailed, attempt(good, good.wrapped(engine.session_pk, bytes(32)), good.chunks)),
        (RemoteProtocolError, attempt(good, good.wrapped(engine.session_pk, bytes(31)), good.chunks)),
        (DecryptionFailed, attempt(good, wrapped, (changed, *good.chunks[1:]))),
        ((DecryptionFailed, RemoteProtocolError), attempt(good, wrapped, good.chunks[::-1])),
        (RemoteProtocolError, attempt(good, wrapped, (*good.chunks, good.chunks[0]))),
        (LengthOrHashMismatch, attempt(good, wrapped, good.chunks[:-1])),
        (LengthOrHashMismatch, attempt(good, wrapped, ())),
        (EngineUnavailable, attempt(good, wrapped, good.chunks, "onnx")),
    ):
        with pytest.raises(kind):
            act()
    # what no check foresaw is an error without words about its cause, and the engine goes on
    handle = engine.call("model_begin", good.ticket, wrapped, "tflite")
    with refused(PSAStatus.SERVICE_FAILURE):
        engine.call("model_chunks", handle, 0, [1])
    with pytest.raises(RemoteProtocolError):  # and none of the attempts left its key behind
        attempt(good, b"", good.chunks)()


@pytest.mark.integration
def test_accepted_releases_survive_the_engine_and_content_keys_do_not(
    own_engine: SecurityEngine, model: bytes
) -> None:
    older, newer = package(model, 5), package(model, 6)
    load(own_engine, newer).unload()
    trial = load(own_engine, older)  # nothing was accepted yet, so going back is possible
    accepted = load(own_engine, newer)
    accepted.accept()
    with pytest.raises(RollbackDetected):
        load(own_engine, older)
    assert trial.infer([bytes(8)]) == accepted.infer([bytes(8)])
    os.kill(own_engine.pid, signal.SIGKILL)
    with refused(PSAStatus.COMMUNICATION_FAILURE):
        accepted.infer([bytes(8)])
    session_pk = own_engine.session_pk
    own_engine.restart()
    assert own_engine.session_pk != session_pk
    with refused(PSAStatus.INVALID_HANDLE):
        accepted.infer([bytes(8)])
    with pytest.raises(RollbackDetected):
        load(own_engine, older)
    with pytest.raises(DecryptionFailed):  # a key is for one session
        own_engine.load_model(newer.ticket, newer.wrapped(session_pk), newer.chunks, runtime="tflite")
    again = load(own_engine, newer)
    assert len(again.infer([bytes(8)])[0]) == 4
    again.accept()  # once more changes nothing
    for number in range(31):
        load(own_engine, package(model, component=f"m{number}"))
    with refused(PSAStatus.INSUFFICIENT_MEMORY):
        load(own_engine, newer)


@pytest.mark.integration
def test_plaintext_leaves_only_under_a_key_for_that_use(engine: SecurityEngine, model: bytes) -> None:
    sealed = package(model)
    run = sealed.wrapped(engine.session_pk)
    in_place = sealed.wrapped(engine.session_pk, use=KeyUse.IN_PLACE)
    assert b"".join(engine.open_in_place(sealed.ticket, in_place, sealed.chunks)) == model
    with pytest.raises(DecryptionFailed):
        list(engine.open_in_place(sealed.ticket, run, sealed.chunks))
    with pytest.raises(DecryptionFailed):
        engine.load_model(sealed.ticket, in_place, sealed.chunks, runtime="tflite")
    for other in (package(model, device=bytes(16)), package(model, signer=GRANT_KEY)):
        with pytest.raises((NotAuthorised, SignatureInvalid)):
            list(engine.open_in_place(other.ticket, in_place, sealed.chunks))


@pytest.mark.integration
def test_an_inference_engine_that_is_not_there_is_said(tmp_path: Path, model: bytes) -> None:
    with SecurityEngine(settings(tmp_path / "e", open_model="no.such:thing"), clock=Clock()) as engine:
        with pytest.raises(EngineUnavailable, match=r"no\.such:thing"):
            load(engine, package(model))
        engine.selftest()


# --- loss -----------------------------------------------------------------------------------------


@pytest.mark.integration
def test_a_crash_fails_the_open_call_and_every_later_one(own_engine: SecurityEngine) -> None:
    owner = own_engine.owner(OWNER)
    owner.psa_ps_set(1, b"kept")
    os.kill(own_engine.pid, signal.SIGSTOP)  # so the call is open when the engine dies
    caught: list[BaseException] = []

    def call() -> None:
        try:
            owner.psa_ps_get(1, 0, 9)
        except PSAError as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    os.kill(own_engine.pid, signal.SIGKILL)
    thread.join()
    assert [getattr(error, "status", None) for error in caught] == [PSAStatus.COMMUNICATION_FAILURE]
    assert own_engine.lost
    with refused(PSAStatus.COMMUNICATION_FAILURE):
        owner.psa_ps_get(1, 0, 9)
    own_engine.restart()
    assert not own_engine.lost
    assert owner.psa_ps_get(1, 0, 9) == b"kept"


@pytest.mark.integration
def test_a_hung_engine_is_given_up(tmp_path: Path) -> None:
    with SecurityEngine(settings(tmp_path / "e"), clock=Clock(), timeout_s=5.0) as engine:
        engine._link.socket.settimeout(0.05)
        os.kill(engine.pid, signal.SIGSTOP)
        with refused(PSAStatus.COMMUNICATION_FAILURE):
            engine.selftest()
        assert engine._link.process.wait(10) == -signal.SIGKILL


@pytest.mark.integration
def test_a_host_whose_engine_keeps_dying_is_unfit(tmp_path: Path) -> None:
    clock = Clock()
    with SecurityEngine(settings(tmp_path / "e"), clock=clock) as engine:
        identity = engine.identity_pk
        for _ in range(3):
            os.kill(engine.pid, signal.SIGKILL)
            engine._link.process.wait(10)
            assert engine.lost
            engine.restart()
            clock.now_s += 10
            assert engine.identity_pk == identity
        os.kill(engine.pid, signal.SIGKILL)
        clock.now_s += 29
        with refused(PSAStatus.SERVICE_FAILURE):
            engine.restart()
        clock.now_s += 1  # a minute after the first restart
        engine.restart()
        engine.selftest()


@pytest.mark.integration
@pytest.mark.parametrize("message", [struct.pack(">I", (16 << 20) + 1), struct.pack(">I", 3) + b"abc"])
def test_a_message_that_is_none_ends_the_engine(own_engine: SecurityEngine, message: bytes) -> None:
    own_engine._link.socket.sendall(message)
    assert own_engine._link.process.wait(10) == 1
    with refused(PSAStatus.COMMUNICATION_FAILURE):
        own_engine.selftest()


@pytest.mark.integration
def test_an_engine_does_not_outlive_its_host(own_engine: SecurityEngine) -> None:
    own_engine._link.socket.close()
    assert own_engine._link.process.wait(10) == 0


@pytest.mark.integration
def test_a_root_key_is_made_once_and_never_replaced(tmp_path: Path) -> None:
    with refused(PSAStatus.DOES_NOT_EXIST):
        SecurityEngine(settings(tmp_path / "e", create=False), clock=Clock())
    with SecurityEngine(settings(tmp_path / "e"), clock=Clock()) as engine:
        identity = engine.identity_pk
        engine.owner(OWNER).psa_its_set(1, b"value")
    root = tmp_path / "e" / "root.key"
    with SecurityEngine(settings(tmp_path / "e", create=False), clock=Clock()) as engine:
        assert engine.identity_pk == identity
    root.chmod(0o640)
    with refused(PSAStatus.NOT_PERMITTED):
        SecurityEngine(settings(tmp_path / "e"), clock=Clock())
    root.chmod(0o600)
    root.write_bytes(bytes(32))  # another device's
    with refused(PSAStatus.DATA_CORRUPT):
        SecurityEngine(settings(tmp_path / "e"), clock=Clock())
    root.write_bytes(b"cut off")
    with refused(PSAStatus.DATA_CORRUPT):
        SecurityEngine(settings(tmp_path / "e"), clock=Clock())
    root.unlink()
    with refused(PSAStatus.DOES_NOT_EXIST):
        SecurityEngine(settings(tmp_path / "e"), clock=Clock())


# --- secrets --------------------------------------------------------------------------------------


@pytest.mark.integration
def test_no_secret_is_anywhere_but_in_the_engine(tmp_path: Path, model: bytes) -> None:
    """The host is a process of its own, because this one knows the secrets it looks for."""
    folder = tmp_path / "e"
    with SecurityEngine(settings(folder), clock=Clock()):
        root = (folder / "root.key").read_bytes()
    weights = max(
        (model[i : i + 64] for i in range(0, len(model) - 64, 64)), key=lambda piece: len(set(piece))
    )
    secrets = {
        "root key": root,
        "storage key": derive_key(root, b"AIF-ROOT-1 storage"),
        "identity seed": derive_key(root, b"AIF-ROOT-1 identity"),
        "content key": CONTENT_KEY,
        "model": weights,
    }
    sealed = package(model, device=bytes(16), hw_class=bytes(16))
    host = subprocess.Popen(
        [sys.executable, str(HOST), str(folder), bytes(TICKET_KEY.verify_key).hex()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with host:
        assert host.stdin is not None
        assert host.stdout is not None
        session_pk = bytes.fromhex(host.stdout.readline())
        parts = (sealed.ticket, sealed.wrapped(session_pk), *sealed.chunks)
        host.stdin.write(" ".join(p.hex() for p in parts) + "\n")
        host.stdin.flush()
        said: list[str] = []
        while not (line := host.stdout.readline()).startswith("ready"):
            assert line, said
            said.append(line)
        engine_pid = int(line.split()[1])
        assert len(said) == 8
        assert holds(host.pid, session_pk), "the search finds what is there"
        for name, secret in secrets.items():
            assert not holds(host.pid, secret), f"{name} is in the host's memory"
        started = [Path(f"/proc/{p}/{f}") for p in (host.pid, engine_pid) for f in ("cmdline", "environ")]
        public = [path.read_bytes() for path in started if os.access(path, os.R_OK)]
        kept = [p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != "root.key"]
        for name, secret in secrets.items():
            assert not any(secret in text for text in public + kept), f"{name} is in a file"
            assert secret.hex() not in "".join(said), f"{name} is in a text"
            assert repr(secret)[2:-1] not in "".join(said), f"{name} is in a text"
        limits = Path(f"/proc/{engine_pid}/limits").read_text()
        assert "Max core file size 0 0" in " ".join(limits.split())
        if may_trace_anything():
            assert holds(engine_pid, weights)
        else:
            with pytest.raises(PermissionError):
                holds(engine_pid, weights)
        host.stdin.close()
        assert host.wait(30) == 0


@pytest.mark.integration
def test_persistent_keys_and_a_real_clock(tmp_path: Path) -> None:
    persistent = KeyAttributes(
        KeyType.ED25519_KEY_PAIR, Algorithm.PURE_EDDSA, KeyUsage.SIGN_MESSAGE, 255, KeyLifetime.PERSISTENT, 1
    )
    with SecurityEngine(settings(tmp_path / "e"), clock=time.monotonic) as engine:
        engine.owner(OWNER).psa_generate_key(persistent)
        public = engine.owner(OWNER).psa_export_public_key(1)
        os.kill(engine.pid, signal.SIGKILL)
        engine.restart()
        assert engine.owner(OWNER).psa_export_public_key(1) == public


def test_an_inference_runtime_is_loaded_before_there_is_a_model(engine: SecurityEngine) -> None:
    engine.load_runtime("tflite")
    with pytest.raises(EngineUnavailable, match="no inference runtime is called 'abacus'"):
        engine.load_runtime("abacus")
    assert not engine.lost
