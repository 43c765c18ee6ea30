from __future__ import annotations

import hashlib
import http.client
import socket
import threading
import time
from collections.abc import Generator
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import tuf.ngclient

from aif.errors import NotFound, StoreError
from store.limits import CHUNK_BYTES
from store.release import Release
from store.repository import Repository
from store.server import StoreServer

MODEL = bytes(range(256)) * 1000


@pytest.fixture
def release(repository: Repository, now: datetime) -> Release:
    return repository.publish("acme", "kws", 1, MODEL, kind="model", custom={}, now=now)


@pytest.fixture
def server(repository: Repository, release: Release) -> Generator[StoreServer]:
    with StoreServer(repository.directory) as running:
        yield running


def get(
    server: StoreServer, path: str, headers: dict[str, str] | None = None, method: str = "GET"
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, dict(response.headers), response.read()
    finally:
        connection.close()


def raw(server: StoreServer, request: bytes) -> bytes:
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        return answer


def test_metadata_and_blobs_are_served(server: StoreServer, repository: Repository, release: Release) -> None:
    status, headers, body = get(server, "/metadata/timestamp.json")
    assert (status, body) == (200, (repository.directory / "metadata" / "timestamp.json").read_bytes())
    assert headers["Cache-Control"] == "no-cache"
    status, headers, body = get(server, f"/blobs/{release.sha256}")
    assert (status, body) == (200, MODEL)
    assert headers["ETag"] == f'"{release.sha256}"'
    assert "immutable" in headers["Cache-Control"]


def test_an_independent_tuf_client_can_download(
    server: StoreServer, repository: Repository, release: Release, tmp_path: Path, now: datetime
) -> None:
    for folder in ("metadata", "targets"):
        (tmp_path / "plain" / folder).mkdir(parents=True)
    updater = tuf.ngclient.Updater(
        str(tmp_path / "plain" / "metadata"),
        f"{server.url}/metadata/",
        str(tmp_path / "plain" / "targets"),
        f"{server.url}/targets/",
        bootstrap=repository.root_bytes(),
    )
    # the store was signed at a fixed moment, this client would ask the system for the time
    updater._trusted_set.reference_time = now
    target = updater.get_targetinfo(release.path)
    assert target is not None
    assert Path(updater.download_target(target)).read_bytes() == MODEL


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-", 0, 255_999),
        ("bytes=1000-", 1000, 255_999),
        ("bytes=255999-", 255_999, 255_999),
        ("bytes=5-9", 5, 9),
        ("bytes=5-999999999", 5, 255_999),
    ],
)
def test_a_range_is_served_exactly(
    server: StoreServer, release: Release, asked: str, first: int, last: int
) -> None:
    status, headers, body = get(server, f"/blobs/{release.sha256}", {"Range": asked})
    assert status == 206
    assert headers["Content-Range"] == f"bytes {first}-{last}/256000"
    assert body == MODEL[first : last + 1]


@pytest.mark.parametrize(
    "asked", ["bytes=-5", "bytes=9-5", "bytes=0-1,5-6", "lines=1-2", "bytes=", "bytes=a-b"]
)
def test_other_ranges_are_ignored(server: StoreServer, release: Release, asked: str) -> None:
    status, headers, body = get(server, f"/blobs/{release.sha256}", {"Range": asked})
    assert (status, body) == (200, MODEL)
    assert "Content-Range" not in headers


def test_a_range_after_the_end_is_refused_with_the_length(server: StoreServer, release: Release) -> None:
    status, headers, _ = get(server, f"/blobs/{release.sha256}", {"Range": "bytes=256000-"})
    assert (status, headers["Content-Range"]) == (416, "bytes */256000")


def test_a_range_of_another_version_gets_the_whole(server: StoreServer, release: Release) -> None:
    path = f"/blobs/{release.sha256}"
    assert get(server, path, {"Range": "bytes=5-9", "If-Range": '"other"'})[0] == 200
    assert get(server, path, {"Range": "bytes=5-9", "If-Range": f'"{release.sha256}"'})[0] == 206


def test_what_has_not_changed_is_not_sent_again(
    server: StoreServer, repository: Repository, now: datetime
) -> None:
    etag = get(server, "/metadata/timestamp.json")[1]["ETag"]
    status, _, body = get(server, "/metadata/timestamp.json", {"If-None-Match": etag})
    assert (status, body) == (304, b"")
    repository.refresh_timestamp(now=now)
    assert get(server, "/metadata/timestamp.json", {"If-None-Match": etag})[0] == 200


def test_head_tells_the_length_without_a_body(server: StoreServer, release: Release) -> None:
    status, headers, body = get(server, f"/blobs/{release.sha256}", method="HEAD")
    assert (status, headers["Content-Length"], body) == (200, "256000", b"")
    assert get(server, "/blobs/nothing", method="HEAD")[::2] == (404, b"")


DIGEST = hashlib.sha256(MODEL).hexdigest()


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/metadata/",
        "/metadata",
        "/blobs/",
        "/.lock",
        "/metadata/../.lock",
        "/metadata/..%2f.lock",
        "/metadata/%2e%2e/.lock",
        "/metadata/....json",
        "/metadata/.timestamp.json.1.tmp",
        "/metadata/timestamp.json/",
        "/metadata/timestamp.json?x=1",
        "/metadata/timestamp.json%00",
        "//metadata/timestamp.json/..",
        "/metadata//etc/passwd",
        "/etc/passwd",
        "/../../../../etc/passwd",
        "/blobs/../metadata/timestamp.json",
        f"/blobs/{DIGEST}/",
        f"/blobs/{DIGEST.upper()}",
        f"/blobs/{'0' * 64}",
        f"/targets/aim/acme/../{DIGEST}.1",
        f"/targets/{DIGEST}.1",
        "/metadata/link.json",
    ],
)
def test_any_other_name_is_not_found(server: StoreServer, repository: Repository, path: str) -> None:
    (repository.directory / "metadata" / "link.json").symlink_to("/etc/hostname")
    (repository.directory / "metadata" / ".timestamp.json.1.tmp").write_text("half")
    answer = raw(server, f"GET {path} HTTP/1.1\r\nHost: store\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert answer.endswith(b"\r\n\r\n404 Not Found\n")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"POST /metadata/timestamp.json HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 405),
        (b"PUT /blobs/x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"DELETE /metadata/timestamp.json HTTP/1.1\r\n\r\n", 405),
        (b"GET /metadata/timestamp.json HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 400),
        (b"GET /metadata/timestamp.json HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET /" + b"a" * 600 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /metadata/timestamp.json\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 505),
        (b"\x16\x03\x01 nonsense nonsense nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(200)) + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", 431),
    ],
)
def test_malformed_requests_get_their_status_and_the_connection_ends(
    server: StoreServer, request_bytes: bytes, status: int
) -> None:
    try:
        answer = raw(server, request_bytes)
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        assert b"nonsense" not in answer
    except ConnectionResetError:  # the server closed while the rest of an oversized request was under way
        assert len(request_bytes) > 60_000
    assert get(server, "/metadata/timestamp.json")[0] == 200


def test_one_connection_serves_many_requests(server: StoreServer, release: Release) -> None:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)
    try:
        for path, status in [
            ("/blobs/x", 404),
            (f"/blobs/{release.sha256}", 200),
            ("/metadata/1.root.json", 200),
        ]:
            connection.request("GET", path)
            response = connection.getresponse()
            response.read()
            assert response.status == status
            assert not response.will_close
    finally:
        connection.close()


def test_more_connections_than_allowed_are_refused_at_once(repository: Repository) -> None:
    with StoreServer(repository.directory, max_connections=1) as server:
        address = urlsplit(server.url)
        with socket.create_connection((address.hostname, address.port), timeout=10) as first:
            first.sendall(b"GET /metadata/timestamp.json HTTP/1.1\r\n\r\n")
            assert first.recv(12) == b"HTTP/1.1 200"
            assert raw(server, b"").startswith(b"HTTP/1.1 503 ")


def test_a_client_that_does_not_read_its_answer_is_left(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection serves another as soon as it is slower than a transfer may be."""
    monkeypatch.setattr("store.server.RATE_GRACE_S", 0.1)
    monkeypatch.setattr("store.server.MIN_RATE_BPS", 8 * CHUNK_BYTES)
    name = "0" * 64
    with (repository.directory / "blobs" / name).open("wb") as blob:
        blob.truncate(64 << 20)
    with StoreServer(repository.directory, max_connections=1) as server, socket.socket() as lazy:
        address = urlsplit(server.url)
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.connect((address.hostname, address.port))
        lazy.sendall(f"GET /blobs/{name} HTTP/1.1\r\n\r\n".encode())
        assert lazy.recv(12) == b"HTTP/1.1 200"
        assert raw(server, b"").startswith(b"HTTP/1.1 503 ")
        deadline = time.monotonic() + 60
        while raw(server, b""):  # who says nothing is told that the server is busy, or nothing
            assert time.monotonic() < deadline


def test_stopping_ends_open_connections_and_threads(repository: Repository) -> None:
    threads = set(threading.enumerate())
    server = StoreServer(repository.directory)
    server.start()
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as idle:
        idle.sendall(b"GET /metadata/timestamp.json HTTP/1.1\r\n\r\n")
        assert idle.recv(12) == b"HTTP/1.1 200"
        server.stop()
        assert set(threading.enumerate()) == threads
        while idle.recv(65536):
            pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.hostname, address.port), timeout=10)


def test_the_port_is_open_before_serving_starts(repository: Repository) -> None:
    server = StoreServer(repository.directory)
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as early:
        early.sendall(b"GET /metadata/timestamp.json HTTP/1.1\r\n\r\n")
        server.start()
        assert early.recv(12) == b"HTTP/1.1 200"
    server.stop()


def test_answers_are_not_delayed_by_nagle(server: StoreServer, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    original = socket.socket.shutdown

    def watch(self: socket.socket, how: int) -> None:
        if self.getsockname()[1] == urlsplit(server.url).port:
            seen.append(self.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        original(self, how)

    monkeypatch.setattr(socket.socket, "shutdown", watch)
    get(server, "/metadata/timestamp.json")
    server.stop()
    assert seen
    assert all(seen)


def test_a_port_in_use_and_a_missing_store_say_what_to_do(server: StoreServer, tmp_path: Path) -> None:
    port = urlsplit(server.url).port
    assert port is not None
    with pytest.raises(StoreError, match=rf"cannot listen on 127\.0\.0\.1:{port}: Address already in use"):
        StoreServer(server._http.directory, port=port)
    with pytest.raises(NotFound, match="there is no store at") as caught:
        StoreServer(tmp_path / "nothing")
    assert "aif store init" in caught.value.hint
