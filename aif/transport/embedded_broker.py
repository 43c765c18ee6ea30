"""A broker of one's own: rumqttd (package ``iotcore``) in a child process, on loopback only.

Decides how that process is started, when it counts as ready and how it ends. Does not decide when to use
it: it has neither TLS nor access rules, so it serves one machine, and it sets no TCP_NODELAY, so a QoS 1
exchange takes some 44 ms however the client is configured. No latency may be promised or measured over it.
It delivers with the subscriber's QoS, also where the sender used a lower one: subscribe at QoS 0 to be fast.

Invariants: it listens on 127.0.0.1 and nowhere else; it is ready when it answered an MQTT CONNECT; it does
not outlive its parent (parent-death signal, and end of file on its standard input where that signal does not
exist); it inherits no environment beyond what Python needs to start.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import aif
from aif.errors import BrokerRefused, LocalProtocolError
from aif.transport.address import BrokerAddress
from aif.transport.base import MAX_PACKET_BYTES

HOST = "127.0.0.1"

PORT_TAKEN = 3
"""Exit code of the child when another process listens on its port."""

INHERITED = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR")
"""Environment variables the child gets; everything else, secrets included, stays with the parent."""

PORT_ATTEMPTS = 5
"""Tries to find a free port; between choosing and using one, another process may take it."""

RETRY_S = 0.02
"""Between two attempts to reach a starting broker."""

STOP_GRACE_S = 2.0
"""From the request to end until the process is killed."""

_SOURCE = Path(aif.__file__).resolve().parents[1]  # where the child finds this package

_PR_SET_PDEATHSIG = 1  # prctl(2)

# MQTT 3.1.1 §3.1: protocol MQTT, level 4, clean session, keep-alive 10 s, client id "ready".
_CONNECT = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x0a\x00\x05ready"
_CONNACK_ACCEPTED = b"\x20\x02\x00\x00"  # §3.2
_DISCONNECT = b"\xe0\x00"  # §3.14


class EmbeddedBroker:
    """A broker process that lives as long as the ``async with`` block."""

    def __init__(self, log_path: Path, *, port: int = 0, start_timeout_s: float = 20.0) -> None:
        """Prepare a broker.

        Args:
            log_path: gets the child's output, appended; created readable by the owner only.
            port: 1 to 65 535, or 0 for a free one.
            start_timeout_s: how long it may take until it answers.
        """
        if not 0 <= port <= 65_535:
            raise LocalProtocolError(f"port {port} is not between 0 and 65535")
        self._log_path, self._wanted_port, self._start_timeout_s = log_path, port, start_timeout_s
        self._port = 0
        self._process: asyncio.subprocess.Process | None = None

    @property
    def address(self) -> BrokerAddress:
        """Where it listens."""
        if self._port == 0:
            raise LocalProtocolError("the broker has not been started")
        return BrokerAddress(HOST, self._port)

    @property
    def pid(self) -> int:
        """Process id of the running broker."""
        if self._process is None:
            raise LocalProtocolError("the broker is not running")
        return self._process.pid

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the process and return when it serves.

        Raises:
            BrokerRefused: the port is taken, or the process ended or did not answer in time.
            LocalProtocolError: it runs already.
        """
        if self._process is not None:
            raise LocalProtocolError("the broker runs already")
        for _ in range(1 if self._wanted_port else PORT_ATTEMPTS):
            try:
                self._port = _available(self._wanted_port)
            except OSError as error:
                raise _taken(self._wanted_port) from error
            self._process = await self._spawn(self._port)
            try:
                async with asyncio.timeout(self._start_timeout_s):
                    code = await self._ready_or_ended(self._process)
            except TimeoutError:
                await self.stop()
                raise self._refused(f"did not answer within {self._start_timeout_s:g} s") from None
            except BaseException:
                await self.stop()
                raise
            if code is None:
                return
            await self.stop()
            if code != PORT_TAKEN:
                raise self._refused(f"ended with code {code}")
        raise _taken(self._port)

    async def stop(self) -> None:
        """End the process: first by request, then by force. May be called again."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(STOP_GRACE_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
        await process.wait()

    async def wait(self) -> int:
        """Wait until the process ends by itself; returns its exit code."""
        if self._process is None:
            raise LocalProtocolError("the broker is not running")
        return await self._process.wait()

    async def _spawn(self, port: int) -> asyncio.subprocess.Process:
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
        environment["PYTHONPATH"] = str(_SOURCE)
        log = os.open(self._log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "aif.transport.embedded_broker"),
                *("--port", str(port), "--parent", str(os.getpid())),
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C in the terminal ends the parent, which then ends its broker
            )
        finally:
            os.close(log)

    async def _ready_or_ended(self, process: asyncio.subprocess.Process) -> int | None:
        """None when the broker answered, else the code it ended with."""
        ended = asyncio.ensure_future(process.wait())
        answer: asyncio.Future[bool] | None = None
        try:
            while not ended.done():
                answer = asyncio.ensure_future(_answers(self._port))
                await asyncio.wait({ended, answer}, return_when=asyncio.FIRST_COMPLETED)
                if answer.done() and answer.result() and not ended.done():
                    return None
                await asyncio.wait({ended}, timeout=RETRY_S)
            return ended.result()
        finally:
            unfinished = [future for future in (ended, answer) if future is not None and not future.done()]
            for future in unfinished:
                future.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)

    def _refused(self, what: str) -> BrokerRefused:
        return BrokerRefused(
            f"the broker process on {HOST}:{self._port} {what}", hint=f"its output is in {self._log_path}"
        )


def _available(port: int) -> int:
    """A port that nobody listens on: the given one, or any for 0; raises OSError when it is taken."""
    with socket.socket() as probe:
        # as the broker does: connections of a broker that just ended must not keep the port
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, port))
        return int(probe.getsockname()[1])


def _taken(port: int) -> BrokerRefused:
    return BrokerRefused(
        f"cannot start a broker on {HOST}:{port}: another process listens there",
        hint="end that process, choose another port, or use it as the broker",
    )


async def _answers(port: int) -> bool:
    """Whether something on the port accepts an MQTT connection."""
    try:
        reader, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    try:
        writer.write(_CONNECT)
        accepted = await reader.readexactly(len(_CONNACK_ACCEPTED)) == _CONNACK_ACCEPTED
        writer.write(_DISCONNECT)
    except (OSError, asyncio.IncompleteReadError):
        return False
    else:
        return accepted
    finally:
        writer.close()


# --- the child process --------------------------------------------------------------------------------


def _end_with_parent(parent_pid: int) -> None:
    """End this process when its parent does."""

    def watch() -> None:
        # sys.stdin has a lock that Python wants when it ends; read the descriptor instead
        while os.read(0, 4_096):
            pass
        os._exit(0)  # end of file: the parent closed it, or is gone

    threading.Thread(target=watch, daemon=True).start()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:  # it ended before the line above
            os._exit(0)


def main() -> int:
    """Serve until killed; returns only when the broker could not start."""
    parser = argparse.ArgumentParser(description="MQTT broker on loopback, ends with its parent process.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True, help="process id of the parent")
    arguments = parser.parse_args()
    _end_with_parent(arguments.parent)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    # rumqttd writes the tracing spans of every packet at level ERROR
    logging.getLogger("rumqttd").setLevel(logging.CRITICAL)
    log = logging.getLogger("aif.broker")

    from iotcore import IotCoreBroker

    broker = IotCoreBroker(listen=HOST, port=arguments.port, max_payload_size=MAX_PACKET_BYTES)
    try:
        broker.check_ports()
    except OSError as error:
        log.error("%s", error)  # noqa: TRY400 - one line says it; the parent explains
        return PORT_TAKEN
    broker.run_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
