"""Decoders right behind a socket: MQTT packets, and calls and answers between processes of one user."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from aif.errors import AIFError, RemoteProtocolError, TransportError
from aif.transport import local
from aif.transport.local import LocalServer
from aif.transport.packets import PacketReader, packet_id_of, puback, publish, split_publish, text
from tests.fuzz.campaign import Decoder, without_folder
from tests.fuzz.inputs import EDGES, JSON_LEAVES, damaged_text, damaged_tree, noise

MAX_PACKET_BYTES = 4096
JSON_WORDS = ("NaN", "1e999", "9" * 5000, "[" * 3000, '{"a":' * 3000, '"\\ud800"', "null", "[]", '"', "\0")


# --- MQTT -----------------------------------------------------------------------------------------


def _packets() -> Decoder:
    """A connection that lives through a batch; a broken one is opened again."""

    def start() -> Callable[[bytes], object]:
        reader = PacketReader(MAX_PACKET_BYTES)

        def feed(data: bytes) -> None:
            nonlocal reader
            try:
                for first, body in reader.feed(data):
                    assert len(body) <= MAX_PACKET_BYTES
                    if first >> 4 == 3:
                        topic, packet_id, payload = split_publish(first, body)
                        assert len(topic) + len(payload) + 2 * bool(packet_id) + 2 == len(body)
                    else:
                        packet_id_of(body, more=first >> 4 == 9)
            except RemoteProtocolError:
                reader = PacketReader(MAX_PACKET_BYTES)
                raise

        return feed

    def craft(rng: Random) -> bytes:
        body = b"".join(rng.choice((rng.choice(EDGES), noise(rng, 20))) for _ in range(rng.randrange(4)))
        length = rng.choice((bytes([len(body) % 128]), b"\x80\1", b"\xff\xff\xff\x7f", b"\xff" * 5))
        return bytes([rng.randrange(256)]) + length + body

    seeds = (
        publish(text("a/b"), b"xy", qos=1, retain=True, packet_id=10), puback(258), b"\x90\3\0\1\1",
        publish(text("t"), bytes(300), qos=0, retain=False, packet_id=0),
    )  # fmt: skip
    return Decoder("mqtt packets", seeds, start, (RemoteProtocolError,), craft)


# --- the local socket -----------------------------------------------------------------------------


async def _echo(call: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"call": call, "arguments": dict(arguments)}


def _calls(folder: Path) -> Decoder:
    """Lines to a serving socket. Each is answered by a line, and no task dies of one."""
    runner, path = asyncio.Runner(), folder / "calls"
    server, died = LocalServer(path, _echo), list[object]()

    async def start() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: died.append(context))
        await server.start()

    def close() -> None:
        runner.run(server.aclose())
        runner.close()

    async def exchange(data: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(data.replace(b"\n", b" ") + b"\n")
        answer = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return answer

    def feed(data: bytes) -> None:
        answer = runner.run(exchange(data))
        if died:
            raise AssertionError(f"a task died: {died.pop()}")
        if "error" in json.loads(answer):
            raise TransportError("refused")

    def craft(rng: Random) -> bytes:
        if rng.random() < 0.3:
            return damaged_text(rng, (text_of,), JSON_WORDS).encode()
        return json.dumps(damaged_tree(rng, tree, JSON_LEAVES)).encode()

    runner.run(start())
    tree = {"call": "logs", "arguments": {"follow": True}}
    text_of = json.dumps(tree)
    return Decoder("local call", (text_of.encode(),), lambda: feed, (TransportError,), craft, close)


def _answers(folder: Path) -> Decoder:
    """Lines from a serving socket to a caller."""
    runner, path = asyncio.Runner(), folder / "answers"
    answer = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        writer.close()

    async def start() -> asyncio.Server:
        return await asyncio.start_unix_server(serve, path)

    async def stop() -> None:
        server.close()
        await server.wait_closed()

    def close() -> None:
        runner.run(stop())
        runner.close()

    def feed(data: bytes) -> None:
        nonlocal answer
        answer = data.replace(b"\n", b" ") + b"\n"
        runner.run(local.call(path, "status"))

    def craft(rng: Random) -> bytes:
        if rng.random() < 0.3:
            return damaged_text(rng, texts, JSON_WORDS).encode()
        return json.dumps(damaged_tree(rng, rng.choice(trees), JSON_LEAVES)).encode()

    server = runner.run(start())
    failure = {"code": "AIF-E0001", "exit_code": 1, "message": "m", "hint": "h", "diagnostics": "d"}
    trees: list[dict[str, Any]] = [{"result": {"a": [1]}}, {"error": failure}, {"item": 1}]
    texts = tuple(json.dumps(tree) for tree in trees)
    return Decoder("local answer", tuple(t.encode() for t in texts), lambda: feed, (AIFError,), craft, close)


FACTORIES: Mapping[str, Callable[[Path], Decoder]] = {
    "mqtt packets": without_folder(_packets),
    "local call": _calls,
    "local answer": _answers,
}
"""Decoders by name; each may write into the folder it gets."""
