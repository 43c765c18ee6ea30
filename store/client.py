"""The device's side of the store: finds releases under signed metadata and fetches their bytes.

Decides what to believe, by the TUF client workflow of python-tuf (TUF §5) started from the root that the
device was provisioned with, never from one in the cache. It decides neither which release a device should run
(that is the Controller's deployment or ticket) nor how bytes travel (``fetcher``).

Invariants: no byte of a content is returned before its length and SHA-256 were checked; a download is a part
file until then, and the part file is continued after a cut; metadata older than the caller's ``Floors`` is
refused even with an empty cache; expired metadata is refused (a store that stands still is an attack, TUF
§1.5.2); everything read is bounded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from tuf.api import exceptions as tuf_errors
from tuf.api.metadata import Targets
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from aif.errors import (
    DownloadInterrupted,
    Expired,
    LengthOrHashMismatch,
    NotFound,
    RollbackDetected,
    SignatureInvalid,
    StoreError,
    TrustError,
    Yanked,
)
from store.fetcher import Fetcher, HTTPFetcher
from store.files import FileLayer, exclusive_lock, remove_leftovers
from store.floors import Floors
from store.keys import is_publisher
from store.limits import (
    MAX_BLOB_BYTES,
    MAX_DELEGATIONS,
    MAX_RESUMES,
    MAX_ROOT_BYTES,
    MAX_ROOT_ROTATIONS,
    MAX_SNAPSHOT_BYTES,
    MAX_TARGETS_BYTES,
    MAX_TIMESTAMP_BYTES,
)
from store.release import Release, check_sha256, release_from_target, split_path

Progress = Callable[[int, int], None]
"""called with the bytes received so far and the bytes in all"""


def _system_time() -> datetime:
    return datetime.now(UTC)


def _no_progress(received_bytes: int, total_bytes: int) -> None:
    """Nobody watches."""


class StoreClient:
    """A verified view of one store. Safe to call from several threads and processes; calls take turns.

    Args:
        base_url: address of the store, ``http://HOST:PORT``.
        cache_dir: metadata, finished and unfinished downloads; may be deleted at any time.
        root_bytes: the trusted root metadata, from provisioning.
        fetcher: another way to the store's bytes; HTTP to ``base_url`` when not given.
        now: tells the time, UTC; decides what has expired.
        floors: versions seen before; the newest are in ``self.floors`` after each refresh, to be kept.
    """

    def __init__(
        self,
        base_url: str,
        cache_dir: Path,
        root_bytes: bytes,
        *,
        fetcher: Fetcher | None = None,
        now: Callable[[], datetime] = _system_time,
        floors: Floors | None = None,
    ) -> None:
        self.base_url = base_url
        self.floors = floors or Floors()
        self._cache_dir = cache_dir
        self._root_bytes = root_bytes
        self._fetcher = fetcher or HTTPFetcher(base_url)
        self._now = now
        self._files = FileLayer()
        self._view: _Updater | None = None
        for folder in (cache_dir, self._metadata, self._blobs, self._parts):
            folder.mkdir(parents=True, exist_ok=True)

    # --- metadata -----------------------------------------------------------------------------------

    def refresh(self) -> Floors:
        """Get the newest metadata and verify it. Returns the floors to keep in trusted storage.

        Raises:
            Expired: the newest metadata offered is too old.
            RollbackDetected: metadata older than what was seen before.
            SignatureInvalid: not signed by enough of the trusted keys.
            TrustError: metadata that is not metadata.
            StoreError: the store is not reachable, lacks a file, or sends too much.
        """
        with self._locked():
            self._refresh()
        return self.floors

    def find(self, path: str) -> Release:
        """The release at ``aim/<vendor>/<component>/<counter>``; a withdrawn one too, with ``yanked`` set.

        Raises:
            NotFound: no publisher who may sign there lists it.
            AIFError: as ``refresh``, which happens first when there is no valid metadata.
        """
        with self._locked():
            return self._find(path)

    def releases(self) -> list[Release]:
        """Everything the store lists, withdrawn releases included; loads the metadata of every publisher.

        Raises:
            AIFError: as ``refresh``.
        """
        with self._locked():
            view = self._refresh()
            with self._translated():
                return view.everything()

    def newest(self, vendor: str, component: str) -> Release:
        """The release of a component with the highest counter that was not withdrawn.

        Raises:
            NotFound: the vendor has published none.
            AIFError: as ``refresh``.
        """
        with self._locked():
            view = self._view
            if view is None or view.expires() <= self._now():
                view = self._refresh()
            with self._translated():
                listed = view.everything()
        found = [r for r in listed if (r.vendor, r.component, r.yanked) == (vendor, component, "")]
        if not found:
            raise NotFound(
                f"the store at {self.base_url} has no release of {vendor}/{component}",
                hint="publish one with `aif store publish`",
            )
        return max(found, key=lambda release: release.counter)

    def _refresh(self) -> _Updater:
        with self._translated():
            view = _Updater(self._metadata, _MetadataFetcher(self._fetcher), self._root_bytes, self._now())
            view.refresh()
        self.floors = self.floors.raised_to(view.versions())
        self._view = view
        return view

    def _find(self, path: str) -> Release:
        split_path(path)
        view = self._view
        if view is None or view.expires() <= self._now():
            view = self._refresh()
        with self._translated():
            target = view.get_targetinfo(path)
        if target is None:
            raise NotFound(
                f"the store at {self.base_url} has no {path}",
                hint="publish it with `aif store publish`, or ask for a counter that exists",
            )
        return release_from_target(path, target.length, target.hashes, target.custom)

    # --- content ------------------------------------------------------------------------------------

    def fetch(
        self,
        path: str,
        *,
        expected_sha256: str | None = None,
        expected_length: int | None = None,
        progress: Progress = _no_progress,
    ) -> bytes:
        """The content of a release, from the cache or from the store.

        Args:
            path: ``aim/<vendor>/<component>/<counter>``.
            expected_sha256: what the deployment names; must be what the store's publisher signed.
            expected_length: the same for the length in bytes.
            progress: told about received bytes.

        Raises:
            Yanked: the publisher has withdrawn it.
            LengthOrHashMismatch: store and deployment disagree, or the bytes are not those that were signed.
            DownloadInterrupted: the transfer stopped; calling again continues it.
            AIFError: as ``find``.
        """
        with self._locked():
            release = self._find(path)
            if release.yanked:
                raise Yanked(f"{path} was withdrawn: {release.yanked}", hint="choose another release")
            if expected_sha256 not in {None, release.sha256} or expected_length not in {None, release.length}:
                raise LengthOrHashMismatch(
                    f"the deployment wants {expected_length} B with SHA-256 {expected_sha256} for {path}, "
                    f"the publisher signed {release.length} B with {release.sha256}",
                    hint="one of the two was tampered with or is out of date; make the deployment again",
                )
            return self._obtain(release.sha256, release.length, progress)

    def fetch_blob(self, sha256: str, length: int, *, progress: Progress = _no_progress) -> bytes:
        """Content by digest, for a device that trusts a signed ticket in place of TUF metadata.

        Args:
            sha256: 64 lower-case hexadecimal digits, from the ticket.
            length: bytes, from the ticket, 1 … ``MAX_BLOB_BYTES``.
            progress: told about received bytes.

        Raises:
            StoreError: as ``fetch``.
        """
        check_sha256(sha256)
        if not 1 <= length <= MAX_BLOB_BYTES:
            raise StoreError(f"a length of {length:,} B is outside 1 … {MAX_BLOB_BYTES:,} B")
        with self._locked():
            return self._obtain(sha256, length, progress)

    def _obtain(self, sha256: str, length: int, progress: Progress) -> bytes:
        stored = self._blobs / sha256
        content = _verified(stored, sha256, length)
        if content is not None:
            progress(length, length)
            return content
        part = self._parts / sha256
        kept_bytes = part.stat().st_size if part.exists() else 0
        self._complete(part, sha256, length, progress)
        content = _verified(part, sha256, length)
        if content is None and kept_bytes:
            # the part kept from an earlier run may be what was damaged: once more, from the beginning
            part.unlink(missing_ok=True)
            self._complete(part, sha256, length, progress)
            content = _verified(part, sha256, length)
        if content is None:
            part.unlink(missing_ok=True)
            raise LengthOrHashMismatch(
                f"the bytes from {self.base_url} are not those that were signed (SHA-256 {sha256})",
                hint="the store or the way to it is damaged or hostile; nothing was installed",
            )
        self._files.publish(stored, content)
        part.unlink()
        return content

    def _complete(self, part: Path, sha256: str, length: int, progress: Progress) -> None:
        """Receive into ``part`` until it holds ``length`` bytes; go on after a cut that brought progress."""
        for resumes_left in reversed(range(MAX_RESUMES + 1)):
            start = part.stat().st_size if part.exists() else 0
            if start > length:
                part.unlink()
                start = 0
            if start == length:
                return
            try:
                self._append(part, sha256, start, length, progress)
            except DownloadInterrupted as error:
                have = part.stat().st_size if part.exists() else 0
                if have == start or not resumes_left:
                    raise DownloadInterrupted(
                        f"{error.message}; {have:,} of {length:,} B are kept",
                        hint="try again: the download continues where it stopped",
                    ) from error

    def _append(self, part: Path, sha256: str, start: int, length: int, progress: Progress) -> None:
        received = start
        try:
            with part.open("ab") as file:
                for chunk in self._bounded(sha256, start, length):
                    file.write(chunk)
                    received += len(chunk)
                    progress(received, length)
        except LengthOrHashMismatch:
            part.unlink()
            raise
        if received < length:
            raise DownloadInterrupted(f"the store at {self.base_url} stopped early")

    def _bounded(self, sha256: str, start: int, length: int) -> Iterator[bytes]:
        left = length - start
        for chunk in self._fetcher.fetch(f"blobs/{sha256}", start):
            left -= len(chunk)
            if left < 0:
                raise LengthOrHashMismatch(
                    f"the store at {self.base_url} sends more than the {length:,} B that were signed",
                    hint="the store or the way to it is damaged or hostile; nothing was installed",
                )
            yield chunk

    # --- cache --------------------------------------------------------------------------------------

    @property
    def _metadata(self) -> Path:
        return self._cache_dir / "metadata"

    @property
    def _blobs(self) -> Path:
        return self._cache_dir / "blobs"

    @property
    def _parts(self) -> Path:
        return self._cache_dir / "parts"

    @contextmanager
    def _locked(self) -> Generator[None]:
        try:
            for folder in (self._cache_dir, self._metadata, self._blobs, self._parts):
                folder.mkdir(parents=True, exist_ok=True)
            with exclusive_lock(self._cache_dir / ".lock", wait=True):
                remove_leftovers(self._blobs)
                yield
        except OSError as error:
            raise StoreError(
                f"cannot use the cache {self._cache_dir}: {error}", hint="check free space and permissions"
            ) from error

    @contextmanager
    def _translated(self) -> Generator[None]:
        """Errors of python-tuf as errors of this project."""
        store = f"the store at {self.base_url}"
        try:
            yield
        except tuf_errors.ExpiredMetadataError as error:
            raise Expired(
                f"{store} offers expired metadata: {error}",
                hint="check this clock; then let the publisher run `aif store refresh`",
            ) from error
        except tuf_errors.BadVersionNumberError as error:
            raise RollbackDetected(
                f"{store} offers an older version than before: {error}",
                hint="someone serves an old copy of the store; never restore a store from an old backup",
            ) from error
        except tuf_errors.UnsignedMetadataError as error:
            raise SignatureInvalid(
                f"{store} offers metadata without enough valid signatures: {error}",
                hint="is this the store that the device was provisioned for?",
            ) from error
        except (tuf_errors.LengthOrHashMismatchError, tuf_errors.DownloadLengthMismatchError) as error:
            raise LengthOrHashMismatch(
                f"{store} offers metadata of another length or hash than was signed: {error}",
                hint="the store or the way to it is damaged or hostile",
            ) from error
        except tuf_errors.RepositoryError as error:
            raise TrustError(
                f"{store} offers metadata that cannot be verified: {error}",
                hint="the store or the way to it is damaged or hostile",
            ) from error
        except tuf_errors.DownloadHTTPError as error:
            raise NotFound(str(error), hint="is this the address of an MPAI Store?") from error
        except tuf_errors.DownloadError as error:
            raise DownloadInterrupted(f"{store} could not be read: {error}", hint="try again") from error


class _MetadataFetcher(FetcherInterface):
    """Lets python-tuf read through a ``Fetcher``; status 404 is how it learns that there is no newer root."""

    def __init__(self, source: Fetcher) -> None:
        self._source = source

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            yield from self._source.fetch(url)
        except NotFound as error:
            raise tuf_errors.DownloadHTTPError(str(error), 404) from error


class _Updater(Updater):
    """python-tuf's client with the time as an argument and its versions in sight."""

    def __init__(self, cache_dir: Path, fetcher: FetcherInterface, root_bytes: bytes, now: datetime) -> None:
        config = UpdaterConfig(
            max_root_rotations=MAX_ROOT_ROTATIONS,
            max_delegations=MAX_DELEGATIONS,
            root_max_length=MAX_ROOT_BYTES,
            timestamp_max_length=MAX_TIMESTAMP_BYTES,
            snapshot_max_length=MAX_SNAPSHOT_BYTES,
            targets_max_length=MAX_TARGETS_BYTES,
        )
        super().__init__(str(cache_dir), "metadata/", fetcher=fetcher, config=config, bootstrap=root_bytes)
        self._trusted_set.reference_time = now.astimezone(UTC)

    def expires(self) -> datetime:
        """When this view becomes too old to be believed."""
        trusted = self._trusted_set
        return min(trusted.timestamp.expires, trusted.snapshot.expires, trusted.targets.expires)

    def versions(self) -> Floors:
        """Versions of all roles in this view."""
        trusted = self._trusted_set
        targets = {name.removesuffix(".json"): meta.version for name, meta in trusted.snapshot.meta.items()}
        return Floors(trusted.root.version, trusted.timestamp.version, trusted.snapshot.version, targets)

    def everything(self) -> list[Release]:
        """Every release of every publisher, and of every bin that a publisher spreads over."""
        names = [name.removesuffix(".json") for name in self._trusted_set.snapshot.meta]
        for publisher in sorted(name for name in names if is_publisher(name)):
            role = self._load_targets(publisher, "targets")
            bins = role.delegations.succinct_roles if role.delegations is not None else None
            for leaf in bins.get_roles() if bins is not None else ():
                self._load_targets(leaf, publisher)
        return self._loaded()

    def _load_targets(self, role: str, parent_role: str) -> Targets:
        """As python-tuf does it; a delegation that is not there is its ``ValueError``."""
        try:
            return super()._load_targets(role, parent_role)
        except ValueError as error:
            raise tuf_errors.RepositoryError(f"{parent_role} does not delegate to {role}") from error

    def _loaded(self) -> list[Release]:
        found = []
        for targets in self._trusted_set:
            if isinstance(targets, Targets):
                for path, file in targets.targets.items():
                    custom = file.unrecognized_fields.get("custom")
                    found.append(release_from_target(path, file.length, file.hashes, custom))
        return found


def _verified(path: Path, sha256: str, length: int) -> bytes | None:
    """The content of a file, or None when it is not the one with this length and digest."""
    with suppress(FileNotFoundError):
        if path.stat().st_size == length:
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() == sha256:
                return content
    return None
