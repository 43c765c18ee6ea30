"""AIM packages on this device: contracts, code, and the digest that pins both.

An AIM package is a folder. Its digest covers every file in it, so a deployment that names the digest names
exactly this contract and this code; a host refuses to run anything else under that name.

Invariant: a package is read once; its digest and the code that runs come from the same bytes. What changes in
the folder afterwards, compiled caches included, has no effect until the next start.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import decode_source
from pathlib import Path
from types import CodeType, ModuleType
from typing import Protocol

from aif.errors import AIFError, CreationFailed, LengthOrHashMismatch
from aif.model.aim import AIMMetadata, Implementation
from aif.sdk import AIM, check_class
from store.targets import pack


class CatalogueLike(Protocol):
    """AIM contracts by ``Name@version``, and where each one's folder is."""

    def __getitem__(self, reference: str, /) -> AIMMetadata: ...

    def get(self, reference: str, /) -> AIMMetadata | None: ...

    def __iter__(self) -> Iterator[str]: ...

    def folder(self, reference: str, /) -> Path: ...


def package_digest(folder: Path) -> bytes:
    """SHA-256 of the package that the Store would make of this folder."""
    return hashlib.sha256(pack(folder)).digest()


@dataclass(frozen=True, slots=True)
class _Package:
    """One AIM folder as it was read: digest, and Python sources by path inside the folder."""

    folder: Path
    digest: bytes
    sources: dict[str, bytes]

    @classmethod
    def read(cls, folder: Path) -> _Package:
        packed = pack(folder)
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:") as archive:
            sources = {
                member.name: file.read()
                for member in archive.getmembers()
                if member.name.endswith(".py") and (file := archive.extractfile(member)) is not None
            }
        return cls(folder, hashlib.sha256(packed).digest(), sources)


class AIMLibrary:
    """Loads AIM classes out of the folders of a catalogue, after checking their digest."""

    def __init__(self, catalogue: CatalogueLike) -> None:
        self._catalogue = catalogue
        self._packages: dict[str, _Package] = {}

    @property
    def contracts(self) -> Mapping[str, AIMMetadata]:
        """Every contract by ``Name@version``."""
        return {reference: self._catalogue[reference] for reference in self._catalogue}

    def contract(self, reference: str) -> AIMMetadata:
        """The contract of ``Name@version``.

        Raises:
            CreationFailed: this device does not have it.
        """
        contract = self._catalogue.get(reference)
        if contract is None:
            raise CreationFailed(
                f"this device has no AIM {reference}",
                kind="module",
                hint="install it, or add its folder with --aims",
            )
        return contract

    def digest(self, reference: str) -> bytes:
        """SHA-256 of the package as it was first read: the measurement of what runs here.

        Raises:
            CreationFailed: this device does not have it.
            StoreError: the folder holds what no package may hold.
        """
        return self._package(reference).digest

    def _package(self, reference: str) -> _Package:
        if reference not in self._packages:
            self.contract(reference)
            self._packages[reference] = _Package.read(self._catalogue.folder(reference))
        return self._packages[reference]

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
        name = _installed(self._package(reference))
        try:
            cls = getattr(importlib.import_module(f"{name}.{module_name}"), class_name)
            check_class(cls, contract)
        except AIFError:
            raise
        except (Exception, SystemExit) as error:
            raise CreationFailed(
                f"{entry} of {reference} cannot be loaded: {type(error).__name__}: {error}", kind="module"
            ) from error
        found: type[AIM] = cls
        return found


def _installed(package: _Package) -> str:
    """Name of the Python package that stands for an AIM's folder.

    It holds the whole digest, so that versions never mix, and has no place on disk to search.
    """
    name = f"aif_aim_{package.digest.hex()}"
    if name not in sys.modules:
        module = ModuleType(name)
        module.__path__ = []
        module.__spec__ = ModuleSpec(name, None, is_package=True)
        sys.modules[name] = module
        sys.meta_path.append(_Sources(name, package))
    return name


class _Sources(MetaPathFinder, InspectLoader):
    """Imports the modules of one package from the sources that its digest covers."""

    def __init__(self, name: str, package: _Package) -> None:
        self._prefix, self._package = f"{name}.", package

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        if not fullname.startswith(self._prefix):
            return None
        file = self._file(fullname)
        if file is not None:
            origin = str(self._package.folder / file)
            spec = ModuleSpec(fullname, self, origin=origin, is_package=file.endswith("/__init__.py"))
            spec.has_location = True
            return spec
        if any(source.startswith(f"{self._stem(fullname)}/") for source in self._package.sources):
            return ModuleSpec(fullname, None, is_package=True)
        return None

    def get_source(self, fullname: str) -> str:
        return decode_source(self._source(fullname))

    def get_code(self, fullname: str) -> CodeType:
        file = self._file(fullname) or ""
        return self.source_to_code(self._source(fullname), str(self._package.folder / file))

    def _source(self, fullname: str) -> bytes:
        file = self._file(fullname)
        if file is None:
            raise ImportError(f"{fullname} is not in its package", name=fullname)
        return self._package.sources[file]

    def _file(self, fullname: str) -> str | None:
        stem = self._stem(fullname)
        return next((f for f in (f"{stem}/__init__.py", f"{stem}.py") if f in self._package.sources), None)

    def _stem(self, fullname: str) -> str:
        return fullname.removeprefix(self._prefix).replace(".", "/")
