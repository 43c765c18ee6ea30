"""How the bytes of a store reach the client: one small interface, and HTTP behind it.

Decides nothing about trust: whatever arrives is verified by ``client``. A fetcher reports what failed as an
error of this project, gives up on silence and on slow retrieval, and follows no redirect. Another way to the
same bytes, such as MQTT, is another ``Fetcher``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator, Iterator
from typing import Final, Protocol

import urllib3

from aif.errors import DownloadInterrupted, LengthOrHashMismatch, NotFound, StoreError
from store.limits import CHUNK_BYTES, CONNECT_TIMEOUT_S, MIN_RATE_BPS, RATE_GRACE_S, READ_TIMEOUT_S

_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/[0-9]{1,18}")


class Fetcher(Protocol):
    """Gives the bytes of a file of the store."""

    def fetch(self, path: str, offset_bytes: int = 0) -> Iterator[bytes]:
        """The file from ``offset_bytes`` to its end, in pieces of any size; the caller bounds the sum.

        Args:
            path: ``metadata/<name>.json`` or ``blobs/<sha256>``.
            offset_bytes: bytes the caller has already, >= 0.

        Raises:
            NotFound: there is no such file.
            DownloadInterrupted: the transfer stopped or became too slow; asking again may help.
            LengthOrHashMismatch: the file ends before ``offset_bytes``.
            StoreError: the store cannot be reached or refuses.
        """
        ...  # pragma: no cover


class RateFloor:
    """Gives up on a transfer that is kept open with a trickle (slow retrieval, TUF §1.5.2).

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._start_s = clock()
        self._received_bytes = 0

    def add(self, received_bytes: int) -> None:
        """Count received bytes.

        Raises:
            DownloadInterrupted: after ``RATE_GRACE_S`` the mean rate is below ``MIN_RATE_BPS``.
        """
        self._received_bytes += received_bytes
        elapsed_s = self._clock() - self._start_s
        if elapsed_s > RATE_GRACE_S and self._received_bytes * 8 < MIN_RATE_BPS * elapsed_s:
            raise DownloadInterrupted(
                f"the store sent {self._received_bytes:,} B in {elapsed_s:.0f} s, too slow to go on",
                hint="try again on a better link; what was received is kept",
            )


class HTTPFetcher:
    """Reads a store over HTTP or HTTPS; connections are kept and reused.

    Args:
        base_url: ``http://127.0.0.1:8600`` or the like.
        clock: seconds that only grow, for the rate floor.
    """

    def __init__(self, base_url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.base_url = base_url.rstrip("/")
        if not re.fullmatch(r"https?://[^/\s?#]+(/[^\s?#]*)?", self.base_url):
            raise StoreError(f"{base_url!r} is not the address of a store", hint="write http://HOST:PORT")
        self._clock = clock
        self._pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S), retries=False
        )

    def close(self) -> None:
        """Close the kept connections."""
        self._pool.clear()

    def fetch(self, path: str, offset_bytes: int = 0) -> Iterator[bytes]:
        """See ``Fetcher.fetch``."""
        headers = {"Range": f"bytes={offset_bytes}-"} if offset_bytes else {}
        url = f"{self.base_url}/{path}"
        floor = RateFloor(self._clock)
        try:
            response = self._pool.request(
                "GET", url, headers=headers, preload_content=False, decode_content=False, redirect=False
            )
        except (urllib3.exceptions.ConnectTimeoutError, urllib3.exceptions.NewConnectionError) as error:
            raise self._unreachable() from error
        except urllib3.exceptions.HTTPError as error:
            raise DownloadInterrupted(
                f"the store at {self.base_url} does not answer ({type(error).__name__})", hint="try again"
            ) from error
        return self._body(response, path, offset_bytes, floor)

    def _body(
        self, response: urllib3.BaseHTTPResponse, path: str, offset_bytes: int, floor: RateFloor
    ) -> Generator[bytes]:
        whole = False
        try:
            skip_bytes = self._start(response, path, offset_bytes)
            for chunk in response.stream(CHUNK_BYTES):
                floor.add(len(chunk))
                kept = chunk[skip_bytes:]
                skip_bytes = max(0, skip_bytes - len(chunk))
                if kept:
                    yield kept
            whole = True
        except urllib3.exceptions.HTTPError as error:
            raise DownloadInterrupted(
                f"the transfer of {path} from {self.base_url} was cut",
                hint="try again; it continues where it stopped",
            ) from error
        finally:
            # a connection with unread bytes on it cannot serve another request
            if whole:
                response.release_conn()
            else:
                response.close()

    def _start(self, response: urllib3.BaseHTTPResponse, path: str, offset_bytes: int) -> int:
        """Bytes at the beginning of the body that the caller has already."""
        status = response.status
        if status == 200:
            return offset_bytes  # the server ignored the range, as RFC 9110 §14.2 allows
        if status == 206 and offset_bytes:
            match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if match and int(match[1]) == offset_bytes:
                return 0
            raise StoreError(f"{self.base_url} answered another range of {path} than the one asked for")
        if status == 416:
            raise LengthOrHashMismatch(
                f"{path} at {self.base_url} is shorter than the {offset_bytes:,} B already here",
                hint="the store or the way to it is damaged or hostile",
            )
        if status in {404, 410}:
            raise NotFound(
                f"the store at {self.base_url} has no {path}",
                hint="check the address and the name; publish it with `aif store publish`",
            )
        if status == 503:
            raise DownloadInterrupted(f"the store at {self.base_url} is busy", hint="try again in a moment")
        raise StoreError(
            f"{self.base_url} answered HTTP status {status} for {path}",
            hint="is this the address of an MPAI Store? Start one with `aif store serve`",
        )

    def _unreachable(self) -> StoreError:
        return StoreError(
            f"the store at {self.base_url} is not reachable", hint="start it with `aif store serve`"
        )
