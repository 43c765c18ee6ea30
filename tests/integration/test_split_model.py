"""A model cut in two on two emulated microcontrollers, in processes of their own, answers like the whole."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncGenerator
from contextlib import aclosing
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aif.authoring.int8 import build
from aif.authoring.layers import Dense
from aif.authoring.sequence import OperatorSequence
from aif.engines.registry import open_engine
from aif.transport import local
from tests.authoring.test_sequence import check_equal
from tests.docs.console import ROOT, run_page
from tests.integration.terminals import Desk, desk
from tests.integration.test_processes import Events
from tests.runtime.site import write_aim

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

RNG = np.random.default_rng(4)
MODEL = build(
    [Dense(RNG.normal(size=(100, 100)) / 10, RNG.normal(size=100), relu=True) for _ in range(2)],
    RNG.normal(size=(50, 100)),
)
FLASH_BYTES = 85_000
"""Of each microcontroller: interpreter, kernels, and two slots for a half of the model, not for all of it."""
COUNT = 12
DEVICES = ("left", "mid", "right")

INVENTORY = """\
schema: 1
inventory: {name: bench, version: 1}
devices:
  - {id: left, class: gateway, board: bench, arch: x86-64, os: Linux, instructions_per_s: 1000000000,
     ram_bytes: 100000000, flash_bytes: 100000000, runtimes: [python], attestation: software}
  - {id: mid, class: mcu, board: one, arch: armv7e-m, os: Zephyr, instructions_per_s: 48000000,
     ram_bytes: 65536, flash_bytes: FLASH, runtimes: [tflm], attestation: software}
  - {id: right, class: mcu, board: two, arch: armv7e-m, os: Zephyr, instructions_per_s: 48000000,
     ram_bytes: 65536, flash_bytes: FLASH, runtimes: [tflm], attestation: software}
links:
  - {id: air, network: [left, mid, right], bandwidth_bps: 1000000, latency_ms: 2, mtu_bytes: 1280}
"""
WORKFLOW = """\
schema: 1
aiw: {name: Splitting, version: "1.0", implementer: tinyaif, description: "Runs a model."}
profile: secure
aims:
  - {id: noise, use: Noise@1.0, placement: {device: left}}
  - {id: net, use: Net@1.0, inputs: {input: noise.sample}}
outputs: {answer: net.output}
"""
NOISE = (
    """
    schema: 1
    aim: {name: Noise, version: "1.0", implementer: tinyaif, description: Seeded noise.}
    profile: secure
    types:
      Sample_t: {type: "int8SHAPE", scale: SCALE, zero_point: ZERO}
    outputs: {sample: {type: Sample_t, rate_hz: 4}}
    period_ms: 250
    implementations:
      - {id: any, runtime: python, entry: "module:Noise", ram_bytes: 1000, flash_bytes: 0,
         instructions: 1000, security: attested}
    """,
    """
    import numpy as np

    from aif.sdk import AIM, EndOfData


    class Noise(AIM):
        def setup(self):
            self.rng, self.left = np.random.default_rng(5), COUNT

        def process(self):
            if not self.left:
                raise EndOfData("done")
            self.left -= 1
            return {"sample": self.rng.integers(-128, 128, DIMENSIONS).astype(np.int8)}
    """,
)


def answers_of_the_whole() -> list[list[int]]:
    rng = np.random.default_rng(5)
    with open_engine("tflm", MODEL, sha256=sha256(MODEL).hexdigest(), arena_bytes=64 << 10) as engine:
        shape = engine.inputs[0].shape
        samples = [rng.integers(-128, 128, shape[1:]).astype(np.int8) for _ in range(COUNT)]
        return [engine.infer([x.reshape(shape)])[0].ravel().tolist() for x in samples]


def write_noise(folder: Path) -> None:
    """The source, for the input that the model has."""
    with open_engine("tflm", MODEL, sha256=sha256(MODEL).hexdigest(), arena_bytes=64 << 10) as engine:
        spec = engine.inputs[0]
    shape = spec.shape[1:]
    words = {
        "SHAPE": "".join(f"[{d}]" for d in shape),
        "DIMENSIONS": repr(shape),
        "SCALE": repr(spec.scale),
        "ZERO": str(spec.zero_point),
        "COUNT": str(COUNT),
    }
    texts = list(NOISE)
    for word, value in words.items():
        texts = [text.replace(word, value) for text in texts]
    write_aim(folder / "noise", *texts)


async def run(terminals: Desk, folder: Path, flash_bytes: int) -> tuple[dict[str, Any], list[list[int]]]:
    """Deploy the workflow that names the whole model; its status and its answers."""
    aims, inventory, workflow = folder / "aims", folder / "inventory.yaml", folder / "w.aiw.yaml"
    inventory.write_text(INVENTORY.replace("FLASH", str(flash_bytes)))
    workflow.write_text(WORKFLOW)
    await terminals.ok("store", "publish", "--aims", aims)
    for name in DEVICES:
        await terminals.ok("device", "add", name, "--inventory", inventory)
    _, broker = await terminals.broker()
    _, store = await terminals.store()
    await terminals.controller(broker, store)
    options = ("--aims", aims, "--inventory", inventory)
    stream = local.stream(terminals.home / "site" / "controller.sock", "events")
    assert isinstance(stream, AsyncGenerator)
    async with aclosing(stream):
        events = Events(stream)
        await events.until("status")
        for name in DEVICES:
            verb = "host" if name == "left" else "mcu"
            device = await terminals.start(verb, "--device", name, "--broker", broker, *options)
            await device.until("session with the Controller is trusted")
        await terminals.ok("deploy", workflow, *options)
        answers = [(await events.until("output", port="answer"))["value"] for _ in range(COUNT)]
        await events.until("workflow", state="completed")
    status = await local.call(terminals.home / "site" / "controller.sock", "status")
    return status, [np.asarray(answer).ravel().tolist() for answer in answers]


def test_a_model_split_over_two_microcontrollers_answers_like_the_whole(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    async def journey() -> None:
        async with desk(tmp_path_factory.mktemp("h")) as terminals:
            aims = tmp_path / "aims"
            (tmp_path / "net.tflite").write_bytes(MODEL)
            await terminals.ok("split", tmp_path / "net.tflite", "--at", 1, "--out", aims)
            write_noise(aims)
            status, answers = await run(terminals, tmp_path, FLASH_BYTES)
            assert answers == answers_of_the_whole()
            (deployed,) = status["workflows"]
            where = {one["aim"]: one["device"] for one in deployed["placement"]["assignments"]}
            assert {where["net.part_1"], where["net.part_2"]} == {"mid", "right"}

    asyncio.run(journey())


@pytest.mark.parametrize("name", ["gesture_classifier", "motion_anomaly"])
def test_every_cut_of_a_shipped_model_gives_its_bytes(trained_home: Path, name: str) -> None:
    model = (trained_home / "models" / f"{name}.tflite").read_bytes()
    borders = OperatorSequence(model, name).borders
    assert borders
    for border in borders:
        check_equal(model, [border.position])


def test_the_page_about_splitting_runs_as_written(trained_home: Path, tmp_path: Path) -> None:
    for made in ("models", "recordings"):  # what `aif train` would do again
        shutil.copytree(trained_home / made, tmp_path / ".aif" / made)
    printed = run_page(ROOT / "docs" / "howto" / "split.md", tmp_path)
    assert "GestureClassifierAt1@1.0 stands for GestureClassifier@1.0" in printed
    assert "classifier runs as GestureClassifierAt1@1.0" in printed
    where = dict(re.findall(r"^ *(classifier\.part_\d) +(\w+)", printed, re.MULTILINE))
    assert set(where.values()) == {"lower", "upper"}, printed
