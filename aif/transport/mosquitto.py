"""The Mosquitto of this machine: where its program is, and when one that was started serves.

Decides nothing about its set-up: that is ``mosquitto_config``. Starts nothing.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from aif.errors import BrokerRefused, NotFound

PROGRAM: Final = "mosquitto"
_ALSO_IN: Final = "/usr/sbin:/usr/local/sbin"
"""Where distributions put it, which is not in everybody's PATH."""

RETRY_S: Final = 0.05


def program() -> Path:
    """Mosquitto's program.

    Raises:
        NotFound: it is not installed.
    """
    found = shutil.which(PROGRAM, path=f"{os.environ.get('PATH', '')}:{_ALSO_IN}")
    if found is None:
        raise NotFound(
            "Mosquitto is not installed on this machine",
            hint="`apt install mosquitto` on Debian and Ubuntu; `aif run` without --broker needs none",
        )
    return Path(found)


def free_port(host: str) -> int:
    """A TCP port on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


async def until_listening(host: str, port: int, ended: Callable[[], bool], *, timeout_s: float) -> None:
    """Wait until something accepts connections.

    Raises:
        BrokerRefused: ``ended`` says that it will not any more, or the time is over.
    """
    try:
        async with asyncio.timeout(timeout_s):
            while not ended():
                try:
                    _, writer = await asyncio.open_connection(host, port)
                except OSError:
                    await asyncio.sleep(RETRY_S)
                else:
                    writer.close()
                    return
    except TimeoutError:
        raise BrokerRefused(f"nothing listens on {host}:{port} after {timeout_s:g} s") from None
    raise BrokerRefused(f"the broker for {host}:{port} ended while it started")
