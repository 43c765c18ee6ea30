from __future__ import annotations

import os

import numpy as np
import pytest

from aif.authoring.conversion import TrainedModel
from aif.authoring.datasets import WatchRecordings, watch_recordings
from aif.authoring.recording import UNSEEN
from aif.engines.base import EngineConfig
from aif.engines.registry import open_engine
from aif.errors import ModelError, NotFound
from aims.gesture_classifier import train as gestures
from aims.gesture_classifier.score import probabilities
from aims.motion_anomaly import train as anomaly
from aims.motion_anomaly.score import reconstruction_error
from aims.motion_features.corpus import GESTURES, MotionCorpus, motion_corpus
from aims.motion_features.features import SAMPLE_SCALE, SCALE, ZERO_POINT, motion_features

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def recordings() -> WatchRecordings:
    try:
        return watch_recordings()
    except NotFound as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{error}: {error.hint}")


@pytest.fixture(scope="module")
def corpus(recordings: WatchRecordings) -> MotionCorpus:
    return motion_corpus(recordings)


@pytest.fixture(scope="module")
def classifier(corpus: MotionCorpus) -> TrainedModel:
    return gestures.train(corpus)


@pytest.fixture(scope="module")
def detector(corpus: MotionCorpus) -> TrainedModel:
    return anomaly.train(corpus)


def test_nobody_is_on_both_sides_and_the_unseen_motion_is_not_trained_on(corpus: MotionCorpus) -> None:
    assert sorted(set(corpus.train.subject.tolist())) == [1, 2, 3, 4, 5]
    assert sorted(set(corpus.held_out.subject.tolist())) == [6, 7, 8, 9, 10]
    assert sorted(set(corpus.train.label.tolist())) == [0, 1, 2, 3]
    assert sorted(set(corpus.held_out.label.tolist())) == [UNSEEN, 0, 1, 2, 3]
    assert corpus.held_out.labels == GESTURES


def test_windows_are_the_recordings_in_the_sensors_coding(
    corpus: MotionCorpus, recordings: WatchRecordings
) -> None:
    first = next(n for n, person in enumerate(recordings.subject) if person > 5)
    physical = corpus.held_out.samples[1] * SAMPLE_SCALE
    assert np.abs(physical - recordings.samples[first][50:150]).max() <= SAMPLE_SCALE / 2
    assert corpus.held_out.t_us[:3].tolist() == [2_000_000, 3_000_000, 4_000_000]
    assert (corpus.held_out_features[7] == motion_features(corpus.held_out.samples[7])).all()


@pytest.mark.parametrize("everybody", [(), range(1, 11), (11,)])
def test_a_split_without_a_side_is_refused(everybody: tuple[int, ...], recordings: WatchRecordings) -> None:
    with pytest.raises(ModelError, match="leave nobody to train or to test on"):
        motion_corpus(recordings, held_out_subjects=everybody)


def test_gestures_of_unseen_people_are_recognised(classifier: TrainedModel) -> None:
    assert classifier.report.accuracy_float >= 0.95
    assert classifier.report.accuracy_int8 >= 0.95
    assert classifier.report.examples > 1500
    assert min(classifier.metrics.values()) >= 0.85
    assert classifier.labels == GESTURES


def test_an_unseen_motion_of_unseen_people_is_noticed(detector: TrainedModel) -> None:
    assert detector.metrics["detection"] >= 0.85
    assert detector.metrics["false_alarm"] <= 0.05
    assert detector.parameters["threshold"] > 0


@pytest.mark.parametrize("name", ["classifier", "detector"])
def test_models_are_small_and_take_the_features_as_they_are(
    name: str, request: pytest.FixtureRequest
) -> None:
    model: TrainedModel = request.getfixturevalue(name)
    assert len(model.tflite) < 4096
    assert model.report.arena_bytes <= 8192
    assert (model.inputs.dtype, model.inputs.shape) == ("int8", (1, 54))
    assert (model.inputs.scale, model.inputs.zero_point) == (SCALE, ZERO_POINT)
    assert model.report.accuracy_float - model.report.accuracy_int8 <= 0.01


@pytest.mark.parametrize("name", ["classifier", "detector"])
def test_gateway_and_mcu_give_the_same_bytes(
    name: str, corpus: MotionCorpus, request: pytest.FixtureRequest
) -> None:
    model: TrainedModel = request.getfixturevalue(name)
    noise = np.random.default_rng(0).integers(-128, 128, (1000, 54)).astype(np.int8)
    with (
        open_engine("tflm", model.tflite, sha256=model.sha256, arena_bytes=model.report.arena_bytes) as small,
        open_engine("tflite", model.tflite, sha256=model.sha256, config=EngineConfig(exact=True)) as large,
    ):
        for x in np.concatenate([noise, corpus.held_out_features]):
            assert (small.infer([x[None]])[0] == large.infer([x[None]])[0]).all()


def test_the_score_of_the_running_aim_is_the_one_that_was_calibrated(
    detector: TrainedModel, corpus: MotionCorpus
) -> None:
    with open_engine(
        "tflm", detector.tflite, sha256=detector.sha256, arena_bytes=detector.report.arena_bytes
    ) as engine:
        found = np.array([engine.infer([x[None]])[0][0] for x in corpus.held_out_features])
    score = reconstruction_error(corpus.held_out_features, found, scale=engine.outputs[0].scale)
    alarm = score > detector.parameters["threshold"]
    unseen = corpus.held_out.label == UNSEEN
    assert float(alarm[unseen].mean()) == detector.metrics["detection"]
    assert float(alarm[~unseen].mean()) == detector.metrics["false_alarm"]


def test_training_again_gives_the_same_models_and_reports_progress(
    classifier: TrainedModel, detector: TrainedModel, corpus: MotionCorpus
) -> None:
    steps: list[tuple[str, float]] = []
    again = (
        gestures.train(corpus, progress=lambda step, fraction: steps.append((step, fraction))),
        anomaly.train(corpus, seed=9, progress=lambda step, fraction: steps.append((step, fraction))),
    )
    assert [model.sha256 for model in again] == [classifier.sha256, detector.sha256]
    assert [fraction for _, fraction in steps] == [0.0, 0.5, 1.0, 0.0, 0.4, 1.0]


def test_the_reconstruction_error_is_a_mean_square() -> None:
    x = np.array([[-128, 127], [0, 0]], np.int8)
    y = np.array([[127, -128], [0, 2]], np.int8)
    assert reconstruction_error(x, y, scale=0.5).tolist() == [255**2 * 0.25, 4 * 0.25 / 2]


def test_probabilities_keep_the_order_of_the_logits() -> None:
    logits = np.random.default_rng(0).integers(-128, 128, (200, 4)).astype(np.int8)
    found = probabilities(logits, scale=0.05)
    assert np.allclose(found.sum(1), 1.0)
    assert (found.argmax(1) == logits.argmax(1)).all()
    assert probabilities(np.array([-128, 127], np.int8), scale=100.0).tolist() == [0.0, 1.0]
    assert probabilities(np.array([3, 3], np.int8), scale=0.1).tolist() == [0.5, 0.5]
