"""Security Engine, seen from the host: a child process that owns keys and decrypted models.

Decides what the child is asked, and when it is given up. Does not hold a secret: what comes back is handles,
results, public keys and the channel keys of opened grants. The process itself is in ``engine_link``.

Invariants: the death or silence of the child fails the open call with COMMUNICATION_FAILURE, and every later
one until ``restart``; after more restarts than a minute allows, the host is unfit and says so. Calls may come
from several threads; they are answered one by one.

Source: MPAI-AIF V2 Security Engine.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from aif.protocol.evidence import Component
from aif.protocol.grant import Grant
from aif.trusted.engine_link import EngineLink
from aif.trusted.engine_messages import (
    grant_of,
)
from aif.trusted.engine_owner import EngineOwner
from aif.trusted.psa import PSAError, PSAStatus

RESTARTS_PER_MINUTE: Final = 3
CALL_TIMEOUT_S: Final = 60.0
"""Longest wait for one answer; after it the engine counts as hung."""
_BATCH_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What an engine is started with; nothing of it is secret.

    Attributes:
        folder: private folder of the engine, an absolute path; the root key and the storage are in it.
        device_id: 16 bytes.
        hw_class: name of the hardware class; ``hw_class_id`` its 16-byte id.
        grant_pk: the Controller's grant key, None before enrolment.
        ticket_pk: the site's ticket key, None before enrolment.
        open_model: ``package.module:function`` that opens a model, see ``protected_models.OpenModel``.
        create: whether a root key may be made when the folder is empty (provisioning).
        remote_disk: folder where a remote disk is mounted, an absolute path; None without one.
    """

    folder: Path
    device_id: bytes
    hw_class: str
    hw_class_id: bytes
    firmware_version: int
    abi: int
    grant_pk: bytes | None
    ticket_pk: bytes | None
    open_model: str
    create: bool = False
    remote_disk: Path | None = None


@dataclass(frozen=True, slots=True)
class DeviceKeys:
    """Public keys of a device: what its site registers about it."""

    identity_pk: bytes
    exchange_pk: bytes


def make_identity(settings: EngineSettings) -> DeviceKeys:
    """Give a device its root key, in an engine of its own that ends at once.

    A device that has one keeps it.

    Raises:
        PSAError: as the start of an engine.
    """
    with SecurityEngine(replace(settings, create=True), clock=lambda: 0.0) as engine:
        return DeviceKeys(engine.identity_pk, engine.exchange_pk)


@dataclass(frozen=True, slots=True)
class TensorDescription:
    """An input or output of a protected model; ``scale`` is 0 for one that is not quantised."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int


class SecurityEngine:
    """A running engine. A context manager that ends it.

    Args:
        settings: see there.
        clock: seconds, monotonic; counts restarts.
        timeout_s: longest wait for one answer.

    Raises:
        PSAError: ``COMMUNICATION_FAILURE``, the process does not start; ``DATA_CORRUPT`` and others, its
            storage is not usable.
    """

    def __init__(
        self, settings: EngineSettings, *, clock: Callable[[], float], timeout_s: float = CALL_TIMEOUT_S
    ) -> None:
        self._settings, self._clock, self._timeout_s = settings, clock, timeout_s
        self._restarts: deque[float] = deque(maxlen=RESTARTS_PER_MINUTE)
        self._lock = threading.Lock()  # one request at a time
        self._identity_pk = self._exchange_pk = self._session_pk = b""
        self._start()

    @property
    def identity_pk(self) -> bytes:
        """Ed25519 public key of the device."""
        return self._identity_pk

    @property
    def exchange_pk(self) -> bytes:
        """X25519 public key of the device."""
        return self._exchange_pk

    @property
    def session_pk(self) -> bytes:
        """X25519 public key of this engine's boot; another one after a restart."""
        return self._session_pk

    @property
    def pid(self) -> int:
        return self._link.process.pid

    @property
    def lost(self) -> bool:
        """Whether the process is gone: found by a call that failed, or here."""
        return self._link.lost

    def enrolled(self, *, grant_pk: bytes, ticket_pk: bytes) -> None:
        """The device has enrolled: whose grants and tickets it takes from now on.

        Raises:
            PSAError: ``BAD_STATE``, it knew that already; what is known cannot be changed.
        """
        with self._lock:
            self._link.exchange("enrolled", (grant_pk, ticket_pk))
            self._settings = replace(self._settings, grant_pk=grant_pk, ticket_pk=ticket_pk)

    def restart(self) -> None:
        """Start a lost engine again.

        It has a new session: attest again, take new grants, load models again.

        Raises:
            PSAError: ``SERVICE_FAILURE``, it was restarted too often and this host is unfit; others as at
                the first start.
        """
        with self._lock:
            now = self._clock()
            full = len(self._restarts) == RESTARTS_PER_MINUTE
            if full and now - self._restarts[0] < 60.0:
                raise PSAError(
                    PSAStatus.SERVICE_FAILURE,
                    f"the Security Engine died {RESTARTS_PER_MINUTE + 1} times within a minute",
                    hint="this host is unfit for protected work: see its log and memory, then start it anew",
                )
            self._restarts.append(now)
            self._link.close()
            self._start()

    def owner(self, owner: bytes) -> EngineOwner:
        """Storage and cryptography for one owner, for instance an AIM instance id of 16 bytes."""
        return EngineOwner(self.call, owner)

    def open_grant(self, blob: bytes, now_s: int) -> Grant:
        """A grant for this boot, checked, with its channel key.

        Raises:
            TrustError, RemoteProtocolError: as ``protocol.grant.open_grant``.
        """
        return grant_of(self.call("open_grant", blob, now_s))

    def attest(self, request: bytes, components: Iterable[Component], mapping_version: int) -> bytes:
        """Evidence for a challenge; the engine adds session key, boot seed and storage generation.

        Raises:
            RemoteProtocolError: the challenge is malformed.
        """
        rows = [[c.type, c.measurement, c.version, c.signer] for c in components]
        return bytes(self.call("attest", request, rows, mapping_version))

    def sign_as_device(self, message: bytes) -> bytes:
        """The device's signature over a message of enrolment or a hello.

        Raises:
            PSAError: ``NOT_PERMITTED``, another message.
        """
        return bytes(self.call("sign_as_device", message))

    def stamp_key(self, site_pk: bytes) -> bytes:
        """The key for stamps between this device and a site (``protocol.stamp``); it opens and signs nothing.

        Raises:
            SignatureInvalid: that is no key of a site.
        """
        return bytes(self.call("stamp_key", site_pk))

    def storage_generation(self) -> int:
        return int(self.call("generation"))

    def floors(self) -> dict[str, int]:
        """Numbers that the notes of this device must not fall below (``trusted.floors``)."""
        return dict(self.call("floors"))

    def lift_floors(self, floors: Mapping[str, int]) -> None:
        """Raise floors; lower ones change nothing.

        Raises:
            PSAError: ``BAD_STATE`` before enrolment; ``INSUFFICIENT_STORAGE``.
        """
        self.call("lift_floors", [[name, value] for name, value in floors.items()])

    def selftest(self) -> None:
        """Known answers of every algorithm, and that the process is protected.

        Raises:
            PSAError: ``CORRUPTION_DETECTED``.
        """
        dumpable, core_bytes = self.call("selftest")
        if dumpable or core_bytes:
            raise PSAError(PSAStatus.CORRUPTION_DETECTED, "the engine's memory is open to other processes")

    def load_runtime(self, runtime: str) -> None:
        """Have an inference runtime ready, so that the first model takes less time to open.

        Args:
            runtime: its name.

        Raises:
            EngineUnavailable: it is not installed.
            PSAError: ``COMMUNICATION_FAILURE``.
        """
        self.call("load_runtime", runtime)

    def load_model(
        self, ticket: bytes, wrapped_key: bytes, chunks: Iterable[bytes], *, runtime: str
    ) -> ProtectedModel:
        """Open a sealed release inside the engine.

        Args:
            ticket: as it was installed.
            wrapped_key: the content key for this session.
            chunks: all sealed chunks, in order.
            runtime: name of an inference runtime.

        Raises:
            TrustError: not for this device, older than the accepted release, or not what was signed.
            LengthOrHashMismatch: chunks are missing, or the whole is not what was signed.
            EngineError, ResourceExceeded: the inference engine refused it.
            PSAError: ``INSUFFICIENT_MEMORY``, ``COMMUNICATION_FAILURE``.
        """
        handle = self._hand_in(ticket, wrapped_key, chunks, runtime)
        inputs, outputs = self.call("model_finish", handle)
        return ProtectedModel(self, handle, _descriptions(inputs), _descriptions(outputs))

    def _hand_in(self, ticket: bytes, wrapped_key: bytes, chunks: Iterable[bytes], runtime: str) -> int:
        """A handle of a release whose chunks are all in the engine."""
        handle = int(self.call("model_begin", ticket, wrapped_key, runtime))
        try:
            for first, batch in _batches(chunks):
                self.call("model_chunks", handle, first, batch)
        except BaseException:
            if not self.lost:
                self.call("unload", handle)
            raise
        return handle

    def try_model(
        self, ticket: bytes, wrapped_key: bytes, chunks: Iterable[bytes], *, runtime: str, limit_s: float
    ) -> str:
        """Let a sealed release run a few times in a copy of the engine's process, which may die of it.

        Args:
            ticket: as it was installed.
            wrapped_key: the content key for this session.
            chunks: all sealed chunks, in order.
            runtime: name of an inference runtime.
            limit_s: longest time for loading and running, whole milliseconds; less than an answer may take.

        Returns:
            What it takes and gives (``model_trial.interface``).

        Raises:
            EngineCrashed: it died or did not end in time; this engine goes on.
            EngineError: it was refused, or its results are not what it says of itself.
            TrustError, LengthOrHashMismatch, PSAError: as ``load_model``.
        """
        handle = self._hand_in(ticket, wrapped_key, chunks, runtime)
        return str(self.call("model_trial", handle, round(limit_s * 1000)))

    def open_in_place(self, ticket: bytes, wrapped_key: bytes, chunks: Iterable[bytes]) -> Iterable[bytes]:
        """Plaintext chunks of a sealed release, for a device that executes models from its slots.

        Args:
            ticket: of the release.
            wrapped_key: the content key for this session, wrapped for this use.
            chunks: all sealed chunks, in order.

        Raises:
            TrustError: not for this device, session or use, or not what was signed.
            RemoteProtocolError: malformed.
            PSAError: ``COMMUNICATION_FAILURE``.
        """
        for first, batch in _batches(chunks):
            yield from self.call("open_in_place", ticket, wrapped_key, first, batch)

    def call(self, operation: str, *arguments: object) -> Any:
        """One request and its answer, as CBOR values; the methods above say what there is.

        Raises:
            AIFError: what the operation raised.
            PSAError: ``COMMUNICATION_FAILURE``, the engine died, hung, or is not running.
        """
        with self._lock:
            return self._link.exchange(operation, arguments)

    def close(self) -> None:
        """End the engine. Allowed at any time, any number of times; an open call fails."""
        self._link.process.kill()
        with self._lock:
            self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> None:
        self._link = EngineLink(self._timeout_s)
        s = self._settings
        try:
            self._identity_pk, self._exchange_pk, self._session_pk = self._link.exchange(
                "configure",
                (
                    str(s.folder),
                    s.hw_class,
                    [s.device_id, s.hw_class_id, s.firmware_version, s.abi],
                    [s.grant_pk or b"", s.ticket_pk or b""],
                    s.open_model,
                    s.create,
                    str(s.remote_disk or ""),
                ),
            )
        except BaseException:
            self._link.close()
            raise


@dataclass(frozen=True, slots=True)
class ProtectedModel:
    """A model inside the engine; of an engine that was lost it is gone too."""

    engine: SecurityEngine
    handle: int
    inputs: tuple[TensorDescription, ...]
    outputs: tuple[TensorDescription, ...]

    def infer(self, tensors: Sequence[bytes]) -> tuple[bytes, ...]:
        """Run once.

        Args:
            tensors: one per input, row-major elements of its type, little endian.

        Raises:
            EngineError: an input does not fit, or the engine refused.
            PSAError: ``INVALID_HANDLE``, it was unloaded; ``COMMUNICATION_FAILURE``.
        """
        return tuple(self.engine.call("infer", self.handle, [bytes(tensor) for tensor in tensors]))

    def reset(self) -> None:
        """Forget the state between inferences."""
        self.engine.call("reset", self.handle)

    def accept(self) -> None:
        """The release has proved itself: the engine loads none below it any more."""
        self.engine.call("accept", self.handle)

    def unload(self) -> None:
        self.engine.call("unload", self.handle)


def _batches(chunks: Iterable[bytes]) -> Iterable[tuple[int, list[bytes]]]:
    """Chunks in messages, each with the index of its first."""
    first, batch, size = 0, list[bytes](), 0
    for chunk in chunks:
        if batch and size + len(chunk) > _BATCH_BYTES:
            yield first, batch
            first, batch, size = first + len(batch), [], 0
        batch.append(bytes(chunk))
        size += len(chunk)
    if batch:
        yield first, batch


def _descriptions(rows: Any) -> tuple[TensorDescription, ...]:
    return tuple(
        TensorDescription(name, tuple(shape), dtype, scale, zero_point)
        for name, shape, dtype, scale, zero_point in rows
    )
