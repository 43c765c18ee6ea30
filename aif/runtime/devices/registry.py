"""The site's registry of devices and its keys: provisioning, enrolment windows, revocation.

Everything here is the Controller's side of trust before a session exists. The registry is one private file;
every change replaces it as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from nacl.signing import SigningKey

from aif.errors import AIFError, EnrolmentRefused, NotAuthorised, NotFound, RemoteProtocolError
from aif.protocol import documents
from aif.protocol.control import Call, sign_call
from aif.protocol.cose import check_ed25519_key
from aif.protocol.enrolment import (
    Anchors,
    EnrolmentResponse,
    build_response,
    check_author,
    check_new_device,
    open_request,
)
from aif.protocol.identifiers import check_device_name, id16
from aif.protocol.limits import KEY_BYTES
from aif.protocol.pairing import EnrolmentSecret, SecretState, pairing_code, read_pairing_code
from aif.protocol.stamp import site_stamp_key
from aif.trusted.authority import CertificateAuthority
from aif.trusted.certificates import Subject
from aif.trusted.security_engine import DeviceKeys
from aif.trusted.state import DeviceRecord, DeviceState, SiteState, StateFile

SECRET_BYTES = 16
"""128-bit enrolment secrets; the pairing code is their printable form."""


EPOCHS_BETWEEN = 1_024
"""More than one Controller gives out ahead of the clock: at sensible rates it falls behind it."""

MAX_MANIFEST_BYTES = 512

REQUESTS_KEPT = 16
"""Enrolment requests of one device that are remembered: three times what burns a code."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a site must know of a device before it enrols: nothing in it is secret."""

    device: str
    hw_class: str
    identity_pk: bytes
    exchange_pk: bytes


def read_manifest(data: bytes) -> Manifest:
    """A manifest as another site wrote it.

    Raises:
        RemoteProtocolError: it is none.
    """
    manifest = documents.decode(Manifest, data, max_bytes=MAX_MANIFEST_BYTES)
    if (len(manifest.identity_pk), len(manifest.exchange_pk)) != (KEY_BYTES, KEY_BYTES):
        raise RemoteProtocolError("the manifest holds keys of the wrong length")
    check_ed25519_key(manifest.identity_pk)
    return manifest


def reset_device(
    device_state: StateFile[DeviceState], random: Callable[[int], bytes], *, site_pk: bytes | None = None
) -> str:
    """Factory reset on the device's side: its identity stays, everything that a site gave it goes.

    Args:
        device_state: of the device.
        random: source of the new enrolment secret.
        site_pk: the enrolment key of another site, to which it is handed.

    Returns:
        Its new pairing code.
    """
    secret = random(SECRET_BYTES)
    if site_pk is not None:
        check_ed25519_key(site_pk)
    state = device_state.update(
        lambda old: DeviceState(old.device, old.hw_class, site_pk or old.controller_pk, secret)
    )
    return pairing_code(secret, id16("device", state.device))


class Site:
    """Keys and registry of one site, in its state folder."""

    def __init__(self, folder: Path, random: Callable[[int], bytes]) -> None:
        self._file = StateFile(folder / "site.cbor", SiteState)
        self._authority = folder / "authority"
        self._random = random

    @classmethod
    def open(cls, folder: Path, random: Callable[[int], bytes]) -> Site:
        """The site in ``folder``.

        Raises:
            NotFound: there is none; nothing is made, so that a mistyped home is no new site.
        """
        site = cls(folder, random)
        if not site._file.exists():
            raise NotFound(
                f"there is no site in {folder}",
                hint="give the --home that has it, or begin with `aif device add`",
            )
        return site

    @classmethod
    def open_or_create(cls, folder: Path, random: Callable[[int], bytes], *, name: str = "site") -> Site:
        site = cls(folder, random)
        if not site._file.exists():
            site._file.save(SiteState.create(name, random))
        return site

    @property
    def state(self) -> SiteState:
        return self._file.load()

    def device(self, name: str) -> DeviceRecord:
        record = self.state.device(name)
        if record is None:
            known = ", ".join(r.device for r in self.state.devices) or "none"
            raise NotFound(
                f"the site knows no device {name!r}", hint=f"known: {known}; add it with `aif device add`"
            )
        return record

    def begin_epochs(self, now_s: int) -> int:
        """Where the channel epochs of a Controller that starts now begin: above those of the one before.

        An epoch is a second of the clock or one more than the one before, so one that is started again at
        once would use some again, for which devices have other keys.
        """
        changed = self._file.update(
            lambda state: replace(state, first_epoch=max(now_s, state.first_epoch + EPOCHS_BETWEEN))
        )
        return changed.first_epoch

    def call(self, device: str, *, time_us: int) -> bytes:
        """A signed request to a device to say Hello, since the Controller has no session with it."""
        key = SigningKey(self.state.enrolment_seed)
        return sign_call(Call(device, time_us), lambda m: key.sign(m).signature)

    @property
    def version(self) -> object:
        """Another value whenever the registry was written, by whomever; cheaper than reading it."""
        return self._file.version

    def stamp_key(self, device_pk: bytes) -> bytes:
        """The key for stamps between this site and the device with this exchange key."""
        return site_stamp_key(self.state.enrolment_seed, device_pk)

    def next_mapping_version(self) -> int:
        changed = self._file.update(lambda state: replace(state, mapping_version=state.mapping_version + 1))
        return changed.mapping_version

    def _put(self, record: DeviceRecord) -> None:
        def change(state: SiteState) -> SiteState:
            others = tuple(r for r in state.devices if r.device != record.device)
            return replace(state, devices=(*others, record))

        self._file.update(change)

    # --- provisioning ------------------------------------------------------------------------------

    def provision(
        self,
        name: str,
        hw_class: str,
        device_state: StateFile[DeviceState],
        make_keys: Callable[[], DeviceKeys],
        *,
        now_s: int,
    ) -> str:
        """Make a device's identity, register it, and open its enrolment window.

        ``make_keys`` lets the device's Security Engine make them; only their public halves come out of it.

        Returns:
            The pairing code, for the label on the device.

        Raises:
            EnrolmentRefused: a device of that name is registered.
        """
        check_device_name(name)
        if self.state.device(name) is not None:
            raise EnrolmentRefused(
                f"device {name} is registered already",
                hint=f"choose another name, or remove it first with `aif device remove {name}`",
            )
        keys = make_keys()
        self._refuse_known(name, keys.identity_pk)
        secret = self._random(SECRET_BYTES)
        enrolment_pk = bytes(SigningKey(self.state.enrolment_seed).verify_key)
        device_state.save(DeviceState(name, hw_class, enrolment_pk, secret))
        self._put(
            DeviceRecord(
                name,
                hw_class,
                keys.identity_pk,
                keys.exchange_pk,
                secret,
                SecretState.CREATED,
            )
        )
        code = pairing_code(secret, id16("device", name))
        self.open_window(name, code, now_s=now_s)
        return code

    def register(self, manifest: Manifest) -> None:
        """Take a device over from another site; it may enrol once it was reset and its code is typed here.

        Raises:
            EnrolmentRefused: name or key are registered, or the key belongs to a device that was lost.
        """
        check_device_name(manifest.device)
        self._refuse_known(manifest.device, manifest.identity_pk)
        self._put(
            DeviceRecord(
                manifest.device, manifest.hw_class, manifest.identity_pk, manifest.exchange_pk,
                None, SecretState.USED,
            )
        )  # fmt: skip

    def _refuse_known(self, name: str, identity_pk: bytes) -> None:
        state = self.state
        if state.device(name) is not None or identity_pk in {r.identity_pk for r in state.devices}:
            raise EnrolmentRefused(
                f"device {name} or its key is registered already",
                hint=f"remove it first with `aif device remove {name}`",
            )
        if identity_pk in state.denied:
            raise EnrolmentRefused(
                f"the key of {name} belongs to a device that was lost", hint="give it a new identity"
            )

    def open_window(self, name: str, code: str, *, now_s: int) -> None:
        """Let a device enrol for the next 15 minutes; the code proves that the operator holds the device.

        A device whose secret is gone has a new one after it was reset; then the typed code is that secret.

        Raises:
            EnrolmentRefused: mistyped, another device's code, or the device is revoked or enrolled.
        """
        record = self.device(name)
        if record.revoked:
            raise EnrolmentRefused(
                f"{name} is revoked: {record.reason}", hint=f"`aif device re-enrol {name}` takes it back"
            )
        if record.enrolled_s is not None:
            raise EnrolmentRefused(
                f"{name} is enrolled already", hint=f"use `aif device re-enrol {name}` to let it in anew"
            )
        typed = read_pairing_code(code, id16("device", name))
        secret = secret_of(record).at(now_s)
        if secret.secret is None:
            secret = EnrolmentSecret(secret.device_id, typed)
        elif typed != secret.secret:
            raise EnrolmentRefused(f"this is not the pairing code of {name}")
        if secret.state is SecretState.OPEN:
            raise EnrolmentRefused(
                f"the window of {name} is open already, for {secret.closes_s - now_s} s more",
                hint="start its host",
            )
        self._put(_with_secret(record, secret.open_window(now_s)))

    def forget(self, name: str) -> None:
        """Remove a device from the registry; unknown names are ignored, and a lost one stays denied."""

        def change(state: SiteState) -> SiteState:
            lost = tuple(r.identity_pk for r in state.devices if r.device == name and r.lost)
            others = tuple(r for r in state.devices if r.device != name)
            return replace(state, devices=others, denied=(*state.denied, *lost))

        self._file.update(change)

    # --- leaving -----------------------------------------------------------------------------------

    def revoke(self, name: str, reason: str, *, now_s: int, lost: bool = False) -> DeviceRecord:
        """Deny a device everything: hello, evidence, enrolment, tickets. Its pairing code is void.

        Raises:
            NotFound: no such device.
        """
        record = self.device(name)
        burned = record.secret_state if record.secret is None else SecretState.BURNED
        gone = replace(
            record, revoked=True, revoked_s=now_s, reason=reason, lost=lost or record.lost, secret=None,
            secret_state=burned,
        )  # fmt: skip
        self._put(gone)
        return gone

    def set_drained(self, name: str, *, drained: bool) -> None:
        """Whether a device shall run nothing.

        Raises:
            NotFound: no such device.
        """
        self._put(replace(self.device(name), drained=drained))

    def re_enrol(self, name: str) -> None:
        """Let a device come back with its old identity: revocation and enrolment are void.

        It may enrol once it was reset and its new code is typed here (``open_window``).

        Raises:
            EnrolmentRefused: it was lost; whoever had it may have its identity.
        """
        record = self.device(name)
        if record.lost:
            raise EnrolmentRefused(
                f"{name} was lost: whoever had it may have its identity",
                hint=f"`aif device remove {name}`, then `aif device add {name}` gives it a new one",
            )
        self._put(
            replace(
                record, revoked=False, revoked_s=None, reason="", enrolled_s=None, secret=None,
                secret_state=SecretState.USED,
            )
        )  # fmt: skip

    def manifest(self, name: str) -> Manifest:
        """What another site must know of a device to take it over."""
        record = self.device(name)
        if record.lost:
            raise EnrolmentRefused(f"{name} was lost", hint="it cannot be handed to anybody")
        return Manifest(name, record.hw_class, record.identity_pk, record.exchange_pk)

    @property
    def enrolment_pk(self) -> bytes:
        """The key by which a device knows this site when it enrols."""
        return _public(self.state.enrolment_seed)

    # --- enrolment ---------------------------------------------------------------------------------

    def enrol(self, name: str, request: bytes, store_root: bytes, *, now_s: int) -> bytes:
        """Answer one enrolment request.

        What burns the secret is a wrong MAC under the device's own signature, each request once. Nothing
        that somebody else sends does, and none of it could enrol: the device's key must have signed.

        Raises:
            TrustError, ProtocolError: refused.
        """
        record = self.device(name)
        device_id = id16("device", name)
        secret = secret_of(record).at(now_s)
        value = secret.usable(now_s)
        try:
            opened = open_request(request, value, device_id=device_id)
        except EnrolmentRefused:
            self._count_wrong_code(record, secret, request)
            raise
        if (opened.sign_pk, opened.kex_pk) != (record.identity_pk, record.exchange_pk):
            raise EnrolmentRefused(f"{name} enrols with other keys than it was provisioned with")
        others = [r for r in self.state.devices if r.device != name]
        check_new_device(opened, {id16("device", r.device) for r in others}, {r.identity_pk for r in others})
        state = self.state
        anchors = Anchors(
            store_root,
            grant_pk=_public(state.grant_seed),
            ticket_pk=_public(state.ticket_seed),
            deployment_pk=_public(state.deployment_seed),
            result_pk=_public(state.result_seed),
        )
        certificate = self.certify(name, opened.csr, now_s=now_s) if opened.csr is not None else None
        response = EnrolmentResponse(device_id, anchors, self._random(32), opened.nonce, now_s, certificate)
        key = SigningKey(state.enrolment_seed)
        answer = build_response(response, request, value, lambda m: key.sign(m).signature)
        used = _with_request(record, check_author(request, record.identity_pk))
        self._put(replace(_with_secret(used, secret.enrolled()), enrolled_s=now_s))
        return answer

    def _count_wrong_code(self, record: DeviceRecord, secret: EnrolmentSecret, request: bytes) -> None:
        try:
            digest = check_author(request, record.identity_pk)
        except AIFError:
            return
        if digest not in record.requests:
            self._put(_with_request(_with_secret(record, secret.wrong_mac()), digest))

    def certify(self, name: str, request: bytes, *, now_s: int) -> bytes:
        """A certificate (DER) for a device's way to the broker, from its signing request.

        Raises:
            RemoteProtocolError: the request is malformed, or the device holds too many.
            NotAuthorised: the device is revoked.
        """
        if self.device(name).revoked:
            raise NotAuthorised(f"{name} is revoked")
        now = datetime.fromtimestamp(now_s, UTC)
        authority = CertificateAuthority.open_or_create(self._authority, self._random, now=now)
        return authority.certify(request, Subject.device(name), now=now)

    def note_generation(self, name: str, generation: int) -> None:
        record = self.device(name)
        if generation > record.last_generation:
            self._put(replace(record, last_generation=generation))

    def try_device(self, name: str) -> DeviceRecord | None:
        try:
            return self.device(name)
        except AIFError:
            return None


def _public(seed: bytes) -> bytes:
    return bytes(SigningKey(seed).verify_key)


def secret_of(record: DeviceRecord) -> EnrolmentSecret:
    """Where the enrolment secret of a device is in its life."""
    return EnrolmentSecret(
        id16("device", record.device),
        record.secret,
        record.secret_state,
        record.window_closes_s,
        record.wrong_macs,
    )


def _with_request(record: DeviceRecord, digest: bytes) -> DeviceRecord:
    return replace(record, requests=(*record.requests, digest)[-REQUESTS_KEPT:])


def _with_secret(record: DeviceRecord, secret: EnrolmentSecret) -> DeviceRecord:
    return replace(
        record, secret=secret.secret, secret_state=secret.state,
        window_closes_s=secret.closes_s, wrong_macs=secret.wrong_macs,
    )  # fmt: skip
