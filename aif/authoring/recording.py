"""Labelled sensor windows in one file: what an emulated sensor replays and a run is scored against.

Decides: the content and checks of a recording file (``.npz``, no pickles). Does not: know what a sensor
measures.

Invariants: all arrays of a recording have the same length; times grow; a file appears whole or not at all.
"""

from __future__ import annotations

import math
import os
import re
import struct
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from aif.errors import InvalidRecord

UNSEEN: Final = -1
"""Label of a window whose kind of motion no model was trained on."""
MAX_RECORDING_BYTES: Final = 256 << 20
"""Bytes of all arrays of a recording."""

_FORMS: Final = {
    "samples": ("int16", 3),
    "t_us": ("uint64", 1),
    "label": ("int8", 1),
    "subject": ("int16", 1),
}
"""Element type and number of dimensions of each array."""
_PREFIX_BYTES: Final = 10
_HEADER: Final = re.compile(
    rb"\x93NUMPY\x01\x00(?P<length>..)"
    rb"\{'descr': '(?P<descr><i2|<u8|\|i1|<U[1-9]\d{0,3})', 'fortran_order': False, "
    rb"'shape': \((?P<shape>\d{1,9},|\d{1,9}(?:, \d{1,9}){1,3})\), \} *\n",
    re.DOTALL,
)
"""Format 1.0 of ``numpy.lib.format`` for the element types above and for texts."""
_ZIP_ERRORS: Final = (
    OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, struct.error,
)  # fmt: skip
"""What ``zipfile`` raises for a damaged archive; a ``RuntimeError`` when it seems encrypted or too new."""


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """Windows in the order in which they are replayed.

    Attributes:
        samples: int16[n][T][C], raw sensor samples.
        t_us: uint64[n], time of the last sample of each window, growing.
        label: int8[n], index into ``labels``, or ``UNSEEN``.
        subject: int16[n], number of the person.
        labels: names of the labels.
    """

    samples: npt.NDArray[np.int16]
    t_us: npt.NDArray[np.uint64]
    label: npt.NDArray[np.int8]
    subject: npt.NDArray[np.int16]
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        for name, (dtype, rank) in _FORMS.items():
            array = getattr(self, name)
            if array.dtype != dtype or array.ndim != rank or len(array) != len(self.samples):
                raise InvalidRecord(f"recording: {name} is {array.dtype}{list(array.shape)}")
        if not len(self.samples) or not (np.diff(self.t_us.astype(np.float64)) > 0).all():
            raise InvalidRecord("recording: it is empty, or its times do not grow")
        if not ((self.label >= UNSEEN) & (self.label < len(self.labels))).all():
            raise InvalidRecord(f"recording: a label is neither below {len(self.labels)} nor {UNSEEN}")

    def __len__(self) -> int:
        return len(self.samples)

    def thinned(self, count: int) -> Recording:
        """At most ``count`` windows, evenly spread over it, so that all people occur.

        They are replayed one right after the other: the times are those of the first ``count`` windows.
        """
        keep = np.unique(
            np.linspace(0, len(self) - 1, min(max(1, count), len(self))).round().astype(np.int64)
        )
        return Recording(
            self.samples[keep], self.t_us[: len(keep)], self.label[keep], self.subject[keep], self.labels
        )


def write_recording(path: Path, recording: Recording) -> None:
    """Write a recording; a reader sees the old file or the whole new one."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.savez_compressed(
                file,
                samples=recording.samples,
                t_us=recording.t_us,
                label=recording.label,
                subject=recording.subject,
                labels=np.array(recording.labels),
            )
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_recording(path: Path) -> Recording:
    """Read and check a recording.

    A member that claims more bytes than the limit is not unpacked, and no more than it claims is read.

    Raises:
        InvalidRecord: not a recording, damaged, or too large.
    """
    try:
        _check_size(path, path.stat().st_size)
        with zipfile.ZipFile(path) as archive:
            _check_size(path, sum(member.file_size for member in archive.infolist()))
            arrays = {name: _array(name, _member(archive, name)) for name in _FORMS}
            labels = tuple(str(name) for name in _array("labels", _member(archive, "labels")))
        return Recording(**arrays, labels=labels)
    except _ZIP_ERRORS as error:
        raise InvalidRecord(
            f"{path} is not a recording: {error}", hint="make it again by training the models"
        ) from error


def _check_size(path: Path, size_bytes: int) -> None:
    if size_bytes > MAX_RECORDING_BYTES:
        raise InvalidRecord(f"{path}: {size_bytes:,} B, a recording has at most {MAX_RECORDING_BYTES:,} B")


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise ValueError(f"{name} is compressed in a way that no recording is")
    with archive.open(info) as file:
        content = file.read(info.file_size)
    if len(content) != info.file_size:
        raise ValueError(f"{name} is cut off")
    return content


def _array(name: str, content: bytes) -> npt.NDArray[Any]:
    """The array of one ``.npy`` member, in the one form that ``write_recording`` gives it.

    numpy's own reader evaluates the header as Python text, and answers a damaged one with errors of the
    tokenizer, the parser or the allocator.

    Raises:
        ValueError: another form, element type, number of dimensions or length.
    """
    head = _HEADER.match(content)
    if head is None or int.from_bytes(head["length"], "little") != len(head[0]) - _PREFIX_BYTES:
        raise ValueError(f"{name} has no header that a recording has")
    shape = tuple(int(extent) for extent in head["shape"].split(b",") if extent.strip())
    dtype = np.dtype(head["descr"].decode("ascii"))
    if len(content) - len(head[0]) != dtype.itemsize * math.prod(shape):
        raise ValueError(f"{name} is not as long as its header says")
    return np.frombuffer(content, dtype, offset=len(head[0])).reshape(shape)
