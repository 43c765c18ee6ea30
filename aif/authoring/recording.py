"""Labelled sensor windows in one file: what an emulated sensor replays and a run is scored against.

Decides: the content and checks of a recording file (``.npz``, no pickles). Does not: know what a sensor
measures.

Invariants: all arrays of a recording have the same length; times grow; a file appears whole or not at all.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from aif.errors import InvalidRecord

UNSEEN: Final = -1
"""Label of a window whose kind of motion no model was trained on."""
MAX_RECORDING_BYTES: Final = 256 << 20
"""Bytes of all arrays of a recording."""


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
        wanted = {
            "samples": ("int16", 3),
            "t_us": ("uint64", 1),
            "label": ("int8", 1),
            "subject": ("int16", 1),
        }
        for name, (dtype, rank) in wanted.items():
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

    Raises:
        InvalidRecord: not a recording, damaged, or too large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_RECORDING_BYTES:
            raise InvalidRecord(f"{path}: {size:,} B, a recording has at most {MAX_RECORDING_BYTES:,} B")
        with np.load(path, allow_pickle=False) as arrays:
            names = ("samples", "t_us", "label", "subject")
            samples, t_us, label, subject = (arrays[name] for name in names)
            labels = tuple(str(name) for name in arrays["labels"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InvalidRecord(
            f"{path} is not a recording: {error}", hint="make it again by training the models"
        ) from error
    return Recording(samples, t_us, label, subject, labels)
