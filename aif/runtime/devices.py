"""The site's registry of devices and its keys: provisioning, enrolment windows, revocation.

Everything here is the Controller's side of trust before a session exists. The registry is one private file;
every change replaces it as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from nacl.signing import SigningKey

from aif.errors import AIFError, EnrolmentRefused, NotFound
from aif.protocol.enrolment import Anchors, EnrolmentResponse, build_response, check_new_device, open_request
from aif.protocol.identifiers import check_device_name, id16
from aif.protocol.pairing import EnrolmentSecret, SecretState, pairing_code, read_pairing_code
from aif.trusted.security_engine import DeviceKeys
from aif.trusted.state import DeviceRecord, DeviceState, SiteState, StateFile

SECRET_BYTES = 16
"""128-bit enrolment secrets; the pairing code is their printable form."""


class Site:
    """Keys and registry of one site, in its state folder."""

    def __init__(self, folder: Path, random: Callable[[int], bytes]) -> None:
        self._file = StateFile(folder / "site.cbor", SiteState)
        self._random = random

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

    def open_window(self, name: str, code: str, *, now_s: int) -> None:
        """Let a device enrol for the next 15 minutes; the code proves that the operator holds the device."""
        record = self.device(name)
        if read_pairing_code(code, id16("device", name)) != record.secret:
            raise EnrolmentRefused(f"this is not the pairing code of {name}")
        self._put(_with_secret(record, _secret(record).open_window(now_s)))

    def forget(self, name: str) -> None:
        """Remove a device from the registry; unknown names are ignored."""
        self._file.update(
            lambda state: replace(state, devices=tuple(r for r in state.devices if r.device != name))
        )

    # --- enrolment ---------------------------------------------------------------------------------

    def enrol(self, name: str, request: bytes, store_root: bytes, *, now_s: int) -> bytes:
        """Answer one enrolment request.

        Raises:
            TrustError, ProtocolError: refused; wrong MACs are counted and burn the secret.
        """
        record = self.device(name)
        device_id = id16("device", name)
        secret = _secret(record).at(now_s)
        value = secret.usable(now_s)
        try:
            opened = open_request(request, value, device_id=device_id)
            if (opened.sign_pk, opened.kex_pk) != (record.identity_pk, record.exchange_pk):
                raise EnrolmentRefused(f"{name} enrols with other keys than it was provisioned with")
            others = [r for r in self.state.devices if r.device != name]
            check_new_device(
                opened, {id16("device", r.device) for r in others}, {r.identity_pk for r in others}
            )
        except EnrolmentRefused:
            self._put(_with_secret(record, secret.wrong_mac()))
            raise
        state = self.state
        anchors = Anchors(
            store_root, *(_public(s) for s in (state.grant_seed, state.ticket_seed, state.deployment_seed))
        )
        response = EnrolmentResponse(device_id, anchors, self._random(32), opened.nonce, now_s)
        key = SigningKey(state.enrolment_seed)
        answer = build_response(response, request, value, lambda m: key.sign(m).signature)
        self._put(replace(_with_secret(record, secret.enrolled()), enrolled_s=now_s))
        return answer

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


def _secret(record: DeviceRecord) -> EnrolmentSecret:
    return EnrolmentSecret(
        id16("device", record.device),
        record.secret,
        record.secret_state,
        record.window_closes_s,
        record.wrong_macs,
    )


def _with_secret(record: DeviceRecord, secret: EnrolmentSecret) -> DeviceRecord:
    return replace(
        record, secret=secret.secret, secret_state=secret.state,
        window_closes_s=secret.closes_s, wrong_macs=secret.wrong_macs,
    )  # fmt: skip
