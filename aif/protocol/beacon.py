"""Where a site's broker is, in the words of its Controller: a signed record that any network may carry.

Decides what the record says and who may believe it. How it travels is not decided here
(``aif.transport.mdns``: DNS-SD, RFC 6763). Invariants: who has the site's key believes nobody else; a record
says nothing that is not known to everybody on the network anyway, and never a password.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from aif.errors import LocalProtocolError, RemoteProtocolError
from aif.protocol import cose, documents

AAD: Final = b"AIF-BEACON-1"

PIECE_BYTES: Final = 252
"""One string of a TXT record has at most 255 bytes, key and equals sign included (RFC 6763 §6.1, §6.4)."""

MAX_PIECES: Final = 4
MAX_BEACON_BYTES: Final = PIECE_BYTES * MAX_PIECES
"""Below the 1,300 bytes that fit into one packet (RFC 6763 §6.2)."""


@dataclass(frozen=True, slots=True)
class Beacon:
    """The addresses of the site's broker, as ``--broker`` takes them."""

    kind: ClassVar[int] = 32
    brokers: str


def sign_beacon(beacon: Beacon, signer: Callable[[bytes], bytes]) -> dict[bytes, bytes]:
    """The strings of the TXT record: ``0=``, ``1=`` and so on, a COSE_Sign1 cut into pieces.

    Args:
        beacon: addresses without credentials.
        signer: Ed25519 with the Controller's enrolment key, which every device knows from its provisioning.

    Raises:
        LocalProtocolError: the addresses do not fit.
    """
    signed = cose.sign1(documents.encode(beacon), signer, external_aad=AAD, tagged=True)
    if len(signed) > MAX_BEACON_BYTES:
        raise LocalProtocolError(
            f"the broker's addresses make a record of {len(signed)} B, {MAX_BEACON_BYTES} B fit",
            hint="list fewer nodes of the cluster, or give devices the address",
        )
    return {
        b"%d" % (at // PIECE_BYTES): signed[at : at + PIECE_BYTES]
        for at in range(0, len(signed), PIECE_BYTES)
    }


def verify_beacon(strings: Mapping[bytes, bytes | None], controller_public: bytes) -> Beacon:
    """Read the strings of a TXT record.

    Args:
        strings: those of one record, from anybody.
        controller_public: enrolment key of the reader's own site, 32 bytes.

    Raises:
        SignatureInvalid, RemoteProtocolError: not a record, or not of this site.
    """
    pieces = [strings.get(b"%d" % number) for number in range(MAX_PIECES)]
    if len(strings) > MAX_PIECES or any(len(piece or b"") > PIECE_BYTES for piece in pieces):
        raise RemoteProtocolError("the record has more than a beacon")
    signed = b"".join(piece or b"" for piece in pieces)
    payload = cose.verify1(
        signed, controller_public, external_aad=AAD, tagged=True, max_bytes=MAX_BEACON_BYTES
    )
    return documents.decode(Beacon, payload, max_bytes=MAX_BEACON_BYTES)
