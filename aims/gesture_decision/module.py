"""Decides from the scores of one window: which gesture, how sure, and whether it is an anomaly.

Does not: remember earlier windows. An anomaly still carries the label it resembles most.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from aif.sdk import AIM, Records

SCORE_SCALE: Final = 0.04
"""Step of the int8 coding of scores, as the input port declares it."""
MAX_LABEL_BYTES: Final = 32
"""UTF-8 bytes of one label, so that every event fits its port."""
UNKNOWN: Final = "unknown"


class GestureDecision(AIM):
    """Scores to event."""

    def setup(self) -> None:
        parameters = self.context.parameters
        self._labels = [label.strip() for label in str(parameters["labels"]).split(",")]
        for label in self._labels:
            if not 0 < len(label.encode()) <= MAX_LABEL_BYTES:
                raise ValueError(
                    f"parameter labels: {label!r} is not a label of 1 to {MAX_LABEL_BYTES} bytes"
                )
        self._threshold = float(str(parameters["anomaly_threshold"]))
        self._minimum = float(str(parameters["minimum_confidence"]))

    def process(self, scores: Any, anomaly_score: float) -> Records:
        """Decide about one window.

        Args:
            scores: int8[4], logits.
            anomaly_score: 0 or more; 1 is the limit of known motions.

        Returns:
            ``event``: the likeliest label, its softmax probability, and the anomaly score with its verdict.
        """
        codes: list[int] = np.asarray(scores).reshape(-1).tolist()
        if len(codes) != len(self._labels):
            raise ValueError(f"parameter labels names {len(self._labels)} gestures for {len(codes)} scores")
        best = max(codes)
        confidence = 1 / sum(math.exp((code - best) * SCORE_SCALE) for code in codes)
        label = self._labels[codes.index(best)] if confidence >= self._minimum else UNKNOWN
        event = {
            "label": label,
            "confidence": confidence,
            "anomaly": anomaly_score > self._threshold,
            "score": anomaly_score,
        }
        return {"event": event}
