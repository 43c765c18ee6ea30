"""From a Placement to one deployment document per device: instances, channels, releases, tickets.

A pure translation plus signatures: no I/O. Which channels there are is worked out in ``channels``, which
releases a device needs a ticket for in ``releases``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from aif.errors import StartFailed
from aif.model.aim import ParameterValue
from aif.model.aiw import Workflow
from aif.model.degrading import sets_pace
from aif.model.placement import Assignment, Placement
from aif.model.ports import PortRef
from aif.model.standby import served_by
from aif.protocol import deployment
from aif.protocol.content_keys import KeyUse, wrap_content_key
from aif.protocol.control import ModelKey
from aif.protocol.deployment import DeployedAIM, Deployment, RemoteChannel
from aif.protocol.limits import KEY_BYTES
from aif.runtime.devices.grants import End
from aif.runtime.mapping.channel_limits import check_numbers, check_sizes
from aif.runtime.mapping.channels import boundary_ports, local_channels, remote_channels
from aif.runtime.mapping.releases import DeviceFacts, DeviceReleases, PlacedModel, ResolvedModel, Ticketing
from aif.runtime.mapping_changes import same_part
from aif.trusted.content_keys import SiteVault


@dataclass(frozen=True, slots=True)
class Plan:
    """All documents of one workflow, and the ends of every sealed channel for the grants.

    Attributes:
        mapping_version: of the newest document; devices whose part has not changed since keep their own.
        parts: what the documents say, by device.
        releases: the model releases it names, by publisher and component; another mapping keeps them.
    """

    aiw_id: str
    mapping_version: int
    documents: Mapping[str, bytes]
    channels: Mapping[bytes, RemoteChannel]
    senders: Mapping[bytes, tuple[End, ...]]
    receivers: Mapping[bytes, tuple[End, ...]]
    models: tuple[PlacedModel, ...] = ()
    releases: Mapping[str, ResolvedModel] = field(default_factory=dict)
    parts: Mapping[str, Deployment] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        aiw_id: str,
        mapping_version: int,
        channels: Iterable[RemoteChannel],
        documents: Mapping[str, bytes],
        models: tuple[PlacedModel, ...],
        *,
        releases: Mapping[str, ResolvedModel],
        parts: Mapping[str, Deployment],
    ) -> Plan:
        """A plan with the ends of its channels worked out."""
        by_id = {channel.channel_id: channel for channel in channels}

        def end(device: str, port: str) -> End:
            return End(device, f"{aiw_id}/{PortRef.parse(port).aim}")

        return cls(
            aiw_id, mapping_version, documents, by_id,
            {i: (end(c.source_device, c.source),) for i, c in by_id.items()},
            {i: tuple(map(end, c.destination_devices, c.destinations)) for i, c in by_id.items()},
            models, releases, parts,
        )  # fmt: skip

    def version(self, device: str) -> int:
        """The mapping version that a device should be under; 0 when it has no part."""
        part = self.parts.get(device)
        return 0 if part is None else part.mapping_version


class Deployer:
    """Builds and signs deployment documents and install tickets."""

    def __init__(
        self,
        *,
        sign_deployment: Callable[[bytes], bytes],
        sign_ticket: Callable[[bytes], bytes],
        random: Callable[[int], bytes],
        store_url: str,
        vault: SiteVault,
    ) -> None:
        self._sign_deployment, self._random = sign_deployment, random
        self._store_url, self._vault = store_url, vault
        self._ticketing = Ticketing(sign=sign_ticket, random=random, vault=vault)

    def plan(
        self,
        aiw_id: str,
        workflow: Workflow,
        placement: Placement,
        mapping_version: int,
        *,
        now_us: int,
        package_digest: Callable[[str], bytes],
        resolve_model: Callable[[str, str], ResolvedModel],
        device_facts: Callable[[str], DeviceFacts],
        previous: Plan | None = None,
        anew: Collection[str] = (),
        over: Collection[str] = (),
        rate: float = 1.0,
    ) -> Plan:
        """Documents for every device that runs a part of the workflow.

        Args:
            aiw_id: of the workflow.
            workflow: what is deployed.
            placement: where its AIMs go.
            mapping_version: of the documents that are made now.
            now_us: time of issue.
            package_digest: by AIM reference.
            resolve_model: newest release, by publisher and component.
            device_facts: by device name.
            previous: the plan that runs now; its model releases stay, and so does the document of each
                device whose part is the same.
            anew: devices that get a new document in any case.
            over: AIMs that have ended where they were; nothing runs for them any more.
            rate: share of its full rate at which the workflow runs; only devices with an AIM that sets a pace
                hear of it.

        Raises:
            StoreError: a model that an implementation needs is not in the Store.
            StartFailed: a device has too many channels, or cannot take the records of one.
        """
        releases = dict(previous.releases) if previous is not None else {}

        def resolved(publisher: str, component: str) -> ResolvedModel:
            key = f"{publisher}/{component}"
            if key not in releases:
                releases[key] = resolve_model(publisher, component)
            return releases[key]

        aims_of_workflow = {leaf.id for leaf in workflow.aims}
        # boundary Ports that are bound to a device are placed too, but nothing runs for them
        device_of = {a.aim: a.device for a in placement.assignments if a.aim in aims_of_workflow}
        working = [leaf.id for leaf in workflow.aims if leaf.id not in over]
        ready = [a for a in placement.assignments if served_by(a.aim) in aims_of_workflow - {*over}]
        taking_part = {*(device_of[aim] for aim in working), *(a.device for a in ready)}
        facts = {device: device_facts(device) for device in sorted(taking_part)}
        limits = {device: known.limits for device, known in facts.items()}
        remote = [c for c in remote_channels(aiw_id, workflow, device_of, limits) if not _unheard(c, over)]
        check_sizes(workflow, remote)
        check_numbers(remote, limits)
        plain_models = self._vault.plain_models
        documents: dict[str, bytes] = {}
        parts: dict[str, Deployment] = {}
        models: list[PlacedModel] = []
        for device, known_facts in facts.items():
            issue = DeviceReleases(self._ticketing, device, known_facts, now_us, plain_models=plain_models)
            aims = tuple(
                self._aim(workflow, placement.assignment(leaf_id), package_digest, resolved, issue)
                for leaf_id in working
                if device_of[leaf_id] == device
            )
            paced = any(sets_pace(workflow.aim(aim.id).metadata) for aim in aims)
            standbys = tuple(
                self._aim(workflow, assignment, package_digest, resolved, issue)
                for assignment in ready
                if assignment.device == device
            )
            document = Deployment(
                deployment.VERSION, device, aiw_id, workflow.name, workflow.metadata.version, mapping_version,
                now_us, self._store_url, aims, local_channels(workflow, device_of, device),
                tuple(c for c in remote if device in (c.source_device, *c.destination_devices)),
                boundary_ports(workflow, device_of, device), plain_models, rate if paced else 1.0, standbys,
            )  # fmt: skip
            models += issue.placed
            known = previous.parts.get(device) if previous is not None and device not in anew else None
            if previous is not None and known is not None and same_part(known, document):
                documents[device], parts[device] = previous.documents[device], known
                continue
            documents[device] = deployment.sign(document, self._sign_deployment)
            parts[device] = document
        return Plan.of(
            aiw_id, mapping_version, remote, documents, tuple(models), releases=releases, parts=parts
        )

    def content_keys(self, plan: Plan, device: str, session_pk: bytes) -> tuple[ModelKey, ...]:
        """Keys of the models that a plan puts on a device, for one boot of it.

        A standby needs none before it takes over, unless its model is to rest there as plaintext.

        Args:
            plan: made by ``plan``.
            device: its name.
            session_pk: of the boot whose Evidence was accepted.

        Raises:
            NotFound: a key is not in the site's vault any more.
        """
        return tuple(
            ModelKey(
                component,
                wrap_content_key(
                    self._vault.key(model.path), session_pk, self._random(KEY_BYTES), model.ticket_digest, use
                ),
            )
            for component, model in {
                m.component: m
                for m in plan.models
                if m.device == device and (m.key_use is KeyUse.IN_PLACE or not served_by(m.aim))
            }.items()
            if (use := model.key_use) is not None
        )

    def _aim(
        self,
        workflow: Workflow,
        assignment: Assignment,
        package_digest: Callable[[str], bytes],
        resolve_model: Callable[[str, str], ResolvedModel],
        issue: DeviceReleases,
    ) -> DeployedAIM:
        """An AIM, or the standby of one, as its device has to know it."""
        leaf = workflow.aim(served_by(assignment.aim) or assignment.aim)
        chosen = assignment.implementation
        implementation = leaf.metadata.implementation(chosen)
        if implementation is None:
            raise StartFailed(
                f"the placement names an unknown implementation {chosen} of {leaf.metadata.reference}"
            )
        release = None
        declared = {p.name for p in leaf.metadata.parameters}
        parameters: dict[str, ParameterValue] = {}
        if implementation.model is not None:
            resolved = resolve_model(leaf.metadata.implementer, implementation.model.component)
            pinned = implementation.model.sha256
            if pinned is not None and pinned != resolved.sha256.hex():
                raise StartFailed(
                    f"{leaf.metadata.reference} pins another release of {resolved.component} "
                    "than the Store's newest"
                )
            parameters = {name: value for name, value in resolved.parameters.items() if name in declared}
            release = issue.release(assignment.aim, resolved, implementation.arena_bytes)
        return DeployedAIM(
            leaf.id, leaf.metadata.reference, package_digest(leaf.metadata.reference), chosen,
            {**parameters, **leaf.parameters}, release,
        )  # fmt: skip


def _unheard(channel: RemoteChannel, over: Collection[str]) -> bool:
    """Whether messages would wait for the acknowledgement of an AIM that is over."""
    consumer = channel.source if channel.returns else channel.destinations[0]
    return channel.acknowledged is not None and PortRef.parse(consumer).aim in over
