"""What the Security Engine does: the device's root key and everything that is derived from it.

Decides which keys a device has and which purposes they serve. Owns them together with storage, keys of
applications, opened grants and protected models. Does not talk to anybody (``engine_process``).

Invariants: what comes out is public keys, handles, results, and (the stated exceptions) the channel keys of
an accepted grant and the key for stamps; the identity key signs evidence and the messages of enrolment and
hello, nothing else.

The root key rests in a private file: there is no hardware root on these hosts.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nacl.bindings import crypto_scalarmult_base
from nacl.signing import SigningKey

from aif.errors import LocalProtocolError, NotAuthorised, RollbackDetected
from aif.protocol.cbor import encode
from aif.protocol.control import HELLO_AAD
from aif.protocol.evidence import Component
from aif.protocol.grant import Grant, open_grant
from aif.protocol.limits import KEY_BYTES
from aif.protocol.stamp import device_stamp_key
from aif.trusted import primitives
from aif.trusted.attestation import Attester
from aif.trusted.encryption import EncryptionService
from aif.trusted.floors import FloorStore
from aif.trusted.protected_models import DeviceFacts, OpenModel, ProtectedModels
from aif.trusted.psa import Algorithm, PSAError, PSAStatus
from aif.trusted.records import corrupt, derive_key
from aif.trusted.remote_disk import FolderDisk
from aif.trusted.sealed_store import Random
from aif.trusted.state import write_atomically
from aif.trusted.storage import StorageService

ROOT_FILE: Final = "root.key"
STORAGE_FOLDER: Final = "storage"
_ENROLMENT: Final = b"AIF-ENROL-D"
_HELLO: Final = b"\x84" + b"".join(encode(part) for part in ("Signature1", encode({1: -8}), HELLO_AAD))
"""How the Sig_structure of a hello begins (RFC 9052 §4.4); that of evidence has another external_aad."""


@dataclass(frozen=True, slots=True)
class CoreSettings:
    """What a Security Engine must be told; nothing of it is secret.

    Attributes:
        folder: private folder of the engine.
        hw_class: name of the hardware class, for attestation.
        facts: what tickets are held against, with the ticket key.
        grant_pk: the Controller's grant key, None before enrolment.
        remote_disk: folder where a remote disk is mounted, None without one.
        create: whether a root key may be made when there is nothing yet.
    """

    folder: Path
    hw_class: str
    facts: DeviceFacts
    grant_pk: bytes | None
    create: bool
    remote_disk: Path | None = None


class SecurityCore:
    """Keys, storage, grants and models of one boot.

    Raises:
        PSAError: ``DOES_NOT_EXIST``, there is no root key and none may be made; ``DATA_CORRUPT``.
    """

    def __init__(
        self, settings: CoreSettings, *, random: Random, open_model: Callable[[], OpenModel]
    ) -> None:
        root = _root_key(settings, random)
        self.storage = StorageService(
            settings.folder / STORAGE_FOLDER,
            derive_key(root, b"AIF-ROOT-1 storage"),
            random=random,
            remote=FolderDisk(settings.remote_disk) if settings.remote_disk else None,
        )
        self.crypto = EncryptionService(random=random, store=self.storage.keys)
        self._identity = SigningKey(derive_key(root, b"AIF-ROOT-1 identity"))
        self._exchange_sk = derive_key(root, b"AIF-ROOT-1 exchange")
        self._session_sk = random(KEY_BYTES)
        self._grant_pk = settings.grant_pk
        self._highest_serial = 0
        self._mapping_versions: dict[bytes, int] = {}
        self._attester = Attester(
            bytes(self._identity), settings.hw_class, self.session_pk, random(KEY_BYTES)
        )
        self.floors = FloorStore(self.storage.keys, _site(settings.grant_pk, settings.facts.ticket_pk))
        self.models = ProtectedModels(
            settings.facts, self._session_sk, self.storage.keys, open_model=open_model, random=random
        )

    @property
    def identity_pk(self) -> bytes:
        """Ed25519 public key of the device."""
        return bytes(self._identity.verify_key)

    @property
    def exchange_pk(self) -> bytes:
        """X25519 public key of the device, which its enrolment names."""
        return crypto_scalarmult_base(self._exchange_sk)

    @property
    def session_pk(self) -> bytes:
        """X25519 public key of this boot, to which grants and content keys are wrapped."""
        return crypto_scalarmult_base(self._session_sk)

    def enrolled(self, grant_pk: bytes, ticket_pk: bytes) -> None:
        """Take up the site's anchors, once.

        Raises:
            PSAError: ``BAD_STATE``, there are some already; ``INVALID_ARGUMENT``, these are no keys.
        """
        if self._grant_pk is not None:
            raise PSAError(PSAStatus.BAD_STATE, "this device is enrolled already")
        if (len(grant_pk), len(ticket_pk)) != (KEY_BYTES, KEY_BYTES):
            raise PSAError(PSAStatus.INVALID_ARGUMENT, f"an anchor is a key of {KEY_BYTES} bytes")
        self.models.enrolled(ticket_pk)
        self._grant_pk = grant_pk
        self.floors = FloorStore(self.storage.keys, _site(grant_pk, ticket_pk))

    def open_grant(self, blob: bytes, now_s: int) -> Grant:
        """A grant for this boot, with its channel key: sealing each frame here would cost 30 times the AEAD.

        Raises:
            TrustError, RemoteProtocolError: as ``protocol.grant.open_grant``.
        """
        if self._grant_pk is None:
            raise NotAuthorised("this device is not enrolled and takes no grants")
        grant = open_grant(
            blob,
            self._session_sk,
            self._grant_pk,
            now_s=now_s,
            highest_serial=self._highest_serial,
            mapping_version=0,  # each channel has its own, and the grant itself says which channel it is for
        )
        self._highest_serial = grant.serial  # whatever it is good for: it must not come again
        newest = self._mapping_versions.get(grant.channel_id, 0)
        if grant.mapping_version < newest:
            raise RollbackDetected(f"grant: mapping {grant.mapping_version} is older than {newest}")
        self._mapping_versions[grant.channel_id] = grant.mapping_version
        return grant

    def attest(self, request: bytes, components: list[object], mapping_version: int) -> bytes:
        """Evidence for a challenge; the storage generation in it is this engine's own.

        Raises:
            RemoteProtocolError: the challenge is malformed.
            PSAError: ``INVALID_ARGUMENT``, a component is.
        """
        return self._attester.evidence(
            request,
            components=[_component(row) for row in components],
            mapping_version=mapping_version,
            generation=self.storage.generation,
        )

    def sign_as_device(self, message: bytes) -> bytes:
        """An Ed25519 signature of the device over a message of enrolment or a hello.

        Raises:
            PSAError: ``NOT_PERMITTED``, another message.
        """
        if not message.startswith((_ENROLMENT, _HELLO)):
            raise PSAError(
                PSAStatus.NOT_PERMITTED, "the identity key signs enrolment and hello messages only"
            )
        return bytes(self._identity.sign(message).signature)

    def stamp_key(self, site_pk: bytes) -> bytes:
        """The key for stamps between this device and a site; given out, since it protects time and no secret.

        Raises:
            SignatureInvalid: that is no key of a site.
        """
        return device_stamp_key(self._exchange_sk, site_pk)

    def close(self) -> None:
        self.models.close()
        self.storage.close()


def selftest() -> None:
    """Known answers of every algorithm; a library that computes something else is not used.

    Raises:
        PSAError: ``CORRUPTION_DETECTED``.

    Source: the abc examples of FIPS 180-4 and RFC 7693, RFC 4231 case 2, RFC 8032 §7.1 test 1, RFC 7748 §6.1,
    RFC 5869 case 3; the AEAD opens what it sealed and refuses a changed tag.
    """
    for name, (found, expected) in _known_answers().items():
        if found != bytes.fromhex(expected):
            raise PSAError(PSAStatus.CORRUPTION_DETECTED, f"{name} computes a wrong answer")
    key, nonce = bytes(KEY_BYTES), bytes(primitives.AEAD_NONCE_BYTES)
    sealed = primitives.aead_encrypt(key, nonce, b"", b"abc")
    try:
        primitives.aead_decrypt(key, nonce, b"", sealed[:-1] + bytes([sealed[-1] ^ 1]))
    except PSAError:
        if primitives.aead_decrypt(key, nonce, b"", sealed) == b"abc":
            return
    raise PSAError(PSAStatus.CORRUPTION_DETECTED, "the AEAD computes a wrong answer")


def _known_answers() -> Mapping[str, tuple[bytes, str]]:
    hkdf_key = primitives.hkdf_extract(Algorithm.HKDF_SHA_256, b"", bytes([0x0B]) * 22)
    ed25519_seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    x25519_sk = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    x25519_pk = bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
    return {
        "SHA-256": (
            primitives.hash_compute(Algorithm.SHA_256, b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ),
        "BLAKE2b": (
            hashlib.blake2b(b"abc").digest()[:32],
            "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1",
        ),
        "HMAC": (
            primitives.mac_compute(Algorithm.HMAC_SHA_256, b"Jefe", b"what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        "Ed25519": (
            primitives.ed25519_sign(ed25519_seed, b"")[:32],
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155",
        ),
        "X25519": (
            primitives.x25519(x25519_sk, x25519_pk),
            "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
        ),
        "HKDF": (
            primitives.hkdf_expand(Algorithm.HKDF_SHA_256, hkdf_key, b"", 32),
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d",
        ),
    }


def _site(grant_pk: bytes | None, ticket_pk: bytes | None) -> bytes:
    """The site that a device is enrolled at; empty before."""
    return grant_pk + ticket_pk if grant_pk and ticket_pk else b""


def _component(row: object) -> Component:
    match row:
        case [str(kind), bytes(measurement), str(version), bytes(signer)]:
            return Component(kind, measurement, version, signer)
        case _:
            raise PSAError(PSAStatus.INVALID_ARGUMENT, "a component is type, measurement, version, signer")


def _root_key(settings: CoreSettings, random: Random) -> bytes:
    path = settings.folder / ROOT_FILE
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return _new_root_key(settings, path, random)
    with os.fdopen(handle, "rb") as file:
        if os.fstat(file.fileno()).st_mode & 0o077:
            raise PSAError(
                PSAStatus.NOT_PERMITTED, f"{path} is open to other users", hint=f"chmod 600 {path}"
            )
        key = file.read(KEY_BYTES + 1)
    if len(key) != KEY_BYTES:
        raise corrupt(f"{path} is not a root key")
    return key


def _new_root_key(settings: CoreSettings, path: Path, random: Random) -> bytes:
    if not settings.create or (settings.folder / STORAGE_FOLDER).exists():
        raise PSAError(
            PSAStatus.DOES_NOT_EXIST,
            f"there is no {path}",
            hint="provision the device; a lost root key cannot be made again",
        )
    if not settings.folder.is_absolute():
        raise LocalProtocolError("the engine's folder needs an absolute path")
    settings.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = random(KEY_BYTES)
    write_atomically(path, key)
    return key
