from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Generator

import pytest

from aif.errors import AIFError, DownloadInterrupted, LengthOrHashMismatch, NotFound, StoreError
from store.fetcher import HTTPFetcher, RateFloor
from store.limits import MIN_RATE_BPS, RATE_GRACE_S

Serve = Callable[[bytes], str]


@pytest.fixture
def serve() -> Generator[Serve]:
    """Start a server that answers one request with the given bytes and then cuts the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads: list[threading.Thread] = []

        def answer(response: bytes) -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(response)

        def start(response: bytes) -> str:
            threads.append(threading.Thread(target=answer, args=(response,)))
            threads[-1].start()
            return f"http://127.0.0.1:{listener.getsockname()[1]}"

        yield start
        for thread in threads:
            thread.join(timeout=10)
            assert not thread.is_alive()


def read(url: str, offset_bytes: int = 0) -> bytes:
    fetcher = HTTPFetcher(url)
    try:
        return b"".join(fetcher.fetch("blobs/x", offset_bytes))
    finally:
        fetcher.close()


def test_a_whole_answer_is_returned(serve: Serve) -> None:
    assert read(serve(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")) == b"hello"


def test_a_range_that_was_honoured_is_returned(serve: Serve) -> None:
    url = serve(b"HTTP/1.1 206 OK\r\nContent-Range: bytes 3-4/5\r\nContent-Length: 2\r\n\r\nlo")
    assert read(url, 3) == b"lo"


def test_a_range_that_was_ignored_is_cut_out_of_the_whole(serve: Serve) -> None:
    assert read(serve(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), 3) == b"lo"


@pytest.mark.parametrize(
    ("answer", "offset", "error", "message"),
    [
        (b"404 Not Found\r\n", 0, NotFound, "has no blobs/x"),
        (b"416 Range\r\n", 9, LengthOrHashMismatch, "shorter than the 9 B already here"),
        (b"503 Busy\r\n", 0, DownloadInterrupted, "is busy"),
        (b"500 Oops\r\n", 0, StoreError, "answered HTTP status 500"),
        (b"302 Found\r\nLocation: http://127.0.0.1:1/\r\n", 0, StoreError, "answered HTTP status 302"),
        (b"206 Partial\r\nContent-Range: bytes 0-4/5\r\n", 3, StoreError, "another range"),
        (b"206 Partial\r\nContent-Range: nonsense\r\n", 3, StoreError, "another range"),
        (b"206 Partial\r\n", 0, StoreError, "answered HTTP status 206"),
    ],
)
def test_an_answer_without_the_content_is_an_error(
    serve: Serve, answer: bytes, offset: int, error: type[AIFError], message: str
) -> None:
    url = serve(b"HTTP/1.1 " + answer + b"Content-Length: 5\r\n\r\nhello")
    with pytest.raises(error, match=message):
        read(url, offset)


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", b"", b"SSH-2.0-OpenSSH_9\r\n\r\n"]
)
def test_a_cut_or_meaningless_answer_is_an_interruption(serve: Serve, answer: bytes) -> None:
    with pytest.raises(DownloadInterrupted):
        read(serve(answer))


def test_a_store_that_is_down_is_named_with_the_command_that_starts_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(StoreError) as caught:
        read(f"http://127.0.0.1:{port}")
    assert str(caught.value) == f"the store at http://127.0.0.1:{port} is not reachable"
    assert caught.value.hint == "start it with `aif store serve`"


@pytest.mark.parametrize(
    "url", ["", "store:80", "ftp://host", "http://", "http://a b", "http://h/?q", "file:///etc"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(StoreError, match="not the address of a store"):
        HTTPFetcher(url)


def test_a_trickle_is_given_up_and_a_steady_flow_is_not() -> None:
    time_s = 0.0
    rate = MIN_RATE_BPS // 8
    steady = RateFloor(lambda: time_s)
    trickle = RateFloor(lambda: time_s)
    for second in range(1, int(RATE_GRACE_S) + 1):
        time_s = float(second)
        steady.add(rate)
        trickle.add(rate - 1)
    for second in range(int(RATE_GRACE_S) + 1, 100):
        time_s = float(second)
        steady.add(rate)
    with pytest.raises(DownloadInterrupted, match=r"9,990 B in 99 s, too slow"):
        trickle.add(0)
