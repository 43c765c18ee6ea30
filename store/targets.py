"""AIM packages: a folder as one target, the same bytes wherever it is packed, and safely a folder again.

Decides what may be in a package and how it is laid out: an uncompressed POSIX ustar archive (IEEE Std 1003.1
pax, ustar interchange format) of regular files, sorted by name, with time 0, owner 0 and mode 0644. Equal
folders give equal bytes, so a package's SHA-256 is a Reference Value. It does not decide whether the content
is trusted.

Invariants: only listed file types, plain names, and bounded counts and sizes, in both directions; unpacking
writes nothing until the whole archive was checked, then makes the folder in one step; links, devices, sparse
files, absolute names and ``..`` do not exist in a package; without compression there is nothing to explode.
"""

from __future__ import annotations

import io
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from aif.errors import StoreError
from store.limits import (
    MAX_PACKAGE_BYTES,
    MAX_PACKAGE_DEPTH,
    MAX_PACKAGE_FILE_BYTES,
    MAX_PACKAGE_FILES,
    MAX_PACKAGE_PATH_CHARS,
)

SUFFIXES: Final = frozenset(
    {".yaml", ".yml", ".json", ".md", ".txt", ".csv", ".py", ".c", ".h", ".tflite", ".bin"}
)
"""file types of a package; formats that run code when they are read, such as pickles, are not among them"""

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_NOT_PACKED: Final = frozenset({"__pycache__"})
_MODEL: Final = ".tflite"


def pack(folder: Path) -> bytes:
    """The package of an AIM folder. Python's caches are left out; anything else unexpected is refused.

    Models (``*.tflite``) are left out too: the contract pins them by digest, and each is a release of its
    own, which is sealed, while a package is not.

    Raises:
        StoreError: a link, a file type or name that no package holds, or too much of anything.
    """
    files = sorted(_walk(folder, PurePosixPath()))
    if not files:
        raise StoreError(f"{folder} holds no file to pack")
    _check_count(len(files))
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:", format=tarfile.USTAR_FORMAT) as tar:
        for name in files:
            content = (folder / name).read_bytes()
            _check_name(name.as_posix(), len(content))
            entry = tarfile.TarInfo(name.as_posix())
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
            if archive.tell() > MAX_PACKAGE_BYTES:
                raise StoreError(f"{folder} is larger than {MAX_PACKAGE_BYTES:,} B")
    return archive.getvalue()


def unpack(package: bytes, folder: Path) -> tuple[str, ...]:
    """Make ``folder`` out of a package. Returns the names of its files, sorted.

    Args:
        package: bytes that came with a verified digest; they are checked all the same.
        folder: must not exist; its parent must.

    Raises:
        StoreError: the bytes are not a package, or the folder exists.
    """
    if len(package) > MAX_PACKAGE_BYTES + tarfile.RECORDSIZE:
        raise StoreError(f"a package of {len(package):,} B is larger than {MAX_PACKAGE_BYTES:,} B")
    if folder.exists() or folder.is_symlink():
        raise StoreError(
            f"{folder} exists already", hint="remove it first; a package is never mixed into a folder"
        )
    try:
        with tarfile.open(fileobj=io.BytesIO(package), mode="r:") as tar:
            members = _checked_members(tar)
            partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
            try:
                tar.extractall(partial, members, filter="data")
                partial.chmod(0o755)
                partial.rename(folder)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
    except (tarfile.TarError, ValueError, EOFError, OverflowError) as error:
        raise StoreError(f"these bytes are not a package: {error}") from error
    except OSError as error:
        raise StoreError(f"cannot make {folder}: {error.strerror or error}") from error
    return tuple(sorted(member.name for member in members))


def _walk(folder: Path, inside: PurePosixPath) -> Iterator[PurePosixPath]:
    for path in folder.iterdir():
        name = inside / path.name
        if path.name in _NOT_PACKED or path.suffix == ".pyc":
            continue
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise StoreError(
                f"{path} is not a regular file", hint="packages hold no links and no special files"
            )
        if path.is_dir():
            if len(name.parts) > MAX_PACKAGE_DEPTH:
                raise StoreError(f"{path} is deeper than {MAX_PACKAGE_DEPTH} folders")
            yield from _walk(path, name)
        elif path.suffix != _MODEL:
            _check_name(name.as_posix(), path.stat().st_size)
            yield name


def _checked_members(tar: tarfile.TarFile) -> list[tarfile.TarInfo]:
    members: list[tarfile.TarInfo] = []
    names: set[str] = set()
    total_bytes = 0
    for member in tar:
        if member.type not in {tarfile.REGTYPE, tarfile.AREGTYPE} or member.issparse() or member.pax_headers:
            raise StoreError(f"the package holds {member.name[:200]!r}, which is not a plain regular file")
        _check_name(member.name, member.size)
        if member.name in names:
            raise StoreError(f"the package holds {member.name} twice")
        total_bytes += member.size
        if total_bytes > MAX_PACKAGE_BYTES:
            raise StoreError(f"the package would unpack to more than {MAX_PACKAGE_BYTES:,} B")
        names.add(member.name)
        members.append(member)
        _check_count(len(members))
    for name in names:
        for parent in PurePosixPath(name).parents:
            if parent.as_posix() in names:
                raise StoreError(f"the package holds {parent} both as a file and as a folder")
    if not members:
        raise StoreError("the package is empty")
    return members


def _check_name(name: str, size_bytes: int) -> None:
    parts = name.split("/")
    if len(name) > MAX_PACKAGE_PATH_CHARS or len(parts) > MAX_PACKAGE_DEPTH + 1:
        raise StoreError(
            f"{name[:200]!r} is too long a name for a package",
            hint=f"at most {MAX_PACKAGE_PATH_CHARS} characters and {MAX_PACKAGE_DEPTH} folders",
        )
    if not all(_NAME.fullmatch(part) for part in parts):
        raise StoreError(
            f"{name[:200]!r} is not a name for a package",
            hint="use letters, digits, '_', '-' and '.', and do not start with '.' or '-'",
        )
    if PurePosixPath(name).suffix not in SUFFIXES:
        raise StoreError(
            f"{name[:200]!r} is not a type of file that a package holds",
            hint=f"packages hold {' '.join(sorted(SUFFIXES))}",
        )
    if not 0 <= size_bytes <= MAX_PACKAGE_FILE_BYTES:
        raise StoreError(
            f"{name} takes {size_bytes:,} B, a package holds files up to {MAX_PACKAGE_FILE_BYTES:,} B"
        )


def _check_count(files: int) -> None:
    if files > MAX_PACKAGE_FILES:
        raise StoreError(f"a package holds at most {MAX_PACKAGE_FILES} files")
