"""AIM packages on this device: contracts, code, and the digest that pins both.

An AIM package is a folder. Its digest covers every file in it, so a deployment that names the digest names
exactly this contract and this code; a host refuses to run anything else under that name.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.machinery
import sys
from pathlib import Path
from types import ModuleType
from typing import Protocol

from aif.errors import AIFError, CreationFailed, LengthOrHashMismatch
from aif.model.aim import AIMMetadata, Implementation
from aif.sdk import AIM, check_class
from store.targets import pack


class CatalogueLike(Protocol):
    """AIM contracts by ``Name@version``, and where each one's folder is."""

    def __getitem__(self, reference: str, /) -> AIMMetadata: ...

    def get(self, reference: str, /) -> AIMMetadata | None: ...

    def folder(self, reference: str, /) -> Path: ...


def package_digest(folder: Path) -> bytes:
    """SHA-256 of the package that the Store would make of this folder."""
    return hashlib.sha256(pack(folder)).digest()


class AIMLibrary:
    """Loads AIM classes out of the folders of a catalogue, after checking their digest."""

    def __init__(self, catalogue: CatalogueLike) -> None:
        self._catalogue = catalogue
        self._digests: dict[str, bytes] = {}

    def contract(self, reference: str) -> AIMMetadata:
        contract = self._catalogue.get(reference)
        if contract is None:
            raise CreationFailed(
                f"this device has no AIM {reference}",
                kind="module",
                hint="install it, or add its folder with --aims",
            )
        return contract

    def digest(self, reference: str) -> bytes:
        if reference not in self._digests:
            self.contract(reference)
            self._digests[reference] = package_digest(self._catalogue.folder(reference))
        return self._digests[reference]

    def verified(self, reference: str, digest: bytes) -> AIMMetadata:
        """The contract of an AIM whose package is exactly the one named.

        Raises:
            LengthOrHashMismatch: the folder here differs from the deployed package.
        """
        contract = self.contract(reference)
        if self.digest(reference) != digest:
            raise LengthOrHashMismatch(
                f"the AIM package {reference} on this device is not the one that was deployed",
                hint="install the same version of the AIM library on Controller and device",
            )
        return contract

    def load_class(self, reference: str, implementation: Implementation) -> type[AIM]:
        """Import the class that an implementation's ``entry`` names, and check it against the contract.

        Raises:
            CreationFailed: no entry, import failure, or a class that does not serve the contract.
        """
        contract = self.contract(reference)
        entry = implementation.entry
        if not entry:
            raise CreationFailed(
                f"implementation {implementation.id} of {reference} has no entry to run here", kind="module"
            )
        module_name, _, class_name = entry.partition(":")
        package = self._package(reference)
        try:
            module = importlib.import_module(f"{package.__name__}.{module_name}")
            cls = getattr(module, class_name)
            check_class(cls, contract)
        except AIFError:
            raise
        except Exception as error:
            raise CreationFailed(
                f"{entry} of {reference} cannot be loaded: {type(error).__name__}: {error}", kind="module"
            ) from error
        found: type[AIM] = cls
        return found

    def _package(self, reference: str) -> ModuleType:
        """A package that stands for the AIM's folder; its name holds the digest, so versions never mix."""
        name = f"aif_aim_{self.digest(reference).hex()[:16]}"
        if name not in sys.modules:
            folder = self._catalogue.folder(reference)
            spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = [str(folder)]
            package = ModuleType(name)
            package.__path__ = [str(folder)]
            package.__spec__ = spec
            sys.modules[name] = package
        return sys.modules[name]
