"""Publishing what a site needs: the runtime's reference value, AIM packages, and trained models.

Decides names, counters and the signed metadata of releases. The same content is never published twice: a
publication that changes nothing returns the release that is there.

Invariant: a model leaves here sealed under a content key of its own, unless its publisher says that it is no
secret; the key is kept before the release is published.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from aif.authoring.conversion import TrainedModel
from aif.errors import LengthOrHashMismatch, ModelError, NotFound
from aif.model.aim import AIMMetadata
from aif.protocol.chunks import SealedRelease, seal_model
from aif.protocol.content_keys import commitment
from aif.trusted.content_keys import PublisherVault
from aif.trusted.measure import runtime_manifest
from aif.trusted.state import write_atomically
from store.release import Release, release_path
from store.repository import Repository
from store.sealing import HW_CLASSES, SEALED, Sealing
from store.targets import pack

RUNTIME_RELEASE = "aif-runtime"


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A trained model in a folder, with what its publication and a report need.

    ``accuracy_float`` and ``accuracy_int8`` are ratios over ``examples``; ``metrics`` are further ratios.
    """

    name: str
    tflite: bytes
    arena_bytes: int
    mac_count: int
    accuracy_float: float
    accuracy_int8: float
    examples: int
    labels: tuple[str, ...]
    parameters: Mapping[str, float]
    metrics: Mapping[str, float]


def save_model(folder: Path, model: TrainedModel) -> StoredModel:
    """Write ``<name>.tflite`` and, last, ``<name>.model.json``."""
    report = model.report
    stored = StoredModel(
        model.name,
        model.tflite,
        report.arena_bytes,
        report.mac_count,
        report.accuracy_float,
        report.accuracy_int8,
        report.examples,
        model.labels,
        dict(model.parameters),
        dict(model.metrics),
    )
    description = {k: v for k, v in asdict(stored).items() if k != "tflite"} | {"sha256": model.sha256}
    write_atomically(folder / f"{model.name}.tflite", model.tflite)
    write_atomically(folder / f"{model.name}.model.json", json.dumps(description, indent=1).encode())
    return stored


def load_model(folder: Path, name: str) -> StoredModel:
    """Read what ``save_model`` wrote.

    Raises:
        NotFound: there is no such model.
        LengthOrHashMismatch: file and description do not belong together.
    """
    try:
        tflite = (folder / f"{name}.tflite").read_bytes()
        facts = json.loads((folder / f"{name}.model.json").read_text())
    except FileNotFoundError as error:
        raise NotFound(
            f"there is no trained model {name} in {folder}", hint="train it with `aif train`"
        ) from error
    if hashlib.sha256(tflite).hexdigest() != facts.pop("sha256"):
        raise LengthOrHashMismatch(
            f"{folder / name}.tflite is not the model that was trained",
            hint="train again with `aif train --force`",
        )
    return StoredModel(tflite=tflite, **{**facts, "labels": tuple(facts["labels"])})


def packaged_models(contract: AIMMetadata, folder: Path) -> list[StoredModel]:
    """Models that lie as files in an AIM's folder, as its contract pins them; their accuracy is not known.

    Raises:
        NotFound: a pinned file is not there.
        LengthOrHashMismatch: a file is not the pinned one.
    """
    found: dict[str, StoredModel] = {}
    for code in contract.implementations:
        model = code.model
        if model is None or not model.file:
            continue
        try:
            content = (folder / model.file).read_bytes()
        except FileNotFoundError as error:
            raise NotFound(f"{contract.reference} lacks its model {model.file} in {folder}") from error
        if (hashlib.sha256(content).hexdigest(), len(content)) != (model.sha256, model.bytes_):
            raise LengthOrHashMismatch(
                f"{folder / model.file} is not the model that {contract.reference} pins",
                hint="set sha256 and bytes in its aim.yaml, or restore the file",
            )
        known = found.get(model.component)
        arena = max(code.arena_bytes, known.arena_bytes if known else 0)
        found[model.component] = StoredModel(
            model.component, content, arena, code.mac_count or 0, 0.0, 0.0, 0, (), {}, {}
        )
    return list(found.values())


class Publisher:
    """One vendor's hand on a repository, and the content keys of what it published."""

    def __init__(
        self, repository: Repository, vendor: str, now: Callable[[], datetime], vault: PublisherVault
    ) -> None:
        self._repository, self._vendor, self._now, self._vault = repository, vendor, now, vault

    def runtime(self, package: Path, version: str) -> Release:
        """The reference value of this software."""
        return self._publish(RUNTIME_RELEASE, runtime_manifest(package), "runtime", {"version": version})

    def aim(self, contract: AIMMetadata, folder: Path) -> Release:
        """An AIM package; its SHA-256 is what hosts compare and report."""
        custom = {"reference": contract.reference, "name": contract.name, "version": contract.version}
        return self._publish(contract.name, pack(folder), "aim", custom)

    def model(self, model: StoredModel, *, plain: bool = False, hw_classes: Sequence[str] = ()) -> Release:
        """A model, with the arena it was measured to need and what the AIM around it must know.

        Args:
            model: as it was trained.
            plain: publish it without encryption; only sites that allow it install such a model.
            hw_classes: what it was built for; empty for any hardware.
        """
        custom: dict[str, object] = {
            "name": model.name,
            "arena_bytes": model.arena_bytes,
            "labels": list(model.labels),
            "parameters": {name: repr(float(value)) for name, value in model.parameters.items()},
        }
        if hw_classes:
            custom[HW_CLASSES] = list(hw_classes)
        if plain:
            return self._publish(model.name, model.tflite, "model", custom)
        return self._seal(model, custom)

    def _seal(self, model: StoredModel, custom: Mapping[str, object]) -> Release:
        digest = hashlib.sha256(model.tflite)
        last = self._last(model.name)
        if last is not None and SEALED in last.custom and self._vault.has(last.path):
            same = {name: value for name, value in last.custom.items() if name != SEALED} == custom
            if same and last.measurement == digest.hexdigest() and not last.yanked:
                return last
        counter = _next(last)
        sealed = SealedRelease(model.name, counter, digest.digest(), len(model.tflite))
        key = self._vault.new_key(release_path(self._vendor, model.name, counter))
        sealing = Sealing(sealed, commitment(key, sealed.release_id))
        return self._repository.publish(
            self._vendor,
            model.name,
            counter,
            b"".join(seal_model(key, sealed, model.tflite)),
            kind="model",
            custom={**custom, SEALED: sealing.to_custom()},
            now=self._now(),
            measurement=digest.hexdigest(),
        )

    def _publish(self, component: str, content: bytes, kind: str, custom: Mapping[str, object]) -> Release:
        sha256 = hashlib.sha256(content).hexdigest()
        last = self._last(component)
        if last is not None and (last.sha256, dict(last.custom), last.yanked) == (sha256, dict(custom), ""):
            return last
        return self._repository.publish(
            self._vendor, component, _next(last), content, kind=kind, custom=custom, now=self._now()
        )

    def _last(self, component: str) -> Release | None:
        mine = (
            release
            for release in self._repository.releases()
            if (release.vendor, release.component) == (self._vendor, component)
        )
        return max(mine, key=lambda release: release.counter, default=None)


def _next(last: Release | None) -> int:
    return last.counter + 1 if last is not None else 1


def check_model_fits_contract(model: StoredModel, contract: AIMMetadata) -> None:
    """See that a trained model needs no more than its AIM declares, before anybody plans with it.

    Raises:
        ModelError: the arena or the types differ; the message says which implementation.
    """
    for implementation in contract.implementations:
        if implementation.model is None or implementation.model.component != model.name:
            continue
        if implementation.arena_bytes and implementation.arena_bytes < model.arena_bytes:
            raise ModelError(
                f"{model.name} needs an arena of {model.arena_bytes:,} B, {contract.reference}/"
                f"{implementation.id} declares {implementation.arena_bytes:,} B",
                hint="raise arena_bytes and ram_bytes of that implementation in its aim.yaml",
            )
