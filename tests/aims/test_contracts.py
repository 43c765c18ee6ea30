"""What contracts and code promise about models is what training gives."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from aif.authoring.conversion import TrainedModel
from aif.config import load_aim
from aif.model.ports import Port
from aif.model.records import Annotation, FixedArray
from aims.motion_features.features import FEATURES, SCALE, ZERO_POINT
from tests.aims.conftest import LIBRARY, MotionRun

pytestmark = pytest.mark.integration


def contract_port(folder: str, port: str) -> Port:
    contract = load_aim(Path(LIBRARY / folder))
    return next(p for p in (*contract.inputs, *contract.outputs) if p.name == port)


def annotation_of(folder: str, port: str) -> Annotation:
    found = contract_port(folder, port).type.annotation
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("folder", "port"),
    [
        ("motion_features", "features"),
        ("gesture_classifier", "features"),
        ("motion_anomaly", "features"),
        ("motion_analysis", "features"),
    ],
)
def test_features_are_coded_as_features_py_codes_them(folder: str, port: str) -> None:
    note = annotation_of(folder, port)
    assert (note.scale, note.zero_point) == (SCALE, ZERO_POINT)
    assert str(contract_port(folder, port).type.record) == f"int8[{FEATURES}]"


@pytest.mark.parametrize(("folder", "which"), [("gesture_classifier", 0), ("motion_anomaly", 1)])
def test_a_model_fits_the_implementations_that_name_it(folder: str, which: int, motion: MotionRun) -> None:
    model = (motion.classifier, motion.detector)[which]
    contract = load_aim(LIBRARY / folder)
    assert model.inputs.shape == (1, FEATURES)
    for implementation in contract.implementations:
        assert implementation.model is not None
        assert implementation.model.component == model.name
        assert implementation.mac_count == model.report.mac_count
        if implementation.runtime == "tflm":
            assert implementation.arena_bytes >= model.report.arena_bytes
            assert implementation.ram_bytes >= implementation.arena_bytes + 512


def test_scores_are_coded_as_the_classifier_codes_them(motion: MotionRun) -> None:
    scores = contract_port("gesture_classifier", "scores")
    note = annotation_of("gesture_classifier", "scores")
    outputs = motion.classifier.outputs
    assert isinstance(scores.type.record.root, FixedArray)
    assert (outputs.shape, outputs.dtype) == ((1, scores.type.record.root.length), "int8")
    assert note.zero_point == outputs.zero_point
    assert isinstance(note.scale, float)
    # training chooses the step from its data; the contract states it to two digits
    assert note.scale == pytest.approx(outputs.scale, rel=1e-6)


def test_the_decision_reads_scores_and_labels_as_the_classifier_means_them(motion: MotionRun) -> None:
    decision = load_aim(LIBRARY / "gesture_decision")
    code = importlib.import_module("aims.gesture_decision.module")
    assert annotation_of("gesture_decision", "scores") == annotation_of("gesture_classifier", "scores")
    assert annotation_of("gesture_decision", "scores").scale == code.SCORE_SCALE
    labels = next(p for p in decision.parameters if p.name == "labels")
    assert str(labels.default).split(",") == list(motion.classifier.labels)


def test_the_anomaly_score_uses_the_step_of_the_features() -> None:
    assert importlib.import_module("aims.motion_anomaly.module").FEATURE_SCALE == SCALE


def test_the_detector_brings_a_threshold_near_the_contracts_default(motion: MotionRun) -> None:
    detector: TrainedModel = motion.detector
    threshold = next(p for p in load_aim(LIBRARY / "motion_anomaly").parameters if p.name == "threshold")
    assert threshold.default == pytest.approx(detector.parameters["threshold"], rel=0.05)
    assert set(detector.parameters) == {threshold.name}
