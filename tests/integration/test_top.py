"""``aif top`` on a real site: what a person sees while an AIM moves and the Controller is started anew."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.integration.small_site import AIW, SmallSite
from tests.integration.terminals import PATIENCE_S, Desk, desk

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

_CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
LEAVES_ALTERNATE_SCREEN = "\x1b[?1049l"


class Terminal:
    """A pseudo-terminal with ``aif top`` in it; ``screen`` is what was drawn last."""

    def __init__(self, end: int, process: asyncio.subprocess.Process) -> None:
        self._end, self.process, self.output = end, process, ""

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self._end, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.process.send_signal(signal.SIGWINCH)

    def press(self, key: str) -> None:
        os.write(self._end, key.encode())

    def canonical(self) -> bool:
        """Whether the terminal waits for whole lines, as a shell left it."""
        return bool(termios.tcgetattr(self._end)[3] & termios.ICANON)

    @property
    def screen(self) -> list[str]:
        drawn = self.output.split("\x1b[H")
        return [line.rstrip() for line in _CONTROLS.sub("", drawn[-1]).splitlines()]

    def shows(self, pattern: str, lines: int, columns: int) -> re.Match[str] | None:
        screen = self.screen
        if len(screen) > lines or max(map(len, screen), default=0) > columns:
            return None
        return re.search(pattern, "\n".join(screen))

    async def until(self, pattern: str, lines: int = 40, columns: int = 120) -> re.Match[str]:
        """The first screen of at most that size with a match."""
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()

        def read() -> None:
            try:
                self.output += os.read(self._end, 65_536).decode("utf-8", "replace")
            except OSError:  # the other end was closed
                loop.remove_reader(self._end)
            arrived.set()

        self.output = self.output[-200_000:]
        loop.add_reader(self._end, read)
        try:
            async with asyncio.timeout(PATIENCE_S):
                while (found := self.shows(pattern, lines, columns)) is None:
                    arrived.clear()
                    await arrived.wait()
        except TimeoutError:
            raise AssertionError(f"no {pattern!r} in:\n" + "\n".join(self.screen)) from None
        finally:
            loop.remove_reader(self._end)
        return found


@asynccontextmanager
async def top(terminals: Desk, lines: int = 40, columns: int = 120) -> AsyncIterator[Terminal]:
    end, theirs = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    environment = {k: v for k, v in terminals.environment.items() if k not in ("COLUMNS", "LINES")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "aif.cli.main", "top",
        stdin=theirs, stdout=theirs, stderr=theirs, env={**environment, "TERM": "xterm-256color"},
        cwd=terminals.folder,
    )  # fmt: skip
    try:
        yield Terminal(end, process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        os.close(end)
        os.close(theirs)


def test_a_moved_aim_and_a_controller_that_is_started_anew(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    async def journey() -> None:
        async with desk(tmp_path_factory.mktemp("h")) as terminals:
            site = await SmallSite.start(terminals, tmp_path)
            async with top(terminals) as screen:
                await screen.until(r"3 of 3 devices trusted +1 workflow running")
                found = await screen.until(r"double +(right|spare) +any +running +[1-9][\d,.]+")
                victim, other = found[1], "spare" if found[1] == "right" else "right"
                await terminals.ok("device", "drain", victim)
                what = rf"{AIW}; double: {victim} → {other}; {victim} is drained"
                await screen.until(rf"workflow re-mapped in [\d.,]+ ms: {what}")
                await screen.until(rf"double +{other} +any +running +[1-9][\d,.]+")
                await screen.until(r"after ms: planned [\d.,]+, deployed [\d.,]+, attested")
                plain = await terminals.ok("top", "--once")
                assert re.search(rf"^ +double +{other} +any +running +[1-9]", plain, re.MULTILINE), plain
                assert "\x1b" not in plain
                view = json.loads(await terminals.ok("top", "--json"))
                (workflow,) = view["workflows"]
                aims = {aim["aim"]: aim for aim in workflow["aims"]}
                assert aims["double"]["device"] == other
                assert aims["double"]["sealed"] > 0
                assert aims["count"]["rate_hz"] > 10
                assert {link["link"] for link in view["links"]} == {"lan", "lan2", "lan3"}
                assert [
                    e["stages_ms"]["planned"] for e in view["events"] if e["event"] == "workflow re-mapped"
                ]
                screen.resize(12, 60)
                await screen.until(r"(?s)Controller up.*q leaves", lines=12, columns=60)
                screen.resize(40, 120)
                await site.controller.kill()
                await screen.until(r"the Controller does not answer for \d+:\d\d; asking again")
                again = await terminals.controller(site.broker_url, site.store_url)
                await again.until("workflow taken over")
                await screen.until(r"it was started anew 1x")
                await screen.until(r"Controller was started anew: another one goes on")
                await screen.until(rf"double +{other} +any +running +[1-9][\d,.]+")
                assert not screen.canonical()
                screen.press("q")
                assert await screen.process.wait() == 0
                assert screen.canonical()
            await terminals.ok("stop", AIW)

    asyncio.run(journey())


def test_without_a_controller_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from aif.cli.main import main

    for options in ([], ["--once"], ["--json"]):
        assert main(["top", "--home", str(tmp_path), *options]) != 0
        assert "no Controller answers" in capsys.readouterr().err
