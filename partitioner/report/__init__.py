"""Placements written down, compared and drawn."""
