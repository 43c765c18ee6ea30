"""Trust as a person asks for it and takes it back, with every part a process of its own."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from aif.cli import _wiring as wiring
from aif.protocol import cose
from aif.runtime.devices.registry import Site
from tests.docs.console import ROOT, run_page
from tests.integration.terminals import DEVICES, GESTURE, INVENTORY, desk

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def test_the_page_about_trust_runs_as_written(tmp_path: Path) -> None:
    printed = run_page(ROOT / "docs" / "howto" / "trust.md", tmp_path)
    assert "device edge-1 is revoked in the registry; no Controller runs here:" in printed
    assert "device gw-1 may enrol for the next 15 minutes" in printed
    assert "the audit log is whole" in printed


def test_trust_is_explained_and_taken_back(home: Path) -> None:
    async def journey() -> None:
        async with desk(home) as terminals:
            site = await terminals.gesture_site(follow=True)
            await terminals.ok("deploy", GESTURE, "--inventory", INVENTORY)

            shown = await terminals.ok("trust", "show", "mcu-1")
            assert shown.startswith("mcu-1: trusted\n  passed at ")
            assert "  ok   signature       this device signed it" in shown
            assert re.search(r"^  runs runtime:aif ", shown, re.MULTILINE)
            lines = (await terminals.ok("trust", "show")).splitlines()
            assert [line.split("; ")[0] for line in lines] == [f"{name}: trusted" for name in DEVICES]
            assert all("passed all 12 steps at 20" in line for line in lines)
            assert (await terminals.ok("trust", "verify", "gw-1")).startswith("gw-1: trusted\n")
            (known,) = json.loads(await terminals.ok("trust", "show", "gw-1", "--json"))
            result = base64.b64decode(known["appraisal"]["result"])
            state = Site.open_or_create(wiring.Home(home).site, bytes).state
            public = bytes(SigningKey(state.result_seed).verify_key)
            assert cose.verify1(result, public, external_aad=b"AIF-RESULT-1", tagged=True, max_bytes=512)

            told = await terminals.ok("device", "revoke", "edge-1", "--reason", "stolen")
            print(told)  # noqa: T201  # the time it took on this machine
            assert "device edge-1 is revoked, by the running Controller:" in told
            assert re.search(r"keys +the last member had its new keys after \d+ ms; Gesture", told)
            refused = await terminals.run("trust", "verify", "edge-1")
            assert refused.code != 0
            assert "it was revoked: stolen" in refused.err
            shown = await terminals.ok("status")
            assert re.search(r"GestureRecognition-1 +degraded +device edge-1 is not trusted", shown), shown
            after = await terminals.ok("trust", "show", "edge-1")
            assert "before that, its last evidence passed at" in after
            listed = await terminals.ok("device", "list")
            assert re.search(r"^edge-1 .* revoked$", listed, re.MULTILINE)
            status = json.loads(await terminals.ok("status", "--json"))
            (workflow,) = status["workflows"]
            assert all(m["messages"]["lost"] == 0 for d, m in workflow["metrics"].items() if d != "edge-1")

            await terminals.ok("stop", "GestureRecognition-1")
            await terminals.ok("stop")
            assert await site.controller.ended() == 0
            checked = await terminals.ok("trust", "audit", "verify")
            assert checked.startswith("the audit log is whole: entries 1 to ")
            entries = await terminals.ok("trust", "audit")
            for kind in ("enrolled", "evidence accepted", "grant", "deployed", "excluded"):
                assert f" {kind} " in entries

            (log,) = (home / "site" / "audit").glob("*.log")
            log.write_bytes(log.read_bytes().replace(b"excluded", b"enrolled"))
            broken = await terminals.run("trust", "audit", "verify")
            assert broken.code == 6
            assert "AIF-E0520" in broken.err

    asyncio.run(journey())
