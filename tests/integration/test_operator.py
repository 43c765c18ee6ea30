"""What an operator does at a running site: move AIMs, and take an inventory from what devices say."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import sys
from pathlib import Path

import pytest

from tests.integration.small_site import AIW, DEVICES, SmallSite
from tests.integration.terminals import Desk, desk
from tests.runtime.controller.test_moving import FAR, TIMED

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


async def answered(terminals: Desk, answer: str, *arguments: str) -> tuple[int, str]:
    """Exit code and output of a command at a terminal where a person types an answer."""
    end, theirs = pty.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "aif.cli.main", *arguments, stdin=theirs, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT, env=terminals.environment, cwd=terminals.folder,
        )  # fmt: skip
        os.write(end, f"{answer}\n".encode())
        out, _ = await process.communicate()
        return await process.wait(), out.decode()
    finally:
        os.close(end)
        os.close(theirs)


async def where(terminals: Desk) -> str:
    shown = await terminals.ok("status")
    found = re.search(r"^ +(\w+) +\w+ +.*double \w+", shown, re.MULTILINE)
    assert found is not None, shown
    return found[1]


async def inventory_from_devices(terminals: Desk, folder: Path) -> None:
    """Devices say what they are; a file that is wrong is put right, and one that is not there is begun."""
    shown = await terminals.ok("device", "scan")
    for name in DEVICES:
        assert re.search(
            rf"^{name} +gateway +bench-{name} .*python 3[.\d]+, tflite [.\d]+ .* yes$", shown, re.MULTILINE
        ), shown
    found = json.loads(await terminals.ok("device", "scan", "--json"))
    assert [one["device"] for one in found["devices"]] == sorted(DEVICES)
    assert (found["links"], found["strangers"]) == ([], [])
    file = folder / "inventory.yaml"
    text = file.read_text()
    assert "is up to date" in await terminals.ok("device", "scan", "--inventory", file)
    assert file.read_text() == text
    file.write_text("# ours\n" + text.replace("ram_bytes: 100000000", "ram_bytes: 5MB", 1))
    said = await terminals.ok("device", "scan", "--inventory", file)
    assert "left.ram_bytes: 5,000,000 -> 100,000,000" in said
    assert file.read_text().startswith("# ours\n")
    assert "version: 2" in file.read_text()
    new = folder / "new.yaml"
    assert "left is new" in await terminals.ok("device", "scan", "--inventory", new)
    assert "3 devices (3 gateways), 0 links" in await terminals.ok("validate", new)


def test_a_person_moves_aims_and_takes_an_inventory(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    async def journey() -> None:
        async with desk(tmp_path_factory.mktemp("h")) as terminals:
            await SmallSite.start(terminals, tmp_path, workflow=TIMED, inventory=FAR)
            assert await where(terminals) == "spare"
            assert "nothing moves; no mapping is better" in await terminals.ok("remap")
            shown = await terminals.ok("remap", "--move", "double=right", "--dry-run")
            assert f"{AIW}:\n  double: spare -> right\n" in shown
            assert re.search(r"objective [\d.]+ -> [\d.]+: costs [\d.]+% more", shown), shown
            nobody = await terminals.run("remap", "--move", "double=right")
            assert nobody.code == 4
            assert "nobody is here to agree" in nobody.err
            assert await where(terminals) == "spare"
            code, said = await answered(terminals, "n", "remap", "--move", "double=right")
            assert (code, said.splitlines()[-1]) == (0, "move? [y/N]: nothing was moved")
            code, said = await answered(terminals, "y", "remap", "--move", "double=right")
            assert code == 0, said
            assert re.search(rf"{AIW} is moved; mapping \d+; after ms: planned [\d,]+, deployed", said), said
            assert await where(terminals) == "right"
            better = await terminals.ok("remap", "--dry-run")
            assert re.search(r"double: right -> spare\n.*saves \d+", better), better
            await terminals.ok("remap", AIW, "--yes")
            assert await where(terminals) == "spare"
            impossible = await terminals.run("remap", "--move", "double=left", "--yes")
            assert impossible.code == 4
            assert "double and count must be on different devices" in impossible.err
            assert "double: spare -> right" in await terminals.ok("remap", "--without", "spare")
            for wrong in (("--move", "double"), ("--without", "spare", "--yes"), ("Other-7",)):
                assert (await terminals.run("remap", *wrong)).code != 0
            await inventory_from_devices(terminals, tmp_path)
            await terminals.ok("stop", AIW)

    asyncio.run(journey())
