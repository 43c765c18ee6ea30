"""A whole workflow over Mosquitto with mutual TLS and access rules: what its page says, by `aif` alone."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from tests.integration.terminals import DEVICES, ROOT, desk
from tests.integration.test_five_terminals import typed

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

PAGE = ROOT / "docs" / "howto" / "production_broker.md"


def test_production_broker(home: Path, tmp_path: Path) -> None:
    for name in ("workflows", "aims"):
        (tmp_path / name).symlink_to(ROOT / name)

    async def journey() -> None:
        async with desk(home) as terminals:
            terminals.folder = tmp_path
            told = {line: await terminals.type(line) for line in typed(PAGE, 18883, 18140)}
            shown = told["aif status"]
            assert re.search(r"^ {2}GestureRecognition-1 +running$", shown, re.MULTILINE), shown
            for name in DEVICES:
                assert re.search(rf"^ {{2}}{name} +trusted$", shown, re.MULTILINE), shown
            for line, process in terminals.typed.items():
                if line.startswith("aif controller"):
                    assert await process.ended() == 0, process.output
                elif line.startswith(("aif host", "aif mcu")):
                    assert await process.interrupt() == 0, process.output
                    assert "enrolled" in process.output
                assert "Traceback" not in process.output

    asyncio.run(journey())
    for name in DEVICES:
        keys = home / "devices" / name / "tls"
        assert {file.name for file in keys.iterdir()} == {"authority.pem", "factory.pem", "own.pem", "broker"}
        assert all(file.stat().st_mode & 0o077 == 0 for file in keys.iterdir())
        own = (keys / "own.pem").read_bytes()
        secret = own[: own.index(b"-----END PRIVATE KEY")]
        elsewhere = [*home.rglob("*"), *(tmp_path / "broker").iterdir()]
        assert [f for f in elsewhere if f.is_file() and secret in f.read_bytes()] == [keys / "own.pem"]
