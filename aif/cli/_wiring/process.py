"""This process: its signals, its wall clock and its standard error."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import TextIO

from aif.errors import AIFError


def run_until_signalled(main: Awaitable[None], *, interrupted: int = 0) -> int:
    """Run a coroutine; SIGINT and SIGTERM cancel it, and it then has its time to clean up.

    Returns:
        0 when it ended by itself, ``interrupted`` when a signal ended it.
    """

    async def supervised() -> int:
        task = asyncio.ensure_future(main)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            return interrupted
        except BaseExceptionGroup as group:
            raise _first_error(group) from group
        return 0

    return asyncio.run(supervised())


def _first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error a person should see: the first of this project's, else the first there is."""
    own = group.subgroup(AIFError)
    chosen: BaseException = own if own is not None else group
    while isinstance(chosen, BaseExceptionGroup):
        chosen = chosen.exceptions[0]
    return chosen


def now() -> datetime:
    return datetime.now(UTC)


def stderr() -> TextIO:
    return sys.stderr
