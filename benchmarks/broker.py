"""Mosquitto on a free loopback port, as tuned as a benchmark may have it, as it comes, or with TLS.

Decides the settings and when a broker counts as started. ``mosquitto.conf`` beside this file is what every
contender gets; the stock broker differs in ``set_tcp_nodelay`` alone, which is off by default.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.certificates import Certificates

HOST = "127.0.0.1"
SETTINGS = Path(__file__).with_name("mosquitto.conf")
START_S = 5.0
POLL_S = 0.02
TICKS_HZ = os.sysconf("SC_CLK_TCK")


class BrokerMissing(Exception):  # noqa: N818 - tells what is missing
    """There is no Mosquitto to measure with."""


@dataclass(frozen=True, slots=True)
class BrokerProcess:
    """A running broker."""

    port: int
    pid: int


def program() -> str:
    """Path of Mosquitto.

    Raises:
        BrokerMissing: it is not installed.
    """
    found = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        raise BrokerMissing("mosquitto is not installed; install it (Debian: apt install mosquitto)")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_broker(
    folder: Path, *, stock: bool = False, tls: Certificates | None = None
) -> Iterator[BrokerProcess]:
    """A broker that lives as long as the block; its files are in ``folder``."""
    port = free_port()
    settings = SETTINGS.read_text()
    if stock:
        settings = settings.replace("set_tcp_nodelay true", "set_tcp_nodelay false")
    listener = f"listener {port} {HOST}\n"
    if tls is not None:
        listener += f"certfile {tls.certificate}\nkeyfile {tls.key}\n"
    if os.geteuid() == 0:
        listener = "user root\n" + listener  # it would give up the right to read its files
    file = folder / f"mosquitto-{port}.conf"
    file.write_text(listener + settings)
    with subprocess.Popen([program(), "-c", str(file)], stderr=subprocess.DEVNULL) as process:
        try:
            _wait_until_it_listens(port, process)
            yield BrokerProcess(port, process.pid)
        finally:
            process.kill()  # mosquitto loses a SIGTERM that comes while it starts, and keeps nothing


def _wait_until_it_listens(port: int, process: subprocess.Popen[bytes]) -> None:
    end_s = time.monotonic() + START_S
    while time.monotonic() < end_s and process.poll() is None:
        try:
            socket.create_connection((HOST, port), timeout=0.2).close()
        except OSError:
            time.sleep(POLL_S)
        else:
            return
    raise BrokerMissing(f"mosquitto did not listen on port {port} within {START_S:g} s")


def cpu_s(pid: int) -> float:
    """User and system time of another process, from its /proc/PID/stat (proc(5), fields 14 and 15)."""
    if not pid:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_HZ
