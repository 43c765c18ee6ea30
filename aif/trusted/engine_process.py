"""The Security Engine's process: started by ``security_engine``, never imported by it.

Decides nothing but the order: protect this process, then answer one request after another until the other
end of the socket is gone. What an operation does is in ``security_core`` and the services.

Invariants: no other process of the same user may read its memory (PR_SET_DUMPABLE 0) and no core file holds
it; one file descriptor is all it inherits; an answer to an unforeseen error names the error's class only.

Arguments: the inherited descriptor and the parent's process id. Its first request must be ``configure``.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import resource
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, cast

from aif.errors import AIFError, EngineUnavailable, RemoteProtocolError
from aif.trusted.engine_messages import (
    AREA_OPERATIONS,
    CRYPTO_OPERATIONS,
    ENGINE_OPERATIONS,
    LENGTH,
    MAX_MESSAGE_BYTES,
    STORAGE_OPERATIONS,
    Request,
    check_arguments,
    decode_request,
    encode_error,
    encode_result,
    row_of_attributes,
    row_of_grant,
    row_of_info,
)
from aif.trusted.protected_models import DeviceFacts, OpenModel, Tensor
from aif.trusted.psa import KeyAttributes, PSAError, PSAStatus, StorageInfo
from aif.trusted.security_core import CoreSettings, SecurityCore, selftest
from aif.trusted.storage import DataLocation, SecureData

_CONFIGURE: Final = (str, str, list, list, str, bool, str)
_PR_GET_DUMPABLE, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 3, 4, 38  # linux/prctl.h


def protect_process() -> None:
    """Keep other processes and core files away from this one's memory.

    Raises:
        OSError: the kernel refuses; then there is no Security Engine.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    libc = ctypes.CDLL(None, use_errno=True)
    for what, value in ((_PR_SET_DUMPABLE, 0), (_PR_SET_NO_NEW_PRIVS, 1)):
        if libc.prctl(what, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


class Dispatcher:
    """Finds what a request asks for, checks its arguments, and calls it."""

    def __init__(self, core: SecurityCore, load_runtime: Callable[[str], None]) -> None:
        """Take what was configured.

        Args:
            core: everything but the messages.
            load_runtime: loads an inference runtime by its name, without a model.
        """
        models = core.models
        self._core = core
        self._own: Mapping[str, Callable[..., object]] = {
            "enrolled": core.enrolled,
            "open_grant": lambda blob, now_s: row_of_grant(core.open_grant(blob, now_s)),
            "attest": core.attest,
            "sign_as_device": core.sign_as_device,
            "stamp_key": core.stamp_key,
            "generation": lambda: core.storage.generation,
            "floors": lambda: [[name, value] for name, value in core.floors.read().items()],
            "lift_floors": lambda rows: core.floors.lift(_floors(rows)),
            "selftest": self._selftest,
            "load_runtime": load_runtime,
            "model_begin": models.begin,
            "model_chunks": models.add_chunks,
            "model_finish": lambda handle: [_descriptions(side) for side in models.finish(handle)],
            "model_trial": models.trial,
            "open_in_place": models.open_in_place,
            "infer": models.infer,
            "reset": models.reset,
            "accept": models.accept,
            "unload": models.unload,
        }

    def answer(self, request: Request) -> object:
        """The result, ready for CBOR.

        Raises:
            AIFError: whatever the operation raises.
        """
        operation, values = request.operation, request.arguments
        if operation in ENGINE_OPERATIONS:
            return self._own[operation](*check_arguments(values, ENGINE_OPERATIONS[operation]))
        if operation in CRYPTO_OPERATIONS:
            owner, *rest = check_arguments(values, (bytes, *CRYPTO_OPERATIONS[operation]))
            return _plain(getattr(self._core.crypto.of(owner), operation)(*rest))
        if operation in STORAGE_OPERATIONS:
            owner, *rest = check_arguments(values, (bytes, *STORAGE_OPERATIONS[operation]))
            return _plain(getattr(self._core.storage.of(owner), operation)(*rest))
        if operation in AREA_OPERATIONS:
            owner, location, flags, *rest = check_arguments(
                values, (bytes, str, int, *AREA_OPERATIONS[operation])
            )
            area = self._core.storage.of(owner).area(SecureData(_location(location), flags))
            return _plain(getattr(area, operation)(*rest))
        raise PSAError(PSAStatus.NOT_SUPPORTED, f"there is no operation {operation!r}")

    def close(self) -> None:
        self._core.close()

    def _selftest(self) -> list[int]:
        """Known answers, then how this process is protected: dumpable, largest core file in bytes."""
        selftest()
        dumpable = ctypes.CDLL(None).prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0)
        return [dumpable, resource.getrlimit(resource.RLIMIT_CORE)[1]]


def serve(connection: socket.socket) -> NoReturn:
    """Answer requests until the other end is gone. A message that is none ends the process."""
    dispatcher: Dispatcher | None = None
    try:
        while True:
            request = decode_request(_receive(connection))
            try:
                if dispatcher is None:
                    core, load_runtime = _configure(request)
                    dispatcher = Dispatcher(core, load_runtime)
                    result: object = [core.identity_pk, core.exchange_pk, core.session_pk]
                else:
                    result = dispatcher.answer(request)
                answer = encode_result(request.number, result)
            except AIFError as error:
                answer = encode_error(request.number, error)
            except Exception as error:  # noqa: BLE001 - one bad request must not end the others; see below
                # The text of an unforeseen error may hold what it was about, so only its class is told.
                failure = PSAError(PSAStatus.SERVICE_FAILURE, f"unforeseen {type(error).__name__}")
                answer = encode_error(request.number, failure)
            connection.sendall(LENGTH.pack(len(answer)) + answer)
    finally:
        if dispatcher is not None:
            dispatcher.close()


def _configure(request: Request) -> tuple[SecurityCore, Callable[[str], None]]:
    """The engine that the first message describes, and what loads an inference runtime beside it."""
    if request.operation != "configure":
        raise PSAError(PSAStatus.BAD_STATE, "the first operation is configure")
    folder, hw_class, ids, anchors, opener, create, remote = check_arguments(request.arguments, _CONFIGURE)
    device_id, hw_class_id, firmware_version, abi = check_arguments(ids, (bytes, bytes, int, int))
    grant_pk, ticket_pk = check_arguments(anchors, (bytes, bytes))
    facts = DeviceFacts(device_id, hw_class_id, firmware_version, abi, ticket_pk or None)
    settings = CoreSettings(
        Path(folder), hw_class, facts, grant_pk or None, create, Path(remote) if remote else None
    )
    core = SecurityCore(settings, random=os.urandom, open_model=lambda: cast("OpenModel", _named(opener)))

    def load_runtime(runtime: str) -> None:
        load: Callable[[str], None] = _named(f"{opener.partition(':')[0]}:load_runtime")
        load(runtime)

    return core, load_runtime


def _named(path: str) -> Any:
    """What the host named, as ``package.module:function``; loaded when it is needed."""
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise EngineUnavailable(f"{path!r} cannot be loaded as an inference engine") from error


def _receive(connection: socket.socket) -> bytes:
    (length,) = LENGTH.unpack(_exactly(connection, LENGTH.size))
    if length > MAX_MESSAGE_BYTES:
        raise RemoteProtocolError(f"a message of {length:,} B is larger than {MAX_MESSAGE_BYTES:,} B")
    return _exactly(connection, length)


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = connection.recv(min(count - len(data), 1 << 20))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


def _descriptions(tensors: Sequence[Tensor]) -> list[list[object]]:
    return [[t.name, list(t.shape), t.dtype, t.scale, t.zero_point] for t in tensors]


def _plain(result: Any) -> object:
    if isinstance(result, KeyAttributes):
        return row_of_attributes(result)
    return row_of_info(result) if isinstance(result, StorageInfo) else result


def _floors(rows: list[object]) -> dict[str, int]:
    floors: dict[str, int] = {}
    for row in rows:
        match row:
            case [str(name), int(value)] if not isinstance(value, bool):
                floors[name] = value
            case _:
                raise PSAError(PSAStatus.INVALID_ARGUMENT, "a floor is a name and a number")
    return floors


def _location(name: str) -> DataLocation:
    try:
        return DataLocation(name)
    except ValueError:
        raise PSAError(PSAStatus.NOT_SUPPORTED, f"there is no data location {name!r}") from None


def main(arguments: list[str]) -> int:
    """Protect this process, then serve."""
    protect_process()
    descriptor, parent = map(int, arguments)
    with socket.socket(fileno=descriptor) as connection:
        connection.set_inheritable(False)
        if os.getppid() != parent:  # it died before this line
            return 0
        try:
            serve(connection)
        except RemoteProtocolError:
            return 1
        except (EOFError, OSError):  # the host is gone
            pass
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
