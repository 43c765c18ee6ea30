"""Side-by-side measurements against what people use today; ratios, never absolute figures alone.

``python -m benchmarks p1 p2`` runs them. The framework imports nothing of it, and no test asserts a
time.
"""
