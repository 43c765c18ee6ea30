"""Code of AIMs: what runs is what was measured."""

from __future__ import annotations

import os
import py_compile
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from aif.errors import CreationFailed, LengthOrHashMismatch, StoreError
from aif.model.aim import AIMMetadata, Implementation, Runtime
from aif.model.ports import Direction, Port
from aif.model.records import PortType, RecordType
from aif.runtime.library import AIMLibrary, package_digest

MODULE = """
from aif.sdk import AIM
from .factor import FACTOR


class Times(AIM):
    def process(self, a):
        return {"out": FACTOR * a}
"""


class Folders(dict[str, AIMMetadata]):
    """A catalogue of one folder."""

    def __init__(self, contract: AIMMetadata, folder: Path) -> None:
        super().__init__({contract.reference: contract})
        self._folder = folder

    def folder(self, _reference: str, /) -> Path:
        return self._folder


def implementation(entry: str | None = "module:Times") -> Implementation:
    return Implementation("any", Runtime.PYTHON, 1, entry=entry)


CONTRACT = AIMMetadata(
    "Times", "1.0", "demo",
    inputs=(Port("a", Direction.INPUT, PortType(RecordType.parse("int32")), 4),),
    implementations=(implementation(),),
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    before, finders = set(sys.modules), list(sys.meta_path)
    made = tmp_path / "times"
    made.mkdir()
    (made / "aim.yaml").write_text("schema: 1\n")
    (made / "module.py").write_text(MODULE)
    (made / "factor.py").write_text("FACTOR = 2\n")
    yield made
    sys.meta_path[:] = finders
    for name in set(sys.modules) - before:
        if name.startswith("aif_aim_"):
            del sys.modules[name]


def library(folder: Path) -> AIMLibrary:
    return AIMLibrary(Folders(CONTRACT, folder))


def run(made: AIMLibrary, entry: str = "module:Times") -> Mapping[str, int]:
    result: Mapping[str, int] = made.load_class("Times@1.0", implementation(entry))().process(a=21)
    return result


def test_a_class_is_loaded_with_what_it_imports_from_its_folder(folder: Path) -> None:
    made = library(folder)
    assert run(made) == {"out": 42}
    assert made.contract("Times@1.0") is CONTRACT
    assert made.load_class("Times@1.0", implementation()) is made.load_class("Times@1.0", implementation())


def test_modules_may_lie_in_packages_and_in_plain_folders(folder: Path) -> None:
    for inside, init in (("package", "FACTOR = 3\n"), ("plain", None)):
        (folder / inside).mkdir()
        if init is not None:
            (folder / inside / "__init__.py").write_text(init)
        (folder / inside / "module.py").write_text(MODULE.replace(".factor", "..factor"))
    (folder / "package" / "module.py").write_text(MODULE.replace("from .factor", "from ."))
    made = library(folder)
    assert run(made, "package.module:Times") == {"out": 63}
    assert run(made, "plain.module:Times") == {"out": 42}


def test_the_digest_is_the_one_of_the_store_s_package(folder: Path) -> None:
    made = library(folder)
    assert made.digest("Times@1.0") == package_digest(folder)
    assert made.verified("Times@1.0", package_digest(folder)) is CONTRACT


def test_another_package_than_the_deployed_one_is_refused(folder: Path) -> None:
    with pytest.raises(
        LengthOrHashMismatch, match=r"Times@1\.0 on this device is not the one that was deployed"
    ):
        library(folder).verified("Times@1.0", bytes(32))


def test_code_that_changes_after_it_was_measured_does_not_run(folder: Path) -> None:
    made = library(folder)
    digest = made.digest("Times@1.0")
    (folder / "factor.py").write_text("FACTOR = 1000\n")
    assert made.verified("Times@1.0", digest) is CONTRACT
    assert run(made) == {"out": 42}
    fresh = library(folder)
    with pytest.raises(LengthOrHashMismatch):
        fresh.verified("Times@1.0", digest)
    assert run(fresh) == {"out": 21_000}  # both versions live side by side
    assert run(made) == {"out": 42}


def test_a_compiled_cache_beside_the_source_is_not_believed(folder: Path) -> None:
    source = folder / "factor.py"
    before = source.stat()
    source.write_text("FACTOR = 9\n")  # same length, compiled, and put back with its old time
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert py_compile.compile(str(source)) is not None
    source.write_text("FACTOR = 2\n")
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert list((folder / "__pycache__").iterdir())
    assert run(library(folder)) == {"out": 42}


def test_what_is_not_in_the_package_cannot_be_imported(folder: Path) -> None:
    made = library(folder)
    made.digest("Times@1.0")
    (folder / "late.py").write_text(MODULE)
    with pytest.raises(
        CreationFailed, match=r"late:Times of Times@1\.0 cannot be loaded: ModuleNotFoundError"
    ):
        run(made, "late:Times")


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("raise ValueError('in import')", "ValueError: in import"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("def broken(:", "SyntaxError: "),
        ("import no_such_module_anywhere", "ModuleNotFoundError: "),
        ("x = 1", "AttributeError: "),
    ],
)
def test_code_that_cannot_be_loaded_is_said_to_be_so(folder: Path, module: str, reason: str) -> None:
    (folder / "module.py").write_text(module)
    with pytest.raises(CreationFailed, match=f"module:Times of Times@1.0 cannot be loaded: {reason}"):
        run(library(folder))


def test_a_module_that_does_not_decode_is_said_to_be_so(folder: Path) -> None:
    (folder / "module.py").write_bytes(b"\xff\xfe nonsense \x80")
    with pytest.raises(CreationFailed, match="cannot be loaded"):
        run(library(folder))


def test_a_class_that_does_not_serve_the_contract_is_refused(folder: Path) -> None:
    (folder / "module.py").write_text(MODULE.replace("self, a", "self, b").replace("* a", "* b"))
    with pytest.raises(
        CreationFailed, match=r"Times.process takes \(b\) but Times@1.0 declares the inputs \(a\)"
    ):
        run(library(folder))


def test_an_implementation_without_entry_has_no_class(folder: Path) -> None:
    with pytest.raises(CreationFailed, match=r"implementation any of Times@1\.0 has no entry to run here"):
        library(folder).load_class("Times@1.0", implementation(None))


def test_an_aim_that_is_not_here(folder: Path) -> None:
    for call in (library(folder).contract, library(folder).digest):
        with pytest.raises(CreationFailed, match=r"this device has no AIM X@1\.0") as refused:
            call("X@1.0")
        assert refused.value.hint == "install it, or add its folder with --aims"


def test_a_folder_that_no_package_may_hold_is_refused(folder: Path) -> None:
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(StoreError, match="is not a regular file"):
        library(folder).digest("Times@1.0")
