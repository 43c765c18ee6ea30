"""The AIM around ``features``: one window in, one feature vector out, nothing kept between windows."""

from __future__ import annotations

from typing import Any

import numpy as np

from aif.sdk import AIM, Records

from .features import motion_features


class MotionFeatures(AIM):
    """Window to features."""

    def process(self, window: Any) -> Records:
        """Describe one window.

        Args:
            window: ``samples`` is int16[100][6], 1/1024 g and 1/1024 rad/s.

        Returns:
            ``features``: int8[54], in the order of ``FEATURE_NAMES``.
        """
        return {"features": motion_features(np.asarray(window.samples))}
