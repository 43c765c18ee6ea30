"""What a device and a site must remember across restarts: identities, anchors, floors, the registry.

Each is one document in one private file (mode 0600), replaced atomically: after a crash there is the old
state or the new one. Keys are in clear inside the file: there is no hardware root on these hosts.

Invariants: one process at a time writes a file, the others wait for its lock; what a crash left half-written
is removed by the next write; a file that others may read is refused.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from aif.errors import LocalProtocolError, NotFound, ProtocolError, TrustError
from aif.protocol import documents
from aif.protocol.pairing import SecretState

MAX_STATE_BYTES = 4 * 1024 * 1024

S = TypeVar("S")


class StateFile(Generic[S]):
    """One document on disk."""

    def __init__(self, path: Path, kind: type[S]) -> None:
        self.path, self._kind = path, kind
        self.witness: Callable[[S], None] = lambda _: None
        """Hears of every new document, when it is in place and other writers may go on."""

    def exists(self) -> bool:
        return self.path.exists()

    @property
    def version(self) -> object:
        """Another value for every document that was put in place; None while there is none."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def load(self) -> S:
        """Read it.

        Raises:
            NotFound: there is none.
            TrustError: damaged, or readable by others.
        """
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    raise TrustError(f"{self.path} is open to other users", hint=f"chmod 600 {self.path}")
                data = file.read(MAX_STATE_BYTES + 1)
        except FileNotFoundError:
            raise NotFound(f"there is no {self.path}") from None
        except OSError as error:
            raise TrustError(f"{self.path} cannot be read: {error.strerror}") from error
        try:
            return documents.decode(self._kind, data, max_bytes=MAX_STATE_BYTES)
        except ProtocolError as error:
            raise TrustError(
                f"{self.path} is damaged: {error}", hint="restore it, or provision anew"
            ) from error

    def save(self, state: S) -> None:
        """Replace it: the old document or the new one, never a mix.

        Raises:
            LocalProtocolError: the state holds what no document carries, or is larger than ``load`` takes.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._locked():
            self._replace(state)
        self.witness(state)

    def update(self, change: Callable[[S], S]) -> S:
        """Read, change and replace, with other processes locked out. Returns the new state.

        What ``change`` raises passes through, and nothing is written.

        Raises:
            NotFound, TrustError: as ``load``.
        """
        if not self.path.parent.is_dir():
            raise NotFound(f"there is no {self.path}")
        with self._locked():
            changed = change(self.load())
            self._replace(changed)
        self.witness(changed)
        return changed

    def _replace(self, state: S) -> None:
        data = documents.encode(state)
        if len(data) > MAX_STATE_BYTES:
            raise LocalProtocolError(f"{self.path} would have {len(data):,} B, at most {MAX_STATE_BYTES:,} B")
        write_atomically(self.path, data)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file's content; readers see the old or the new bytes, also after a crash.

    The new file is private (mode 0600). One writer at a time per path: files of the same name that a crashed
    writer left behind are removed, since they may hold secrets.
    """
    prefix = f".{path.name}."
    for leftover in path.parent.iterdir():
        if leftover.name.startswith(prefix) and "." not in leftover.name[len(prefix) :]:
            leftover.unlink(missing_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=prefix)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A release that was verified and rests in a slot of this device.

    ``sha256`` and ``bytes_`` are those of the plaintext; ``ticket`` is the one that brought it.
    """

    component: str
    counter: int
    sha256: bytes
    bytes_: int
    slot: str
    ticket: bytes = b""
    package: bytes = b""
    """Digest of the AIM package that it was tried for; empty before there were trials."""
    interface: str = ""
    """What it takes and gives, as its trial found."""


@dataclass(frozen=True, slots=True)
class BegunTrial:
    """A release whose trials began ``tries`` times and have not ended: this process died in each."""

    component: str
    counter: int
    tries: int


@dataclass(frozen=True, slots=True)
class RejectedRelease:
    """A release that failed its trial here, and is not tried again."""

    component: str
    counter: int
    reason: str


@dataclass(frozen=True, slots=True)
class SpoiltDownload:
    """A download that was not what its ticket names: of which ciphertext, and the site's time."""

    sha256: bytes
    time_s: int


@dataclass(frozen=True, slots=True)
class DeviceState:
    """A device's own memory, without its keys: those are in its Security Engine.

    Anchors are None until it is enrolled; ``secret``, the pairing secret, is None from then on.
    """

    device: str
    hw_class: str
    controller_pk: bytes
    secret: bytes | None = field(repr=False)
    store_root: bytes | None = None
    grant_pk: bytes | None = None
    ticket_pk: bytes | None = None
    deployment_pk: bytes | None = None
    time_floor_s: int = 0
    mapping_floor: int = 0
    store_floors: str = ""
    installed: tuple[InstalledModel, ...] = ()
    result_pk: bytes | None = None
    spoilt: tuple[SpoiltDownload, ...] = ()
    """The newest last."""
    trials: tuple[BegunTrial, ...] = ()
    rejected: tuple[RejectedRelease, ...] = ()
    """The newest last."""

    @property
    def enrolled(self) -> bool:
        return self.deployment_pk is not None


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """The site's row about one device."""

    device: str
    hw_class: str
    identity_pk: bytes
    exchange_pk: bytes
    secret: bytes | None = field(repr=False)
    secret_state: SecretState
    window_closes_s: int = 0
    wrong_macs: int = 0
    enrolled_s: int | None = None
    revoked: bool = False
    last_generation: int = 0
    revoked_s: int | None = None
    reason: str = ""
    """Why it was revoked, in the operator's words."""
    lost: bool = False
    """It may be in foreign hands: its identity is never admitted again."""
    drained: bool = False
    """It shall run nothing: AIMs leave it, and none is put there."""
    requests: tuple[bytes, ...] = ()
    """Digests of its newest enrolment requests: one that is sent again by somebody counts for nothing."""


@dataclass(frozen=True, slots=True)
class SiteState:
    """The Controller's memory: its keys by purpose, the registry, and the counters that only grow."""

    site: str
    enrolment_seed: bytes = field(repr=False)
    grant_seed: bytes = field(repr=False)
    ticket_seed: bytes = field(repr=False)
    deployment_seed: bytes = field(repr=False)
    result_seed: bytes = field(repr=False)
    devices: tuple[DeviceRecord, ...] = ()
    mapping_version: int = 0
    denied: tuple[bytes, ...] = ()
    """Identity keys of lost devices that were removed since."""
    audit_seed: bytes = field(default=b"", repr=False)
    audit_head: bytes = b""
    """The newest head of the audit log that was signed; kept here, so that a log that was cut off shows."""
    first_epoch: int = 0
    """Where the newest Controller's channel epochs begin (s)."""

    @classmethod
    def create(cls, site: str, random: Callable[[int], bytes]) -> SiteState:
        return cls(site, random(32), random(32), random(32), random(32), random(32), audit_seed=random(32))

    def device(self, name: str) -> DeviceRecord | None:
        return next((record for record in self.devices if record.device == name), None)
