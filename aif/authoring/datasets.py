"""Data sets that installed packages carry. Nothing is downloaded, copied or imported.

Decides: which file of which package, and that its digest is the expected one. Does not: cut windows or split.

Invariants: a file is found through the package's metadata, so the package (and what it would import) never
runs; its digest is checked before it is parsed; a pickle is read by a reader that can only make numpy arrays.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from dataclasses import dataclass
from hashlib import sha256 as digest_of
from importlib import metadata
from typing import Any, Final, Self

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
        _skip_header(source)
        _check_places(source)
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


def _skip_header(source: io.BytesIO) -> None:
    """Go to the pickle, which repeats all that the header says; numpy would evaluate that as Python text.

    Raises:
        ValueError: not format 1.0 or 2.0 of ``numpy.lib.format``, or cut off.
    """
    length_bytes = {(1, 0): 2, (2, 0): 4}.get(np.lib.format.read_magic(source))
    if length_bytes is None:
        raise ValueError("another version of the format")
    length = int.from_bytes(source.read(length_bytes), "little")
    if len(source.read(length)) != length:
        raise ValueError("cut off in its header")


def _check_places(source: io.BytesIO) -> None:
    """Refuse a pickle that numbers what it keeps higher than it is long: the reader makes room for each."""
    start, length = source.tell(), len(source.getbuffer())
    for opcode, argument, _ in pickletools.genops(source):
        if opcode.name in _PUTS and not 0 <= int(argument or 0) <= length:
            raise pickle.UnpicklingError(f"the pickle keeps something at place {argument}")
    source.seek(start)


class _ArrayUnpickler(pickle.Unpickler):
    """Maps the few names that a pickled array needs to harmless functions; every other name is refused."""

    def find_class(self, module: str, name: str) -> Any:
        wanted = module.replace("numpy._core", "numpy.core"), name
        if wanted not in _ADMITTED:
            raise pickle.UnpicklingError(f"the pickle asks for {module}.{name}")
        return _ADMITTED[wanted]


def _latin1_bytes(text: str, encoding: str) -> bytes:
    """How old pickles spell bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the pickle asks for the encoding {encoding!r}")
    return text.encode("latin1")


class _Element:
    """The type of an array's elements, without numpy's own way to change one."""

    def __init__(self, specification: object, *_align_copy: object) -> None:
        if not isinstance(specification, str) or not _ELEMENT.fullmatch(specification):
            raise pickle.UnpicklingError(f"the pickle asks for elements of type {specification!r}")
        self.dtype: np.dtype[Any] = np.dtype(specification)

    def __setstate__(self, state: object) -> None:
        match state:
            case (int(), "<" | ">" as order, None, None, None, *_):
                self.dtype = self.dtype.newbyteorder(order)
            case (int(), "|", None, None, None, *_):
                pass
            case _:
                raise pickle.UnpicklingError("the pickle asks for elements with parts")


class _Array(np.ndarray[Any, np.dtype[Any]]):
    """An array that holds as many elements as it says, so that no memory is taken for what is not there."""

    @classmethod
    def empty(cls, *_kind_shape_code: object) -> Self:
        return cls(0, np.int8)

    def __setstate__(self, state: object) -> None:
        match state:
            case (int(), tuple(shape), _Element() as element, bool(by_column), bytes() | list() as content):
                of_objects = isinstance(content, list)
                size = len(content) if of_objects else len(content) // element.dtype.itemsize
            case _:
                raise pickle.UnpicklingError("the pickle holds an array without its parts")
        if element.dtype.hasobject != of_objects or len(shape) > _MAX_DIMENSIONS or math.prod(shape) != size:
            raise pickle.UnpicklingError(f"the pickle holds {size} elements for an array of {shape}")
        super().__setstate__((1, shape, element.dtype, by_column, content))  # type: ignore[arg-type]  # bool is one


_ELEMENT: Final = re.compile(r"[<>|=]?[biufOSU][0-9]{0,3}")
"""One number, text or object; numpy evaluates longer descriptions as Python text."""
_MAX_DIMENSIONS: Final = 8
_PUTS: Final = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_ADMITTED: Final[dict[tuple[str, str], Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array.empty,
    ("numpy", "ndarray"): None,
    ("numpy", "dtype"): _Element,
    ("_codecs", "encode"): _latin1_bytes,
}
