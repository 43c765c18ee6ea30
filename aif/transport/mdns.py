"""A site's broker found on the local network: multicast DNS and DNS-SD (RFC 6762, 6763), by ``zeroconf``.

Decides under which service type a record travels and on which interfaces. What a record says, and whether
it is believed, is for the caller: anybody on the network may answer. The package is an optional extra.

Invariants: nothing is sent or heard unless somebody asked for it; the record of a broker on loopback stays
there; at most ``LOOKED_AT_ONCE`` names are looked at, however many are announced.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aif.errors import TransportError

if TYPE_CHECKING:
    from zeroconf.asyncio import AsyncZeroconf

SERVICE: Final = "_tinyaif._tcp.local."

LOOKED_AT_ONCE: Final = 16
"""Names whose records are asked for at one time; others count when they are announced again."""

RECORD_MS: Final = 3_000
"""How long the record of a name is waited for."""

T = TypeVar("T")


@asynccontextmanager
async def announcing(
    strings: Mapping[bytes, bytes], *, name: str, host: str, port: int
) -> AsyncIterator[None]:
    """Answer who asks for sites, until the block ends; then say that this one is gone.

    Args:
        strings: those of the TXT record.
        name: of this instance, ASCII, at most 50 characters; a number is added where another has it.
        host: the broker's name or address; one on loopback is announced on loopback only.
        port: the broker's.

    Raises:
        TransportError: the package is missing, or the network takes no multicast.
    """
    async with _multicast("127.0.0.1" if is_loopback(host) else None) as network:
        from zeroconf import Error
        from zeroconf.asyncio import AsyncServiceInfo

        try:
            addresses = [ipaddress.ip_address(host).packed]
        except ValueError:
            addresses = []  # a name: devices resolve it as they resolve any
        info = AsyncServiceInfo(
            SERVICE,
            f"{name}.{SERVICE}",
            port,
            properties=dict(strings),
            addresses=addresses,
            server=f"{name}.local.",
        )
        try:
            await (await network.async_register_service(info, allow_name_change=True))
        except Error as error:
            raise TransportError(f"the site cannot be announced on the network: {error}") from error
        try:
            yield
        finally:
            await (await network.async_unregister_service(info))


async def first_heard(
    believed: Callable[[Mapping[bytes, bytes | None]], T | None], *, interface: str | None = None
) -> T:
    """Listen until somebody announces a record that is believed. Waits for ever; cancel it.

    Args:
        believed: gets the strings of each record; None for one that does not count.
        interface: address of the interface to listen on; None for all.

    Raises:
        TransportError: the package is missing, the interface is none, or the network takes no multicast.
    """
    async with _multicast(interface) as network:
        from zeroconf import ServiceStateChange
        from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo

        found: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        looking: dict[str, asyncio.Task[None]] = {}

        async def look(name: str) -> None:
            info = AsyncServiceInfo(SERVICE, name)
            if not await info.async_request(network.zeroconf, RECORD_MS):
                return
            answer = believed(info.properties)
            if answer is not None and not found.done():
                found.set_result(answer)

        def heard(name: str, state_change: Any, **_: object) -> None:
            if state_change is ServiceStateChange.Removed:
                return
            if name in looking or len(looking) >= LOOKED_AT_ONCE:
                return
            looking[name] = task = asyncio.ensure_future(look(name))
            task.add_done_callback(lambda _: looking.pop(name))

        browser = AsyncServiceBrowser(network.zeroconf, SERVICE, handlers=[heard])
        try:
            return await found
        finally:
            await browser.async_cancel()
            for task in list(looking.values()):
                task.cancel()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that name or address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@asynccontextmanager
async def _multicast(interface: str | None) -> AsyncIterator[AsyncZeroconf]:
    try:
        from zeroconf import InterfaceChoice
        from zeroconf.asyncio import AsyncZeroconf
    except ImportError:
        raise TransportError(
            "multicast DNS needs the package zeroconf", hint="pip install 'tinyaif[mdns]'"
        ) from None
    try:
        if interface is not None:
            with socket.socket(
                socket.AF_INET6 if ":" in interface else socket.AF_INET, socket.SOCK_DGRAM
            ) as trial:
                trial.bind((interface, 0))
        network = AsyncZeroconf(interfaces=InterfaceChoice.All if interface is None else [interface])
    except (OSError, ValueError, RuntimeError) as error:
        where = "any interface" if interface is None else interface
        raise TransportError(f"multicast DNS cannot be used on {where}: {error}") from error
    try:
        yield network
    finally:
        await network.async_close()
