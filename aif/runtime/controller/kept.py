"""What a Controller keeps of its running workflows, so that one that is started after it goes on with them.

Each workflow has a folder in the site's state: copies of the files it was deployed from, and one document
with its mapping, replaced as a whole at every change and before any device hears of it. It goes when the
workflow has ended. A workflow is taken up again only with the AIM packages it was deployed with.

Decides nothing about devices: what they still run they say themselves.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from aif.errors import AIFError, StartFailed
from aif.model.aiw import Workflow
from aif.model.degrading import Service
from aif.model.inventory import Inventory
from aif.model.placement import Placement
from aif.model.stand_ins import with_stand_ins
from aif.model.standby import served_by
from aif.protocol.deployment import Deployment, RemoteChannel
from aif.runtime.devices.grants import End
from aif.runtime.library import AIMLibrary
from aif.runtime.logbook import LogBook
from aif.runtime.mapping.deployer import Plan
from aif.runtime.mapping.releases import PlacedModel, ResolvedModel
from aif.runtime.mapping.workflows import RunningWorkflow, Sources
from aif.trusted.state import StateFile

Load = Callable[[Path, Path, list[Path]], tuple[Workflow, Inventory, AIMLibrary]]
"""Reads a workflow and an inventory with AIM folders; raises ConfigError."""


@dataclass(frozen=True, slots=True)
class KeptChannel:
    """A sealed channel with the senders it ever had."""

    channel: RemoteChannel
    senders: tuple[End, ...]


@dataclass(frozen=True, slots=True)
class KeptPart:
    """A signed deployment document and what it says."""

    document: bytes
    part: Deployment


@dataclass(frozen=True, slots=True)
class KeptWorkflow:
    """The document of one workflow.

    Attributes:
        aiw_id: of the workflow.
        aims: folders of its AIM library.
        packages: digest of every AIM that it uses, by reference.
        placement: where its AIMs are.
        mapping_version: of the newest document.
        channels: the sealed ones, each with every sender it ever had, in the order of their indexes.
        parts: what each device was told, as it was signed, and what that says.
        models: where its model releases are.
        releases: which they are.
        boots: the boot of each device whose AIMs belong to it.
        over: AIMs that had ended when their device was lost.
        paused: whether a person has paused it.
        paused_aims: AIMs that a person has paused.
        left_out: optional AIMs that there was no room for.
        rate: share of its full rate that there was room for.
    """

    aiw_id: str
    aims: tuple[str, ...]
    packages: Mapping[str, bytes]
    placement: Placement
    mapping_version: int
    channels: tuple[KeptChannel, ...]
    parts: tuple[KeptPart, ...]
    models: tuple[PlacedModel, ...]
    releases: Mapping[str, ResolvedModel]
    boots: Mapping[str, bytes]
    over: tuple[str, ...] = ()
    paused: bool = False
    paused_aims: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    rate: float = 1.0

    def plan(self) -> Plan:
        """What its devices were told."""
        return Plan.of(
            self.aiw_id, self.mapping_version, (kept.channel for kept in self.channels),
            {kept.part.device: kept.document for kept in self.parts}, self.models,
            releases=self.releases, parts={kept.part.device: kept.part for kept in self.parts},
        )  # fmt: skip


class KeptWorkflows:
    """The folder of all of them."""

    def __init__(
        self, folder: Path, load: Load, senders: Callable[[bytes], tuple[End, ...]], log: LogBook
    ) -> None:
        self._folder, self._load, self._senders, self._log = folder, load, senders, log

    def keep(self, running: RunningWorkflow) -> None:
        """Write down where a workflow is now; what cannot be written is said, and stops nothing."""
        plan, sources = running.plan, running.sources
        if plan is None or sources is None:
            return
        folder = self._folder / running.aiw_id
        try:
            folder.mkdir(parents=True, mode=0o700, exist_ok=True)
            if not self._file(running.aiw_id).exists():
                shutil.copyfile(sources.workflow, folder / "workflow.aiw.yaml")
                shutil.copyfile(sources.inventory, folder / "inventory.yaml")
            self._file(running.aiw_id).save(
                KeptWorkflow(
                    running.aiw_id, tuple(str(aims.resolve()) for aims in sources.aims), _packages(running),
                    running.placement, plan.mapping_version,
                    tuple(KeptChannel(c, self._senders(i)) for i, c in plan.channels.items()),
                    tuple(KeptPart(plan.documents[d], part) for d, part in plan.parts.items()),
                    plan.models, plan.releases, dict(running.boots), tuple(sorted(running.over)),
                    running.paused, tuple(sorted(running.paused_aims)),
                    tuple(sorted(running.service.left_out)), running.service.rate,
                )
            )  # fmt: skip
        except (AIFError, OSError) as error:
            self._log.error(
                "a restart of the Controller would end this workflow", aiw=running.aiw_id, reason=str(error)
            )

    def forget(self, aiw_id: str) -> None:
        """The workflow has ended."""
        shutil.rmtree(self._folder / aiw_id, ignore_errors=True)

    def restore(self, now_ms: float) -> Iterable[tuple[RunningWorkflow, KeptWorkflow]]:
        """Every workflow that an earlier Controller left running; one that cannot be read is given up.

        A rate that was lowered counts as lowered at ``now_ms`` (monotonic).
        """
        for folder in sorted(self._folder.iterdir()) if self._folder.exists() else ():
            try:
                kept = self._file(folder.name).load()
                yield self._running(folder, kept, now_ms), kept
            except (AIFError, OSError) as error:
                self._log.error("a workflow cannot be taken up again", aiw=folder.name, reason=str(error))
                self.forget(folder.name)

    def _running(self, folder: Path, kept: KeptWorkflow, now_ms: float) -> RunningWorkflow:
        sources = Sources(
            folder / "workflow.aiw.yaml", folder / "inventory.yaml", tuple(Path(aims) for aims in kept.aims)
        )
        workflow, inventory, library = self._load(sources.workflow, sources.inventory, [*sources.aims])
        workflow = with_stand_ins(workflow, library.contracts, kept.placement.stand_ins)
        running = RunningWorkflow(
            kept.aiw_id, workflow, kept.placement, inventory, library,
            plan=kept.plan(), boots=dict(kept.boots), over=set(kept.over), paused=kept.paused,
            paused_aims=set(kept.paused_aims), sources=sources, resumed=True,
        )  # fmt: skip
        running.serve(Service(frozenset(kept.left_out), kept.rate), now_ms)
        placed = {a.aim for a in kept.placement.assignments if not served_by(a.aim)}
        if placed != {leaf.id for leaf in running.workflow.aims}:
            raise StartFailed("its AIMs are others than were placed", hint="deploy it again")
        changed = [use for use, digest in kept.packages.items() if library.digest(use) != digest]
        if changed:
            raise StartFailed(f"{', '.join(changed)} changed since it was deployed", hint="deploy it again")
        return running

    def _file(self, aiw_id: str) -> StateFile[KeptWorkflow]:
        return StateFile(self._folder / aiw_id / "mapping.cbor", KeptWorkflow)


def _packages(running: RunningWorkflow) -> dict[str, bytes]:
    uses = {leaf.metadata.reference for leaf in running.whole.aims}
    return {use: running.library.digest(use) for use in sorted(uses)}
