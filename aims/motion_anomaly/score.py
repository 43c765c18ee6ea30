"""What the ``MotionAnomaly`` AIM computes around its model: the reconstruction error of a window."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def reconstruction_error(
    features: npt.NDArray[np.int8], reconstruction: npt.NDArray[np.int8], *, scale: float
) -> npt.NDArray[np.float64]:
    """Mean squared difference between features and what the autoencoder made of them.

    Both use the same coding, so the sum runs over whole numbers and is the same on every machine.

    Args:
        features: int8[..., N], input of the model.
        reconstruction: int8[..., N], its output.
        scale: common step of both.

    Returns:
        float64[...], in squared units of the coding's real values; 0 is a perfect reconstruction.
    """
    difference = features.astype(np.int64) - reconstruction
    error: npt.NDArray[np.float64] = (difference * difference).sum(-1) * (scale * scale) / features.shape[-1]
    return error
