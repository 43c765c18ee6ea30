"""The composite AIM ``MotionAnalysis``: classifier, anomaly detector and decision as one."""
