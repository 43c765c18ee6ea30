from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from aif.errors import LocalProtocolError, RemoteProtocolError, SignatureInvalid
from aif.protocol import cbor, control, cose, documents
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
from aif.protocol.lifecycle import Signal, State
from tests.protocol.announcements import ANNOUNCEMENT

KEY = SigningKey(b"\x01" * 32)
HELLO = Hello(
    "left",
    b"b" * 16,
    b"s" * 32,
    b"f" * 32,
    1_000_000,
    3,
    (InstalledRelease("kws", 2, b"h" * 32, "A", b"t" * 32),),
)

MESSAGES: list[ControlMessage] = [
    ANNOUNCEMENT,
    Heartbeat(5),
    Heartbeat(5, 7),
    Heartbeat(5, 7, 0.25),
    Deploy(b"document", (ModelKey("kws", b"w" * 80),)),
    ModelKeys((ModelKey("kws", b"w" * 80),)),
    SignalAIMs("w-1", "", Signal.PAUSE),
    Undeploy("w-1"),
    BoundaryRecord("w-1", "out", 7, b"record"),
    Progress("w-1", "download kws", 1, 2),
    WorkflowStatus("w-1", 3, Phase.RUNNING, {"a": AIMReport(State.RUNNING, "")}),
    WorkflowStatus("w-1", 3, Phase.FAILED, {}, Failure("AIF-E0001", "words", "hint")),
    Metrics("w-1", {"aims": {"a": {"invocations": 1, "process_us": {3: 4}}}}),
    Unfit("its engine died"),
    Keyed(b"c" * 16, 7),
    KeyWanted(b"c" * 16, 7),
    LogLine(1, "info", "event", {"number": 1, "share": 0.5, "text": "x", "nothing": None}),
]


def sign(hello: Hello, key: SigningKey = KEY) -> bytes:
    return control.sign_hello(hello, lambda message: key.sign(message).signature)


@pytest.mark.parametrize("message", MESSAGES)
def test_a_control_message_comes_back_as_it_was(message: ControlMessage) -> None:
    assert control.unpack(control.pack(message)) == message


def test_every_message_has_a_number_of_its_own() -> None:
    kinds = [message.kind for message in {type(m): m for m in MESSAGES}.values()]
    assert sorted(set(kinds)) == sorted(kinds) == [1, 2, 3, 4, 5, 6, 16, 17, 21, 22, 23, 27, 30, 31]


@given(st.binary(max_size=80))
def test_arbitrary_bytes_raise_one_error_only(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        control.unpack(payload)


@given(st.sampled_from(MESSAGES), st.data())
def test_a_changed_byte_is_refused_or_is_another_message(
    message: ControlMessage, data: st.DataObject
) -> None:
    payload = bytearray(control.pack(message))
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        read = control.unpack(bytes(payload))
    except RemoteProtocolError:
        return
    assert control.pack(read) == bytes(payload)


@pytest.mark.parametrize(
    ("outer", "reason"),
    [
        ({}, r"a control message is \[kind, body\]"),
        ([1], r"a control message is \[kind, body\]"),
        ([1, "x"], r"a control message is \[kind, body\]"),
        ([True, b"\xa1\x00\x01"], "unknown control message bool"),
        ([99, b""], "unknown control message 99"),
        (["x" * 1000, b""], "unknown control message str"),
        ([1, b"\xa1\x03\x01"], "Heartbeat holds the unknown field 3"),
        ([1, b"\xa2\x00\x01\x02\xf9\x42\x00"], "Heartbeat: a battery of 3 is not between 0 and 1"),
        (
            [1, b"\xa2\x00\x01\x02\xf9\x7e\x00"],
            "document is not valid CBOR: documents cannot carry this value of type float",
        ),
    ],
)
def test_what_is_no_control_message_is_refused(outer: object, reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=f"^{reason}$"):
        control.unpack(cbor.encode(outer))


def test_a_message_that_the_peer_would_not_take_is_refused_here() -> None:
    largest = control.MAX_MESSAGE_BYTES - 16 - len(documents.encode(Deploy(bytes(500_000)))) + 500_000
    assert control.unpack(control.pack(Deploy(bytes(largest)))) == Deploy(bytes(largest))
    with pytest.raises(
        LocalProtocolError, match="a Deploy of 524,273 B is longer than a control message may be"
    ):
        control.pack(Deploy(bytes(largest + 1)))
    with pytest.raises(RemoteProtocolError, match="larger than the allowed"):
        control.unpack(bytes(control.MAX_MESSAGE_BYTES + 1))


# --- hello -----------------------------------------------------------------------------------------


def test_a_hello_is_taken_from_its_device() -> None:
    assert control.verify_hello(sign(HELLO), bytes(KEY.verify_key), device="left") == HELLO


def test_a_hello_by_another_key_is_refused() -> None:
    with pytest.raises(SignatureInvalid):
        control.verify_hello(sign(HELLO, SigningKey(b"\x02" * 32)), bytes(KEY.verify_key), device="left")


def test_a_hello_on_another_device_s_topic_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="the hello on right's topic names left"):
        control.verify_hello(sign(HELLO), bytes(KEY.verify_key), device="right")


@pytest.mark.parametrize(
    "hello",
    [
        replace(HELLO, boot_id=b"short"),
        replace(HELLO, session_public=b"s" * 31),
        replace(HELLO, frame_public=b"f" * 33),
    ],
)
def test_keys_of_the_wrong_length_are_refused(hello: Hello) -> None:
    with pytest.raises(RemoteProtocolError, match="holds keys of the wrong length"):
        control.verify_hello(sign(hello), bytes(KEY.verify_key), device="left")


def test_a_signature_over_another_kind_of_document_is_no_hello() -> None:
    signed = cose.sign1(documents.encode(HELLO), KEY, external_aad=b"AIF-DEPLOY-1", tagged=True)
    with pytest.raises(SignatureInvalid):
        control.verify_hello(signed, bytes(KEY.verify_key), device="left")


def test_a_hello_has_a_size() -> None:
    many = replace(HELLO, installed=HELLO.installed * 500)
    with pytest.raises(RemoteProtocolError, match="larger than the allowed"):
        control.verify_hello(sign(many), bytes(KEY.verify_key), device="left")


CALL = control.Call("left", 1_000_000)


def call_by(key: SigningKey, call: control.Call = CALL, aad: bytes = control.CALL_AAD) -> bytes:
    return cose.sign1(documents.encode(call), key, external_aad=aad, tagged=True)


def test_a_call_is_taken_from_the_site_alone_and_for_this_device_alone() -> None:
    site = bytes(KEY.verify_key)
    signed = control.sign_call(CALL, lambda message: KEY.sign(message).signature)
    assert signed == call_by(KEY)
    assert control.verify_call(signed, site, device="left") == CALL
    with pytest.raises(RemoteProtocolError, match="the call on right's topic names left"):
        control.verify_call(signed, site, device="right")
    for forged in (call_by(SigningKey(b"\x02" * 32)), call_by(KEY, aad=control.HELLO_AAD)):
        with pytest.raises(SignatureInvalid):
            control.verify_call(forged, site, device="left")
    with pytest.raises(RemoteProtocolError, match="larger than the allowed"):
        control.verify_call(call_by(KEY, control.Call("l" * 600, 1)), site, device="left")


def test_control_channels_of_devices_and_directions_differ() -> None:
    made = [control.control_channel(device, up=up) for device in ("left", "right") for up in (True, False)]
    assert len({channel for channel, _ in made}) == len({topic for _, topic in made}) == 4
    assert control.control_channel("left", up=True) == made[0]
