"""The broker process: ready, alone on loopback, without secrets, and gone with its parent."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import sys
from pathlib import Path

import pytest

import aif
from aif.errors import BrokerRefused, LocalProtocolError
from aif.transport.embedded_broker import PORT_TAKEN, EmbeddedBroker

pytestmark = pytest.mark.integration

PATIENCE_S = 60.0

WITH_PACKAGE = {**os.environ, "PYTHONPATH": str(Path(aif.__file__).resolve().parents[1])}

PARENT = """
import asyncio, sys
from pathlib import Path
from aif.transport.embedded_broker import EmbeddedBroker

async def main() -> None:
    broker = EmbeddedBroker(Path(sys.argv[1]))
    await broker.start()
    print(broker.pid, flush=True)
    await broker.wait()

asyncio.run(main())
"""


def proc(process_id: int, what: str) -> Path:
    """What Linux tells about a process."""
    return Path("/proc") / str(process_id) / what


def listening(process_id: int) -> set[str]:
    """Local addresses, in the kernel's spelling, on which a process accepts TCP connections."""
    mine = {str(entry.readlink()) for entry in proc(process_id, "fd").iterdir()}
    tables = (proc(process_id, table).read_text().splitlines()[1:] for table in ("net/tcp", "net/tcp6"))
    rows = [line.split() for lines in tables for line in lines]
    return {row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in mine}


def ended(descriptor: int) -> bool:
    """Whether the process behind a pidfd ends in time."""
    ready, _, _ = select.select([descriptor], [], [], PATIENCE_S)
    return descriptor in ready


async def test_serves_on_loopback_only(tmp_path: Path) -> None:
    async with EmbeddedBroker(tmp_path / "log") as broker:
        assert listening(broker.pid) == {f"0100007F:{broker.address.port:04X}"}
        assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


async def test_inherits_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIF_TEST_SECRET", "hunter2")
    async with EmbeddedBroker(tmp_path / "log") as broker:
        environment = proc(broker.pid, "environ").read_bytes()
        assert b"PATH=" in environment
        assert b"hunter2" not in environment


async def test_port_is_taken(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        broker = EmbeddedBroker(tmp_path / "log", port=port)
        with pytest.raises(BrokerRefused) as caught:
            await broker.start()
    assert str(caught.value) == f"cannot start a broker on 127.0.0.1:{port}: another process listens there"
    assert caught.value.hint == "end that process, choose another port, or use it as the broker"
    await broker.start()  # the port is free now
    await broker.stop()


async def test_a_port_that_is_lost_between_choice_and_use() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "aif.transport.embedded_broker"),
            *("--port", str(other.getsockname()[1]), "--parent", str(os.getpid())),
            stdin=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=WITH_PACKAGE,
        )
        assert child.stderr is not None
        assert b"Address already in use" in await child.stderr.read()
        assert await child.wait() == PORT_TAKEN


async def test_another_broker_on_the_port_is_not_taken_for_ours(tmp_path: Path) -> None:
    async with EmbeddedBroker(tmp_path / "first") as first:
        with pytest.raises(BrokerRefused, match="another process listens there"):
            await EmbeddedBroker(tmp_path / "second", port=first.address.port).start()


async def test_too_slow_is_an_error_and_leaves_no_process(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path / "log", start_timeout_s=0.001)
    with pytest.raises(BrokerRefused, match=r"did not answer within 0\.001 s"):
        await broker.start()
    with pytest.raises(LocalProtocolError, match="the broker is not running"):
        _ = broker.pid


async def test_stops_once_and_twice(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path / "log")
    with pytest.raises(LocalProtocolError, match="has not been started"):
        _ = broker.address
    await broker.start()
    with pytest.raises(LocalProtocolError, match="runs already"):
        await broker.start()
    descriptor = os.pidfd_open(broker.pid)
    await broker.stop()
    assert ended(descriptor)
    os.close(descriptor)
    await broker.stop()


async def test_a_hung_process_is_killed(tmp_path: Path) -> None:
    async with EmbeddedBroker(tmp_path / "log") as broker:
        os.kill(broker.pid, signal.SIGSTOP)


async def test_its_death_is_noticed(tmp_path: Path) -> None:
    async with EmbeddedBroker(tmp_path / "log") as broker:
        os.kill(broker.pid, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE_S):
            assert await broker.wait() == -signal.SIGKILL


async def test_dies_with_its_parent(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT, str(tmp_path / "log")),
        stdout=asyncio.subprocess.PIPE,
        env=WITH_PACKAGE,
    )
    assert parent.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        broker_id = int(await parent.stdout.readline())
    descriptor = os.pidfd_open(broker_id)
    parent.kill()
    await parent.wait()
    assert ended(descriptor)
    os.close(descriptor)


@pytest.mark.parametrize("port", [-1, 65_536])
def test_port_has_bounds(tmp_path: Path, port: int) -> None:
    with pytest.raises(LocalProtocolError, match=f"port {port} is not between 0 and 65535"):
        EmbeddedBroker(tmp_path / "log", port=port)
