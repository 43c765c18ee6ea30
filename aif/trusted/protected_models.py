"""Protected models inside the Security Engine: opened, run and forgotten here, and nowhere else in clear.

Decides when a sealed release may be loaded, and runs it. Does not parse models (the injected engine does) nor
decide when a release has proved itself: ``accept`` is told so.

Invariants: every chunk is opened under a ticket of this device's ticket key; a release below the accepted one
is refused; a model reaches the engine only after its whole digest was checked; what leaves is handles, tensor
descriptions and tensors. Content keys live in memory, for one boot: who takes the disk has ciphertext.

The one way out for plaintext is ``open_in_place``, for a microcontroller that executes from its slot. It
takes only a key that the site wrapped for that use, so a host whose models run here cannot make use of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from aif.errors import EngineError, NotAuthorised
from aif.protocol.chunks import ChunkCipher, ModelAssembly, SealedRelease
from aif.protocol.content_keys import KeyUse, unwrap_content_key
from aif.protocol.limits import MAX_MODEL_BYTES, UINT32_MAX
from aif.protocol.ticket import (
    ComponentState,
    InstallTarget,
    Ticket,
    VerifiedTicket,
    read_ticket,
    verify_ticket,
)
from aif.trusted.model_trial import run_apart, try_model
from aif.trusted.psa import PSAError, PSAStatus
from aif.trusted.records import UID_BYTES, RecordId
from aif.trusted.sealed_store import Random, SealedStore

MAX_MODELS: Final = 32
"""Models that are loaded or being loaded."""
MAX_LOADED_BYTES: Final = 256 << 20
"""Plaintext of all of them."""
_FLOOR_OWNER: Final = b"AIF model floors"


class Tensor(Protocol):
    """Description of an input or output, as an inference engine gives it."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> str: ...
    @property
    def scale(self) -> float: ...
    @property
    def zero_point(self) -> int: ...


class LoadedModel(Protocol):
    """One model in an inference engine."""

    @property
    def inputs(self) -> Sequence[Tensor]: ...
    @property
    def outputs(self) -> Sequence[Tensor]: ...
    def infer(self, inputs: Sequence[Any]) -> Sequence[Any]: ...
    def reset(self) -> None: ...
    def close(self) -> None: ...


class OpenModel(Protocol):
    """Opens verified bytes in an inference engine: ``aif.engines`` offers one."""

    def __call__(
        self, runtime: str, model: bytes, *, sha256: str, arena_bytes: int, name: str
    ) -> LoadedModel: ...


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What tickets are held against."""

    device_id: bytes
    hw_class_id: bytes
    firmware_version: int
    abi: int
    ticket_pk: bytes | None


@dataclass(slots=True)
class _Loading:
    """A release whose chunks are coming."""

    ticket: Ticket
    runtime: str
    assembly: ModelAssembly


@dataclass(frozen=True, slots=True)
class _Loaded:
    ticket: Ticket
    model: LoadedModel


class ProtectedModels:
    """Handles of models and what is behind them.

    Args:
        facts: of this device.
        session_sk: X25519 secret of this boot, to which content keys are wrapped.
        store: keeps accepted release counters.
        open_model: the inference engine; called with whole, checked models only.
        random: secure random bytes.
    """

    def __init__(
        self,
        facts: DeviceFacts,
        session_sk: bytes,
        store: SealedStore,
        *,
        open_model: Callable[[], OpenModel],
        random: Random,
    ) -> None:
        self._facts, self._session_sk, self._store = facts, session_sk, store
        self._open_model, self._random = open_model, random
        self._loading: dict[int, _Loading] = {}
        self._loaded: dict[int, _Loaded] = {}

    def enrolled(self, ticket_pk: bytes) -> None:
        """The device has enrolled: tickets are held against this key."""
        self._facts = replace(self._facts, ticket_pk=ticket_pk)

    def begin(self, ticket: bytes, wrapped_key: bytes, runtime: str) -> int:
        """Start to load a release; the handle that its chunks and then the model have.

        Args:
            ticket: as it was installed; its time limit concerned the installation and is not checked again.
            wrapped_key: the content key, wrapped to this boot's session under the ticket's digest.
            runtime: name of an inference runtime.

        Raises:
            TrustError: the ticket or the key is not for this device, or the release is older than the
                accepted one (``RollbackDetected``).
            RemoteProtocolError: malformed.
            PSAError: ``INSUFFICIENT_MEMORY``.
        """
        verified = self._verify(ticket)
        in_use = sum(t.plaintext_bytes for t in self._tickets())
        count = len(self._loading) + len(self._loaded)
        if count >= MAX_MODELS or in_use + verified.ticket.plaintext_bytes > MAX_LOADED_BYTES:
            raise PSAError(
                PSAStatus.INSUFFICIENT_MEMORY,
                f"at most {MAX_MODELS} models of {MAX_LOADED_BYTES >> 20} MiB together can be loaded",
                hint="unload a model first",
            )
        release = SealedRelease.of_ticket(verified.ticket)
        key = unwrap_content_key(wrapped_key, self._session_sk, verified.digest, KeyUse.RUN)
        handle = int.from_bytes(self._random(7))  # random: a handle of an earlier boot stays unknown
        assembly = ModelAssembly(ChunkCipher(key, release))
        self._loading[handle] = _Loading(verified.ticket, runtime, assembly)
        return handle

    def add_chunks(self, handle: int, first: int, chunks: Sequence[bytes]) -> None:
        """Open chunks ``first``, ``first + 1`` and so on.

        Raises:
            DecryptionFailed, RemoteProtocolError: one of them is not of this release; the load is over.
        """
        loading = self._find(self._loading, handle)
        try:
            for index, chunk in enumerate(chunks, first):
                loading.assembly.add(index, chunk)
        except BaseException:
            del self._loading[handle]
            raise

    def finish(self, handle: int) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Check the whole model and give it to its engine. Returns inputs and outputs.

        Raises:
            LengthOrHashMismatch: not whole, or not what was signed.
            EngineError, ResourceExceeded: the engine refused it.
        """
        loading = self._taken(handle)
        model = self._opened(loading, loading.assembly.finish())
        self._loaded[handle] = _Loaded(loading.ticket, model)
        return model.inputs, model.outputs

    def trial(self, handle: int, limit_ms: int) -> str:
        """Check the whole model, and run it a few times in a copy of this process, which then ends.

        Returns:
            What it takes and gives.

        Raises:
            LengthOrHashMismatch: not whole, or not what was signed.
            EngineCrashed: the copy died, or did not end within ``limit_ms``.
            EngineError: the engine refused it, or its results are not what it says of itself.
        """
        loading = self._taken(handle)
        plaintext = loading.assembly.finish()

        def work() -> str:
            model = self._opened(loading, plaintext)
            return try_model(model.inputs, model.outputs, model.infer)

        return run_apart(work, limit_s=limit_ms / 1000)

    def _taken(self, handle: int) -> _Loading:
        loading: _Loading = self._find(self._loading, handle)
        del self._loading[handle]
        return loading

    def _opened(self, loading: _Loading, plaintext: bytes) -> LoadedModel:
        ticket = loading.ticket
        return self._open_model()(
            loading.runtime,
            plaintext,
            sha256=ticket.plaintext_sha256.hex(),
            arena_bytes=ticket.arena_bytes,
            name=ticket.component,
        )

    def open_in_place(
        self, ticket: bytes, wrapped_key: bytes, first: int, chunks: Sequence[bytes]
    ) -> list[bytes]:
        """Plaintext of chunks ``first``, ``first + 1`` and so on, for a slot that is executed in place.

        The caller checks the digest of the whole before it counts as installed.

        Raises:
            DecryptionFailed: the key was not wrapped for this use, or a chunk is not of this release.
            TrustError, RemoteProtocolError: as ``begin``.
        """
        verified = self._verify(ticket)
        key = unwrap_content_key(wrapped_key, self._session_sk, verified.digest, KeyUse.IN_PLACE)
        cipher = ChunkCipher(key, SealedRelease.of_ticket(verified.ticket))
        return [cipher.open(index, chunk) for index, chunk in enumerate(chunks, first)]

    def infer(self, handle: int, tensors: Sequence[bytes]) -> list[bytes]:
        """Run a model once.

        Args:
            handle: of a finished load.
            tensors: one per input, row-major elements of its type, little endian.

        Raises:
            EngineError: an input does not fit, or the engine refused.
        """
        import numpy as np

        model = self._find(self._loaded, handle).model
        if len(tensors) != len(model.inputs):
            raise EngineError(f"the model takes {len(model.inputs)} inputs, got {len(tensors)}")
        inputs = []
        for raw, spec in zip(tensors, model.inputs, strict=True):
            dtype = np.dtype(spec.dtype)
            if len(raw) != dtype.itemsize * int(np.prod(spec.shape)):
                raise EngineError(f"input {spec.name} of {len(raw)} B is not {spec}")
            inputs.append(np.frombuffer(raw, dtype).reshape(spec.shape))
        return [np.ascontiguousarray(output).tobytes() for output in model.infer(inputs)]

    def reset(self, handle: int) -> None:
        self._find(self._loaded, handle).model.reset()

    def accept(self, handle: int) -> None:
        """The release has proved itself: from now on none below it is loaded."""
        ticket = self._find(self._loaded, handle).ticket
        if ticket.release_counter > self._floor(ticket.component):
            self._store.put(_record(_FLOOR_OWNER, ticket.component), ticket.release_counter.to_bytes(4))

    def unload(self, handle: int) -> None:
        """Forget a model, or a load that is not finished; an unknown handle is no error."""
        self._loading.pop(handle, None)
        loaded = self._loaded.pop(handle, None)
        if loaded is not None:
            loaded.model.close()

    def close(self) -> None:
        for handle in [*self._loading, *self._loaded]:
            self.unload(handle)

    def _find(self, table: Mapping[int, Any], handle: int) -> Any:
        if handle not in table:
            raise PSAError(PSAStatus.INVALID_HANDLE, "there is no such model", hint="load it again")
        return table[handle]

    def _tickets(self) -> Iterator[Ticket]:
        yield from (loading.ticket for loading in self._loading.values())
        yield from (loaded.ticket for loaded in self._loaded.values())

    def _verify(self, data: bytes) -> VerifiedTicket:
        if self._facts.ticket_pk is None:
            raise NotAuthorised("this device is not enrolled and loads nothing")
        named = read_ticket(data)  # believed for nothing but the facts that the check below holds against it
        component, slot = named.component, named.slot
        # An installed release is loaded at every boot, so its own counter is fine; space is checked by begin.
        state = ComponentState(self._floor(component) - 1, slot, MAX_MODEL_BYTES)
        facts = self._facts
        target = InstallTarget(
            facts.device_id,
            facts.hw_class_id,
            facts.firmware_version,
            facts.abi,
            0,
            {component: state},
            UINT32_MAX,
        )
        return verify_ticket(data, self._facts.ticket_pk, target, allow_plain=False)

    def _floor(self, component: str) -> int:
        record = _record(_FLOOR_OWNER, component)
        return int.from_bytes(self._store.get(record)) if self._store.contains(record) else 0


def _record(owner: bytes, name: str) -> RecordId:
    return RecordId(owner, hashlib.blake2b(name.encode(), digest_size=UID_BYTES).digest())
