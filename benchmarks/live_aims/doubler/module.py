"""What is lost and moves."""

from __future__ import annotations

from aif.sdk import AIM, Records


class Doubler(AIM):
    """Doubles a number."""

    def process(self, number: int) -> Records:
        return {"pair": {"number": number, "twice": 2 * number}}
