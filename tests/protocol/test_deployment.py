from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from nacl.signing import SigningKey

from aif.errors import AIFError, RemoteProtocolError, RollbackDetected, SignatureInvalid, TrustError
from aif.protocol import cbor, deployment, documents
from aif.protocol.deployment import (
    Acknowledged,
    BoundaryPort,
    DeployedAIM,
    Deployment,
    LocalChannel,
    ModelRelease,
    RemoteChannel,
)
from aif.protocol.numbers import AuthMode

KEY = SigningKey(b"\x01" * 32)
MODEL = ModelRelease("kws", "models/kws", 2, b"h" * 32, 1000, 4096, b"ticket")
AIM = DeployedAIM(
    "a", "A@1.0", b"p" * 32, "any", {"gain": 1.5, "on": True, "names": "x", "taps": (1.0, 2.0)}, MODEL
)
REMOTE = RemoteChannel(
    b"c" * 16, "aif/ch/w/a/out", "a.out", "left", ("b.in",), ("right",), AuthMode.AEAD, 0, 64, 1.0, 32_768, 0
)
DOCUMENT = Deployment(
    deployment.VERSION, "left", "w-1", "W", "1.0", 7, 1_000, "https://store", (AIM,),
    (LocalChannel("a.out", "c.in", 0),), (REMOTE,), (BoundaryPort("result", "a.out", is_output=True),),
)  # fmt: skip


TERMS = Acknowledged(b"d" * 16, 8, 2)
FORTH = replace(REMOTE, acknowledged=TERMS)
BACK = replace(
    REMOTE, channel_id=TERMS.other, topic="aif/ch/w/a/out/b.in-ack", source="b.in", source_device="right",
    destinations=("a.out",), destination_devices=("left",),
    acknowledged=replace(TERMS, other=REMOTE.channel_id, returns=True),
)  # fmt: skip


def sign(document: Deployment, key: SigningKey = KEY) -> bytes:
    return deployment.sign(document, lambda message: key.sign(message).signature)


def verify(data: bytes, *, device: str = "left", floor: int = 0) -> Deployment:
    return deployment.verify(data, bytes(KEY.verify_key), device=device, mapping_floor=floor)


def test_a_deployment_comes_back_as_it_was() -> None:
    assert verify(sign(DOCUMENT)) == DOCUMENT
    assert verify(sign(DOCUMENT), floor=7) == DOCUMENT
    both_ways = replace(DOCUMENT, remote_channels=(FORTH, BACK))
    assert verify(sign(both_ways)) == both_ways


def test_another_signer_is_refused() -> None:
    with pytest.raises(SignatureInvalid):
        verify(sign(DOCUMENT, SigningKey(b"\x02" * 32)))


def test_every_flipped_bit_is_refused() -> None:
    signed = sign(DOCUMENT)
    for at in range(len(signed)):
        changed = bytearray(signed)
        changed[at] ^= 1 << at % 8
        with pytest.raises(AIFError):
            verify(bytes(changed))


def test_a_document_for_another_device_is_refused() -> None:
    with pytest.raises(TrustError, match="this deployment document is for left, not for right"):
        verify(sign(DOCUMENT), device="right")


def test_an_older_mapping_is_refused() -> None:
    with pytest.raises(RollbackDetected, match="mapping version 7 is older than 8, which this device ran"):
        verify(sign(DOCUMENT), floor=8)


def test_an_unknown_version_is_refused() -> None:
    with pytest.raises(TrustError, match="version 2 is not known; this host speaks 1"):
        verify(sign(replace(DOCUMENT, version=2)))


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (replace(DOCUMENT, aims=(AIM, AIM)), "names an AIM twice"),
        (replace(DOCUMENT, standbys=(AIM,)), "names an AIM twice"),
        (replace(DOCUMENT, aims=(), standbys=(replace(AIM, package_sha256=b"x"),)), "a SHA-256 has 32 bytes"),
        (replace(DOCUMENT, aims=(replace(AIM, package_sha256=b"short"),)), "AIM a: a SHA-256 has 32 bytes"),
        (replace(DOCUMENT, aims=(replace(AIM, model=replace(MODEL, sha256=b"")),)), "a SHA-256 has 32 bytes"),
        (replace(DOCUMENT, aims=(replace(AIM, model=replace(MODEL, bytes_=0)),)), "AIM a: a model has 1 to"),
        (
            replace(DOCUMENT, aims=(replace(AIM, model=replace(MODEL, bytes_=1 << 40)),)),
            "AIM a: a model has 1 to",
        ),
        (replace(DOCUMENT, remote_channels=(replace(REMOTE, channel_id=b"x"),)), "an id has 16 bytes"),
        (replace(DOCUMENT, remote_channels=(replace(REMOTE, destinations=()),)), "needs its device"),
        (replace(DOCUMENT, remote_channels=(replace(REMOTE, destination_devices=()),)), "needs its device"),
        (replace(DOCUMENT, remote_channels=(replace(REMOTE, qos=2),)), "the quality of service is 0 or 1"),
        (replace(DOCUMENT, remote_channels=(replace(REMOTE, delay_records=-1),)), "the delay of a channel"),
        (replace(DOCUMENT, local_channels=(LocalChannel("a.b", "c.d", 1 << 60),)), "the delay of a channel"),
        (replace(DOCUMENT, remote_channels=(replace(REMOTE, max_frame_bytes=102),)), "a frame has 103 to"),
        (replace(DOCUMENT, remote_channels=(replace(REMOTE, max_frame_bytes=65_537),)), "103 to 65536 bytes"),
        (replace(DOCUMENT, remote_channels=(replace(REMOTE, max_message_bytes=0),)), "a message has 1 to"),
        (replace(DOCUMENT, remote_channels=(replace(REMOTE, max_message_bytes=1 << 23),)), "1 to 4194304"),
    ],
)
def test_a_signed_document_is_checked_all_the_same(document: Deployment, reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason):
        verify(sign(document))


@pytest.mark.parametrize(
    ("forth", "back"),
    [
        (FORTH, None),
        (None, BACK),
        (FORTH, replace(BACK, acknowledged=None)),
        (FORTH, replace(BACK, acknowledged=TERMS)),
        (FORTH, replace(BACK, acknowledged=replace(TERMS, other=b"x" * 16, returns=True))),
        (FORTH, replace(BACK, source="b.other")),
        (FORTH, replace(BACK, source_device="elsewhere")),
        (FORTH, replace(BACK, destination_devices=("elsewhere",))),
        (replace(FORTH, destinations=("b.in", "c.in"), destination_devices=("right", "right")), BACK),
    ],
)
def test_acknowledgements_go_back_between_the_same_two_ports(
    forth: RemoteChannel | None, back: RemoteChannel | None
) -> None:
    channels = tuple(channel for channel in (forth, back) if channel is not None)
    with pytest.raises(RemoteProtocolError, match="its acknowledgements have no way back"):
        verify(sign(replace(DOCUMENT, remote_channels=channels)))


@pytest.mark.parametrize(
    "terms", [{"window": 0}, {"window": 1 << 16}, {"fan": 0}, {"fan": 1 << 17}, {"state_bytes": -1}]
)
def test_terms_of_acknowledgement_have_limits(terms: dict[str, Any]) -> None:
    channels = (
        replace(FORTH, acknowledged=replace(TERMS, **terms)),
        replace(BACK, acknowledged=replace(TERMS, other=REMOTE.channel_id, returns=True, **terms)),
    )
    with pytest.raises(RemoteProtocolError, match="its terms cannot be acknowledged"):
        verify(sign(replace(DOCUMENT, remote_channels=channels)))


def test_a_document_has_a_size() -> None:
    with pytest.raises(RemoteProtocolError, match="larger than the allowed"):
        verify(sign(replace(DOCUMENT, local_channels=(LocalChannel("a." + "o" * 40, "b.in", 0),) * 8000)))


def test_a_document_from_before_a_limit_was_named_has_that_of_a_host() -> None:
    payload = documents.encode(DOCUMENT)
    before = cbor.decode(payload, max_bytes=len(payload))
    assert isinstance(before, dict)
    for channel in before[10]:
        del channel[12], channel[13]
    assert documents.decode(Deployment, cbor.encode(before), max_bytes=len(payload)) == DOCUMENT
