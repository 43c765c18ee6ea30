"""Recipe of the ``GestureClassifier`` model: a small network over motion features, written as int8.

Runs on a build machine. Network: 54 - 16 (ReLU) - 4, trained by scikit-learn with a softmax and cross-entropy
on the windows of the training people, as they are and as the other arm would have given them. The model gives
logits, shifted to start at 0: so written it gives the same bytes in every exact engine and can be compiled to
C, which a softmax inside would prevent. ``probabilities`` of ``score`` is for whoever wants a confidence.
"""

from __future__ import annotations

import warnings
from typing import Final

import numpy as np

from aif.authoring.conversion import Progress, TrainedModel, classification_accuracy, convert_checked
from aif.authoring.int8 import Quantisation
from aif.authoring.layers import dense_stack, forward
from aif.authoring.recording import UNSEEN
from aims.motion_features.corpus import GESTURES, MotionCorpus
from aims.motion_features.features import SCALE, ZERO_POINT

NAME: Final = "gesture_classifier"

LOGIT_SCALE: Final = 0.04
LOGIT_ZERO_POINT: Final = -128
"""Coding of the output, fixed because the port ``scores`` declares it."""

_HIDDEN: Final = 16
_PENALTY: Final = 5.0
"""Strong weight decay: five people are few, and what differs between them must not be learnt."""
_EPOCHS: Final = 40


def train(
    data: MotionCorpus, *, seed: int = 0, progress: Progress = lambda _step, _fraction: None
) -> TrainedModel:
    """Train, convert and measure.

    Args:
        data: windows split by person; accuracy is that of the held-out people's known gestures.
        seed: of the weights and of the order of examples.
        progress: told what is being done.

    Raises:
        ConversionRefused: the int8 model is too much worse than the float network.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    progress("training the gesture classifier", 0.0)
    features = np.concatenate([data.train_features, data.mirrored_features])
    x = (features.astype(np.float64) - ZERO_POINT) * SCALE
    centre = x.mean(0)
    labels = np.tile(data.train.label.astype(np.int64), 2)
    network = MLPClassifier((_HIDDEN,), alpha=_PENALTY, max_iter=_EPOCHS, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is chosen, not reached
        network.fit(x - centre, labels)
    weights, biases = network.coefs_, network.intercepts_
    biases[0] = biases[0] - centre @ weights[0]  # the model takes features as they are
    biases[-1] = biases[-1] - forward(dense_stack(weights, biases), x).min()  # a softmax does not notice
    layers = dense_stack(weights, biases)

    progress("converting the gesture classifier to int8", 0.5)
    known = data.held_out.label != UNSEEN
    truth = data.held_out.label[known].astype(np.int64)
    test = (data.held_out_features[known].astype(np.float64) - ZERO_POINT) * SCALE
    made = convert_checked(
        layers,
        x,
        test,
        classification_accuracy(truth),
        name=NAME,
        input_quantisation=Quantisation(SCALE, ZERO_POINT),
        output_quantisation=Quantisation(LOGIT_SCALE, LOGIT_ZERO_POINT),
    )
    right = made.test_outputs.argmax(1) == truth
    progress("gesture classifier", 1.0)
    return TrainedModel(
        name=NAME,
        tflite=made.tflite,
        sha256=made.sha256,
        inputs=made.inputs,
        outputs=made.outputs,
        report=made.report,
        labels=GESTURES,
        parameters={},
        metrics={f"recall_{name}": float(right[truth == n].mean()) for n, name in enumerate(GESTURES)},
    )
