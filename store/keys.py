"""The signing keys of a store, one Ed25519 key per role, as files only their owner can read.

Decides where a key lies and who may read it; what a key signs is decided by ``edition``. Root and targets
keys belong offline: a machine that only publishes needs the publisher's key and the snapshot and timestamp
keys, so a missing file is an error only when that role has to sign.

Invariants: the directory has mode 0700 and each file 0600, and wider ones are refused; an existing key is
overwritten by ``replace_publisher`` only; public halves travel in TUF metadata only.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner

from aif.errors import StoreError
from store.files import FileLayer
from store.limits import ROOT_KEYS
from store.release import check_vendor

_PREFIX: Final = "publisher."
_MAX_PEM_BYTES: Final = 4096


def publisher_role(vendor: str) -> str:
    """The TUF role name of a vendor. The prefix keeps vendors apart from the names TUF reserves."""
    check_vendor(vendor)
    return _PREFIX + vendor


def is_publisher(role: str) -> bool:
    """Whether a TUF role is that of a vendor, and not one of its bins."""
    return role.startswith(_PREFIX) and "." not in role.removeprefix(_PREFIX)


@dataclass(frozen=True, slots=True)
class RoleKeys:
    """Keys in a directory: ``root-1.pem``, ``targets.pem``, ``publisher.<vendor>.pem`` and so on."""

    directory: Path

    @classmethod
    def create(cls, directory: Path, vendors: Iterable[str]) -> RoleKeys:
        """Make all keys of a new store.

        Args:
            directory: must not hold keys yet; created with mode 0700.
            vendors: publishers that get a key.

        Raises:
            StoreError: a key exists already, or the directory is open to others.
        """
        roles = [publisher_role(vendor) for vendor in vendors]
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_private(directory)
        for name in [f"root-{n + 1}" for n in range(ROOT_KEYS)] + [
            "targets",
            "snapshot",
            "timestamp",
            *roles,
        ]:
            _write_key(directory / f"{name}.pem")
        return cls(directory)

    @classmethod
    def load(cls, directory: Path) -> RoleKeys:
        """Use the keys of a directory.

        Raises:
            StoreError: the directory is missing or open to others.
        """
        if not directory.is_dir():
            raise StoreError(f"no key directory at {directory}", hint="make one with `aif store init`")
        _check_private(directory)
        return cls(directory)

    def add_publisher(self, vendor: str) -> None:
        """Make the key of one more publisher."""
        _write_key(self.directory / f"{publisher_role(vendor)}.pem")

    def replace_publisher(self, vendor: str) -> None:
        """Make a new key for a publisher whose key is in foreign hands, or lost; the old one is gone."""
        _write_key(self.directory / f"{publisher_role(vendor)}.pem", replaces=True)

    def vendors(self) -> tuple[str, ...]:
        """Vendors whose key is here, sorted."""
        names = (path.name.removesuffix(".pem") for path in self.directory.glob(f"{_PREFIX}*.pem"))
        return tuple(sorted(name.removeprefix(_PREFIX) for name in names))

    def signers(self, role: str) -> tuple[CryptoSigner, ...]:
        """The keys that sign a role: three for root, one for any other.

        Raises:
            StoreError: a key file is missing, open to others, or not an Ed25519 key.
        """
        names = [f"root-{n + 1}" for n in range(ROOT_KEYS)] if role == "root" else [role]
        return tuple(_read_key(self.directory / f"{name}.pem") for name in names)


def _write_key(path: Path, *, replaces: bool = False) -> None:
    if path.exists() and not replaces:
        raise StoreError(f"{path} exists already and is not replaced", hint="choose an empty key directory")
    FileLayer().publish(path, CryptoSigner.generate_ed25519().private_bytes, mode=0o600)


def _read_key(path: Path) -> CryptoSigner:
    try:
        _check_private(path)
        key = load_pem_private_key(path.read_bytes()[:_MAX_PEM_BYTES], None)
    except FileNotFoundError as error:
        raise StoreError(
            f"the key {path.name} is not in {path.parent}",
            hint="this role signs elsewhere; bring its key or run the command where the key is",
        ) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise StoreError(f"{path} is not an unencrypted PEM private key") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise StoreError(f"{path} holds another kind of key than Ed25519")
    return CryptoSigner(key)


def _check_private(path: Path) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise StoreError(
            f"{path} has mode {mode:04o}: others may read the signing keys",
            hint=f"chmod {'700' if path.is_dir() else '600'} {path}",
        )
