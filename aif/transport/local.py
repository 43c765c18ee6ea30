"""Calls between processes of one user on one machine: JSON lines over a Unix socket.

How a User Agent (the ``aif`` command) talks to the Controller. The socket lies in the Controller's state
folder and only its owner may open it; nothing listens on the network. A call gets one result, or a stream
of items until either side ends it. Errors travel with their code, so the caller sees the same screen.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from aif.errors import AIFError, NotConnected, TransportError

MAX_LINE_BYTES = 4 * 1024 * 1024
MAX_SOCKET_PATH_BYTES = 107
"""``sun_path`` of Linux holds 108 bytes including the terminator (unix(7))."""

MAX_EXIT_CODE = 255

Handler = Callable[[str, Mapping[str, Any]], Awaitable[Any]]
"""``await handler(call, arguments)`` gives a JSON value or an async iterator of JSON values."""


class RemoteError(AIFError):
    """An error that the other process reported; it prints as it would have there."""

    def __init__(self, message: str, hint: str, code: str, exit_code: int, diagnostics: str) -> None:
        super().__init__(message, hint=hint)
        self.remote_code = code
        self.exit_code = exit_code  # type: ignore[misc]  # the family's code of the other process
        self._text = diagnostics

    def diagnostics(self) -> str:
        return self._text or super().diagnostics()


def _error_body(error: AIFError) -> dict[str, Any]:
    return {
        "code": error.code,
        "exit_code": error.exit_code,
        "message": str(error),
        "hint": error.hint,
        "diagnostics": error.diagnostics(),
    }


class LocalServer:
    """Serves calls on a Unix socket until closed."""

    def __init__(self, path: Path, handler: Handler) -> None:
        self.path, self._handler = path, handler
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._closing = False

    async def start(self) -> None:
        """Listen.

        Raises:
            TransportError: the path is too long for a socket, or another process listens there.
        """
        if len(os.fsencode(self.path)) > MAX_SOCKET_PATH_BYTES:
            raise TransportError(
                f"{self.path} is too long for a Unix socket", hint="use a shorter --home, such as ~/.aif"
            )
        if self.path.exists():
            with suppress(OSError):
                _, writer = await asyncio.open_unix_connection(self.path)
                writer.close()
                raise TransportError(
                    f"another Controller already serves {self.path}", hint="stop it, or use another --home"
                )
            self.path.unlink()
        previous = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._accept, self.path, limit=MAX_LINE_BYTES)
        finally:
            os.umask(previous)

    async def aclose(self) -> None:
        self._closing = True
        if self._server is not None:
            self._server.close()
            for task in list(self._connections):
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)
            self._server = None
        self.path.unlink(missing_ok=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # asyncio runs this in a task
        self._connections.add(task)
        try:
            await self._serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the caller left; its call ends with it
        except asyncio.CancelledError:
            if not self._closing:  # asyncio itself looks at how this task ended, and does not expect this
                raise
        finally:
            self._connections.discard(task)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readline()
            if not line:
                return
            request = json.loads(line)
            call, arguments = str(request["call"]), dict(request.get("arguments", {}))
        except (ValueError, KeyError, TypeError, RecursionError):
            await _send(writer, {"error": _error_body(TransportError("a call is one JSON line"))})
            return
        gone = asyncio.create_task(reader.read(1))
        work = asyncio.create_task(self._answer(call, arguments, writer))
        try:
            await asyncio.wait({gone, work}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (gone, work):
                task.cancel()
            await asyncio.gather(gone, work, return_exceptions=True)

    async def _answer(self, call: str, arguments: Mapping[str, Any], writer: asyncio.StreamWriter) -> None:
        try:
            result = await self._handler(call, arguments)
            if isinstance(result, AsyncIterator):
                async for item in result:
                    await _send(writer, {"item": item})
                await _send(writer, {"end": True})
            else:
                await _send(writer, {"result": result})
        except AIFError as error:
            await _send(writer, {"error": _error_body(error)})
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001  # a defect must reach whoever called, not vanish with the task
            defect = AIFError(f"the Controller failed in {call}: {type(error).__name__}: {error}")
            await _send(writer, {"error": _error_body(defect)})


async def _send(writer: asyncio.StreamWriter, body: Mapping[str, Any]) -> None:
    writer.write(json.dumps(body, separators=(",", ":")).encode() + b"\n")
    await writer.drain()


async def _open(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        return await asyncio.open_unix_connection(path, limit=MAX_LINE_BYTES)
    except OSError as error:
        raise NotConnected(
            f"no Controller answers at {path}", hint="start one with `aif controller`, or give its --home"
        ) from error


async def _ask(writer: asyncio.StreamWriter, name: str, arguments: Mapping[str, Any]) -> None:
    try:
        await _send(writer, {"call": name, "arguments": arguments})
    except ConnectionError as error:
        raise _closed() from error


async def _receive(reader: asyncio.StreamReader) -> dict[str, Any]:
    try:
        line = await reader.readline()
        body = json.loads(line) if line else {}
    except (ValueError, RecursionError) as error:
        raise _unreadable() from error
    except ConnectionError as error:
        raise _closed() from error
    if not line:
        raise _closed()
    match body:
        case {
            "error": {
                "message": str(message), "hint": str(hint), "code": str(code), "exit_code": int(exit_code),
                "diagnostics": str(diagnostics),
            }
        } if 0 < exit_code <= MAX_EXIT_CODE:  # fmt: skip
            raise RemoteError(message, hint, code, exit_code, diagnostics)
        case dict() if "error" not in body:
            return body
        case _:
            raise _unreadable()


def _closed() -> NotConnected:
    return NotConnected("the Controller closed the connection", hint="see its log")


def _unreadable() -> TransportError:
    return TransportError(
        "the answer of the Controller cannot be read", hint="do both sides have the same version?"
    )


async def call(path: Path, name: str, **arguments: Any) -> Any:
    """One call, one result.

    Raises:
        NotConnected: nobody serves ``path``.
        RemoteError: the call failed there.
    """
    reader, writer = await _open(path)
    try:
        await _ask(writer, name, arguments)
        return (await _receive(reader)).get("result")
    finally:
        writer.close()


async def stream(path: Path, name: str, **arguments: Any) -> AsyncIterator[Any]:
    """One call, many items; ends when the server ends it or the caller stops iterating."""
    reader, writer = await _open(path)
    try:
        await _ask(writer, name, arguments)
        while "item" in (body := await _receive(reader)):
            yield body["item"]
    finally:
        writer.close()
