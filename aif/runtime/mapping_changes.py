"""What two deployment documents of one workflow on one device have in common.

Pure comparisons: the Controller asks them which devices need a new document, a device which of its AIMs and
channels go on as they are. How a model comes to a device (its ticket) is no difference.
"""

from __future__ import annotations

from dataclasses import replace

from aif.protocol.deployment import DeployedAIM, Deployment, RemoteChannel


def same_part(known: Deployment, document: Deployment) -> bool:
    """Whether two documents say the same about what runs."""
    return _essence(known) == _essence(document)


def staying_aims(before: Deployment, after: Deployment) -> set[str]:
    """AIMs that both name, and in the same words."""
    old = {aim.id: _unticketed(aim) for aim in before.aims}
    return {aim.id for aim in after.aims if old.get(aim.id) == _unticketed(aim)}


def staying_standbys(before: Deployment, after: Deployment) -> set[str]:
    """AIMs that both keep ready, in the same words."""
    old = {aim.id: _unticketed(aim) for aim in before.standbys}
    return {aim.id for aim in after.standbys if old.get(aim.id) == _unticketed(aim)}


def same_end(old: RemoteChannel, new: RemoteChannel | None, device: str) -> bool:
    """Whether the end of a channel on a device can go on: it is what it was, and so are the settings."""
    if new is None or old.within_host != new.within_host:
        return False
    elsewhere = replace(new, source_device=old.source_device, destination_devices=old.destination_devices)
    return elsewhere == old and _ends_at(old, device) == _ends_at(new, device)


def _essence(part: Deployment) -> Deployment:
    aims, standbys = (tuple(map(_unticketed, aims)) for aims in (part.aims, part.standbys))
    return replace(part, mapping_version=0, issued_us=0, store_url="", aims=aims, standbys=standbys)


def _unticketed(aim: DeployedAIM) -> DeployedAIM:
    return aim if aim.model is None else replace(aim, model=replace(aim.model, ticket=b""))


def _ends_at(channel: RemoteChannel, device: str) -> tuple[bool, tuple[str, ...]]:
    """Whether a channel begins on a device, and which of its destinations are there."""
    ends = zip(channel.destinations, channel.destination_devices, strict=True)
    return channel.source_device == device, tuple(end for end, there in ends if there == device)
