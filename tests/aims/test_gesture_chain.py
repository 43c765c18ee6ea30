"""Each AIM of the gesture workflow alone, on real windows, in the engines that devices use."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aif.errors import AIMFailed, InvalidRecord, NotFound
from aif.runtime.host.trial import Reading
from aims.motion_features.features import motion_features
from tests.aims.conftest import MotionRun, trial

integration = pytest.mark.integration


@pytest.fixture(scope="module")
def sensed(motion: MotionRun) -> dict[str, list[Any]]:
    return trial("imu_source", sensors={"imu": motion.readings})


@pytest.fixture(scope="module")
def features(sensed: dict[str, list[Any]]) -> list[Any]:
    return trial("motion_features", {"window": sensed["window"]})["features"]


@pytest.fixture(scope="module")
def scores(motion: MotionRun, features: list[Any]) -> list[Any]:
    return trial("gesture_classifier", {"features": features}, model=motion.classifier.tflite)["scores"]


@pytest.fixture(scope="module")
def anomaly(motion: MotionRun, features: list[Any]) -> list[float]:
    settings = {"threshold": motion.detector.parameters["threshold"]}
    model = motion.detector.tflite
    return trial("motion_anomaly", {"features": features}, model=model, parameters=settings)["score"]


@pytest.fixture(scope="module")
def events(scores: list[Any], anomaly: list[float]) -> list[Any]:
    return trial("gesture_decision", {"scores": scores, "anomaly_score": anomaly})["event"]


# --- the source -----------------------------------------------------------------------------------------


def test_the_source_numbers_windows_and_tells_the_truth(
    sensed: dict[str, list[Any]], motion: MotionRun
) -> None:
    assert [w.sequence for w in sensed["window"]] == list(range(len(motion.readings)))
    assert (np.asarray(sensed["window"][7].samples) == motion.recording.samples[7]).all()
    assert [t.subject for t in sensed["truth"]] == motion.recording.subject.tolist()
    assert {t.label for t in sensed["truth"] if t.unseen} == {"unseen"}


def test_a_real_sensor_tells_no_truth() -> None:
    out = trial("imu_source", sensors={"imu": [Reading(np.zeros((100, 6), np.int16))]})
    assert len(out["window"]) == 1
    assert out["truth"] == []


def test_a_sensor_with_another_window_is_refused_with_both_shapes() -> None:
    with pytest.raises(
        InvalidRecord, match=r"IMUSource\.window\.samples: int16\[100\]\[6\] takes a buffer of"
    ):
        trial("imu_source", sensors={"imu": [Reading(np.zeros((50, 6), np.int16))]})


def test_a_machine_without_the_sensor_says_so() -> None:
    with pytest.raises(NotFound, match="no sensor imu"):
        trial("imu_source")


# --- features and models --------------------------------------------------------------------------------


def test_features_are_those_of_the_window(features: list[Any], motion: MotionRun) -> None:
    assert len(features) == len(motion.readings)
    assert (np.asarray(features[5]) == motion_features(motion.recording.samples[5])).all()


@pytest.mark.parametrize("value", [-32768, 0, 32767])
def test_features_of_extreme_windows_exist(value: int) -> None:
    window = {"sequence": 0, "samples": np.full((100, 6), value, np.int16)}
    (found,) = trial("motion_features", {"window": [window]}, implementation="gateway")["features"]
    assert len(found) == 54


@integration
@pytest.mark.parametrize("name", ["gesture_classifier", "motion_anomaly"])
def test_microcontroller_and_gateway_agree(
    name: str, motion: MotionRun, features: list[Any], scores: list[Any], anomaly: list[float]
) -> None:
    model = (motion.classifier if name == "gesture_classifier" else motion.detector).tflite
    out = trial(name, {"features": features}, model=model, implementation="gateway")
    if name == "gesture_classifier":
        steps = np.array([s.tolist() for s in out["scores"]]) - np.array([s.tolist() for s in scores])
        assert np.abs(steps).max() <= 2
    else:
        assert np.allclose(out["score"], anomaly, rtol=0.1, atol=0.05)


@integration
def test_the_declared_arena_is_enough_and_the_model_is_named_when_missing(features: list[Any]) -> None:
    with pytest.raises(NotFound, match=r"GestureClassifier@1\.0/mcu needs the model gesture_classifier"):
        trial("gesture_classifier", {"features": features})


@integration
def test_the_score_is_relative_to_the_threshold(
    motion: MotionRun, features: list[Any], anomaly: list[float]
) -> None:
    doubled = {"threshold": 2 * motion.detector.parameters["threshold"]}
    records = {"features": features[:20]}
    found = trial("motion_anomaly", records, model=motion.detector.tflite, parameters=doubled)["score"]
    assert np.allclose(np.array(found) * 2, anomaly[:20], rtol=1e-6)
    assert min(anomaly) > 0


# --- the decision ---------------------------------------------------------------------------------------


def decide(scores: list[list[int]], anomaly: list[float], **parameters: Any) -> list[Any]:
    records: dict[str, list[Any]] = {"scores": scores, "anomaly_score": anomaly}
    return trial("gesture_decision", records, parameters=parameters)["event"]


def test_the_largest_score_wins_and_confidence_is_its_softmax() -> None:
    rows = np.random.default_rng(0).integers(-128, 128, (200, 4)).astype(np.int8)
    events = decide([row.tolist() for row in rows], [0.0] * 200, minimum_confidence=0.0)
    logits = rows * 0.04
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    names = ("pendulum", "rotation", "trapezius_extension", "row")
    assert [e.label for e in events] == [names[n] for n in rows.argmax(1)]
    assert np.allclose([e.confidence for e in events], softmax.max(1), rtol=1e-5)


def test_below_the_minimum_confidence_nothing_is_recognised() -> None:
    undecided, sure = decide([[0, 0, 0, 0], [127, -128, -128, -128]], [0.0, 0.0])
    assert (undecided.label, undecided.confidence) == ("unknown", 0.25)
    assert sure.label == "pendulum"


def test_an_anomaly_is_a_score_above_the_threshold() -> None:
    events = decide([[9, 0, 0, 0]] * 3, [0.5, 1.0, 1.5])
    assert [(e.anomaly, e.score) for e in events] == [(False, 0.5), (False, 1.0), (True, 1.5)]
    (strict,) = decide([[9, 0, 0, 0]], [0.5], anomaly_threshold=0.25)
    assert strict.anomaly


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("a,b", "parameter labels names 2 gestures for 4 scores"),
        ("a,b,,d", "parameter labels: '' is not a label of 1 to 32 bytes"),
        ("a,b,c," + "d" * 33, f"parameter labels: '{'d' * 33}' is not a label of 1 to 32 bytes"),
    ],
)
def test_labels_that_do_not_suit_are_refused(labels: str, message: str) -> None:
    with pytest.raises(AIMFailed) as refused:
        decide([[0, 0, 0, 0]], [0.0], labels=labels)
    assert str(refused.value) == f"GestureDecision failed: ValueError: {message}"


def test_the_longest_labels_fit_the_event() -> None:
    (event,) = decide([[127, -128, -128, -128]], [0.0], labels=",".join(letter * 32 for letter in "abcd"))
    assert event.label == "a" * 32


# --- the whole chain ------------------------------------------------------------------------------------


@integration
def test_unseen_people_are_recognised_and_an_unseen_motion_is_noticed(
    events: list[Any], sensed: dict[str, list[Any]]
) -> None:
    results = trial("event_sink", {"event": events, "truth": sensed["truth"]})["result"]
    known = [r for r in results if not r.unseen]
    unseen = [r for r in results if r.unseen]
    assert len(results) == len(sensed["truth"])
    assert sum(r.predicted == r.truth for r in known) >= 0.9 * len(known)
    assert sum(r.anomaly for r in unseen) >= 0.85 * len(unseen)
    assert sum(r.anomaly for r in known) <= 0.05 * len(known)
