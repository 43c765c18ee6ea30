"""Names that people write and the 16-byte ids derived from them.

Decides which device and workflow names exist and how a name becomes an id on the wire. Does not decide
whether a name is known. Invariant: the same kind and text give the same id everywhere, and ids of
different kinds never coincide, because the kind is hashed with the text.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, Literal

from aif.errors import LocalProtocolError
from aif.protocol.cbor import encode
from aif.protocol.limits import ID_BYTES, MAX_DEVICE_NAME, MAX_ID_TEXT, MAX_TOPIC_LEVEL

IdKind = Literal["device", "aim", "hwclass"]

_KINDS: Final = ("device", "aim", "hwclass")
_DEVICE = re.compile(rf"[a-z][a-z0-9_-]{{0,{MAX_DEVICE_NAME - 1}}}")
_AIW = re.compile(rf"[A-Za-z_][A-Za-z0-9_.-]{{0,{MAX_TOPIC_LEVEL - 1}}}")
_ENROLMENT_PREFIX: Final = "enrol."


def id16(kind: IdKind, text: str) -> bytes:
    """The 16-byte id of a device, an AIM instance or a hardware class.

    Args:
        kind: what the text names.
        text: 1 .. ``MAX_ID_TEXT`` characters, compared exactly (no case folding, no normalisation).

    Returns:
        BLAKE2b-128 over the deterministic CBOR of ``["AIF-ID-1", kind, text]`` (RFC 7693, RFC 8949 §4.2.1).

    >>> id16("device", "mcu-1").hex()
    'cf920303b875a1c15af799bf93633d56'
    """
    if kind not in _KINDS or not 1 <= len(text) <= MAX_ID_TEXT:
        raise LocalProtocolError(f"an id needs a kind out of {_KINDS} and 1 to {MAX_ID_TEXT} characters")
    return hashlib.blake2b(encode(["AIF-ID-1", kind, text]), digest_size=ID_BYTES).digest()


def check_device_name(name: str) -> str:
    """The name itself, when a device may be called that: ``[a-z][a-z0-9_-]{0,31}``.

    It is at once a topic level, an MQTT user and client id, and a certificate's common name, so it holds
    nothing that any of these treats specially.

    Raises:
        LocalProtocolError: not such a name.
    """
    if not _DEVICE.fullmatch(name):
        raise LocalProtocolError(
            f"{name[:48]!r} is not a device name",
            hint=f"use 1 to {MAX_DEVICE_NAME} of a-z, 0-9, '-' and '_', beginning with a letter",
        )
    return name


def check_aiw_name(name: str) -> str:
    """The name itself, when a workflow may be called that: ``[A-Za-z_][A-Za-z0-9_.-]{0,63}``.

    Raises:
        LocalProtocolError: not such a name.
    """
    if not _AIW.fullmatch(name):
        raise LocalProtocolError(
            f"{name[:80]!r} is not a workflow name",
            hint=f"use 1 to {MAX_TOPIC_LEVEL} of A-Z, a-z, 0-9, '-', '_' and '.', beginning with a letter",
        )
    return name


def enrolment_cn(device: str) -> str:
    """Common name of the factory certificate of a device, which may do nothing but enrol.

    >>> enrolment_cn("mcu-1")
    'enrol.mcu-1'
    """
    return _ENROLMENT_PREFIX + check_device_name(device)


def device_of_enrolment_cn(common_name: str) -> str:
    """The device that a factory certificate's common name speaks for; the inverse of ``enrolment_cn``.

    Raises:
        LocalProtocolError: not the common name of a factory certificate.
    """
    if not common_name.startswith(_ENROLMENT_PREFIX):
        raise LocalProtocolError(f"{common_name[:48]!r} is not the common name of a factory certificate")
    return check_device_name(common_name.removeprefix(_ENROLMENT_PREFIX))
