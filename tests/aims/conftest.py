"""Real windows of people that no model was trained on, and the two models, made once per run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import aims
from aif.authoring.conversion import TrainedModel
from aif.authoring.datasets import watch_recordings
from aif.authoring.recording import UNSEEN, Recording
from aif.errors import NotFound
from aif.runtime.host.trial import Reading, try_aim
from aims.gesture_classifier import train as gestures
from aims.motion_anomaly import train as anomaly
from aims.motion_features.corpus import motion_corpus

LIBRARY = Path(next(iter(aims.__path__)))
WINDOWS = 300


@dataclass(frozen=True, slots=True)
class MotionRun:
    """Models, held-out windows, and the readings of a sensor that replays them."""

    classifier: TrainedModel
    detector: TrainedModel
    recording: Recording
    readings: tuple[Reading, ...]


@pytest.fixture(scope="session")
def motion() -> MotionRun:
    try:
        corpus = motion_corpus(watch_recordings())
    except NotFound as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{error}: {error.hint}")
    recording = corpus.held_out.thinned(WINDOWS)
    return MotionRun(gestures.train(corpus), anomaly.train(corpus), recording, tuple(_readings(recording)))


def _readings(recording: Recording) -> list[Reading]:
    found = []
    for n in range(len(recording)):
        label = int(recording.label[n])
        name = "unseen" if label == UNSEEN else recording.labels[label]
        annotation = {"label": name, "unseen": label == UNSEEN, "subject": int(recording.subject[n])}
        found.append(Reading(recording.samples[n], int(recording.t_us[n]), annotation))
    return found


def trial(
    name: str, records: Mapping[str, Sequence[Any]] | None = None, **settings: Any
) -> dict[str, list[Any]]:
    """Run an AIM of the library."""
    return asyncio.run(try_aim(LIBRARY / name, records, **settings))
