"""Recipe of the ``MotionAnomaly`` model: a linear autoencoder over motion features, written as int8.

Runs on a build machine. Network: 54 - 10 - 54 without activations, whose weights are the principal
components of the known motions: the least squares solution of that autoencoder, found in closed form, so
nothing in it is random. A window whose features it cannot reconstruct is a motion unlike the training's.

The threshold is calibrated on people the autoencoder was not fitted to: each training person is left out
once, and the scores of all are pooled (after Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random
World", 2005; windows of one person are not exchangeable, so the rate is approximate).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from aif.authoring.conversion import Progress, TrainedModel, convert_checked
from aif.authoring.int8 import Quantisation
from aif.authoring.layers import Dense, Layer, forward
from aif.authoring.recording import UNSEEN
from aims.motion_anomaly.score import reconstruction_error
from aims.motion_features.corpus import MotionCorpus
from aims.motion_features.features import SCALE, ZERO_POINT

NAME: Final = "motion_anomaly"
FALSE_ALARM_RATE: Final = 0.025
"""Share of known motions of people left out of the fit that lie above the threshold."""

_COMPONENTS: Final = 10
_CODING: Final = Quantisation(SCALE, ZERO_POINT)


def train(
    data: MotionCorpus, *, seed: int = 0, progress: Progress = lambda _step, _fraction: None
) -> TrainedModel:
    """Fit, calibrate, convert and measure.

    The accuracy of the report is balanced: the mean of detection and of 1 - false alarm at the threshold.

    Args:
        data: windows split by person; figures are those of the held-out people.
        seed: without effect, the recipe is deterministic; there so that all recipes are called alike.
        progress: told what is being done.

    Returns:
        The model with ``parameters["threshold"]`` for ``reconstruction_error`` and, as metrics on held-out
        people, ``detection`` of the unseen motion and ``false_alarm`` on known ones.

    Raises:
        ConversionRefused: the int8 model is too much worse than the float network.
    """
    del seed
    progress("calibrating the anomaly threshold", 0.0)
    x = (data.train_features.astype(np.float64) - ZERO_POINT) * SCALE
    people = data.train.subject
    left_out = [_errors(_autoencoder(x[people != p]), x[people == p]) for p in np.unique(people)]
    threshold = float(np.quantile(np.concatenate(left_out), 1 - FALSE_ALARM_RATE))
    layers = _autoencoder(x)

    progress("converting the anomaly model to int8", 0.4)
    test = (data.held_out_features.astype(np.float64) - ZERO_POINT) * SCALE
    unseen = data.held_out.label == UNSEEN

    def rates(outputs: npt.NDArray[np.float64]) -> tuple[float, float]:
        alarm = _mean_square(test, outputs) > threshold
        return float(alarm[unseen].mean()), float(alarm[~unseen].mean())

    def balanced(outputs: npt.NDArray[np.float64]) -> float:
        detection, false_alarm = rates(outputs)
        return (detection + 1 - false_alarm) / 2

    made = convert_checked(
        layers, x, test, balanced, name=NAME, input_quantisation=_CODING, output_quantisation=_CODING
    )
    detection, false_alarm = rates(made.test_outputs)
    progress("anomaly model", 1.0)
    return TrainedModel(
        name=NAME,
        tflite=made.tflite,
        sha256=made.sha256,
        inputs=made.inputs,
        outputs=made.outputs,
        report=made.report,
        labels=(),
        parameters={"threshold": threshold},
        metrics={"detection": detection, "false_alarm": false_alarm},
    )


def _autoencoder(x: npt.NDArray[np.float64]) -> list[Layer]:
    """Project on the principal components and back."""
    centre = x.mean(0)
    components = np.linalg.svd(x - centre, full_matrices=False)[2][:_COMPONENTS].T
    return [Dense(components, -centre @ components), Dense(components.T, centre)]


def _errors(layers: list[Layer], x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return _mean_square(x, forward(layers, x))


def _mean_square(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The score the AIM computes, on the codes it computes it from."""
    return reconstruction_error(_codes(x), _codes(y), scale=SCALE)


def _codes(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int8]:
    codes: npt.NDArray[np.int8] = np.clip(np.rint(values / SCALE) + ZERO_POINT, -128, 127).astype(np.int8)
    return codes
