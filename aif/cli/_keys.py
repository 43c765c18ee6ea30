"""Single keys from a terminal, without waiting for the end of a line.

Decides nothing about what a key does. The terminal is as before when the ``with`` block ends; Ctrl-C stays a
signal. Where the input is no terminal there are no keys.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MAX_KEYS = 64


@contextmanager
def keys(pressed: Callable[[str], None]) -> Iterator[bool]:
    """Call ``pressed`` for each key until the block ends; whether there is a keyboard."""
    if not sys.stdin.isatty():
        yield False
        return
    import termios
    import tty

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    loop = asyncio.get_running_loop()

    def read() -> None:
        typed = os.read(terminal, MAX_KEYS)
        if not typed:  # the terminal has gone
            loop.remove_reader(terminal)
        for key in typed.decode("utf-8", "ignore"):
            pressed(key)

    tty.setcbreak(terminal)
    loop.add_reader(terminal, read)
    try:
        yield True
    finally:
        loop.remove_reader(terminal)
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
