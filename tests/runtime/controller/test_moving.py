"""A person moves AIMs of a running workflow: to a better mapping, or to a place of his own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from aif.errors import LifecycleError, LocalProtocolError, ModelError, NotFound, PlacementError, StartFailed
from aif.protocol.lifecycle import WorkflowState
from aif.runtime.controller.moving_calls import moving_call
from aif.runtime.mapping.remapping import Move
from tests.runtime.mapping.test_remapping import GOES_ON, QUICK, THREE, all_up, increasing, place_of
from tests.runtime.site import bench_site

LAN = "[left, right], bandwidth_bps: 100000000, latency_ms: "
FAR = THREE.replace(LAN + "1", LAN + "20")
"""``right`` is slower to reach than ``spare``."""
TIMED = GOES_ON + (
    "paths: [{id: way, from: count.number, to: add.pair, deadline_ms: 1000}]\nobjectives: {latency: 1.0}\n"
)


def site_of(folder: Path) -> Any:
    return bench_site(folder, devices=("left", "right", "spare"), inventory=FAR, patience=QUICK, speed=3.0)


def test_a_better_mapping_is_shown_and_taken_and_then_none_is_better(tmp_path: Path) -> None:
    async def journey() -> None:
        async with site_of(tmp_path) as site:
            await all_up(site)
            site.registry.set_drained("spare", drained=True)
            running = await site.deploy(TIMED)
            assert place_of(running, "double") == "right"
            await site.outputs(running, 5)
            controller = site.controller
            found = await moving_call(controller, "improvement", {})
            assert (found["moves"], found["better"]) == ([], False)
            site.registry.set_drained("spare", drained=False)
            await site.until_true(lambda: not controller._drained)
            found = await moving_call(controller, "improvement", {})
            assert found["moves"] == [{"aim": "double", "from": "right", "to": "spare"}]
            assert found["better"]
            assert found["gain"] > 0.3
            assert place_of(running, "double") == "right"
            count = site.hosted("left", running).instances["count"]
            done = await moving_call(controller, "move", {"aiw": found["aiw"], "places": found["places"]})
            assert done["moves"] == ["double: right -> spare"]
            assert list(done["stages_ms"]) == ["planned", "deployed", "attested", "keyed", "started"]
            assert place_of(running, "double") == "spare"
            assert increasing(await site.outputs(running, 20))
            assert site.hosted("left", running).instances["count"] is count
            await site.until_true(lambda: not site.hosts["right"]._parts)
            again = await moving_call(controller, "improvement", {})
            assert (again["moves"], again["better"], again["gain"]) == ([], False, pytest.approx(0.0))

    asyncio.run(journey())


def test_a_person_may_choose_a_worse_place_but_not_an_impossible_one(tmp_path: Path) -> None:
    async def journey() -> None:
        async with site_of(tmp_path) as site:
            await all_up(site)
            running = await site.deploy(TIMED)
            await site.outputs(running, 5)
            moving = site.controller.moving
            found = await moving.proposal(running, {"double": ("right", "")})
            assert found.moves == (Move("double", "spare", "right"),)
            assert found.gain is not None
            assert found.gain < 0
            with pytest.raises(PlacementError, match="double and count must be on different devices"):
                await moving.proposal(running, {"double": ("left", "")})
            with pytest.raises(PlacementError, match="the workflow holds add on left"):
                await moving.proposal(running, {"add": ("right", "")})
            with pytest.raises(NotFound, match="no AIM 'treble' at work"):
                await moving.proposal(running, {"treble": ("right", "")})
            with pytest.raises(ModelError, match="no device 'nowhere'"):
                await moving.proposal(running, {"double": ("nowhere", "")})
            done = await moving.move(running, found.places)
            assert done.moves == found.moves
            assert increasing(await site.outputs(running, 20))
            site.registry.set_drained("spare", drained=True)
            await site.until_true(lambda: bool(site.controller._drained))
            with pytest.raises(PlacementError, match="spare cannot take an AIM now"):
                await moving.move(running, {"double": ("spare", "")})
            assert place_of(running, "double") == "right"
            assert running.wanted is None

    asyncio.run(journey())


def test_who_waits_for_a_move_hears_that_the_workflow_was_stopped_or_the_device_lost(tmp_path: Path) -> None:
    async def journey() -> None:
        async with site_of(tmp_path) as site:
            await all_up(site)
            running = await site.deploy(TIMED)
            await site.outputs(running, 5)
            moving = site.controller.moving
            await site.kill("right")  # which nobody knows yet
            with pytest.raises(StartFailed, match="right"):
                await moving.move(running, {"double": ("right", "")})
            assert increasing(await site.outputs(running, 20))
            assert place_of(running, "double") == "spare"
            waiting = asyncio.create_task(moving.move(running, {"double": ("spare", "")}))
            await site.controller.stop(running.aiw_id)
            with pytest.raises((StartFailed, LifecycleError)):
                await waiting
            assert running.state is WorkflowState.STOPPED
            with pytest.raises(LifecycleError, match="is stopped; its AIMs cannot be moved"):
                await moving.proposal(running, {})
            with pytest.raises(LifecycleError, match="no workflow runs"):
                await moving_call(site.controller, "improvement", {})

    asyncio.run(journey())


@pytest.mark.parametrize(
    "places", [[], "double", {"double": "right"}, {"double": ["right"]}, {"double": ["right", 1]}]
)
def test_places_of_another_form_are_refused(tmp_path: Path, places: object) -> None:
    async def journey() -> None:
        async with site_of(tmp_path) as site:
            await all_up(site)
            await site.deploy(TIMED)
            with pytest.raises(LocalProtocolError):
                await moving_call(site.controller, "move", {"places": places})

    asyncio.run(journey())
