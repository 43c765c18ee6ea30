"""Frozen values of the reference model: record types, ports, AIMs, AIWs, devices, placements.

Nothing here reads a file, a clock or a socket; whole-workflow rules live in ``check``.
"""
