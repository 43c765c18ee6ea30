"""Doubles numbers, with a large model at hand: what it says does not count, only that it is there."""

from __future__ import annotations

import numpy as np

from aif.sdk import AIM, Records

OFTEN = 100
"""Numbers between two questions to the model, which would take longer than a number has."""


class Thinker(AIM):
    """Asks its model at the start and now and then."""

    def setup(self) -> None:
        """The model can be asked at all."""
        self._ask()

    def process(self, number: int) -> Records:
        """The number, and twice the number."""
        if number % OFTEN == 0:
            self._ask()
        return {"pair": {"number": number, "twice": 2 * number}}

    def _ask(self) -> None:
        self.context.model.infer(np.ones(8, np.int8))
