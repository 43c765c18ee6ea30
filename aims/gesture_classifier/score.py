"""What the ``GestureClassifier`` AIM computes around its model: probabilities of the gestures."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def probabilities(logits: npt.NDArray[np.int8], *, scale: float) -> npt.NDArray[np.float64]:
    """Softmax of the model's output.

    Args:
        logits: int8[..., K], output of the model; its largest code is the recognised gesture.
        scale: step of that output. Its zero point does not matter, a softmax does not notice it.

    Returns:
        float64[..., K], at least 0, sum 1.
    """
    difference = logits.astype(np.int64) - logits.max(-1, keepdims=True)
    weight = np.exp(difference * scale)
    found: npt.NDArray[np.float64] = weight / weight.sum(-1, keepdims=True)
    return found
