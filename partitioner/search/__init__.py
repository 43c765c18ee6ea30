"""Finds plans and proves their quality: arrays, lists of assignments, prices for room, the exact solver."""
