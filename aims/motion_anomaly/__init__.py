"""The ``MotionAnomaly`` AIM: tells how unlike the known motions a window's features are."""
