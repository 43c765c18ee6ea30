"""What the Store's publishers signed, as the Controller asks for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from aif.protocol.evidence import Component
from aif.runtime.mapping.releases import ResolvedModel
from aif.trusted.attestation import RUNTIME_COMPONENT, aim_component, model_component, part
from store.client import StoreClient
from store.sealing import hw_classes_of, sealing_of

if TYPE_CHECKING:
    from partitioner.policy import ModelFacts


class ReferenceBook:
    """Reference values and model releases, as the Store's publishers signed them."""

    def __init__(self, client: StoreClient, store_root: bytes) -> None:
        self._client, self._root = client, store_root
        self._models: dict[str, Component] = {}
        self._aims: dict[str, Component] = {}
        self._runtime: list[Component] = []

    def refresh(self) -> None:
        """Read every release that the Store lists."""
        runtime: list[Component] = []
        for release in self._client.releases():
            measured = bytes.fromhex(release.measurement)
            if release.yanked:
                continue
            if release.kind == "runtime":
                version = str(release.custom.get("version", ""))
                runtime.append(part(RUNTIME_COMPONENT, measured, version, self._root))
            elif release.kind == "aim":
                kind = aim_component(str(release.custom.get("reference", "")))
                version = str(release.custom.get("version", ""))
                self._aims[f"{kind}#{release.counter}"] = part(kind, measured, version, self._root)
            elif release.kind == "model":
                kind = model_component(release.component)
                self._models[f"{kind}#{release.counter}"] = part(
                    kind, measured, str(release.counter), self._root
                )
        self._runtime = runtime

    def components(self) -> Mapping[str, Iterable[Component]]:
        """Good measurements, by kind of part."""
        if not self._runtime:
            self.refresh()
        # copies, because a deployment may refresh them in a thread at the same time
        aims, models = list(self._aims.values()), list(self._models.values())
        return {"runtime": self._runtime, "aims": aims, "models": models}

    def facts(self) -> dict[str, ModelFacts]:
        """Size and arena of the newest release of every model, by component.

        Raises:
            StoreError: the Store is not reachable.
        """
        from partitioner.policy import ModelFacts

        facts = {}
        models = (r for r in self._client.releases() if r.kind == "model" and not r.yanked)
        for release in sorted(models, key=lambda release: release.counter):
            sealing, arena = sealing_of(release), release.custom.get("arena_bytes")
            bytes_ = release.length if sealing is None else sealing.release.plaintext_bytes
            facts[release.component] = ModelFacts(bytes_, arena if isinstance(arena, int) and arena else None)
        return facts

    def model(self, vendor: str, component: str) -> ResolvedModel:
        """The newest release of a model.

        Raises:
            StoreError: there is none, or the Store is not reachable.
        """
        self.refresh()  # first, so that a release is found as soon as it is published
        release = self._client.newest(vendor, component)
        parameters = release.custom.get("parameters", {})
        arena = release.custom.get("arena_bytes", 0)
        sealing = sealing_of(release)
        return ResolvedModel(
            component=component,
            path=release.path,
            counter=release.counter,
            sha256=bytes.fromhex(release.measurement),
            bytes_=release.length if sealing is None else sealing.release.plaintext_bytes,
            arena_bytes=arena if isinstance(arena, int) else 0,
            stored_sha256=bytes.fromhex(release.sha256),
            stored_bytes=release.length,
            sealed=None if sealing is None else sealing.release,
            key_commitment=b"" if sealing is None else sealing.key_commitment,
            hw_classes=tuple(sorted(hw_classes_of(release))),
            parameters={str(k): float(str(v)) for k, v in parameters.items()}
            if isinstance(parameters, Mapping)
            else {},
        )
