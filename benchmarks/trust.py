"""What trust costs: stamps, attestation, grants, and new keys for channels of a device that was taken out.

Decides the rows. A real Security Engine in its process, and the Controller's own calls; no broker and no
socket but the engine's. Calls of the engine are timed by the wall clock, because its process works too, and
the lowest mean of several short runs counts; what runs here alone by processor time, as in ``micro``. Every
result is checked, or it would be cheap.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from nacl.bindings import crypto_scalarmult_base
from nacl.signing import SigningKey

from aif.errors import RemoteProtocolError
from aif.protocol.appraisal import AppraisalPolicy
from aif.protocol.gate import FRESH, Gate
from aif.protocol.grant import Grant, Role, RosterRow, issue_grant
from aif.protocol.numbers import AuthMode
from aif.protocol.stamp import check_stamp, device_stamp_key, stamp
from aif.runtime.clock import SystemClock
from aif.runtime.devices.grants import End, GrantOffice, SessionKeys
from aif.trusted.attestation import RUNTIME_COMPONENT, Verifier, aim_component, part
from aif.trusted.security_engine import EngineSettings, SecurityEngine
from benchmarks.micro import Timing, lowest_us
from benchmarks.report import Metric
from benchmarks.workload import InvalidRun

COMPONENTS: Final = 4
"""Measured parts in the evidence: the runtime and three AIMs or models."""
CHANNELS: Final = 32
"""Channels that get new keys when a device is taken out; each has two members that stay."""
DEVICE: Final = bytes(16)
TOPIC: Final = "aif/att/gw-1/req"
NOW_S: Final = 1_000
_CONTROLLER: Final = SigningKey(bytes([7]) * 32)


def measure(timing: Timing) -> tuple[list[Metric], dict[str, Any]]:
    """All rows, printed."""
    with tempfile.TemporaryDirectory() as folder:
        settings = EngineSettings(
            Path(folder).resolve() / "engine", DEVICE, "hw", bytes(16), 1, 1, bytes(_CONTROLLER.verify_key),
            bytes(_CONTROLLER.verify_key), "aif.engines.registry:open_engine", create=True,
        )  # fmt: skip
        with SecurityEngine(settings, clock=time.monotonic) as engine:
            rows = [*_stamps(timing), *_attestation(engine, timing), *_grants(engine, timing)]
    rows += _new_keys(timing)
    print(f"\ntrust\n{'':44}  {'µs':>10}  {'bytes':>7}")
    for row in rows:
        size = "" if row["bytes"] is None else f"{row['bytes']:,}"
        print(f"{row['row']:44}  {row['us']:>10,.1f}  {size:>7}")
    return [], {"left_out": [], "void": {}, "trust": rows}


def _row(name: str, us: float, size_bytes: int | None = None) -> dict[str, Any]:
    return {"row": name, "us": us, "bytes": size_bytes}


def _stamps(timing: Timing) -> list[dict[str, Any]]:
    key = device_stamp_key(bytes(range(32)), bytes(_CONTROLLER.verify_key))
    message = os.urandom(292)
    stamped = stamp(key, TOPIC, message, 1)
    gate, garbage = Gate(TOPIC, fresh=FRESH), os.urandom(len(stamped))

    def refuse(data: bytes) -> None:
        try:
            gate.admit(key, data, 0.0)
        except RemoteProtocolError:
            return
        raise InvalidRun("the gate let garbage in")

    return [
        _row("stamp a message", lowest_us(lambda m: stamp(key, TOPIC, m, 1), message, timing), 24),
        _row("check a stamp", lowest_us(lambda data: check_stamp(key, TOPIC, data), stamped, timing)),
        _row("refuse garbage at the gate", lowest_us(refuse, garbage, timing)),
    ]


def _attestation(engine: SecurityEngine, timing: Timing) -> list[dict[str, Any]]:
    runtime = part(RUNTIME_COMPONENT, bytes(32), "1", b"root")
    parts = [runtime, *(part(aim_component(f"AIM{n}@1.0"), bytes(32), "1.0", b"root") for n in range(3))]
    reference = {one.type: [one] for one in parts}
    verifier = Verifier(AppraisalPolicy("benchmark"), os.urandom, lambda m: _CONTROLLER.sign(m).signature)

    def challenge(_: object) -> bytes:
        return verifier.challenge("gw-1", mapping_version=1, now_s=NOW_S)

    def whole(_: object) -> None:
        appraise(engine.attest(challenge(None), parts, 1))

    def appraise(evidence: bytes) -> None:
        verifier.appraise(
            "gw-1", DEVICE, evidence, identity_pk=engine.identity_pk, revoked=False, hw_class="hw",
            reference=reference, last_generation=0, now_s=NOW_S,
        )  # fmt: skip

    request = challenge(None)
    evidence = engine.attest(request, parts, 1)
    attest_us = _lowest_wall_us(lambda: engine.attest(request, parts, 1), timing)
    whole_us = _lowest_wall_us(lambda: whole(None), timing)
    return [
        _row("make a challenge", lowest_us(challenge, None, timing), len(request)),
        _row(f"evidence by the engine, {COMPONENTS} parts", attest_us, len(evidence)),
        _row("challenge, evidence, appraisal, signed result", whole_us),
    ]


def _grants(engine: SecurityEngine, timing: Timing) -> list[dict[str, Any]]:
    serial = 0

    def issue(_: object) -> bytes:
        nonlocal serial
        serial += 1
        grant = Grant(
            bytes(16), serial, Role.SEND, 0, bytes(32), 0, 2**31, 1_000, 1, serial, AuthMode.AEAD, 65_536,
            (RosterRow(0, bytes(16), bytes(16), bytes(16)),),
        )  # fmt: skip
        return issue_grant(grant, engine.session_pk, _CONTROLLER, os.urandom(32))

    def open_one() -> None:
        engine.open_grant(issue(None), NOW_S)

    size_bytes = len(issue(None))
    return [
        _row("issue a grant", lowest_us(issue, None, timing), size_bytes),
        _row("issue a grant, open it in the engine", _lowest_wall_us(open_one, timing)),
    ]


def _new_keys(timing: Timing) -> list[dict[str, Any]]:
    """What the Controller works when a device is taken out; messages and devices come on top."""
    keys = SessionKeys(crypto_scalarmult_base(os.urandom(32)), bytes(_CONTROLLER.verify_key), bytes(16))
    office = GrantOffice(
        lambda message: _CONTROLLER.sign(message).signature, lambda _: keys,
        clock=SystemClock(), random=os.urandom, first_epoch=1,
    )  # fmt: skip
    ends = End("left", "w/a"), End("right", "w/b")

    def renew() -> None:
        for number in range(CHANNELS):
            issued = office.issue(number.to_bytes(16), AuthMode.AEAD, ends[:1], ends[1:], mapping_version=1)
            if len(issued) != len(ends):
                raise InvalidRun("a member got no grant")

    return [_row(f"new keys for {CHANNELS} channels of two devices", _lowest_wall_us(renew, timing))]


def _lowest_wall_us(function: Callable[[], object], timing: Timing) -> float:
    """Microseconds of one call by the wall clock, the lowest mean of several short runs."""
    best = float("inf")
    for _ in range(timing.repeats):
        calls, began_s = 0, time.perf_counter()
        while calls == 0 or time.perf_counter() - began_s < timing.run_s:
            function()
            calls += 1
        best = min(best, (time.perf_counter() - began_s) / calls)
    return best * 1e6
