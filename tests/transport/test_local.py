"""Calls over a Unix socket: results, streams, errors with their words, and callers that misbehave."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from aif.errors import NotConnected, NotFound, TransportError
from aif.transport import local
from aif.transport.local import MAX_LINE_BYTES, LocalServer, RemoteError

PATIENCE_S = 60.0


class Answers:
    """A handler with one call of each kind."""

    def __init__(self) -> None:
        self.streams_open = 0
        self.stream_ended = asyncio.Event()

    async def __call__(self, call: str, arguments: Mapping[str, Any]) -> Any:
        match call:
            case "echo":
                return dict(arguments)
            case "fail":
                raise NotFound("no such thing", hint="look elsewhere")
            case "defect":
                return 1 / 0
            case "count":
                return self._count(int(arguments["last"]))
            case _:
                return self._count(1 << 40)

    async def _count(self, last: int) -> AsyncIterator[int]:
        self.streams_open += 1
        try:
            for number in range(last):
                yield number
                await asyncio.sleep(0)
        finally:
            self.streams_open -= 1
            self.stream_ended.set()


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[tuple[Path, Answers]]:
    answers = Answers()
    server = LocalServer(folder / "s", answers)
    await server.start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield folder / "s", answers
    finally:
        await server.aclose()


def test_a_call_gets_its_result_and_a_stream_its_items(tmp_path: Path) -> None:
    async def journey() -> None:
        async with served(tmp_path) as (path, answers):
            assert await local.call(path, "echo", a=1, b=["ü"]) == {"a": 1, "b": ["ü"]}
            assert [item async for item in local.stream(path, "count", last=500)] == list(range(500))
            assert answers.streams_open == 0
            assert stat.S_IMODE(path.stat().st_mode) == 0o600

    asyncio.run(journey())


def test_errors_keep_their_words_and_their_exit_code(tmp_path: Path) -> None:
    async def journey() -> None:
        async with served(tmp_path) as (path, _):
            with pytest.raises(RemoteError) as failed:
                await local.call(path, "fail")
            assert failed.value.remote_code == "AIF-E0601"
            assert failed.value.exit_code == NotFound.exit_code
            assert failed.value.diagnostics() == (
                "error[AIF-E0601]: no such thing\n   = help: look elsewhere"
            )
            with pytest.raises(RemoteError, match=r"^the Controller failed in defect: ZeroDivisionError: "):
                await local.call(path, "defect")
            assert await local.call(path, "echo") == {}  # it goes on

    asyncio.run(journey())


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"garbage\n",
        b"[]\n",
        b'{"call": 1, "arguments": 7}\n',
        b"\xff\n",
        b"[" * 99_999 + b"\n",
        b"x" * (MAX_LINE_BYTES + 10),
    ],
    ids=["empty", "text", "list", "arguments", "bytes", "deep", "endless"],
)
def test_what_is_no_call_is_refused(tmp_path: Path, line: bytes) -> None:
    async def journey() -> None:
        async with served(tmp_path) as (path, _):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(line)
            body = json.loads(await reader.readline())
            assert body["error"]["message"] == "a call is one JSON line"
            assert await reader.read() == b""
            writer.close()
            assert await local.call(path, "echo") == {}

    asyncio.run(journey())


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage", b"null", b"7", b"[]", b'"error"', b"[" * 99_999, b'{"error": null}', b'{"error": {}}',
        b'{"error": {"message": "m", "hint": "h", "code": "c", "exit_code": "1", "diagnostics": ""}}',
        b'{"error": {"message": "m", "hint": "h", "code": "c", "exit_code": 0, "diagnostics": ""}}',
        b'{"error": {"message": "m", "hint": "h", "code": "c", "exit_code": 256, "diagnostics": ""}}',
        b'{"error": {"message": "m", "hint": [], "code": "c", "exit_code": 1, "diagnostics": ""}}',
    ],
)  # fmt: skip
def test_what_is_no_answer_is_told(tmp_path: Path, answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer + b"\n")
        writer.close()

    async def journey() -> None:
        async with asyncio.timeout(PATIENCE_S), await asyncio.start_unix_server(serve, tmp_path / "s"):
            with pytest.raises(TransportError, match="cannot be read"):
                await local.call(tmp_path / "s", "status")

    asyncio.run(journey())


def test_a_stream_ends_when_its_reader_leaves(tmp_path: Path) -> None:
    async def journey() -> None:
        async with served(tmp_path) as (path, answers):
            stream = local.stream(path, "endless")
            assert await anext(stream) == 0
            await stream.aclose()  # type: ignore[attr-defined]  # it is a generator
            await answers.stream_ended.wait()
            assert answers.streams_open == 0

    asyncio.run(journey())


def test_a_server_that_closes_ends_its_streams_quietly(tmp_path: Path) -> None:
    async def journey() -> None:
        problems: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        async with served(tmp_path) as (path, _):
            stream = local.stream(path, "endless")
            assert await anext(stream) == 0
        with pytest.raises(NotConnected, match=r"^the Controller closed the connection$"):
            async for _ in stream:
                pass
        assert not path.exists()
        assert problems == []

    asyncio.run(journey())


def test_one_server_per_socket_and_none_after_a_crash(tmp_path: Path) -> None:
    async def journey() -> None:
        async with served(tmp_path) as (path, answers):
            with pytest.raises(TransportError, match=r"^another Controller already serves .*/s$"):
                await LocalServer(path, answers).start()
            assert await local.call(path, "echo") == {}
        with pytest.raises(NotConnected, match=r"^no Controller answers at "):
            await local.call(path, "echo")
        crashed = await asyncio.start_unix_server(lambda _reader, _writer: None, path)
        crashed.close()
        await crashed.wait_closed()
        assert path.exists()  # as a process that was killed leaves it
        async with served(tmp_path) as (path, _):
            assert await local.call(path, "echo") == {}

    asyncio.run(journey())


def test_a_path_that_no_socket_can_have(tmp_path: Path) -> None:
    async def journey() -> None:
        with pytest.raises(TransportError, match="is too long for a Unix socket") as refused:
            await LocalServer(tmp_path / ("x" * 110), Answers()).start()
        assert refused.value.hint == "use a shorter --home, such as ~/.aif"

    asyncio.run(journey())


def test_a_controller_that_dies_while_it_is_asked_is_not_connected(tmp_path: Path) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async def run() -> None:
        async with await asyncio.start_unix_server(hang_up, tmp_path / "s"):
            for _ in range(200):  # the connection ends before, while or after the call is written
                with pytest.raises(NotConnected, match="closed the connection"):
                    await local.call(tmp_path / "s", "status", padding="x" * 100_000)
            with pytest.raises(NotConnected, match="closed the connection"):
                async for _ in local.stream(tmp_path / "s", "logs"):
                    pass

    asyncio.run(run())
