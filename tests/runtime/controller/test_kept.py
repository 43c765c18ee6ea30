"""What a Controller writes down of a workflow is what the next one goes on with."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from aif.config import load_catalogue, load_inventory, load_workflow
from aif.model.aiw import Workflow
from aif.model.inventory import Inventory
from aif.model.placement import Assignment, Placement
from aif.model.stand_ins import with_stand_ins
from aif.runtime.clock import SystemClock
from aif.runtime.controller.kept import KeptWorkflows
from aif.runtime.library import AIMLibrary
from aif.runtime.logbook import LogBook
from aif.runtime.mapping.deployer import Plan
from aif.runtime.mapping.workflows import RunningWorkflow, Sources

PART = """\
schema: 1
aim: {{name: {name}, version: "1.0", implementer: tinyaif, description: Gives what it takes.}}
inputs: {{x: {{type: int32}}}}
outputs: {{y: {{type: int32}}}}
implementations:
  - {{id: any, runtime: python, entry: "module:{name}", ram_bytes: 1000, flash_bytes: 0, instructions: 1000}}
"""
SOURCE = (
    PART.format(name="Source")
    .replace("inputs: {x: {type: int32}}\n", "")
    .replace("int32}", "int32, rate_hz: 1}")
)
CHAIN = """\
schema: 1
aim: {name: Chain, version: "1.0", implementer: tinyaif, description: Two in the place of one.}
stands_for: Whole@1.0
inputs: {x: {type: int32}}
outputs: {y: {type: int32, from: part_2.y}}
aims:
  - {id: part_1, use: First@1.0, inputs: {x: aiw.x}}
  - {id: part_2, use: Second@1.0, inputs: {x: part_1.y}}
"""
WORKFLOW = """\
schema: 1
aiw: {name: Flow, version: "1.0", implementer: tinyaif, description: One model.}
aims:
  - {id: source, use: Source@1.0}
  - {id: model, use: Whole@1.0, inputs: {x: source.y}}
outputs: {answer: model.y}
"""
INVENTORY = """\
schema: 1
inventory: {name: bench, version: 1}
devices:
  - {id: one, class: gateway, board: bench, instructions_per_s: 1000000, ram_bytes: 1000000, flash_bytes: 0,
     runtimes: [python]}
"""
PLACED = Placement(
    "Flow", "1.0", "bench", 1,
    tuple(Assignment(aim, "one", "any") for aim in ("source", "model.part_1", "model.part_2")),
    stand_ins={"model": "Chain@1.0"},
)  # fmt: skip


class Bench:
    """Files, and a folder of workflows."""

    def __init__(self, folder: Path) -> None:
        self.aims, self.log = folder / "aims", io.StringIO()
        aims = {name.lower(): PART.format(name=name) for name in ("Whole", "First", "Second")}
        for name, text in {**aims, "source": SOURCE, "chain": CHAIN}.items():
            (self.aims / name).mkdir(parents=True)
            (self.aims / name / "aim.yaml").write_text(text)
            (self.aims / name / "module.py").write_text("")
        (folder / "flow.aiw.yaml").write_text(WORKFLOW)
        (folder / "inventory.yaml").write_text(INVENTORY)
        self.sources = Sources(folder / "flow.aiw.yaml", folder / "inventory.yaml", (self.aims,))
        self.kept = KeptWorkflows(
            folder / "kept", self.load, lambda _: (), LogBook("controller", SystemClock(), self.log)
        )

    @staticmethod
    def load(workflow: Path, inventory: Path, aims: list[Path]) -> tuple[Workflow, Inventory, AIMLibrary]:
        catalogue = load_catalogue(aims)
        return (
            load_workflow(workflow, catalogue).workflow, load_inventory(inventory), AIMLibrary(catalogue)
        )  # fmt: skip

    def keep(self, placement: Placement) -> Workflow:
        """Write down the workflow with its chain; what runs is returned."""
        workflow, inventory, library = self.load(
            self.sources.workflow, self.sources.inventory, [*self.sources.aims]
        )
        running = with_stand_ins(workflow, library.contracts, PLACED.stand_ins)
        plan = Plan.of("Flow-1", 7, [], {}, (), releases={}, parts={})
        self.kept.keep(
            RunningWorkflow("Flow-1", running, placement, inventory, library, plan=plan, sources=self.sources)
        )
        return running


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_workflow_with_a_chain_is_taken_up_as_it_ran(bench: Bench) -> None:
    ran = bench.keep(PLACED)
    ((running, _),) = bench.kept.restore(0.0)
    assert running.workflow == ran
    assert running.placement == PLACED
    assert [leaf.id for leaf in running.workflow.aims] == ["source", "model.part_1", "model.part_2"]


def test_a_chain_that_has_other_parts_now_is_given_up(bench: Bench) -> None:
    bench.keep(PLACED)
    longer = CHAIN.replace("part_2", "last")
    (bench.aims / "chain" / "aim.yaml").write_text(longer)
    assert list(bench.kept.restore(0.0)) == []
    assert "its AIMs are others than were placed" in bench.log.getvalue()


def test_a_part_that_has_changed_is_given_up(bench: Bench) -> None:
    bench.keep(PLACED)
    (bench.aims / "first" / "module.py").write_text("# another one\n")
    assert list(bench.kept.restore(0.0)) == []
    assert "First@1.0 changed since it was deployed" in bench.log.getvalue()


def test_a_chain_that_is_gone_is_said(bench: Bench) -> None:
    bench.keep(replace(PLACED, stand_ins={"model": "Gone@1.0"}))
    assert list(bench.kept.restore(0.0)) == []
    assert "Gone@1.0" in bench.log.getvalue()
