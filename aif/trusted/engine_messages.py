"""Messages between a host and its Security Engine: bytes, operations, and how errors cross.

Decides the frame (length and CBOR), which operations exist with the types of their arguments, and how values
and errors of this project travel as CBOR. Does not move bytes and does not compute anything.

Bytes, over a socket pair that only these two processes have::

    frame   = length (4) || CBOR, at most 16 MiB
    request = {0: id, 1: operation, 2: [argument, ...]}
    answer  = {0: id, 1: PSA status, 2: result, or [error code, message, hint]}
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from aif import errors
from aif.errors import AIFError, RemoteProtocolError
from aif.protocol.cbor import Fields, decode, encode
from aif.protocol.grant import Grant, Role, RosterRow
from aif.protocol.limits import UINT63_MAX
from aif.protocol.numbers import AuthMode
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

MAX_MESSAGE_BYTES: Final = 16 << 20
LENGTH: Final = struct.Struct(">I")
_MAX_TEXT: Final = 2000

Signature = tuple[type, ...]
_CREATE = (int, bytes, int)  # uid, data, flags
_RANGE = (int, int, int)  # uid, offset, length

STORAGE_OPERATIONS: Final[Mapping[str, Signature]] = MappingProxyType(
    {
        "psa_its_set": _CREATE,
        "psa_its_get": _RANGE,
        "psa_its_get_info": (int,),
        "psa_its_remove": (int,),
        "psa_ps_set": _CREATE,
        "psa_ps_get": _RANGE,
        "psa_ps_get_info": (int,),
        "psa_ps_remove": (int,),
        "psa_ps_create": (int, int, int),
        "psa_ps_set_extended": (int, int, bytes),
        "psa_ps_get_support": (),
    }
)
"""Of ``OwnerStorage``; an owner comes first."""

AREA_OPERATIONS: Final[Mapping[str, Signature]] = MappingProxyType(
    {
        "create": (str, int),
        "write": (str, bytes),
        "read": (str,),
        "info": (str,),
        "delete": (str,),
    }
)
"""Of ``SecureArea``; an owner, a location and flags come first."""

CRYPTO_OPERATIONS: Final[Mapping[str, Signature]] = MappingProxyType(
    {
        "psa_generate_key": (KeyAttributes,),
        "psa_import_key": (KeyAttributes, bytes),
        "psa_export_public_key": (int,),
        "psa_destroy_key": (int,),
        "psa_get_key_attributes": (int,),
        "psa_hash_compute": (int, bytes),
        "psa_mac_compute": (int, int, bytes),
        "psa_mac_verify": (int, int, bytes, bytes),
        "psa_aead_encrypt": (int, int, bytes, bytes, bytes),
        "psa_aead_decrypt": (int, int, bytes, bytes, bytes),
        "psa_sign_message": (int, int, bytes),
        "psa_verify_message": (int, int, bytes, bytes),
        "psa_raw_key_agreement": (int, int, bytes),
        "psa_generate_random": (int,),
        "psa_key_derivation_setup": (int,),
        "psa_key_derivation_input_bytes": (int, int, bytes),
        "psa_key_derivation_input_key": (int, int, int),
        "psa_key_derivation_key_agreement": (int, int, int, bytes),
        "psa_key_derivation_output_bytes": (int, int),
        "psa_key_derivation_output_key": (KeyAttributes, int),
        "psa_key_derivation_abort": (int,),
    }
)
"""Of ``OwnerCrypto``; an owner comes first."""

ENGINE_OPERATIONS: Final[Mapping[str, Signature]] = MappingProxyType(
    {
        "open_grant": (bytes, int),
        "attest": (bytes, list, int),
        "generation": (),
        "selftest": (),
        "model_begin": (bytes, bytes, str),
        "model_chunks": (int, int, list),
        "model_finish": (int,),
        "infer": (int, list),
        "reset": (int,),
        "accept": (int,),
        "unload": (int,),
    }
)
"""Of the engine itself."""

_ERRORS: Final[Mapping[str, type[AIFError]]] = MappingProxyType(
    {
        kind.code: kind
        for kind in (
            errors.LocalProtocolError,
            errors.RemoteProtocolError,
            errors.TrustError,
            errors.SignatureInvalid,
            errors.Expired,
            errors.RollbackDetected,
            errors.ReplayDetected,
            errors.DecryptionFailed,
            errors.NotAuthorised,
            errors.NotFound,
            errors.LengthOrHashMismatch,
            errors.ResourceExceeded,
            errors.EngineError,
            errors.EngineCrashed,
            errors.EngineUnavailable,
            AIFError,
        )
    }
)
"""Errors that cross as themselves; others as the nearest of their ancestors here."""


@dataclass(frozen=True, slots=True)
class Request:
    """One operation that the host asks for."""

    number: int
    operation: str
    arguments: list[object]


def encode_request(request: Request) -> bytes:
    return encode({0: request.number, 1: request.operation, 2: request.arguments})


def decode_request(data: bytes) -> Request:
    """A request.

    Raises:
        RemoteProtocolError: it is none.
    """
    fields = Fields(decode(data, max_bytes=MAX_MESSAGE_BYTES), "request")
    number = fields.uint(0, "id", maximum=UINT63_MAX)
    request = Request(
        number, fields.text(1, "operation", max_length=64), fields.array(2, "arguments", max_items=64)
    )
    fields.done()
    return request


def encode_result(number: int, result: object) -> bytes:
    return encode({0: number, 1: int(PSAStatus.SUCCESS), 2: _plain(result)})


def encode_error(number: int, error: AIFError) -> bytes:
    """An error as an answer: its status, its nearest known code, and its words without its causes."""
    status = error.status if isinstance(error, PSAError) else PSAStatus.GENERIC_ERROR
    code = next(kind.code for kind in type(error).__mro__ if _ERRORS.get(getattr(kind, "code", "")) is kind)
    words = [code, str(error)[:_MAX_TEXT], error.hint[:_MAX_TEXT]]
    return encode({0: number, 1: int(status), 2: words})


def decode_answer(data: bytes, number: int) -> object:
    """The result of request ``number``.

    Raises:
        AIFError: the error that the engine answered with.
        RemoteProtocolError: not the answer to this request.
    """
    fields = Fields(decode(data, max_bytes=MAX_MESSAGE_BYTES), "answer")
    if fields.uint(0, "id", maximum=UINT63_MAX) != number:
        raise RemoteProtocolError("the Security Engine answered another request")
    status = fields.integer(1, "status", minimum=-1000, maximum=0)
    if status == PSAStatus.SUCCESS:
        found = decode_map(data)[2]
        return found
    row = Fields.of_row(fields.array(2, "error", max_items=3), "answer")
    code, message = row.text(0, "code", max_length=20), row.text(1, "message", max_length=_MAX_TEXT)
    raise _error(status, code, message, str(decode_map(data)[2][2]))
