"""Workflows and an inventory as a placement problem: limits, candidates, routes, prices."""
