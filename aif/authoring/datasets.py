"""Data sets that installed packages carry. Nothing is downloaded, copied or imported.

Decides: which file of which package, and that its digest is the expected one. Does not: cut windows or split.

Invariants: a file is found through the package's metadata, so the package (and what it would import) never
runs; its digest is checked before it is parsed; a pickle is read by a reader that can only make numpy arrays.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from hashlib import sha256 as digest_of
from importlib import metadata
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from aif.errors import InvalidRecord, LengthOrHashMismatch, NotFound

MAX_FILE_BYTES: Final = 64 << 20

_WATCH_PACKAGE: Final = "seglearn"
_WATCH_FILE: Final = "/watch_dataset.npy"
_WATCH_SHA256: Final = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"


@dataclass(frozen=True, slots=True, eq=False)
class WatchRecordings:
    """Shoulder exercises recorded by a smart watch, 50 Hz (Burns et al., arXiv:1802.01489; in seglearn, BSD).

    Attributes:
        samples: one float64[T][6] per recording: acceleration x y z in g, angular rate x y z in rad/s.
        exercise: PEN pendulum, ABD abduction, FEL forward elevation, IR and ER internal and external
            rotation, TRAP trapezius extension, ROW upright row.
        side: left or right arm.
        subject: number of the person, from 1.
    """

    samples: tuple[npt.NDArray[np.float64], ...]
    exercise: tuple[str, ...]
    side: tuple[str, ...]
    subject: tuple[int, ...]


def watch_recordings() -> WatchRecordings:
    """The 140 recordings of 10 people and 7 exercises.

    Raises:
        NotFound: the package is not installed.
        LengthOrHashMismatch: it holds another file than the one this was written for.
    """
    content = package_file(_WATCH_PACKAGE, _WATCH_FILE, sha256=_WATCH_SHA256)
    data = read_object_array(content).item()
    names = [str(name) for name in data["y_labels"]]
    return WatchRecordings(
        samples=tuple(np.asarray(x, np.float64) for x in data["X"]),
        exercise=tuple(names[int(n)] for n in data["y"]),
        side=tuple("right" if side else "left" for side in data["side"]),
        subject=tuple(int(number) for number in data["subject"]),
    )


def digits() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Handwritten digits of scikit-learn: float64[1797][64] in 0..1, and their labels 0..9."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return np.asarray(images, np.float64) / 16, np.asarray(labels, np.int64)


def package_file(package: str, suffix: str, *, sha256: str) -> bytes:
    """Content of the one file of an installed package whose path ends in ``suffix``.

    Raises:
        NotFound: no such package or file.
        LengthOrHashMismatch: the file is not the expected one.
    """
    hint = f"pip install --no-deps {package} (requirements-data.lock has the version)"
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        raise NotFound(f"the data package {package} is not installed", hint=hint) from None
    found = [file for file in files if str(file).endswith(suffix)]
    if len(found) != 1:
        raise NotFound(f"{package} holds {len(found)} files ending in {suffix}, expected one", hint=hint)
    try:
        with open(str(found[0].locate()), "rb") as file:  # noqa: PTH123 - locate() promises no Path
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise NotFound(f"{package}: {suffix} cannot be read: {error}", hint=hint) from error
    digest = digest_of(content).hexdigest()
    if digest != sha256:
        raise LengthOrHashMismatch(f"{package}: {suffix} has SHA-256 {digest}, expected {sha256}", hint=hint)
    return content


def read_object_array(content: bytes) -> npt.NDArray[Any]:
    """Read a ``.npy`` file that holds a pickled object array, admitting numpy arrays and plain values only.

    Raises:
        InvalidRecord: not such a file, or its pickle asks for anything else (e.g. a function to be called).
    """
    if len(content) > MAX_FILE_BYTES:
        raise InvalidRecord(f"{len(content):,} B of array file, at most {MAX_FILE_BYTES:,} B are read")
    source = io.BytesIO(content)
    try:
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        readers[np.lib.format.read_magic(source)](source)
        value = _ArrayUnpickler(source).load()
    except (
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        TypeError,
        ValueError,
    ) as error:
        raise InvalidRecord(f"not an array file: {type(error).__name__}: {error}") from error
    except pickle.UnpicklingError as error:
        raise InvalidRecord(f"array file refused: {error}") from error
    if not isinstance(value, np.ndarray):
        raise InvalidRecord(f"array file refused: it holds {type(value).__name__}, not an array")
    return value


class _ArrayUnpickler(pickle.Unpickler):
    """Maps the few names that a pickled array needs to harmless functions; every other name is refused."""

    def find_class(self, module: str, name: str) -> Any:
        admitted = _ADMITTED.get((module.replace("numpy._core", "numpy.core"), name))
        if admitted is None:
            raise pickle.UnpicklingError(f"the pickle asks for {module}.{name}")
        return admitted


def _latin1_bytes(text: str, encoding: str) -> bytes:
    """How old pickles spell bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the pickle asks for the encoding {encoding!r}")
    return text.encode("latin1")


def _dtype(specification: str, *_align_copy: object) -> np.dtype[Any]:
    return np.dtype(str(specification))


_RECONSTRUCT: Final = np.empty(0).__reduce__()[0]  # numpy's own, wherever this release keeps it
_ADMITTED: Final[dict[tuple[str, str], Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _latin1_bytes,
}
