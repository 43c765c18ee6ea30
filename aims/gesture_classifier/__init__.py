"""The ``GestureClassifier`` AIM: 54 int8 features become the probabilities of four gestures."""
