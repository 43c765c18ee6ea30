"""Files that are whole or absent, and one writer at a time.

Decides how bytes reach the disk, not which bytes. A file is written under a temporary name, flushed to the
device, and renamed over its final name; then its directory is flushed, so that what was published before a
power cut is still there after it, in the order in which it was published.

Invariant: a reader sees the old content or the new content of a name, never a part of one.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from aif.errors import StoreError

_TEMPORARY = ".tmp"


class FileLayer:
    """The three disk operations everything here is made of; a test replaces one to fail or to die in it."""

    def write(self, path: Path, content: bytes, mode: int) -> None:
        """Create ``path`` with ``content`` and flush it to the device."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def replace(self, source: Path, target: Path) -> None:
        """Rename over ``target`` in one step."""
        source.replace(target)

    def sync_directory(self, directory: Path) -> None:
        """Flush the names in ``directory`` to the device."""
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def publish(self, path: Path, content: bytes, *, mode: int = 0o644) -> None:
        """Put ``content`` under ``path``, durably and in one step.

        Raises:
            StoreError: the disk refused; the old content of ``path`` is still there.
        """
        temporary = path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY}")
        try:
            self.write(temporary, content, mode)
            self.replace(temporary, path)
            self.sync_directory(path.parent)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise StoreError(
                f"cannot write {path}: {error.strerror}",
                hint="check free space and permissions, then try again",
            ) from error


def remove_leftovers(directory: Path) -> None:
    """Delete temporary files of a writer that died. The caller holds the lock."""
    for path in directory.glob(f".*{_TEMPORARY}"):
        path.unlink(missing_ok=True)


@contextmanager
def exclusive_lock(path: Path, *, wait: bool) -> Generator[None]:
    """Hold the lock file ``path``; the system lets go of it when the holder dies.

    Args:
        path: an empty file made for the purpose.
        wait: wait for the holder to finish, or refuse at once.

    Raises:
        StoreError: another process or thread holds it and ``wait`` is false.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(
                f"{path.parent} is being changed by another process", hint="try again when it has finished"
            ) from error
        yield
    finally:
        os.close(descriptor)
