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
from dataclasses import dataclass, fields
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

_GRANT_FIELDS: Final = tuple(field.name for field in fields(Grant))

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
        "enrolled": (bytes, bytes),
        "open_grant": (bytes, int),
        "attest": (bytes, list, int),
        "sign_as_device": (bytes,),
        "stamp_key": (bytes,),
        "generation": (),
        "floors": (),
        "lift_floors": (list,),
        "selftest": (),
        "load_runtime": (str,),
        "model_begin": (bytes, bytes, str),
        "model_chunks": (int, int, list),
        "model_finish": (int,),
        "model_trial": (int, int),
        "open_in_place": (bytes, bytes, int, list),
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
            PSAError,
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

_STATUSES: Final = frozenset(int(status) for status in PSAStatus)


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
    read = Fields(decode(data, max_bytes=MAX_MESSAGE_BYTES), "request")
    request = Request(
        read.uint(0, "id", maximum=UINT63_MAX),
        read.text(1, "operation", max_length=64),
        read.array(2, "arguments", max_items=64),
    )
    read.done()
    return request


def check_arguments(values: list[object], signature: Signature) -> list[Any]:
    """The arguments of an operation, if they are as many and of the types it takes.

    Raises:
        PSAError: ``INVALID_ARGUMENT``.
    """
    if len(values) != len(signature):
        raise _bad_argument(f"the operation takes {len(signature)} arguments, not {len(values)}")
    return [
        attributes_of(value) if kind is KeyAttributes else _typed(value, kind)
        for value, kind in zip(values, signature, strict=True)
    ]


def encode_result(number: int, result: object) -> bytes:
    """An answer; what is larger than a message becomes an error."""
    answer = encode({0: number, 1: int(PSAStatus.SUCCESS), 2: result})
    if len(answer) > MAX_MESSAGE_BYTES:
        return encode_error(
            number, PSAError(PSAStatus.INSUFFICIENT_MEMORY, "the result is larger than a message")
        )
    return answer


def encode_error(number: int, error: AIFError) -> bytes:
    """An error as an answer: its status, its nearest known code, and its words without its causes."""
    status = error.status if isinstance(error, PSAError) else PSAStatus.GENERIC_ERROR
    ancestors = [kind for kind in type(error).__mro__ if issubclass(kind, AIFError)]
    code = next(kind.code for kind in ancestors if _ERRORS.get(kind.code) is kind)
    return encode({0: number, 1: int(status), 2: [code, str(error)[:_MAX_TEXT], error.hint[:_MAX_TEXT]]})


def decode_answer(data: bytes, number: int) -> Any:
    """The result of request ``number``, as the CBOR value it is.

    As strict as the engine's own side: an engine that was taken over by a model must not reach further.

    Raises:
        AIFError: the error that the engine answered with.
        RemoteProtocolError: not the answer to this request.
    """
    match decode(data, max_bytes=MAX_MESSAGE_BYTES):
        case {0: int(found), 1: int(status), 2: result} if found == number:
            if status == PSAStatus.SUCCESS:
                return result
            raise _error_of(status, result)
        case _:
            raise RemoteProtocolError("the Security Engine's answer is not to this request")


def row_of_attributes(attributes: KeyAttributes) -> list[int]:
    numbers = (attributes.key_type, attributes.algorithm, attributes.usage, attributes.bits)
    return [*(int(number) for number in numbers), int(attributes.lifetime), attributes.key_id]


def attributes_of(row: object) -> KeyAttributes:
    """Key attributes from a row of six numbers.

    Raises:
        PSAError: ``INVALID_ARGUMENT``.
    """
    match row:
        case [int(kind), int(algorithm), int(usage), int(bits), int(lifetime), int(key_id)]:
            try:
                return KeyAttributes(
                    KeyType(kind), Algorithm(algorithm), KeyUsage(usage), bits, KeyLifetime(lifetime), key_id
                )
            except ValueError as error:
                raise _bad_argument(f"key attributes: {error}") from error
        case _:
            raise _bad_argument("key attributes are six numbers")


def row_of_info(info: StorageInfo) -> list[int]:
    return [info.capacity_bytes, info.size_bytes, int(info.flags)]


def info_of(row: Any) -> StorageInfo:
    capacity_bytes, size_bytes, flags = row
    return StorageInfo(capacity_bytes, size_bytes, StorageFlag(flags))


def row_of_grant(grant: Grant) -> list[object]:
    """A grant that was opened and accepted, with the keys of its channel."""
    roster = [[r.index, r.aim_instance_id, r.host_id, r.grant_nonce, r.sign_pk] for r in grant.roster]
    values: dict[str, object] = {name: getattr(grant, name) for name in _GRANT_FIELDS}
    values |= {"roles": int(grant.roles), "auth_mode": grant.auth_mode.value, "roster": roster}
    values["refused"] = list(grant.refused)
    return list(values.values())


def grant_of(row: Any) -> Grant:
    """The inverse of ``row_of_grant``; the row comes from the engine, which has checked the grant."""
    values = dict(zip(_GRANT_FIELDS, row, strict=True))
    values["roles"], values["auth_mode"] = Role(values["roles"]), AuthMode(values["auth_mode"])
    values["roster"] = tuple(RosterRow(*sender) for sender in values["roster"])
    values["refused"] = tuple(values["refused"])
    return Grant(**values)


def _error_of(status: int, words: object) -> AIFError:
    match words:
        case [str(code), str(message), str(hint)] if code in _ERRORS:
            if code != PSAError.code:
                return _ERRORS[code](message, hint=hint)
            if status in _STATUSES:
                return psa_error(PSAStatus(status), message, hint)
            return RemoteProtocolError(f"the Security Engine answered with the unknown status {status}")
        case _:
            return RemoteProtocolError("the Security Engine answered an error that cannot be read")


def psa_error(status: PSAStatus, message: str, hint: str) -> PSAError:
    """A PSA error whose message names its status already."""
    return PSAError(status, message.removesuffix(f" ({status.name})"), hint=hint)


def _typed(value: object, kind: type) -> object:
    if type(value) is not kind:
        raise _bad_argument(f"an argument is {type(value).__name__} where {kind.__name__} is taken")
    return value


def _bad_argument(message: str) -> PSAError:
    return PSAError(PSAStatus.INVALID_ARGUMENT, message)
