"""A User Agent's calls about where the AIMs of a workflow run: a proposal, and its execution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aif.errors import LifecycleError, LocalProtocolError, NotFound
from aif.model.placement import Places
from aif.runtime.controller.controller import Controller
from aif.runtime.controller.moving import Proposal
from aif.runtime.mapping.workflows import RunningWorkflow

MAX_PLACES = 10_000


async def moving_call(controller: Controller, call: str, arguments: Mapping[str, Any]) -> Any:
    """``improvement``: what would be better; ``move``: go there. ``proposal``, ``drain``: without a device.

    Raises:
        NotFound: no such workflow, or several and none is named.
        AIFError: as ``Moving`` and ``Draining``.
    """
    if call in ("proposal", "drain"):
        device, draining = str(arguments.get("device", "")), controller.draining
        moves = await (draining.drain(device) if call == "drain" else draining.proposal(device))
        return {aiw: [str(move) for move in of_one] for aiw, of_one in moves.items()}
    running = _workflow(controller, str(arguments.get("aiw", "")))
    places = _places(arguments.get("places", {}))
    if call == "improvement":
        return _plain(await controller.moving.proposal(running, places))
    done = await controller.moving.move(running, places)
    return {
        "moves": [str(move) for move in done.moves],
        "mapping_version": done.mapping_version,
        "stages_ms": dict(done.stages_ms),
    }


def _workflow(controller: Controller, aiw_id: str) -> RunningWorkflow:
    if aiw_id:
        return controller.workflow(aiw_id)
    working = [running for running in controller.workflows.values() if not running.ended]
    if not working:
        raise LifecycleError("no workflow runs", hint="start one with `aif deploy`")
    if len(working) > 1:
        names = ", ".join(running.aiw_id for running in working)
        raise NotFound("several workflows run", hint=f"name one of them: {names}")
    return working[0]


def _places(value: object) -> Places:
    if not isinstance(value, Mapping) or len(value) > MAX_PLACES:
        raise LocalProtocolError("places are an object: AIM to [device, implementation]")
    places = {}
    for aim, place in value.items():
        match place:
            case [str(device), str(implementation)]:
                places[str(aim)] = (device, implementation)
            case _:
                raise LocalProtocolError(f"the place of {aim} is [device, implementation]")
    return places


def _plain(proposal: Proposal) -> dict[str, Any]:
    return {
        "aiw": proposal.aiw_id,
        "moves": [{"aim": move.aim, "from": move.source, "to": move.destination} for move in proposal.moves],
        "before": proposal.before,
        "after": proposal.after,
        "gain": proposal.gain,
        "better": proposal.better,
        "gap": proposal.gap,
        "model_bytes": proposal.model_bytes,
        "state_bytes": proposal.state_bytes,
        "places": {aim: list(place) for aim, place in proposal.places.items()},
    }
