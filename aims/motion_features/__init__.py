"""The ``MotionFeatures`` AIM: a window of six-axis motion becomes 54 int8 features."""
