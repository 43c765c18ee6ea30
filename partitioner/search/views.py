"""Which devices a search for one workflow looks at, and as what.

Decides what is left out or merged: nothing that a *relaxed* view shows costs more, and no device has less
room, than in truth, so bounds found on it hold. A *free* view shows some devices as they are, with what
others have left; what is found there is a plan but no proof.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import numpy as np
import numpy.typing as npt

from partitioner.search.star import Floats, Ints, Star

MAX_COPIES = 4

FEW_DEVICES = 8
"""Up to here every device is looked at as it is."""


@dataclass(frozen=True, slots=True)
class View:
    """The devices that one search looks at.

    Attributes:
        devices: their rows in the problem.
        group: group of each, as a row of the matrices.
        merged: groups of the problem that each group of the view stands for.
        capacity: float[devices, resources] that may be taken.
        real: the first so many devices stand for themselves, the others for all of their sort.
        stands: for each of the others, the rows that it stands for.
        previous: position of the copy that has to be in use before this one is, -1 for none; None: no copies.
    """

    devices: Ints
    group: Ints
    merged: tuple[Ints, ...]
    capacity: Floats
    real: int
    stands: tuple[Ints, ...] = ()
    previous: Ints | None = None


class Listed(Protocol):
    """Assignments, as far as a view is made from them: device rows, and those that stand for many."""

    @property
    def device(self) -> Ints:
        """int[assignments, AIMs]."""

    @property
    def unlimited(self) -> Ints:
        """Rows that stand for all devices of their sort."""


def home_groups(star: Star, workflow: int) -> npt.NDArray[np.int64]:
    """Groups to which some AIM of the workflow is confined (to at most two of them)."""
    found: set[int] = set()
    for item in star.items_of[workflow]:
        options = star.options[item]
        usable = options.allowed & np.isfinite(options.price[options.kind_of]).any(axis=1)
        groups = np.unique(star.group[usable])
        if len(groups) <= 2:
            found.update(groups.tolist())
    return np.array(sorted(found), dtype=np.int64)


def whole_view(star: Star) -> View:
    """Every device as it is; for few of them."""
    groups = np.arange(len(star.group_keys))
    merged = tuple(groups[n : n + 1] for n in groups)
    return View(np.arange(len(star.devices)), star.group, merged, star.room.copy(), len(star.devices))


def relaxed_view(star: Star, workflow: int, copies: Mapping[int, int] = MappingProxyType({})) -> View:
    """Home devices as they are, and one device of unlimited room for each sort of device elsewhere.

    Elsewhere nothing is full and all groups lie side by side, so nothing costs more than in truth. Of sorts
    in ``copies``, by their first row, so many devices of their true room come first; whatever uses more
    devices of that sort has the rest of them as one of unlimited room.
    """
    home = home_groups(star, workflow)
    if len(star.devices) <= FEW_DEVICES:
        home = np.arange(len(star.group_keys))
    inside = np.isin(star.group, home)
    rows = np.nonzero(inside)[0]
    alike = _sorts(star, workflow, np.nonzero(~inside)[0])
    samples = np.array([members[0] for members in alike], dtype=np.int64)
    merged = [np.array([g]) for g in home]
    if len(samples):
        merged.append(np.setdiff1d(np.arange(len(star.group_keys)), home))
    devices = np.concatenate([rows, samples])
    capacity = star.room[devices]
    capacity[len(rows) :] = np.inf
    group = np.concatenate([np.searchsorted(home, star.group[rows]), np.full(len(samples), len(home))])
    view = View(devices, group, tuple(merged), capacity, len(rows), alike)
    return _with_copies(star, view, copies) if copies else view


def _with_copies(star: Star, view: View, copies: Mapping[int, int]) -> View:
    """The same with devices of true room before each of unlimited room; in use one after the other."""
    times = [copies.get(row, 0) + 1 for row in view.devices[view.real :].tolist()]
    again = np.repeat(np.arange(view.real, len(view.devices)), times)
    kept = np.concatenate([np.arange(view.real), again])
    capacity = star.room[view.devices[kept]]
    previous = np.full(len(kept), -1)
    at = view.real
    for count in times:
        capacity[at + count - 1] = np.inf
        previous[at + 1 : at + count] = np.arange(at, at + count - 1)
        at += count
    stands = tuple(view.stands[n] for n in (again - view.real).tolist())
    return View(view.devices[kept], view.group[kept], view.merged, capacity, view.real, stands, previous)


def copied_view(star: Star, view: View, found: Listed, most: int = MAX_COPIES) -> View:
    """A sharper relaxation for assignments that are all among those ``found`` on a ``relaxed_view``.

    Elsewhere only sorts that some assignment uses are left, each as so many devices of its true room as one
    assignment uses it for AIMs; were that more than ``most``, the last of them has unlimited room.
    """
    times: dict[int, int] = {}
    for row in found.unlimited.tolist():
        times[row] = int((found.device == row).sum(axis=1).max(initial=0))
    copies = {row: min(n, most) for row, n in times.items() if n}
    rows = np.array([row for row, n in copies.items() for _ in range(n)], dtype=np.int64)
    devices = np.concatenate([view.devices[: view.real], rows])
    capacity = star.room[devices]
    endless = [n == most - 1 and times[row] > most for row, c in copies.items() for n in range(c)]
    capacity[view.real :][np.array(endless, dtype=bool)] = np.inf
    group = np.concatenate([view.group[: view.real], np.full(len(rows), len(view.merged) - 1)])
    previous = np.full(len(devices), -1)
    for position in range(view.real + 1, len(devices)):
        if devices[position] == devices[position - 1]:
            previous[position] = position - 1
    members = dict(zip(view.devices[view.real :].tolist(), view.stands, strict=True))
    stands = tuple(members[row] for row in rows.tolist())
    return View(devices, group, view.merged, capacity, view.real, stands, previous)


def free_view(star: Star, workflow: int, room: Floats, keep: Iterable[int] = ()) -> View:
    """Home devices, ``keep``, and of each sort elsewhere the device with the most room, as they are."""
    home = home_groups(star, workflow)
    inside = np.isin(star.group, home)
    inside[list(keep)] = True
    rows, others = np.nonzero(inside)[0], np.nonzero(~inside)[0]
    others = others[np.argsort(-room[others, 0], kind="stable")]
    firsts = np.array([members[0] for members in _sorts(star, workflow, others)], dtype=np.int64)
    devices = np.concatenate([rows, firsts])
    groups, group = np.unique(star.group[devices], return_inverse=True)
    merged = tuple(groups[n : n + 1] for n in range(len(groups)))
    return View(devices, group, merged, np.minimum(room, star.room)[devices], len(devices))


def _sorts(star: Star, workflow: int, rows: Ints) -> tuple[Ints, ...]:
    """``rows`` by their sort: devices that no AIM of the workflow can tell from each other."""
    columns = [star.sort[rows]]
    seen: set[int] = set()
    for item in star.items_of[workflow]:
        options = star.options[item]
        allowed = options.allowed[rows]
        if allowed.any() and id(options.kind_of) not in seen:
            seen.add(id(options.kind_of))
            columns.append(options.kind_of[rows])
        if not allowed.all() and allowed.any():
            columns.append(allowed.astype(np.int64))
    _, first, sort = np.unique(np.stack(columns, axis=1), axis=0, return_index=True, return_inverse=True)
    sort = sort.ravel()
    return tuple(rows[sort == number] for number in np.argsort(first, kind="stable").tolist())


def priced_view(
    star: Star, workflow: int, dearness: Floats, turn: int, keep: Iterable[int] = (), each: int = 1
) -> View:
    """Home devices, and of each sort elsewhere the cheapest, in turns where several are; all as they are.

    Args:
        star: the problem.
        workflow: whose view.
        dearness: float[devices], what a typical AIM pays there.
        turn: which of equals.
        keep: rows to look at in any case.
        each: how many of each sort.
    """
    inside = np.isin(star.group, home_groups(star, workflow))
    inside[list(keep)] = True
    rows, others = np.nonzero(inside)[0], np.nonzero(~inside)[0]
    chosen: list[int] = []
    for members in _sorts(star, workflow, others):
        turned = np.roll(members, -turn)
        order = np.argsort(np.round(dearness[turned], 12), kind="stable")
        chosen += turned[order[:each]].tolist()
    return only_view(star, np.concatenate([rows, np.array(chosen, dtype=np.int64)]))


def only_view(star: Star, devices: Ints) -> View:
    """Some devices as they are."""
    groups, group = np.unique(star.group[devices], return_inverse=True)
    merged = tuple(groups[n : n + 1] for n in range(len(groups)))
    return View(devices, group, merged, star.room[devices], len(devices))
