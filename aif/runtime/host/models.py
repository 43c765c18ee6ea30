"""Opens the installed models of one device where they may run: in the Security Engine, or in their slots.

Decides which of the two a release is for, from what its slot holds, and keeps the wrapped content keys of
this boot. Does not install (``trusted.model_service``) nor decrypt (the engine does); an AIM cannot tell the
two apart.

Invariant: what is sealed in its slot reaches this process as ciphertext, handles and results only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from aif.engines.base import TensorSpec, check_inputs
from aif.errors import AIFError, DecryptionFailed, EngineCrashed, NotFound, PSAError, PSAStatus
from aif.model.aim import Implementation
from aif.protocol.chunks import split_ciphertext
from aif.protocol.control import ModelKey
from aif.protocol.deployment import ModelRelease
from aif.runtime.host.platform import Engine, Platform
from aif.trusted.model_service import ModelService, SlotContent
from aif.trusted.model_trial import LIMIT_S, try_model
from aif.trusted.security_engine import ProtectedModel, SecurityEngine

OpenModel = Callable[[str, Implementation, ModelRelease], Engine]
"""Opens the model of one AIM instance: its owner, its implementation, its release."""


KEY_PATIENCE_S = 9.0
"""An AIM whose Security Engine was lost waits this long for the key of the next session; less than a stopped
AIM may take to end."""


class DeviceModels:
    """Models of one device, ready to be opened.

    Args:
        models: the slots.
        platform: budgets and inference engines of this device.
        engine: runs what is sealed.
    """

    def __init__(self, models: ModelService, platform: Platform, engine: SecurityEngine) -> None:
        self._models, self._platform, self._engine = models, platform, engine
        self._keys: dict[str, bytes] = {}
        self._changed = threading.Condition()

    def take_keys(self, keys: Iterable[ModelKey]) -> None:
        """Keep what the Controller wrapped for this session; it replaces what came for an earlier one."""
        with self._changed:
            self._keys.update((key.component, key.wrapped) for key in keys)
            self._changed.notify_all()

    def key(self, component: str) -> bytes:
        """The wrapped key of a component; empty when none came."""
        return self._keys.get(component, b"")

    def open(self, owner: str, implementation: Implementation, release: ModelRelease) -> Engine:
        """Open the installed release of a component for one AIM instance; may take a second.

        Raises:
            NotFound: it is not installed, or its key has not come.
            TrustError, StoreError: the slot, the ticket or the key is not what it must be.
            ResourceExceeded, EngineError: the model cannot run here.
        """
        slot = self._models.read(release.component)
        if slot.sealed is None:
            return self._platform.open_engine(
                owner, implementation, slot.content, release.sha256, release.arena_bytes
            )
        return self._platform.hold_engine(
            owner,
            implementation,
            release.arena_bytes,
            lambda runtime: SealedModelEngine(_Loader(self, release, runtime)),
        )

    def prove(
        self, owner: str, implementation: Implementation, release: ModelRelease, slot: SlotContent
    ) -> str:
        """Run a release that was just written to a slot, where it is going to run; may take seconds.

        Returns:
            What it takes and gives.

        Raises:
            EngineError: it crashed, hung, or gave what it must not.
            NotFound, TrustError, StoreError, ResourceExceeded: it could not be tried.
        """
        if slot.sealed is None:
            opened = self._platform.open_engine(
                owner, implementation, slot.content, release.sha256, release.arena_bytes
            )
            with closing(opened) as model:
                return try_model(model.inputs, model.outputs, lambda tensors: model.infer(*tensors))
        key = self.key(release.component)
        if not key:
            raise _no_key(release.component)
        chunks = split_ciphertext(slot.sealed, slot.content)
        return self._engine.try_model(
            slot.ticket, key, chunks, runtime=str(implementation.runtime), limit_s=LIMIT_S
        )

    def load(self, release: ModelRelease, key: bytes, runtime: str) -> ProtectedModel:
        """Let the Security Engine open an installed release.

        Raises:
            NotFound: it is not installed (any more), or there is no key.
            TrustError, StoreError, ResourceExceeded, EngineError: as ``SecurityEngine.load_model``.
        """
        if not key:
            raise _no_key(release.component)
        slot = self._models.read(release.component)
        if slot.sealed is None or slot.sealed.plaintext_sha256 != release.sha256:
            raise NotFound(
                f"another release of {release.component} was installed here since",
                hint="deploy the workflow again, to run the newer one",
            )
        chunks = split_ciphertext(slot.sealed, slot.content)
        return self._engine.load_model(slot.ticket, key, chunks, runtime=runtime)

    def wait_for_key(self, component: str, other_than: bytes, unless: Callable[[], bool]) -> bytes:
        """The next wrapped key of a component, or the last one when none comes in time."""
        with self._changed:
            self._changed.wait_for(
                lambda: unless() or self.key(component) != other_than, timeout=KEY_PATIENCE_S
            )
            return self.key(component)

    def wake(self) -> None:
        """Let everybody who waits look again."""
        with self._changed:
            self._changed.notify_all()


def _no_key(component: str) -> NotFound:
    return NotFound(
        f"the content key of {component} has not come for this session of the device",
        hint="deploy the workflow again: the Controller sends keys to attested devices",
    )


class _Loader:
    """Loads one release for one AIM instance, again after the Security Engine was lost."""

    def __init__(self, models: DeviceModels, release: ModelRelease, runtime: str) -> None:
        self._models, self._release, self._runtime = models, release, runtime
        self._key = models.key(release.component)
        self._unwanted = False

    def load(self) -> ProtectedModel:
        return self._models.load(self._release, self._key, self._runtime)

    def load_again(self) -> ProtectedModel:
        """Wait for the key of the next session, then load.

        Raises:
            EngineCrashed: it did not come in time, or nobody wants the model any more.
        """
        component = self._release.component
        while True:
            key = self._models.wait_for_key(component, self._key, lambda: self._unwanted)
            if key == self._key or self._unwanted:
                raise EngineCrashed(
                    f"the Security Engine was lost with {component}, and no key came for the next one",
                    hint="see the device's log: the key comes when the device is attested again",
                )
            self._key = key
            try:
                return self.load()
            except DecryptionFailed:  # it was for the lost session
                continue
            except PSAError as error:
                if error.status not in _LOST:
                    raise

    def give_up(self) -> None:
        """End a wait."""
        self._unwanted = True
        self._models.wake()


class SealedModelEngine:
    """A model inside the Security Engine, as every inference engine looks (``engines.base.Engine``).

    Blocks while it runs, and for up to ``KEY_PATIENCE_S`` when the Security Engine is lost: then the model is
    loaded into the next one, and the inference is run there. The state of a streaming model is lost with it.
    """

    def __init__(self, loader: _Loader) -> None:
        self._loader = loader
        self._model, self._proved = loader.load(), False
        self._inputs, self._outputs = (
            tuple(TensorSpec(t.name, t.shape, t.dtype, t.scale, t.zero_point) for t in side)
            for side in (self._model.inputs, self._model.outputs)
        )

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._outputs

    @property
    def arena_bytes(self) -> int:
        """Nothing of it is in this process."""
        return 0

    def infer(self, inputs: Sequence[npt.NDArray[Any]]) -> tuple[npt.NDArray[Any], ...]:
        check_inputs(inputs, self._inputs)
        tensors = [tensor.tobytes() for tensor in inputs]
        try:
            results = self._model.infer(tensors)
        except PSAError as error:
            if error.status not in _LOST:
                raise
            self._model = self._loader.load_again()
            results = self._model.infer(tensors)
        if not self._proved:
            self._model.accept()  # it runs: nothing older is loaded from now on
            self._proved = True
        return tuple(
            np.frombuffer(bytearray(raw), spec.dtype).reshape(spec.shape)  # writable, as an engine's own
            for raw, spec in zip(results, self._outputs, strict=True)
        )

    def reset(self) -> None:
        self._model.reset()

    def close(self) -> None:
        self._loader.give_up()
        with suppress(AIFError):  # of an engine that was lost, the model is gone already
            self._model.unload()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_LOST = (PSAStatus.COMMUNICATION_FAILURE, PSAStatus.INVALID_HANDLE)
"""The process is gone, or it is another one, which does not know the model."""
