"""The codes of findings about a user's files; each has its page in ``docs/errors/``."""

from __future__ import annotations

from enum import StrEnum


class Code(StrEnum):
    """AIF-E01xx: what is wrong with the text of one file."""

    SYNTAX = "AIF-E0101"
    """Not acceptable YAML."""

    UNKNOWN_KEY = "AIF-E0102"
    MISSING_KEY = "AIF-E0103"
    VALUE = "AIF-E0104"
    """A value of the wrong type, out of range or not one of the choices."""

    UNIT = "AIF-E0105"
    DUPLICATE = "AIF-E0106"
    REFERENCE = "AIF-E0107"
    """A name that nothing declares."""

    LIMIT = "AIF-E0108"
    FILE = "AIF-E0109"
    """A file that cannot be read or is of the wrong kind."""

    CONTRADICTION = "AIF-E0110"
    """Values that are fine alone and wrong together."""
