"""Attestation Service: the Attester of a device and the Verifier of a site (RFC 9334).

Builds and appraises Evidence by the rules of ``protocol.evidence``. Decides which parts are measured and
which names they have; the reference values come from the Store, where their publishers signed them.

Measurement happens when a part is loaded; nothing watches it afterwards, and a host without a hardware root
can claim what it likes. Source: MPAI-AIF V2 Attestation Service; RFC 9334, RFC 9711, RFC 9783.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from nacl.signing import SigningKey

from aif.errors import AttestationRejected
from aif.protocol.evidence import (
    AppraisalLog,
    AppraisalPolicy,
    AttestationKey,
    AttestationRequest,
    AttestationResult,
    Component,
    Measured,
    ReferenceValues,
    appraise,
    build_claims,
    encode_request,
    issue_evidence,
    read_request,
)
from aif.protocol.limits import (
    ATTESTATION_REQUEST_VALIDITY_S,
    ATTESTATION_RESULT_VALIDITY_S,
    MAX_COMPONENT_TEXT,
    NONCE_BYTES,
)

RUNTIME_COMPONENT = "runtime:aif"


def aim_component(reference: str) -> str:
    """Component type of an AIM package, by its ``Name@version``."""
    return _named("aim:", reference)


def model_component(component: str) -> str:
    """Component type of an installed model, by its Store component."""
    return _named("model:", component)


def _named(kind: str, name: str) -> str:
    """A name that is too long for a claim is replaced by its digest."""
    text = kind + name
    return text if len(text) <= MAX_COMPONENT_TEXT else kind + hashlib.sha256(name.encode()).hexdigest()[:40]


def implementation_id(hw_class: str) -> bytes:
    """The claim 2396 of every device of a hardware class."""
    return hashlib.sha256(b"AIF-HWCLASS-1" + hw_class.encode()).digest()


def part(kind: str, measurement: bytes, version: str, store_root: bytes) -> Component:
    """A measured part; its signer is the Store root that vouches for whoever published it."""
    return Component(kind, measurement, version, hashlib.sha256(store_root).digest())


class Attester:
    """Answers challenges about this device's current boot.

    ``identity_seed`` (Ed25519) signs; ``session_pk`` (X25519) and ``boot_seed`` (32 bytes) are of this boot.
    """

    def __init__(self, identity_seed: bytes, hw_class: str, session_pk: bytes, boot_seed: bytes) -> None:
        self._key = SigningKey(identity_seed)
        self._hw_class, self._session_pk, self._boot_seed = hw_class, session_pk, boot_seed

    def evidence(
        self, request: bytes, *, components: Iterable[Component], mapping_version: int, generation: int
    ) -> bytes:
        """Evidence for one challenge.

        Raises:
            RemoteProtocolError: the challenge is malformed.
        """
        measured = Measured(
            implementation_id(self._hw_class), self._boot_seed, tuple(components), its_generation=generation
        )
        claims = build_claims(
            read_request(request), self._session_pk, mapping_version, bytes(self._key.verify_key), measured
        )
        return issue_evidence(claims, self._session_pk, lambda m: self._key.sign(m).signature)


@dataclass(slots=True)
class _Challenge:
    request: AttestationRequest
    mapping_version: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome of one appraisal, with its log in words."""

    result: AttestationResult
    session_pk: bytes
    generation: int
    steps: tuple[str, ...]


@dataclass(slots=True)
class Verifier:
    """Challenges devices and appraises their answers; one challenge is outstanding per device."""

    policy: AppraisalPolicy
    random: Callable[[int], bytes]
    _open: dict[str, _Challenge] = field(default_factory=dict)

    def challenge(self, device: str, *, mapping_version: int, now_s: int) -> bytes:
        """A fresh challenge; an earlier one of this device is void."""
        request = AttestationRequest(self.random(NONCE_BYTES), now_s + ATTESTATION_REQUEST_VALIDITY_S)
        self._open[device] = _Challenge(request, mapping_version)
        return encode_request(request)

    def expects(self, device: str, *, now_s: int | None = None) -> bool:
        """Whether an answer of this device is outstanding; with ``now_s``, whether it can be in time."""
        challenge = self._open.get(device)
        return challenge is not None and (now_s is None or now_s <= challenge.request.not_after_s)

    def appraise(
        self,
        device: str,
        device_id: bytes,
        evidence: bytes,
        *,
        identity_pk: bytes,
        revoked: bool,
        hw_class: str,
        reference: Mapping[str, Iterable[Component]],
        last_generation: int,
        now_s: int,
    ) -> Verdict:
        """Appraise one answer; whatever it says, the challenge is used up.

        Args:
            device: the name on whose topic it came.
            device_id: 16 bytes, for the result.
            evidence: as received.
            identity_pk: Ed25519 key of that device in the registry.
            revoked: whether the registry says so.
            hw_class: the hardware class it was provisioned with.
            reference: the good measurements by component type.
            last_generation: highest storage generation that was ever accepted from it.
            now_s: Unix time.

        Raises:
            AttestationRejected: ``step`` names the first step that failed.
        """
        challenge = self._open.pop(device, None)
        if challenge is None:
            raise AttestationRejected(f"{device} sent evidence that nobody asked for", step="nonce")
        good = frozenset(component for parts in reference.values() for component in parts)
        log = AppraisalLog()
        appraisal = appraise(
            evidence,
            request=challenge.request,
            mapping_version=challenge.mapping_version,
            key=AttestationKey(identity_pk, revoked=revoked),
            reference=ReferenceValues(frozenset({implementation_id(hw_class)}), good),
            last_generation=last_generation,
            policy=self.policy,
            now_s=now_s,
            log=log,
        )
        result = AttestationResult(
            device_id,
            passed=True,
            session_hash=hashlib.sha256(appraisal.session_pk).digest(),
            mapping_version=appraisal.mapping_version,
            issued_s=now_s,
            not_after_s=now_s + ATTESTATION_RESULT_VALIDITY_S,
            policy_id=self.policy.policy_id,
        )
        steps = tuple(f"{entry.step}: {'ok' if entry.ok else entry.detail}" for entry in log.entries)
        return Verdict(result, appraisal.session_pk, appraisal.claims.measured.its_generation, steps)
