"""A source that counts."""

from __future__ import annotations

from aif.sdk import AIM, Records


class Ticker(AIM):
    """Counts from 1."""

    def setup(self) -> None:
        self.count = 0

    def process(self) -> Records:
        self.count += 1
        return {"number": self.count}
