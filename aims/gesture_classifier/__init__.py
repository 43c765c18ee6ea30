"""The ``GestureClassifier`` AIM: 54 int8 features become the evidence for four gestures."""
