"""Watch over a host's Security Engine: its loss is noticed, it is started again, and at last given up.

Decides when, and who is told. Keeps no key and asks the engine nothing. How often a minute an engine may be
started again is the engine's own rule (``trusted.security_engine``).

Invariants: the process is watched itself, so that a loss shows at once and not with the next call; whoever
waits for an answer of the lost engine gets COMMUNICATION_FAILURE from it; after ``on_unfit`` nothing more
happens.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

from aif.errors import PSAError, PSAStatus
from aif.runtime.logbook import LogBook
from aif.trusted.security_engine import SecurityEngine


class EngineWatch:
    """The watch over one engine.

    Args:
        engine: runs already.
        log: of the device.
        on_restart: called when it runs again, with a new session.
        on_unfit: told, in words, why it does not run any more.
    """

    def __init__(
        self,
        engine: SecurityEngine,
        *,
        log: LogBook,
        on_restart: Callable[[], None],
        on_unfit: Callable[[str], Awaitable[None]],
    ) -> None:
        self._engine, self._log = engine, log
        self._on_restart, self._on_unfit = on_restart, on_unfit

    async def run(self) -> None:
        """Watch until cancelled, or until the engine cannot be kept alive."""
        while True:
            pid = self._engine.pid
            await _ended(pid)
            self._log.error("the Security Engine is lost; starting it again", pid=pid)
            try:
                await asyncio.to_thread(self._engine.restart)
            except PSAError as error:
                if error.status is PSAStatus.COMMUNICATION_FAILURE:
                    continue  # it died while it started; such tries are counted too
                self._log.error("this host is unfit", code=error.code, reason=str(error), hint=error.hint)
                await self._on_unfit(str(error))
                return
            self._log.info("the Security Engine runs again", pid=self._engine.pid)
            self._on_restart()


async def _ended(pid: int) -> None:
    """Wait for the end of a child process, without reaping it (pidfd_open(2))."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:  # reaped already
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(handle, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)
