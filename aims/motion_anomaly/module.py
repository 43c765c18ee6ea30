"""The AIM around the autoencoder: how badly it reconstructs a window's features.

Does not decide what an anomaly is: it gives a score in which 1 is the calibrated threshold.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from aif.sdk import AIM, Records

from .score import reconstruction_error

FEATURE_SCALE: Final = 1 / 32
"""Step of the int8 coding of features, as the input port declares it."""


class MotionAnomaly(AIM):
    """Features to score."""

    def process(self, features: Any) -> Records:
        """Score one window.

        Args:
            features: int8[54].

        Returns:
            ``score``: reconstruction error divided by the parameter ``threshold``, 0 or more.
        """
        (reconstruction,) = self.context.model.infer(features)
        error = reconstruction_error(
            np.asarray(features).reshape(-1), np.asarray(reconstruction).reshape(-1), scale=FEATURE_SCALE
        )
        threshold = self.context.parameters["threshold"]
        assert isinstance(threshold, int | float)  # noqa: S101  # the contract says number
        return {"score": float(error) / threshold}
