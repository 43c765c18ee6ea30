"""Every AIM of the library: a valid contract, and code and README that keep to it."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import aims
from aif.config import Catalogue, load_catalogue
from aif.model.aim import AIMMetadata, Runtime, SecurityNeed
from aif.runtime.library import AIMLibrary
from store.targets import pack

LIBRARY = Path(next(iter(aims.__path__)))
FOLDERS = sorted(file.parent.name for file in LIBRARY.glob("*/aim.yaml"))


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue([LIBRARY])


def contract_of(catalogue: Catalogue, folder: str) -> AIMMetadata:
    return next(contract for ref, contract in catalogue.items() if catalogue.folder(ref).name == folder)


def test_the_library_holds_the_aims_of_the_gesture_workflow(catalogue: Catalogue) -> None:
    assert set(catalogue) >= {
        "IMUSource@1.0",
        "MotionFeatures@1.0",
        "GestureClassifier@1.0",
        "MotionAnomaly@1.0",
        "GestureDecision@1.0",
        "EventSink@1.0",
        "MotionAnalysis@1.0",
    }


@pytest.mark.parametrize("folder", FOLDERS)
def test_folder_and_name_belong_together(folder: str, catalogue: Catalogue) -> None:
    assert contract_of(catalogue, folder).name.lower() == folder.replace("_", "")


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_class_serves_its_contract(folder: str, catalogue: Catalogue) -> None:
    contract = contract_of(catalogue, folder)
    library = AIMLibrary(catalogue)
    loaded = [library.load_class(contract.reference, i) for i in contract.implementations if i.entry]
    without = [i for i in contract.implementations if not i.entry]
    assert all(cls.__name__ == contract.name for cls in loaded)
    assert all(i.model is not None for i in without), "without code there must be a model"
    assert loaded or without or contract.composition is not None


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_implementation_asks_for_attestation_and_mcus_account_for_flash(
    folder: str, catalogue: Catalogue
) -> None:
    for implementation in contract_of(catalogue, folder).implementations:
        assert implementation.security is SecurityNeed.ATTESTED
        if implementation.runtime in (Runtime.TFLM, Runtime.FIRMWARE):
            assert implementation.flash_bytes > 0
            assert implementation.ram_bytes < 8 * 1024


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_readme_tells_every_port_and_parameter_and_its_type(folder: str, catalogue: Catalogue) -> None:
    contract = contract_of(catalogue, folder)
    text = (LIBRARY / folder / "README.md").read_text(encoding="utf-8")
    for port in (*contract.inputs, *contract.outputs):
        direction = "in" if port in contract.inputs else "out"
        assert f"| {direction} `{port.name}` | `{port.type.record}`" in text
    for parameter in contract.parameters:
        default = f"`{parameter.default}`" if parameter.kind == "string" else str(parameter.default)
        assert f"| `{parameter.name}` | {default} |" in text
    assert 10 <= len(text.splitlines()) <= 35


def imports_of(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


@pytest.mark.parametrize("folder", FOLDERS)
def test_running_code_imports_the_sdk_numpy_and_its_own_folder_only(folder: str) -> None:
    start = LIBRARY / folder / "module.py"
    waiting, seen = [start] if start.exists() else [], set()
    while waiting:
        file = waiting.pop()
        seen.add(file)
        for name in imports_of(file):
            if name.startswith("."):
                assert name.count(".") == 1, f"{file.name} reaches outside its folder: {name}"
                own = file.with_name(f"{name[1:]}.py")
                waiting += [own] if own not in seen else []
            else:
                top = name.partition(".")[0]
                assert name == "aif.sdk" or top == "numpy" or top in sys.stdlib_module_names


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_folder_can_be_packed_and_is_installed_with_the_library(folder: str) -> None:
    assert pack(LIBRARY / folder)
    assert importlib.import_module(f"aims.{folder}").__doc__
