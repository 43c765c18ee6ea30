"""The page about data and keys of an AIM: its contract and its code run as they stand there."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from nacl.signing import VerifyKey

from aif.config import load_aim
from aif.protocol.deployment import DeployedAIM
from aif.protocol.lifecycle import WorkflowState
from aif.runtime.host.part import storage_owner
from tests.docs.console import ROOT
from tests.runtime.site import bench_site

PAGE = ROOT / "docs" / "howto" / "keep_data.md"
WORKFLOW = """
schema: 1
aiw: {name: Keeping, version: "1.0", implementer: demo, description: Keeps a number.}
aims:
  - {id: tally, use: Tally@1.0, placement: {device: left}}
outputs: {report: tally.report}
"""


def block(language: str) -> str:
    (found,) = re.findall(
        rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    return str(found)


def test_the_aim_of_the_page_counts_over_a_restart_and_signs_with_one_key(tmp_path: Path) -> None:
    async def journey() -> None:
        aims = {"tally": (block("yaml"), block("python"))}
        async with bench_site(tmp_path, devices=("left",), aims=aims) as site:
            reports = []
            for _ in range(2):
                running = await site.deploy(WORKFLOW)
                (output,) = await site.run_to_end(running)
                assert running.state is WorkflowState.COMPLETED, running.note
                reports.append(bytes(output["value"]))
            contract = load_aim(site.aims / "tally")
            deployed = DeployedAIM("tally", contract.reference, b"", "any", {})
            owner = storage_owner("Keeping", deployed, contract)
            public = VerifyKey(site.engines["left"].owner(owner).psa_export_public_key(1))
            assert [int.from_bytes(report[:4]) for report in reports] == [1, 2]
            for report in reports:
                public.verify(report[:4], report[4:])

    asyncio.run(journey())
