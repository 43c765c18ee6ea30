"""Seeded placement problems for tests, examples and benchmarks."""
