"""The process of a Security Engine and the socket to it: one request, one answer.

Decides how the child is started and when it counts as lost; what may be asked is decided by
``security_engine``. Not for several threads at a time.

Invariants: the child inherits one end of a socket pair and nothing else; whatever goes wrong in an exchange
ends it, because an answer that nobody read would be taken for the next one's.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Final

from aif.errors import RemoteProtocolError
from aif.trusted.engine_messages import LENGTH, MAX_MESSAGE_BYTES, Request, decode_answer, encode_request
from aif.trusted.psa import PSAError, PSAStatus

_INHERITED_ENVIRONMENT: Final = ("LANG", "LD_LIBRARY_PATH", "PATH", "TMPDIR")


class EngineLink:
    """A child that has been started; ``timeout_s`` is the longest wait for one answer."""

    def __init__(self, timeout_s: float) -> None:
        self._number, self._lost = 0, False
        ours, theirs = socket.socketpair()
        environment = {name: os.environ[name] for name in _INHERITED_ENVIRONMENT if name in os.environ}
        # Isolated, and compiled code is kept as this process keeps it: compiling doubles the time of a start.
        flags = ["-I", "-B"] if sys.dont_write_bytecode else ["-I"]
        command = [sys.executable, *flags, "-m", "aif.trusted.engine_process"]
        with theirs:
            self.process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=environment | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                pass_fds=(theirs.fileno(),),
                process_group=0,  # Ctrl-C belongs to the host, which then ends its engine
            )
        self.socket = ours
        ours.settimeout(timeout_s)

    @property
    def lost(self) -> bool:
        """Whether the process is gone: found by an exchange that failed, or here."""
        if not self._lost and self.process.poll() is not None:
            self._lost = True
        return self._lost

    def close(self) -> None:
        """Give back process and socket; called with no exchange open."""
        self._lost = True
        self.process.kill()
        self.process.wait()
        self.socket.close()

    def exchange(self, operation: str, arguments: Sequence[object]) -> Any:
        """One request and its answer, as CBOR values.

        Raises:
            AIFError: what the operation raised.
            PSAError: ``COMMUNICATION_FAILURE``, the engine died, hung, or is not running.
        """
        if self.lost:
            raise _failure("the Security Engine is not running")
        self._number += 1
        request = encode_request(Request(self._number, operation, list(arguments)))
        if len(request) > MAX_MESSAGE_BYTES:
            raise PSAError(PSAStatus.INVALID_ARGUMENT, f"{operation}: more than a message can carry")
        try:
            self.socket.sendall(LENGTH.pack(len(request)) + request)
            (length,) = LENGTH.unpack(self._receive(LENGTH.size))
            if length > MAX_MESSAGE_BYTES:
                raise RemoteProtocolError(f"an answer of {length:,} B")
            answer = self._receive(length)
        except BaseException as error:
            # Also after an interrupt: an answer that nobody read would be taken for the next one's.
            self._lost = True
            self.process.kill()
            if isinstance(error, OSError | EOFError | RemoteProtocolError):
                raise _failure(f"the Security Engine was lost during {operation}") from error
            raise
        return decode_answer(answer, self._number)

    def _receive(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            piece = self.socket.recv(min(count - len(data), 1 << 20))
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)


def _failure(message: str) -> PSAError:
    return PSAError(
        PSAStatus.COMMUNICATION_FAILURE, message, hint="restart the engine, then attest this device again"
    )
