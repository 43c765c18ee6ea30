"""The pairing code of a new device, and the life of the secret behind it.

Decides how 128 random bits look when a person types them, and when they let a device enrol: in a window of
15 minutes, once, with at most five wrong attempts. Does not decide who opens the window. Invariant: a secret
is gone from every state but CREATED and OPEN.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from aif.errors import EnrolmentRefused, Expired, LocalProtocolError, ReplayDetected
from aif.protocol.limits import (
    ENROLMENT_MAX_WRONG_MACS,
    ENROLMENT_SECRET_BYTES,
    ENROLMENT_WINDOW_S,
    HASH_BYTES,
    ID_BYTES,
)

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford Base32: no I, L, O, U
_LOOK_ALIKES: Final = str.maketrans("OIL", "011")
_SECRET_CHARS, _CHECK_CHARS, _GROUP_CHARS = 26, 2, 4
_CODE_CHARS: Final = _SECRET_CHARS + _CHECK_CHARS
_MAX_TYPED_CHARS: Final = 64


def pairing_code(secret: bytes, device_id: bytes) -> str:
    """The secret as a person types it: 26 Crockford Base32 characters and 2 check characters.

    Args:
        secret: 16 bytes, read as one big-endian number.
        device_id: 16 bytes; the check characters fail for another device.

    >>> pairing_code(bytes(range(16)), bytes(16))
    '0004-1061-050R-3GG2-8A1C-60T3-GFRJ'
    """
    if len(secret) != ENROLMENT_SECRET_BYTES or len(device_id) != ID_BYTES:
        raise LocalProtocolError("a pairing code needs a secret and a device id of 16 bytes each")
    number = int.from_bytes(secret)
    digits = [number >> 5 * place & 31 for place in reversed(range(_SECRET_CHARS))]
    text = "".join(_ALPHABET[digit] for digit in digits) + _check_chars(secret, device_id)
    return "-".join(text[start : start + _GROUP_CHARS] for start in range(0, _CODE_CHARS, _GROUP_CHARS))


def read_pairing_code(typed: str, device_id: bytes) -> bytes:
    """The secret in a code as typed: any case, with or without hyphens and blanks, O for 0, I or L for 1.

    Raises:
        EnrolmentRefused: wrong length, a character that no code holds, a slip, or another device's code.
    """
    text = "".join(typed[:_MAX_TYPED_CHARS].split()).replace("-", "").upper().translate(_LOOK_ALIKES)
    if len(text) != _CODE_CHARS or len(typed) > _MAX_TYPED_CHARS:
        raise EnrolmentRefused(
            f"a pairing code has {_CODE_CHARS} characters, not {len(text)}",
            hint="type all seven groups of four",
        )
    number = 0
    for place, character in enumerate(text[:_SECRET_CHARS]):
        if character not in _ALPHABET:
            raise EnrolmentRefused(f"character {place + 1} of the pairing code is none that codes use")
        number = number << 5 | _ALPHABET.index(character)
    if number >> 8 * ENROLMENT_SECRET_BYTES:
        raise EnrolmentRefused("the pairing code is mistyped", hint="the first character is 0 to 7")
    secret = number.to_bytes(ENROLMENT_SECRET_BYTES)
    if text[_SECRET_CHARS:] != _check_chars(secret, device_id):
        raise EnrolmentRefused(
            "the pairing code is mistyped or belongs to another device", hint="compare code and device name"
        )
    return secret


def _check_chars(secret: bytes, device_id: bytes) -> str:
    digest = hashlib.blake2b(b"AIF-CODE" + device_id + secret, digest_size=HASH_BYTES).digest()
    bits = int.from_bytes(digest[:2]) >> 6  # the first 10 bits
    return _ALPHABET[bits >> 5] + _ALPHABET[bits & 31]


# --- life of the secret ---------------------------------------------------------------------------


class SecretState(StrEnum):
    """Where an enrolment secret is in its life."""

    CREATED = "created"
    OPEN = "open"
    USED = "used"
    EXPIRED = "expired"
    BURNED = "burned"


class SecretEvent(StrEnum):
    """What moves it on."""

    WINDOW_OPENED = "window opened"
    DEVICE_ENROLLED = "device enrolled"
    WINDOW_CLOSED = "window closed"
    TOO_MANY_WRONG_MACS = "too many wrong MACs"


SECRET_TRANSITIONS: Final = MappingProxyType(
    {
        (SecretState.CREATED, SecretEvent.WINDOW_OPENED): SecretState.OPEN,
        (SecretState.OPEN, SecretEvent.DEVICE_ENROLLED): SecretState.USED,
        (SecretState.OPEN, SecretEvent.WINDOW_CLOSED): SecretState.EXPIRED,
        (SecretState.OPEN, SecretEvent.TOO_MANY_WRONG_MACS): SecretState.BURNED,
    }
)


@dataclass(frozen=True, slots=True)
class EnrolmentSecret:
    """One device's secret at the Controller; every method returns the next value."""

    device_id: bytes
    secret: bytes | None = field(repr=False)
    """None once it is used, expired or burned."""
    state: SecretState = SecretState.CREATED
    closes_s: int = 0
    """Unix time at which the window closes; meaningful from OPEN on."""
    wrong_macs: int = 0

    def open_window(self, now_s: int) -> EnrolmentSecret:
        """The operator lets the device in, for 15 minutes."""
        return replace(self._after(SecretEvent.WINDOW_OPENED), closes_s=now_s + ENROLMENT_WINDOW_S)

    def at(self, now_s: int) -> EnrolmentSecret:
        """The same secret at a later time: expired once the window has closed."""
        late = self.state is SecretState.OPEN and now_s >= self.closes_s
        return self._after(SecretEvent.WINDOW_CLOSED) if late else self

    def wrong_mac(self) -> EnrolmentSecret:
        """A request of the device with a wrong MAC arrived in the open window; the fifth burns the secret."""
        count = self.wrong_macs + 1
        if count >= ENROLMENT_MAX_WRONG_MACS:
            return replace(self._after(SecretEvent.TOO_MANY_WRONG_MACS), wrong_macs=count)
        if self.state is not SecretState.OPEN:
            raise LocalProtocolError(f"an enrolment secret that is {self.state} takes no attempts")
        return replace(self, wrong_macs=count)

    def enrolled(self) -> EnrolmentSecret:
        """The device was enrolled with it."""
        return self._after(SecretEvent.DEVICE_ENROLLED)

    def usable(self, now_s: int) -> bytes:
        """The secret, while its window is open.

        Raises:
            EnrolmentRefused: no window was opened, or five wrong MACs burned it.
            Expired: the window has closed.
            ReplayDetected: it has been used.
        """
        match self.at(now_s):
            case EnrolmentSecret(state=SecretState.OPEN, secret=bytes(secret)):
                return secret
            case EnrolmentSecret(state=SecretState.USED):
                raise ReplayDetected("the pairing code has been used", hint="provision the device again")
            case EnrolmentSecret(state=SecretState.EXPIRED):
                raise Expired("the enrolment window has closed", hint="provision the device again")
            case EnrolmentSecret(state=SecretState.BURNED):
                raise EnrolmentRefused(
                    "the pairing code was burned by too many wrong attempts",
                    hint="provision the device again",
                )
        raise EnrolmentRefused("no enrolment window is open for this device", hint="open one with its code")

    def _after(self, event: SecretEvent) -> EnrolmentSecret:
        following = SECRET_TRANSITIONS.get((self.state, event))
        if following is None:
            raise LocalProtocolError(f"an enrolment secret that is {self.state} cannot take: {event}")
        kept = self.secret if following is SecretState.OPEN else None
        return replace(self, state=following, secret=kept)
