"""AIMs that use the trusted services of their device: what they keep is theirs, and only theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aif.protocol.lifecycle import WorkflowState
from aif.runtime.devices.links import Trust
from tests.runtime.site import bench_site

CONTRACT = """
    schema: 1
    aim: {name: NAME, version: "1.0", implementer: tinyaif, description: Uses the trusted services.}
    outputs: {report: {type: int32, rate_hz: 50}}
    implementations:
      - {id: any, runtime: python, entry: "module:Main", ram_bytes: 1000, flash_bytes: 0,
         instructions: 1000, security: attested, requires: {services: SERVICES}}
    """

TALLY = """
    import threading

    from aif.sdk import AIM, DataLocation, EndOfData, PSAError, PSAStatus, SecureData


    class Main(AIM):
        def setup(self):
            assert threading.current_thread() is not threading.main_thread()
            self.area = self.context.storage.area(SecureData(DataLocation.LOCAL_DISK))
            self.done = False

        def process(self):
            if self.done:
                raise EndOfData("told")
            self.done = True
            try:
                count = int.from_bytes(self.area.read("count"))
            except PSAError as error:
                assert error.status is PSAStatus.DOES_NOT_EXIST
                count = 0
            self.area.write("count", (count + 1).to_bytes(4))
            return {"report": count + 1}
    """

REFUSALS = """
    from aif.sdk import AIM, DataLocation, EndOfData, PSAError, SecureData


    class Main(AIM):
        def setup(self):
            self.done = False

        def process(self):
            if self.done:
                raise EndOfData("told")
            self.done = True
            try:
                self.context.storage.area(SecureData(DataLocation.REMOTE_DISK)).write("a", b"b")
            except PSAError as error:
                self.context.log("refused", reason=str(error), hint=error.hint)
            self.context.crypto.psa_generate_random(8)
    """

SIGNER = """
    from aif.sdk import AIM, Algorithm, EndOfData, KeyAttributes, KeyType, KeyUsage


    class Main(AIM):
        def setup(self):
            usage = KeyUsage.SIGN_MESSAGE | KeyUsage.VERIFY_MESSAGE
            kind = KeyAttributes(KeyType.ED25519_KEY_PAIR, Algorithm.PURE_EDDSA, usage, 255)
            self.key = self.context.crypto.psa_generate_key(kind)
            self.done = False

        def process(self):
            if self.done:
                raise EndOfData("told")
            self.done = True
            signature = self.context.crypto.psa_sign_message(self.key, Algorithm.PURE_EDDSA, b"message")
            self.context.crypto.psa_verify_message(self.key, Algorithm.PURE_EDDSA, b"message", signature)
            return {"report": len(signature)}
    """


def aim(name: str, services: str, module: str) -> tuple[str, str]:
    return CONTRACT.replace("NAME", name).replace("SERVICES", services), module


AIMS: Mapping[str, tuple[str, str]] = {
    "tally": aim("Tally", "[storage]", TALLY),
    "other": aim("Other", "[storage]", TALLY),
    "signer": aim("Signer", "[crypto]", SIGNER),
    "refusals": aim("Refusals", "[storage]", REFUSALS),
}


def workflow(*aims: str) -> str:
    rows = "\n".join(
        f"  - {{id: a{n}, use: {use}@1.0, placement: {{device: left}}}}" for n, use in enumerate(aims)
    )
    outputs = ", ".join(f"r{n}: a{n}.report" for n in range(len(aims)))
    return (
        'schema: 1\naiw: {name: Keeping, version: "1.0", implementer: tinyaif, description: "Keeps."}\n'
        f"aims:\n{rows}\noutputs: {{{outputs}}}\n"
    )


def values(outputs: list[dict[str, Any]]) -> dict[str, int]:
    return {event["port"]: event["value"] for event in outputs}


def test_what_an_aim_stored_is_there_after_a_restart_of_its_device_and_is_its_own(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, devices=("left",), aims=AIMS) as site:
            several = workflow("Tally", "Tally", "Other")
            for count in (1, 2):
                running = await site.deploy(several)
                outputs = values(await site.run_to_end(running))
                assert running.state is WorkflowState.COMPLETED, running.note
                assert outputs == {"r0": count, "r1": count, "r2": count}
            link = site.controller.admission.link("left")
            assert link.hello is not None
            boot = link.hello.boot_id
            await site.end("left")
            await site.start_device("left")
            await site.until_true(
                lambda: link.hello is not None and link.hello.boot_id != boot and link.trust is Trust.TRUSTED
            )
            # another AIM under the id of the first one has storage of its own
            outputs = values(await site.run_to_end(await site.deploy(workflow("Other", "Tally"))))
            assert outputs == {"r0": 1, "r1": 3}

    asyncio.run(journey())


def test_an_aim_signs_with_a_key_that_it_cannot_see(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, devices=("left",), aims=AIMS) as site:
            outputs = values(await site.run_to_end(await site.deploy(workflow("Signer"))))
            assert outputs == {"r0": 64}

    asyncio.run(journey())


def test_what_is_not_declared_or_not_configured_is_refused_in_words(tmp_path: Path) -> None:
    async def journey() -> None:
        async with bench_site(tmp_path, devices=("left",), aims=AIMS) as site:
            running = await site.deploy(workflow("Refusals"))
            line = await site.until_logged("refused", origin="left")
            assert line["reason"] == "this device has no remote_disk (NOT_SUPPORTED)"
            assert line["hint"] == (
                "mount one and start the host with --remote-disk FOLDER, or keep it on local_disk"
            )
            await site.until(running, WorkflowState.FAILED)
            assert "does not declare that it uses the crypto service" in running.note

    asyncio.run(journey())
