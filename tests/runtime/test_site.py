"""A workflow over two devices, from planning to its end, in one process."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aif.protocol.lifecycle import WorkflowState
from tests.runtime.site import bench_site


def test_a_workflow_runs_to_its_end(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path) as site:
            running = await site.deploy()
            outputs = await site.run_to_end(running)
            assert running.failure is None, running.failure.diagnostics()
            assert running.state is WorkflowState.COMPLETED
            assert [o["value"] for o in outputs] == [n * (n + 1) for n in range(1, 21)]
            assert sum(m["messages"]["lost"] for m in running.metrics.values()) == 0
            assert sum(m["messages"]["verified"] for m in running.metrics.values()) == 40

    asyncio.run(journey())
