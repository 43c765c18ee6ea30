"""Decoders of the trust documents: CBOR, COSE, grants, tickets, attestation, enrolment, control, state.

Crafted documents hold damaged values under true signatures, MACs and wraps: what a compromised but
legitimate author could send. Without that, a fuzzer never gets past the signature.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import Any

import cbor2

from aif.errors import (
    AttestationRejected,
    AuditBroken,
    EnrolmentRefused,
    LocalProtocolError,
    RemoteProtocolError,
    ResourceExceeded,
    SignatureInvalid,
    TrustError,
)
from aif.model.ports import AuthMode as Auth
from aif.protocol import announcement, audit, beacon, cbor, control, cose, deployment, documents
from aif.protocol.appraisal import (
    AppraisalLog,
    AppraisalPolicy,
    AttestationKey,
    ReferenceValues,
    appraise,
    verify_result,
)
from aif.protocol.content_keys import (
    KeyUse,
    check_commitment,
    open_hand_over,
    unwrap_content_key,
    wrap_content_key,
)
from aif.protocol.control import (
    AIMReport,
    BoundaryRecord,
    ControlMessage,
    Deploy,
    Failure,
    Heartbeat,
    Hello,
    InstalledRelease,
    Keyed,
    KeyWanted,
    LogLine,
    Metrics,
    ModelKey,
    ModelKeys,
    Phase,
    Progress,
    SignalAIMs,
    Undeploy,
    Unfit,
    WorkflowStatus,
)
from aif.protocol.deployment import (
    BoundaryPort,
    DeployedAIM,
    Deployment,
    LocalChannel,
    ModelRelease,
    RemoteChannel,
)
from aif.protocol.enrolment import check_author, open_request, open_response
from aif.protocol.evidence import (
    AttestationRequest,
    encode_request,
    issue_alias_certificate,
    read_evidence,
    read_request,
)
from aif.protocol.gate import Budget, Gate
from aif.protocol.grant import open_grant
from aif.protocol.lifecycle import Signal, State
from aif.protocol.pairing import SecretState, pairing_code, read_pairing_code
from aif.protocol.stamp import stamp
from aif.protocol.ticket import ComponentState, InstallTarget, Slot, read_ticket, verify_ticket
from aif.protocol.wrap import unwrap, wrap
from aif.runtime.devices.registry import Manifest, read_manifest
from aif.trusted.state import DeviceRecord, DeviceState, InstalledModel, SiteState
from tests.fuzz.campaign import Decoder, without_folder
from tests.fuzz.inputs import LEAVES, damaged_text, damaged_tree
from tests.protocol.announcements import ANNOUNCEMENT
from tests.vectors import make_documents as vectors

Tree = Any
"""Plain values as ``cbor2`` reads and writes them."""

VECTORS = vectors.documents()
MAX_BYTES = 64 * 1024
_GRANT_LABEL = b"AIF-GRANT-1"
_GRANT_CONTEXT = blake2b(_GRANT_LABEL, digest_size=32).digest()


def _vector(name: str, part: str) -> bytes:
    return bytes.fromhex(str(VECTORS[name][part]))


def written(rng: Random, tree: Tree) -> bytes:
    """CBOR of a tree: mostly the deterministic encoding, sometimes what another encoder would write."""
    if rng.random() < 0.9:
        try:
            return cbor.encode(tree)
        except LocalProtocolError:
            pass
    return cbor2.dumps(tree, canonical=rng.random() < 0.5)


def crafted(tree: Tree) -> Callable[[Random], bytes]:
    """Damaged copies of one document."""
    return lambda rng: written(rng, damaged_tree(rng, tree))


# --- encodings ------------------------------------------------------------------------------------


def _cbor() -> Decoder:
    def feed(data: bytes) -> None:
        assert cbor.encode(cbor.decode(data, max_bytes=MAX_BYTES)) == data

    def craft(rng: Random) -> bytes:
        tree: Tree = [{1: [rng.choice(LEAVES)], 2: b"x"}, rng.choice(LEAVES)]
        for _ in range(rng.randrange(20)):
            tree = rng.choice(([tree], {0: tree}, {"a": tree, "b": 1}))
        return written(rng, damaged_tree(rng, tree))

    seeds = tuple(cbor.encode(value) for value in (*LEAVES, [{1: [b"ab", {"x": -1.5}]}]))
    return Decoder("cbor", seeds, lambda: feed, (RemoteProtocolError,), craft)


def _cose(*, tagged: bool) -> Decoder:
    key = vectors.CONTROLLER_KEY
    seeds = tuple(cose.sign1(b"payload", key, tagged=tagged, kid=kid) for kid in (None, b"k"))
    trees = [cbor2.loads(seed[1:] if tagged else seed) for seed in seeds]

    def feed(data: bytes) -> None:
        cose.parse1(data, tagged=tagged, max_bytes=MAX_BYTES).verify(bytes(key.verify_key))

    def craft(rng: Random) -> bytes:
        return (b"\xd2" if tagged else b"") + written(rng, damaged_tree(rng, rng.choice(trees)))

    name = "cose:tagged" if tagged else "cose:untagged"
    return Decoder(name, seeds, lambda: feed, (RemoteProtocolError, TrustError), craft)


# --- signed documents ------------------------------------------------------------------------------


def _grant() -> Decoder:
    blobs = tuple(_vector(name, "blob") for name in ("grant", "grant_signed"))
    trees = [cbor2.loads(unwrap(blob, vectors.SESSION_SK, _GRANT_CONTEXT)[:-64]) for blob in blobs]

    def feed(data: bytes) -> None:
        open_grant(
            data, vectors.SESSION_SK, bytes(vectors.CONTROLLER_KEY.verify_key),
            now_s=vectors.NOW_S, highest_serial=0, mapping_version=0,
        )  # fmt: skip

    def craft(rng: Random) -> bytes:
        body = written(rng, damaged_tree(rng, rng.choice(trees)))
        signature = vectors.CONTROLLER_KEY.sign(_GRANT_LABEL + vectors.SESSION_PK + body).signature
        return wrap(body + signature, vectors.SESSION_PK, vectors.EPHEMERAL_SK, _GRANT_CONTEXT)

    return Decoder("grant", blobs, lambda: feed, (RemoteProtocolError, TrustError), craft)


def _ticket() -> Decoder:
    seeds = tuple(_vector(name, "ticket") for name in ("ticket", "ticket_plain"))
    trees = [_payload(seed, tagged=False) for seed in seeds]
    target = InstallTarget(
        vectors.DEVICE_ID, vectors.HW_CLASS, 12, 1, vectors.NOW_S,
        {"gesture": ComponentState(3, Slot.B, 20_000)}, 10_000,
    )  # fmt: skip

    def feed(data: bytes) -> None:
        with suppress(RemoteProtocolError):
            read_ticket(data)
        verify_ticket(data, bytes(vectors.TICKET_KEY.verify_key), target, allow_plain=True)

    def craft(rng: Random) -> bytes:
        body = written(rng, damaged_tree(rng, rng.choice(trees)))
        return cose.sign1(body, vectors.TICKET_KEY, external_aad=b"AIF-TICKET-1", tagged=False)

    errors = (RemoteProtocolError, TrustError, ResourceExceeded)
    return Decoder("ticket", seeds, lambda: feed, errors, craft)


def _hand_over() -> Decoder:
    seed = _vector("content_key", "hand_over")
    context = blake2b(b"AIF-CKEY-1", digest_size=32).digest()
    tree = cbor2.loads(unwrap(seed, vectors.SESSION_SK, context))

    def feed(data: bytes) -> None:
        open_hand_over(data, vectors.SESSION_SK)

    def craft(rng: Random) -> bytes:
        body = written(rng, damaged_tree(rng, tree))
        return wrap(body, vectors.SESSION_PK, vectors.EPHEMERAL_SK, context)

    return Decoder("hand-over", (seed,), lambda: feed, (RemoteProtocolError, TrustError), craft)


def _content_key() -> Decoder:
    """The first byte of an input says for which use it is opened."""
    uses = tuple(KeyUse)
    seeds = tuple(bytes([n]) + _vector("content_key", use.name.lower()) for n, use in enumerate(uses))
    digest, release_id = (_vector("content_key", part) for part in ("ticket_digest", "release_id"))
    committed = _vector("content_key", "commitment")

    def feed(data: bytes) -> None:
        use = uses[data[0] % len(uses)] if data else uses[0]
        key = unwrap_content_key(data[1:], vectors.SESSION_SK, digest, use)
        check_commitment(key, release_id, committed)
        assert data[1:] in {seed[1:] for seed in seeds}

    def craft(rng: Random) -> bytes:
        """Other keys in true wraps, and true keys for another use."""
        number = rng.randrange(len(uses))
        key = rng.choice((rng.randbytes(32), _vector("content_key", "content_key")))
        wrapped = wrap_content_key(key, vectors.SESSION_PK, vectors.EPHEMERAL_SK, digest, rng.choice(uses))
        return bytes([number]) + wrapped

    return Decoder("content key", seeds, lambda: feed, (RemoteProtocolError, TrustError), craft)


def _payload(data: bytes, *, tagged: bool) -> Tree:
    return cbor2.loads(cose.parse1(data, tagged=tagged, max_bytes=MAX_BYTES).unverified_payload)


def _evidence() -> Decoder:
    seeds = (_vector("attestation", "evidence_host"), _vector("attestation", "evidence_firmware"))
    outer = [cbor2.loads(seed) for seed in seeds]
    claims = [_payload(tree[1], tagged=True) for tree in outer]
    measured = vectors.measured()
    reference = ReferenceValues(frozenset({measured.implementation_id}), frozenset(measured.components))
    request = AttestationRequest(bytes(range(32)), vectors.NOW_S + 10)
    hash_ = measured.components[0].measurement
    alias_pk = bytes(vectors.ALIAS_KEY.verify_key)
    alias = _payload(issue_alias_certificate(alias_pk, hash_, vectors.DEVICE_KEY), tagged=False)

    def feed(data: bytes) -> None:
        with_alias = False
        with suppress(RemoteProtocolError):
            with_alias = read_evidence(data).alias_certificate is not None
        appraise(
            data, request=request, mapping_version=3,
            key=AttestationKey(bytes(vectors.DEVICE_KEY.verify_key), alias=with_alias),
            reference=reference, last_generation=17, policy=AppraisalPolicy("default"),
            now_s=vectors.NOW_S, log=AppraisalLog(),
        )  # fmt: skip

    def craft(rng: Random) -> bytes:
        which = rng.randrange(2)
        signer = vectors.ALIAS_KEY if which else vectors.DEVICE_KEY
        tree: Tree = dict(outer[which])
        part = rng.randrange(3)
        if part == 0:
            tree = damaged_tree(rng, tree)
        elif part == 1:
            token = written(rng, damaged_tree(rng, claims[which]))
            tree[1] = cose.sign1(token, signer, tagged=True)
        else:
            certificate = written(rng, damaged_tree(rng, alias))
            tree[4] = cose.sign1(certificate, vectors.DEVICE_KEY, external_aad=b"AIF-ALIAS-1", tagged=False)
        return written(rng, tree)

    return Decoder("evidence", seeds, lambda: feed, (AttestationRejected,), craft)


def _attestation_request() -> Decoder:
    seed = _vector("attestation", "request")

    def feed(data: bytes) -> None:
        assert encode_request(read_request(data)) == data

    errors = (RemoteProtocolError,)
    return Decoder("attestation request", (seed,), lambda: feed, errors, crafted(cbor2.loads(seed)))


def _attestation_result() -> Decoder:
    seed = _vector("attestation", "result")
    key = vectors.CONTROLLER_KEY
    tagged = seed.startswith(b"\xd2")
    tree = _payload(seed, tagged=tagged)

    def feed(data: bytes) -> None:
        verify_result(
            data, bytes(key.verify_key), device_id=vectors.DEVICE_ID, session_pk=vectors.SESSION_PK,
            mapping_version=3, now_s=vectors.NOW_S,
        )  # fmt: skip

    def craft(rng: Random) -> bytes:
        body = written(rng, damaged_tree(rng, tree))
        return cose.sign1(body, key, external_aad=b"AIF-RESULT-1", tagged=tagged)

    return Decoder("attestation result", (seed,), lambda: feed, (RemoteProtocolError, TrustError), craft)


# --- enrolment ------------------------------------------------------------------------------------


def _mac(message: bytes) -> bytes:
    key = blake2b(b"AIF-ENROL-1" + vectors.DEVICE_ID, key=vectors.SECRET, digest_size=32).digest()
    return blake2b(message, key=key, digest_size=32).digest()


def _enrolment_request() -> Decoder:
    seed = _vector("enrolment", "request")
    tree = cbor2.loads(seed[:-96])

    def feed(data: bytes) -> None:
        check_author(data, bytes(vectors.DEVICE_KEY.verify_key))
        open_request(data, vectors.SECRET, device_id=vectors.DEVICE_ID)

    def craft(rng: Random) -> bytes:
        body = written(rng, damaged_tree(rng, tree))
        return body + _mac(b"D" + body) + vectors.DEVICE_KEY.sign(b"AIF-ENROL-D" + body).signature

    return Decoder("enrolment request", (seed,), lambda: feed, (RemoteProtocolError, TrustError), craft)


def _enrolment_response() -> Decoder:
    request, seed = _vector("enrolment", "request"), _vector("enrolment", "response")
    tree = cbor2.loads(seed[:-96])
    bound = blake2b(request[:-96], digest_size=32).digest()
    key = vectors.CONTROLLER_KEY

    def feed(data: bytes) -> None:
        open_response(data, request, vectors.SECRET, bytes(key.verify_key))

    def craft(rng: Random) -> bytes:
        body = written(rng, damaged_tree(rng, tree))
        return body + _mac(b"C" + bound + body) + key.sign(b"AIF-ENROL-C" + bound + body).signature

    return Decoder("enrolment response", (seed,), lambda: feed, (RemoteProtocolError, TrustError), craft)


def _pairing_code() -> Decoder:
    code = pairing_code(vectors.SECRET, vectors.DEVICE_ID)

    def feed(data: bytes) -> None:
        secret = read_pairing_code(data.decode(), vectors.DEVICE_ID)  # one slip in 1 024 passes
        assert read_pairing_code(pairing_code(secret, vectors.DEVICE_ID), vectors.DEVICE_ID) == secret

    def craft(rng: Random) -> bytes:
        return damaged_text(rng, (code, code.lower()), ("-", " ", "O", "I", "l", "U", "0", "Z", "٣")).encode()

    errors = (EnrolmentRefused, UnicodeDecodeError)
    return Decoder("pairing code", (code.encode(),), lambda: feed, errors, craft)


# --- documents ------------------------------------------------------------------------------------

_RELEASE = ModelRelease("gesture", "aim/tinyaif/gesture/4", 4, bytes(32), 10_000, 8_192, b"ticket")
_PARAMETERS: dict[str, bool | int | float | str | tuple[float, ...]] = {
    "a": 1,
    "b": True,
    "c": 0.5,
    "d": "x",
    "e": (1.0,),
}
_REMOTE = RemoteChannel(
    bytes(16), "aif/ch/G/a/x", "a.x", "m", ("b.y",), ("n",), Auth.SIGNED, 1, 64, 1.0, 32_768, 0
)
DEPLOYMENT = Deployment(
    1, "mcu-1", "Gesture-1", "Gesture", "1.0", 3, 1_700_000_000_000_000, "http://127.0.0.1:8600",
    (DeployedAIM("c", "C@1.0", bytes(32), "tflm", _PARAMETERS, _RELEASE),),
    (LocalChannel("a.x", "b.y", 1),),
    (_REMOTE,),
    (BoundaryPort("out", "b.z", is_output=True),),
)  # fmt: skip
HELLO = Hello(
    "mcu-1", bytes(16), bytes(32), bytes(32), 5, 3, (InstalledRelease("g", 4, bytes(32), "A", bytes(32)),)
)
MESSAGES: tuple[ControlMessage, ...] = (
    ANNOUNCEMENT,
    Heartbeat(5),
    Deploy(b"document", (ModelKey("g", bytes(80)),)),
    ModelKeys((ModelKey("g", bytes(80)),)),
    SignalAIMs("aiw", "", Signal.START),
    Undeploy("aiw"),
    BoundaryRecord("aiw", "out", 5, b"record"),
    Progress("aiw", "download gesture", 5, 10),
    WorkflowStatus(
        "aiw", 3, Phase.FAILED, {"c": AIMReport(State.FAILED, "why")}, Failure("AIF-E0001", "m", "h")
    ),
    Metrics("aiw", {"aims": {"c": {"invocations": 3, "process_us": [1, 2.5]}}}),
    LogLine(5, "info", "event", {"a": None, "b": [1, "x"]}),
    Unfit("the Security Engine died"),
    Keyed(bytes(16), 7),
    KeyWanted(bytes(16), 7),
)
STATES: tuple[DeviceState | SiteState, ...] = (
    DeviceState(
        "mcu-1", "board/arch", bytes(32), None, b"root",
        installed=(InstalledModel("g", 4, bytes(32), 10, "A", b"ticket"),),
    ),
    SiteState(
        "site", bytes(32), bytes(32), bytes(32), bytes(32), bytes(32),
        devices=(DeviceRecord("mcu-1", "board/arch", bytes(32), bytes(32), bytes(16), SecretState.OPEN),),
    ),
)  # fmt: skip


def _document(value: object, max_bytes: int) -> Decoder:
    seed = documents.encode(value)

    def feed(data: bytes) -> None:
        documents.encode(documents.decode(type(value), data, max_bytes=max_bytes))

    errors = (RemoteProtocolError,)
    return Decoder(
        f"document:{type(value).__name__}", (seed,), lambda: feed, errors, crafted(cbor2.loads(seed))
    )


def _control() -> Decoder:
    """What a decoder accepts can be packed again: whoever holds a message may pass it on."""
    seeds = tuple(control.pack(message) for message in MESSAGES)
    trees = [(kind, cbor2.loads(body)) for kind, body in map(cbor2.loads, seeds)]

    def feed(data: bytes) -> None:
        control.pack(control.unpack(data))

    def craft(rng: Random) -> bytes:
        kind, tree = rng.choice(trees)
        return written(rng, [kind, written(rng, damaged_tree(rng, tree))])

    return Decoder("control", seeds, lambda: feed, (RemoteProtocolError,), craft)


def _call() -> Decoder:
    key = vectors.DEVICE_KEY
    seed = control.sign_call(control.Call("mcu-1", 5), lambda data: key.sign(data).signature)
    tree = _payload(seed, tagged=True)

    def feed(data: bytes) -> None:
        control.verify_call(data, bytes(key.verify_key), device="mcu-1")

    def craft(rng: Random) -> bytes:
        body = written(rng, damaged_tree(rng, tree))
        return cose.sign1(body, key, external_aad=control.CALL_AAD, tagged=True)

    return Decoder("call", (seed,), lambda: feed, (RemoteProtocolError, TrustError), craft)


def _stamp() -> Decoder:
    key, topic = bytes(range(32)), "aif/dev/mcu-1/up/hello"
    seeds = tuple(stamp(key, topic, message, number) for number, message in enumerate((b"", b"hello")))

    def fresh() -> Callable[[bytes], object]:
        gate = Gate(topic, fresh=Budget(1e9, 1 << 40))
        return lambda data: gate.admit(key, data, 0.0)

    def craft(rng: Random) -> bytes:
        return stamp(key, topic, rng.randbytes(rng.randrange(40)), rng.getrandbits(63))

    return Decoder("stamp", seeds, fresh, (RemoteProtocolError,), craft)


def _hello() -> Decoder:
    key = vectors.DEVICE_KEY
    seed = control.sign_hello(HELLO, lambda data: key.sign(data).signature)
    tree = _payload(seed, tagged=True)

    def feed(data: bytes) -> None:
        control.verify_hello(data, bytes(key.verify_key), device="mcu-1")

    def craft(rng: Random) -> bytes:
        body = written(rng, damaged_tree(rng, tree))
        return cose.sign1(body, key, external_aad=control.HELLO_AAD, tagged=True)

    return Decoder("hello", (seed,), lambda: feed, (RemoteProtocolError, TrustError), craft)


def _announcement() -> Decoder:
    key = vectors.DEVICE_KEY
    kept = announcement.KeptAnnouncement("mcu-1", 7, ANNOUNCEMENT)
    seed = announcement.sign_announcement(kept, lambda data: key.sign(data).signature)
    tree = _payload(seed, tagged=True)

    def feed(data: bytes) -> None:
        announcement.verify_announcement(data, bytes(key.verify_key), device="mcu-1")

    def craft(rng: Random) -> bytes:
        body = written(rng, damaged_tree(rng, tree))
        return cose.sign1(body, key, external_aad=announcement.AAD, tagged=True)

    return Decoder("announcement", (seed,), lambda: feed, (RemoteProtocolError, TrustError), craft)


def _beacon() -> Decoder:
    key = vectors.DEVICE_KEY
    strings = beacon.sign_beacon(
        beacon.Beacon("mqtts://192.0.2.1:8883"), lambda data: key.sign(data).signature
    )
    seed = b"".join(strings.values())
    tree = _payload(seed, tagged=True)

    def feed(data: bytes) -> None:
        cut = range(0, len(data), beacon.PIECE_BYTES)
        pieces = {b"%d" % number: data[at : at + beacon.PIECE_BYTES] for number, at in enumerate(cut)}
        beacon.verify_beacon(pieces, bytes(key.verify_key))

    def craft(rng: Random) -> bytes:
        body = written(rng, damaged_tree(rng, tree))
        return cose.sign1(body, key, external_aad=beacon.AAD, tagged=True)

    return Decoder("beacon", (seed,), lambda: feed, (RemoteProtocolError, TrustError), craft)


def _deployment() -> Decoder:
    key = vectors.DEPLOYMENT_KEY
    seed = deployment.sign(DEPLOYMENT, lambda data: key.sign(data).signature)
    tree = _payload(seed, tagged=True)

    def feed(data: bytes) -> None:
        deployment.verify(data, bytes(key.verify_key), device="mcu-1", mapping_floor=3)

    def craft(rng: Random) -> bytes:
        body = written(rng, damaged_tree(rng, tree))
        return cose.sign1(body, key, external_aad=deployment.EXTERNAL_AAD, tagged=True)

    return Decoder("deployment", (seed,), lambda: feed, (RemoteProtocolError, TrustError), craft)


def _audit_log() -> Decoder:
    key = vectors.DEPLOYMENT_KEY
    head = audit.sign_head(audit.Head(0, audit.START, 5), lambda data: key.sign(data).signature)
    entries = [
        audit.encode_entry(audit.Entry(n, 5 + n, "grant", "left", {"digest": "ab"})) for n in range(1, 4)
    ]
    seed = b"".join(audit.frame(record) for record in (head, *entries))
    tree = cbor2.loads(entries[0])

    def feed(data: bytes) -> None:
        audit.verify_log([data], b"", bytes(key.verify_key))

    def craft(rng: Random) -> bytes:
        return audit.frame(head) + audit.frame(written(rng, damaged_tree(rng, tree))[: audit.MAX_ENTRY_BYTES])

    return Decoder("audit log", (seed,), lambda: feed, (AuditBroken,), craft)


def _manifest() -> Decoder:
    seed = documents.encode(Manifest("mcu-1", "board/arch", bytes(vectors.DEVICE_KEY.verify_key), bytes(32)))
    return Decoder(
        "manifest", (seed,), lambda: read_manifest, (RemoteProtocolError, SignatureInvalid),
        crafted(cbor2.loads(seed)),
    )  # fmt: skip


_MAKERS: Mapping[str, Callable[[], Decoder]] = {
    "cbor": _cbor,
    "cose:tagged": partial(_cose, tagged=True),
    "cose:untagged": partial(_cose, tagged=False),
    "grant": _grant,
    "ticket": _ticket,
    "hand-over": _hand_over,
    "content key": _content_key,
    "evidence": _evidence,
    "attestation request": _attestation_request,
    "attestation result": _attestation_result,
    "enrolment request": _enrolment_request,
    "enrolment response": _enrolment_response,
    "pairing code": _pairing_code,
    "control": _control,
    "hello": _hello,
    "stamp": _stamp,
    "call": _call,
    "announcement": _announcement,
    "beacon": _beacon,
    "deployment": _deployment,
    "audit log": _audit_log,
    "manifest": _manifest,
}
FACTORIES: Mapping[str, Callable[[Path], Decoder]] = {
    **{name: without_folder(make) for name, make in _MAKERS.items()},
    **{
        f"document:{type(value).__name__}": without_folder(partial(_document, value, MAX_BYTES))
        for value in (HELLO, DEPLOYMENT, *MESSAGES, *STATES)
    },
}
"""Decoders by name; they need no folder."""
