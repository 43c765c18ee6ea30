"""Compares nothing and keeps nothing: one result per window, for whoever counts them."""

from __future__ import annotations

from typing import Any

from aif.sdk import AIM, Records


class EventSink(AIM):
    """Event and truth of one window to a result."""

    def process(self, event: Any, truth: Any) -> Records:
        """Put one event beside its truth.

        Args:
            event: label, confidence and anomaly, as ``GestureDecision`` writes them.
            truth: label, unseen and subject, as ``IMUSource`` writes them.

        Returns:
            ``result``: both.
        """
        result = {
            "predicted": event.label,
            "truth": truth.label,
            "anomaly": event.anomaly,
            "unseen": truth.unseen,
            "confidence": event.confidence,
            "subject": truth.subject,
        }
        return {"result": result}
