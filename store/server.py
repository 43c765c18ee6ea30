"""Serves a repository directory, read only, over HTTP.

Decides which request is answered, and nothing else: it holds no key, and nobody has to believe it, because
clients verify what they get. Three families of names exist, each a fixed pattern:

- ``/metadata/<name>.json``
- ``/blobs/<sha256>``
- ``/targets/aim/<vendor>/<component>/<sha256>.<counter>``, the same blobs under the names of TUF §5.7.3, for
  any TUF client

Invariants: a name that is no such pattern reaches no file, so nothing is decoded, joined or listed; requests,
connections and waiting times are bounded; ranges (RFC 9110 §14) let a cut download continue; blobs and
versioned metadata never change and may be cached for ever.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import socket
import sys
import threading
import time
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import TYPE_CHECKING, BinaryIO, ClassVar, Final, Self, cast

from aif.errors import NotFound, StoreError
from store.limits import (
    CHUNK_BYTES,
    MAX_CONNECTIONS,
    MAX_REQUEST_TARGET_CHARS,
    MIN_RATE_BPS,
    RATE_GRACE_S,
    READ_TIMEOUT_S,
)

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

_log = logging.getLogger(__name__)

_METADATA: Final = re.compile(r"/metadata/((?:[1-9][0-9]{0,9}\.)?[a-z][a-z0-9_.-]{0,127}\.json)")
_BLOB: Final = re.compile(r"/blobs/([0-9a-f]{64})")
_TARGET: Final = re.compile(
    r"/targets/aim/[A-Za-z0-9_-]{1,64}/[A-Za-z0-9_-]{1,64}/([0-9a-f]{64})\.[0-9]{1,10}"
)
_Request = socket.socket | tuple[bytes, socket.socket]
_Address = tuple[str, int]
_RANGE: Final = re.compile(r"bytes=([0-9]{1,18})-([0-9]{0,18})")
_FOR_EVER: Final = "public, max-age=31536000, immutable"
_BUSY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
)


class StoreServer:
    """A store on a TCP port.

    The port is bound and listening when the constructor returns: a client that connects from then on is
    served as soon as ``start`` or ``serve_forever`` runs. A context manager starts and stops it.

    Args:
        directory: the repository.
        host: address to listen on; only this machine by default.
        port: 0 takes a free one.
        max_connections: connections served at a time.
    """

    def __init__(
        self,
        directory: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        if not (directory / "metadata" / "timestamp.json").is_file():
            raise NotFound(f"there is no store at {directory}", hint="make one with `aif store init`")
        try:
            self._http = _Server((host, port), directory, max_connections)
        except OSError as error:
            raise StoreError(
                f"cannot listen on {host}:{port}: {error.strerror}",
                hint="choose another port, or stop what uses this one",
            ) from error
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """What clients take as ``base_url``."""
        host, port = self._http.server_address[:2]
        return f"http://{host!s}:{port}"

    def start(self) -> None:
        """Serve in a thread of its own."""
        self._thread = threading.Thread(target=self.serve_forever, name="store-server")
        self._thread.start()

    def serve_forever(self) -> None:
        """Serve until ``stop`` is called from another thread."""
        self._http.serve_forever(poll_interval=0.05)

    def stop(self) -> None:
        """Stop serving, close every connection and wait for their threads. Only after ``start``."""
        if self._thread is not None:
            self._http.shutdown()
            self._thread.join()
            self._thread = None
        self.close()

    def close(self) -> None:
        """Close the port and every connection; for a caller whose own ``serve_forever`` has ended."""
        self._http.close_connections()
        self._http.server_close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # server_close waits for them
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], directory: Path, max_connections: int) -> None:
        self.directory = directory
        self._max_connections = max_connections
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own method also asks the name service for a host name, which can take seconds
        TCPServer.server_bind(self)

    def process_request(self, request: _Request, client_address: _Address) -> None:
        connection = cast(socket.socket, request)
        with self._lock:
            busy = len(self._connections) >= self._max_connections
            if not busy:
                self._connections.add(connection)
        if busy:
            connection.setblocking(False)
            with suppress(OSError):
                connection.send(_BUSY)
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def shutdown_request(self, request: _Request) -> None:
        with self._lock:
            self._connections.discard(cast(socket.socket, request))
        super().shutdown_request(request)

    def close_connections(self) -> None:
        """Wake every thread that waits for its client."""
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: _Request, client_address: _Address) -> None:
        del request
        if isinstance(sys.exception(), OSError):
            _log.debug("client %s went away", client_address)
        else:
            _log.exception("a request of %s failed", client_address)


class _Deadlines(io.RawIOBase):
    """A connection on which everything must be over at one moment, in however many pieces it comes."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._end_s = connection, time.monotonic()

    def allow(self, seconds: float) -> None:
        """What is read and written from now on has this long together."""
        self._end_s = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        self._wait_until_end()
        return self._connection.recv_into(buffer)

    def write(self, data: ReadableBuffer) -> int:
        self._wait_until_end()
        return self._connection.send(data)

    def _wait_until_end(self) -> None:
        left_s = self._end_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the client took too long")
        self._connection.settimeout(left_s)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "MPAI-Store"
    sys_version = ""
    timeout: ClassVar[float] = READ_TIMEOUT_S
    """For a whole request, the wait for it included."""

    def setup(self) -> None:
        self.connection = self.request
        # a small answer after a small answer would wait 40 ms for an acknowledgement
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._deadlines = _Deadlines(self.connection)
        self.rfile = io.BufferedReader(self._deadlines)
        self.wfile = io.BufferedWriter(self._deadlines)  # header and body leave together

    def handle_one_request(self) -> None:
        self._deadlines.allow(self.timeout)
        super().handle_one_request()

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self._deadlines.allow(self.timeout)
        if self.request_version == "HTTP/0.9":
            self._refuse(HTTPStatus.BAD_REQUEST)
        elif len(self.path) > MAX_REQUEST_TARGET_CHARS:
            self._refuse(HTTPStatus.REQUEST_URI_TOO_LONG)
        elif self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
            self._refuse(HTTPStatus.BAD_REQUEST)  # no request here has a body
        elif match := _METADATA.fullmatch(self.path):
            self._send_file(self._directory / "metadata" / match[1], "")
        elif match := _BLOB.fullmatch(self.path) or _TARGET.fullmatch(self.path):
            self._send_file(self._directory / "blobs" / match[1], match[1])
        else:
            self._refuse(HTTPStatus.NOT_FOUND)

    @property
    def _directory(self) -> Path:
        return cast(_Server, self.server).directory

    def _send_file(self, path: Path, digest: str) -> None:
        """Answer with a file; ``digest`` is its SHA-256 where its name tells it."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        with os.fdopen(descriptor, "rb") as file:
            self._send(file, path, digest or hashlib.file_digest(file, "sha256").hexdigest())

    def _send(self, file: BinaryIO, path: Path, digest: str) -> None:
        length = os.fstat(file.fileno()).st_size
        etag = f'"{digest}"'
        first, last, status = 0, length - 1, HTTPStatus.OK
        if self.headers.get("If-None-Match") == etag:
            status = HTTPStatus.NOT_MODIFIED
        elif (match := self._range()) and self.headers.get("If-Range", etag) == etag:
            first, last = int(match[1]), min(last, int(match[2] or last))
            status = HTTPStatus.PARTIAL_CONTENT
            if first > last:
                self._refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, f"bytes */{length}")
                return
        self.send_response(status)
        self.send_header("ETag", etag)
        self.send_header("Cache-Control", "no-cache" if path.name == "timestamp.json" else _FOR_EVER)
        if status != HTTPStatus.NOT_MODIFIED:
            kind = "application/json" if path.suffix == ".json" else "application/octet-stream"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(last - first + 1))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("X-Content-Type-Options", "nosniff")
        if status == HTTPStatus.PARTIAL_CONTENT:
            self.send_header("Content-Range", f"bytes {first}-{last}/{length}")
        self.end_headers()
        if self.command == "GET" and status != HTTPStatus.NOT_MODIFIED:
            self._copy(file, first, last)

    def _range(self) -> re.Match[str] | None:
        """One range with a first byte; any other form is ignored, as RFC 9110 §14.2 allows."""
        match = _RANGE.fullmatch(self.headers.get("Range", ""))
        return None if match and match[2] and int(match[2]) < int(match[1]) else match

    def _copy(self, file: BinaryIO, first: int, last: int) -> None:
        file.seek(first)
        left = last - first + 1
        while left and (chunk := file.read(min(left, CHUNK_BYTES))):
            self._deadlines.allow(RATE_GRACE_S + 8 * len(chunk) / MIN_RATE_BPS)
            self.wfile.write(chunk)
            left -= len(chunk)
        if left:  # the file shrank under us: only a cut connection tells the client
            self.close_connection = True

    def _refuse(self, status: HTTPStatus, content_range: str = "") -> None:
        self.request_version = self.protocol_version  # the base class would answer an HTTP/0.9 without status
        self.close_connection = self.close_connection or status != HTTPStatus.NOT_FOUND
        body = f"{status.value} {status.phrase}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        if content_range:
            self.send_header("Content-Range", content_range)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Malformed requests and unknown methods, found by the base class: no echo of what was sent."""
        del message, explain
        unknown_method = code == HTTPStatus.NOT_IMPLEMENTED
        self._refuse(HTTPStatus.METHOD_NOT_ALLOWED if unknown_method else HTTPStatus(code))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        _log.debug("%s %r", self.client_address[0], format % args)
