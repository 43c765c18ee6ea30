"""The publisher's side of the store: a directory of signed metadata and content-addressed blobs.

Decides which release may be published and in what order files reach the disk; ``edition`` decides what the
metadata says, ``files`` how a file is written. It serves nothing.

::

    metadata/timestamp.json, <version>.<role>.json      consistent snapshots (TUF §6.2)
    blobs/<sha256>                                      every content once, whatever names it

Invariants: release counters of a component only grow; content under a path never changes; the order is blob,
targets, snapshot, timestamp, so that a stop at any point leaves the old repository or the new one, and what a
dead writer left behind is never referred to; one publication at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from aif.errors import NotFound, StoreError
from store.edition import Edition
from store.files import FileLayer, exclusive_lock, remove_leftovers
from store.keys import RoleKeys, publisher_role
from store.limits import MAX_BLOB_BYTES, MAX_ROOT_BYTES
from store.release import KINDS, Release, check_custom, check_sha256, release_path, split_path

_NOTHING_SIGNED: Final = datetime.fromtimestamp(0, UTC)
"""the moment of signing of an edition that is only read"""


class Repository:
    """A store on disk, with the keys to change it. Make one with ``create`` or ``open``."""

    def __init__(self, directory: Path, keys: RoleKeys, files: FileLayer) -> None:
        self.directory = directory
        self._keys = keys
        self._files = files

    @classmethod
    def create(
        cls, directory: Path, keys: RoleKeys, *, now: datetime, files: FileLayer | None = None
    ) -> Repository:
        """Make an empty store with one publisher for every publisher key in ``keys``.

        Args:
            directory: where the store will lie; made when missing.
            keys: all keys, root and targets included.
            now: the moment of signing, with a time zone.
            files: the file layer; the real one when not given.

        Raises:
            StoreError: there is a store already, or a key is missing.
        """
        repository = cls(directory, keys, files or FileLayer())
        for folder in (directory, repository._metadata, repository._blobs):
            folder.mkdir(parents=True, exist_ok=True)
        with repository._locked():
            if (repository._metadata / "timestamp.json").exists():
                raise StoreError(f"there is a store at {directory} already", hint="choose another directory")
            edition, root = Edition.first(keys, now)
            for vendor in keys.vendors():
                edition.add_publisher(vendor, keys)
            signed = edition.files(keys)
            repository._files.publish(repository._metadata / "1.root.json", root)
            repository._publish(signed)
        return repository

    @classmethod
    def open(cls, directory: Path, keys: RoleKeys, *, files: FileLayer | None = None) -> Repository:
        """Use the store in ``directory``.

        Raises:
            NotFound: there is none.
        """
        if not (directory / "metadata" / "timestamp.json").is_file():
            raise NotFound(f"there is no store at {directory}", hint="make one with `aif store init`")
        return cls(directory, keys, files or FileLayer())

    def root_bytes(self) -> bytes:
        """The first root: the trust anchor that a device is provisioned with."""
        return self._read("1.root.json")

    def releases(self) -> tuple[Release, ...]:
        """Every release, sorted by vendor, component and counter; withdrawn ones too."""
        edition = self._edition(_NOTHING_SIGNED)
        found = [release for publisher in edition.publishers() for release in edition.releases(publisher)]
        return tuple(sorted(found, key=lambda one: (one.vendor, one.component, one.counter)))

    def publish(
        self,
        vendor: str,
        component: str,
        counter: int,
        content: bytes,
        *,
        kind: str,
        custom: Mapping[str, object],
        now: datetime,
        measurement: str = "",
    ) -> Release:
        """Publish one version of a component. Publishing the very same thing again changes nothing.

        Args:
            vendor: a publisher of this store.
            component: name of the AIM or model.
            counter: release counter, higher than every one published for this component.
            content: the bytes to store, 1 … ``MAX_BLOB_BYTES``.
            kind: one of ``store.release.KINDS``.
            custom: release metadata: name, version, runtime, arena_bytes, record types, …
            now: the moment of signing, with a time zone.
            measurement: SHA-256 of the plaintext when ``content`` is a ciphertext.

        Raises:
            UntrustedSigner: the vendor does not publish here, or the key is not the vendor's.
            StoreError: a value is out of range, the counter is not new, or another publication is going on.
        """
        path = release_path(vendor, component, counter)
        if kind not in KINDS:
            raise StoreError(
                f"{kind!r} is not a kind of release", hint=f"use one of {', '.join(sorted(KINDS))}"
            )
        if not 1 <= len(content) <= MAX_BLOB_BYTES:
            raise StoreError(f"content of {len(content):,} B is outside 1 … {MAX_BLOB_BYTES:,} B")
        sha256 = hashlib.sha256(content).hexdigest()
        release = Release(
            path=path,
            vendor=vendor,
            component=component,
            counter=counter,
            kind=kind,
            sha256=sha256,
            length=len(content),
            measurement=check_sha256(measurement or sha256),
            custom=check_custom(custom),
        )
        with self._locked():
            edition = self._edition(now)
            newest = -1
            for one in edition.releases(publisher_role(vendor)):
                if one == release:
                    return release
                if one.component == component:
                    newest = max(newest, one.counter)
            if counter <= newest:
                raise StoreError(
                    f"{path} cannot be published: the newest counter of {component} is {newest}",
                    hint=f"use {newest + 1}; to go back, publish the old content under a higher counter",
                )
            edition.put(release)
            signed = edition.files(self._keys)
            self._store_blob(sha256, content)
            self._publish(signed)
        return release

    def yank(self, path: str, reason: str, *, now: datetime) -> Release:
        """Withdraw a release: clients see it and refuse to fetch it. Its counter stays used.

        Raises:
            NotFound: nothing was published at ``path``.
        """
        vendor, _, _ = split_path(path)
        if not reason or len(reason) > 256:
            raise StoreError("a yanked release needs a reason of 1 … 256 characters")
        with self._locked():
            edition = self._edition(now)
            for one in edition.releases(publisher_role(vendor)):
                if one.path == path:
                    yanked = one.yanked_for(reason)
                    edition.put(yanked)
                    self._publish(edition.files(self._keys))
                    return yanked
        raise NotFound(f"nothing is published at {path}", hint="list what is there with `aif store list`")

    def add_publisher(self, vendor: str, *, now: datetime) -> None:
        """Let ``vendor``, whose key is in the key directory, publish. Needs the targets key."""
        with self._locked():
            edition = self._edition(now)
            edition.add_publisher(vendor, self._keys)
            self._publish(edition.files(self._keys))

    def replace_publisher(self, vendor: str, *, now: datetime) -> tuple[Release, ...]:
        """Take its key from a publisher and give it a new one, in the key directory and in the metadata.

        Needs the targets key. Clients refuse the old key as soon as they see the new metadata, at the latest
        when the timestamp that they know has expired. Run again after a failure; it makes another key then.

        Returns:
            All releases under that name, which count as before: whoever had the key may have made some.

        Raises:
            UntrustedSigner: nobody of that name publishes here.
            StoreError: a key that must sign is not here; nothing has changed.
        """
        with self._locked():
            edition = self._edition(now)
            releases = tuple(edition.releases(publisher_role(vendor)))
            for role in ("targets", "snapshot", "timestamp"):
                self._keys.signers(role)
            self._keys.replace_publisher(vendor)
            edition.replace_publisher(vendor, self._keys)
            self._publish(edition.files(self._keys))
        return releases

    def refresh_timestamp(self, *, now: datetime) -> None:
        """Sign the timestamp again, and the snapshot when half its life is over. Needs online keys only."""
        self._renew(now, targets=False)

    def renew(self, *, now: datetime) -> None:
        """Like ``refresh_timestamp``, and every targets role with half its life over. Needs their keys."""
        self._renew(now, targets=True)

    def _renew(self, now: datetime, *, targets: bool) -> None:
        with self._locked():
            edition = self._edition(now)
            edition.renew(targets=targets)
            self._publish(edition.files(self._keys))

    # --- disk ---------------------------------------------------------------------------------------

    @property
    def _metadata(self) -> Path:
        return self.directory / "metadata"

    @property
    def _blobs(self) -> Path:
        return self.directory / "blobs"

    @contextmanager
    def _locked(self) -> Generator[None]:
        with exclusive_lock(self.directory / ".lock", wait=False):
            remove_leftovers(self._metadata)
            remove_leftovers(self._blobs)
            yield

    def _edition(self, now: datetime) -> Edition:
        versions = (int(path.name.split(".")[0]) for path in self._metadata.glob("[0-9]*.root.json"))
        root = self._read(f"{max(versions, default=1)}.root.json", MAX_ROOT_BYTES)
        return Edition.current(self._read, root, now)

    def _read(self, name: str, limit_bytes: int = MAX_BLOB_BYTES) -> bytes:
        path = self._metadata / name
        try:
            with path.open("rb") as file:
                return file.read(limit_bytes)
        except OSError as error:
            raise StoreError(
                f"cannot read {path}: {error.strerror}", hint="restore the repository directory"
            ) from error

    def _store_blob(self, sha256: str, content: bytes) -> None:
        path = self._blobs / sha256
        # a blob that is there is compared, not trusted: the disk may have lost bits since
        if not (path.is_file() and path.read_bytes() == content):
            self._files.publish(path, content)

    def _publish(self, files: list[tuple[str, bytes]]) -> None:
        for name, content in files:
            self._files.publish(self._metadata / name, content)
