from __future__ import annotations

import importlib
import io
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from aif.authoring.datasets import MAX_FILE_BYTES, digits, package_file, read_object_array, watch_recordings
from aif.errors import InvalidRecord, LengthOrHashMismatch, NotFound


def npy(payload: bytes) -> bytes:
    """An array file that holds this pickle."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
    return file.getvalue() + payload


def pickled(
    *, element: str = "i1", shape: tuple[int, ...] = (3,), names: object = None, of_objects: bool = False
) -> bytes:
    """The pickle of an array as numpy writes it, with parts that need not fit each other."""
    array = Call(np.empty(0).__reduce__()[0], np.ndarray, (0,), b"b")
    kind = Call(np.dtype, "O8" if of_objects else element, False, True)
    kind.call += ((3, "|", None, names, None, -1, -1, 0),)
    array.call += ((1, shape, kind, False, [1, 2, 3] if of_objects else b"abc"),)
    return pickle.dumps(array)


class Call:
    """A pickle that calls a function when it is read."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call: tuple[object, ...] = (function, arguments)

    def __reduce__(self) -> tuple[object, ...]:
        return self.call


def test_arrays_of_arrays_are_read() -> None:
    value = np.array({"x": [np.arange(6.0).reshape(2, 3)], "y": np.array([1, 2]), "name": "w"}, dtype=object)
    file = io.BytesIO()
    np.save(file, value, allow_pickle=True)
    found = read_object_array(file.getvalue()).item()
    assert found["x"][0].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found["y"].tolist() == [1, 2]
    assert found["name"] == "w"


@pytest.mark.parametrize(
    ("hostile", "name"),
    [
        (Call(os.system, "touch pwned"), "posix.system"),
        (Call(eval, "1 + 1"), "builtins.eval"),
        (Call(getattr, "x", "upper"), "builtins.getattr"),
        (Call(importlib.import_module, "os"), "importlib.import_module"),
        (Call(np.load, "x.npy"), "numpy.load"),
        ([Call(os.getcwd)], "posix.getcwd"),
    ],
)
def test_a_pickle_that_calls_something_is_refused_and_nothing_is_called(
    hostile: object, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidRecord, match=f"asks for {name}"):
        read_object_array(npy(pickle.dumps(hostile)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an array file"),
        (b"\x93NUMPY", "not an array file"),
        (b"\x93NUMPY\x09\x00" + bytes(20), "not an array file"),
        (npy(b""), "not an array file"),
        (npy(b"\x80\x04."), "array file refused|not an array file"),
        (npy(b"\x80\x04\x8c"), "array file refused|not an array file"),
        (npy(pickle.dumps([1, 2])), "holds list, not an array"),
        (npy(b"c_codecs\nencode\n(Vabc\nVzlib_codec\ntR."), "the encoding 'zlib_codec'"),
        (npy(b"\x80\x04Nr\xff\xff\xff\x7f."), "keeps something at place 2147483647"),
        (npy(pickled(shape=(1 << 40,))), "holds 3 elements for an array of"),
        (npy(pickled(shape=(1 << 40,), of_objects=True)), "holds 3 elements for an array of"),
        (npy(pickled(element="(1")), "elements of type"),
        (npy(pickled(element="S0")), "not an array file"),
        (npy(pickled(names=("a",))), "elements with parts"),
        (b"\x93NUMPY\x01\x00\xff\xff" + bytes(20), "cut off in its header"),
        (npy(b"cnumpy\nndarray\n(J\xff\xff\xff\xfftR."), "not an array file"),
        (bytes(MAX_FILE_BYTES + 1), "at most 67,108,864 B"),
    ],
)
def test_anything_else_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(InvalidRecord, match=message):
        read_object_array(content)


def test_a_missing_package_says_how_to_get_it() -> None:
    with pytest.raises(NotFound, match="data package no-such-data is not installed") as caught:
        package_file("no-such-data", "/x.npy", sha256="0" * 64)
    assert caught.value.hint.startswith("pip install --no-deps no-such-data")


def test_a_missing_file_and_another_digest_are_refused() -> None:
    with pytest.raises(NotFound, match=r"numpy holds 0 files ending in /no\.such"):
        package_file("numpy", "/no.such", sha256="0" * 64)
    with pytest.raises(LengthOrHashMismatch, match="expected 0000"):
        package_file("numpy", "numpy/__init__.py", sha256="0" * 64)


def test_digits() -> None:
    images, labels = digits()
    assert images.shape == (1797, 64)
    assert (images.min(), images.max()) == (0.0, 1.0)
    assert sorted(set(labels.tolist())) == list(range(10))


def test_watch_recordings() -> None:
    try:
        data = watch_recordings()
    except NotFound as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{error}: {error.hint}")
    assert "seglearn" not in sys.modules
    assert len(data.samples) == len(data.exercise) == len(data.side) == len(data.subject) == 140
    assert sorted(set(data.subject)) == list(range(1, 11))
    assert sorted(set(data.exercise)) == ["ABD", "ER", "FEL", "IR", "PEN", "ROW", "TRAP"]
    assert all(x.ndim == 2 and x.shape[1] == 6 and np.isfinite(x).all() for x in data.samples)
