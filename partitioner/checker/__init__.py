"""An independent judge of placements, and the oracle that tries them all; no code of the planner."""
