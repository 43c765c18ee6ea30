"""Where the results arrive."""

from __future__ import annotations

from typing import Any

from aif.sdk import AIM, Records


class Checker(AIM):
    """Hands over what it reads; whoever watches checks it."""

    def process(self, pair: Any) -> Records:
        return {"seen": pair}
