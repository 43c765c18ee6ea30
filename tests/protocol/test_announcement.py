"""Announcements: what is signed reads back, and nothing that an inventory could not hold is taken."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from nacl.signing import SigningKey

from aif.errors import RemoteProtocolError, TrustError
from aif.model.inventory import Sensor
from aif.protocol import cose, documents
from aif.protocol.announcement import (
    AAD,
    MAX_PARTS,
    AnnouncedUnit,
    KeptAnnouncement,
    check_announcement,
    sign_announcement,
    verify_announcement,
)
from aif.protocol.control import HELLO_AAD
from tests.protocol.announcements import ANNOUNCEMENT

KEY = SigningKey(bytes(range(32)))
PUBLIC = bytes(KEY.verify_key)
KEPT = KeptAnnouncement("mcu-1", 1_700_000_000_000_000, ANNOUNCEMENT)


def signed(kept: object, aad: bytes = AAD) -> bytes:
    return cose.sign1(documents.encode(kept), lambda m: KEY.sign(m).signature, external_aad=aad, tagged=True)


def test_the_copy_of_the_controller_reads_back() -> None:
    data = sign_announcement(KEPT, lambda message: KEY.sign(message).signature)
    assert verify_announcement(data, PUBLIC, device="mcu-1") == KEPT
    assert data == signed(KEPT)


def test_another_signer_purpose_device_or_bit_is_refused() -> None:
    data = signed(KEPT)
    with pytest.raises(RemoteProtocolError, match="is of mcu-1"):
        verify_announcement(data, PUBLIC, device="mcu-2")
    with pytest.raises(TrustError):
        verify_announcement(data, bytes(SigningKey(bytes(32)).verify_key), device="mcu-1")
    with pytest.raises(TrustError):
        verify_announcement(signed(KEPT, HELLO_AAD), PUBLIC, device="mcu-1")
    for place in range(0, len(data), 7):
        damaged = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises((RemoteProtocolError, TrustError)):
            verify_announcement(damaged, PUBLIC, device="mcu-1")


@pytest.mark.parametrize(
    "changed",
    [
        {"board": ""},
        {"board": "x" * 65},
        {"board": "a board"},
        {"arch": "\x1b[2J"},
        {"os": "-rf"},
        {"software": "1.0\n"},
        {"cores": 0},
        {"cores": 4097},
        {"ram_bytes": -1},
        {"ram_bytes": 2**53 + 1},
        {"ram_free_bytes": 65_537},
        {"flash_free_bytes": 655_361},
        {"runtimes": {f"r{n}": "1" for n in range(MAX_PARTS + 1)}},
        {"runtimes": {"tf lm": "1"}},
        {"runtimes": {"tflm": "1;rm"}},
        {"clock_hz": 0.0},
        {"instructions_per_s": math.inf},
        {"dmips": math.nan},
        {"storage": (AnnouncedUnit("spiffs", 5, 6),)},
        {"storage": (AnnouncedUnit("a/b", 5, 5),)},
        {"sensors": (Sensor("imu", -1.0),)},
        {"sensors": (Sensor("imu", None, 0),)},
        {"actuators": tuple(Sensor("led") for _ in range(MAX_PARTS + 1))},
        {"radios": ("wifi", "\u202ebel")},
    ],
)
def test_what_no_inventory_could_hold_is_refused(changed: dict[str, Any]) -> None:
    check_announcement(ANNOUNCEMENT)
    with pytest.raises(RemoteProtocolError):
        check_announcement(replace(ANNOUNCEMENT, **changed))
