"""The ``GestureDecision`` AIM: scores and an anomaly score become one event."""
