"""A record that is announced is heard, by whom it convinces; over multicast on loopback."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import pytest

from aif.errors import TransportError
from aif.transport import mdns

LOOPBACK = "127.0.0.1"
PATIENCE_S = 60.0


def wanted(text: bytes) -> Callable[[Mapping[bytes, bytes | None]], bytes | None]:
    return lambda strings: text if strings.get(b"0") == text else None


async def found(text: bytes, interface: str = LOOPBACK) -> bytes:
    return await mdns.first_heard(wanted(text), interface=interface)


@asynccontextmanager
async def announced(text: bytes, name: str) -> AsyncIterator[None]:
    async with mdns.announcing({b"0": text, b"1": bytes(250)}, name=name, host=LOOPBACK, port=1883):
        yield


def test_the_believed_record_is_found_among_others(worker_id: str) -> None:
    ours, other = f"ours {worker_id}".encode(), f"other {worker_id}".encode()

    async def run() -> None:
        async with (
            asyncio.timeout(PATIENCE_S),
            announced(other, f"other-{worker_id}"),
            announced(ours, f"ours-{worker_id}"),
        ):
            assert await found(ours) == ours

    asyncio.run(run())


def test_who_listens_first_hears_it_when_it_comes(worker_id: str) -> None:
    ours = f"later {worker_id}".encode()

    async def run() -> None:
        async with asyncio.timeout(PATIENCE_S):
            listening = asyncio.ensure_future(found(ours))
            async with announced(ours, f"later-{worker_id}"):
                assert await listening == ours

    asyncio.run(run())


def test_two_of_one_name_are_both_found(worker_id: str) -> None:
    name = f"twin-{worker_id}"
    first, second = (f"{name} {number}".encode() for number in range(2))

    async def run() -> None:
        async with asyncio.timeout(PATIENCE_S), announced(first, name), announced(second, name):
            assert [await found(first), await found(second)] == [first, second]

    asyncio.run(run())


def test_an_interface_that_is_none_is_one_clear_error() -> None:
    with pytest.raises(TransportError, match="cannot be used on"):
        asyncio.run(found(b"", "192.0.2.77"))


def test_without_the_package_the_hint_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zeroconf.asyncio", None)
    with pytest.raises(TransportError, match="zeroconf") as caught:
        asyncio.run(found(b""))
    assert "tinyaif[mdns]" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("host", "only_here"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("192.0.2.1", False),
        ("broker.example", False),
    ],
)
def test_what_only_this_machine_reaches(host: str, only_here: bool) -> None:
    assert mdns.is_loopback(host) is only_here
