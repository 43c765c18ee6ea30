"""What a workflow is asked to pay for room on the devices of a view, and what counts as part of a device.

Values and one function; which prices are asked is decided in ``prices``, what they add up to in ``table``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from partitioner.search.star import Floats, Star
from partitioner.search.views import View


@dataclass(frozen=True, slots=True)
class Charges:
    """What a workflow pays for room on the devices of a view, beside its own cost.

    Attributes:
        cell: float[devices, resources], objective units per byte, us/s and so on.
        bit: float[devices], per bit/s on the device's own link.
        opening: float[devices], once for a device that runs one of its AIMs.
        cover: float[devices, covers], per part of a device that an AIM is counted as (see ``parts_taken``).
        weight: of the workflow's own cost: 1, or 0 where only room is asked about.
    """

    cell: Floats
    bit: Floats
    opening: Floats
    cover: Floats
    weight: float = 1.0


COVERED = (0, 2)
"""Resources of which an AIM may take so much that few AIMs share a device: RAM and processor."""

HALVES = (1, 2, 3, 4)
COVERS = len(COVERED) * len(HALVES)


def parts_taken(demand: Floats, room: Floats) -> Floats:
    """AIMs as parts of a device, such that the AIMs on one device never add up to more than 1.

    With k = 1, 2, ... an AIM that takes the share x counts floor((k + 1) x) / k, and x itself where (k + 1) x
    is whole: these dual-feasible functions make "one of these large AIMs per device" a linear row.

    Args:
        demand: float[candidates, resources].
        room: float[candidates, resources] of the device of each candidate.

    Returns:
        float[candidates, covers].

    Source: Fekete and Schepers, "New classes of fast lower bounds for bin packing problems" (2001).
    """
    found = []
    for resource in COVERED:
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(room[:, resource] > 0, demand[:, resource] / room[:, resource], 0.0)
        for k in HALVES:
            scaled = (k + 1) * share
            whole = np.floor(scaled + 1e-9)
            found.append(np.where(np.abs(scaled - whole) < 1e-9, share, whole / k))
    return np.stack(found, axis=1)


def no_charges(star: Star, view: View, opening: Floats) -> Charges:
    """Nothing is paid but for opening devices: float[devices of the view]."""
    devices = len(view.devices)
    none = np.zeros((devices, star.capacity.shape[1]))
    return Charges(none, np.zeros(devices), opening, np.zeros((devices, COVERS)))
