"""Proof that there is not enough room for all workflows, and of what there is too little; for any size.

Prices on room (``prices``) under which the workflows' least payments exceed what all the room is worth: since
every plan would pay no more than that, there is no plan. With equal prices everywhere this is the comparison
of sums, with prices on one site it is a proof for that site, and in general Farkas' lemma on whole
assignments. The workflows that pay most are kept as long as they alone exceed the room: a conflict that is
sufficient, though not always the smallest.

Source: Farkas, "Theorie der einfachen Ungleichungen" (1902); Dantzig and Wolfe (1960), phase one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from aif.errors import Infeasible
from partitioner.problem.parts import Limit, PlacementProblem
from partitioner.problem.sentences import amount, listed, what
from partitioner.search.charges import COVERED, HALVES
from partitioner.search.descent import Search
from partitioner.search.prices import Pricing

CERTAIN = 1e-6
"""Share by which payments must exceed the room, beyond what floating-point sums may be wrong."""

ROUNDS = 60


@dataclass(frozen=True, slots=True)
class Shortage:
    """Workflows that do not fit together, and what is too little for them.

    Attributes:
        workflows: positions.
        lacking: one of the limits of each kind, the devices (rows) of which it is, and how much is there.
        missing: share (0..1) of what the workflows need at least that is not there, at the proof's prices.
    """

    workflows: tuple[int, ...]
    lacking: tuple[tuple[Limit, tuple[int, ...], float], ...]
    missing: float


def shortage(search: Search, stop: Callable[[], bool]) -> Shortage | None:
    """A proof that not all workflows fit; None when none was found in time.

    Args:
        search: of the problem; what it knows of workflows alone is used.
        stop: asked between steps whether time is over.
    """
    pricing = Pricing(search.star, weight=0.0, unplaced=1.0)
    for workflow in search.workflows:
        if stop():
            return None
        pricing.know_found(workflow, search.solve_alone(workflow).found)
    for _ in range(ROUNDS):
        if stop() or not pricing.round(stop):
            break
        if pricing.bound > CERTAIN * max(1.0, pricing.best.room):
            return _told(pricing)
    return None


def _told(pricing: Pricing) -> Shortage:
    """The workflows that pay most, as many as exceed the room, and what has a price."""
    order = np.argsort(-pricing.least, kind="stable")
    room = pricing.best.room
    enough = int(np.searchsorted(np.cumsum(pricing.least[order]), room * (1.0 + CERTAIN) + CERTAIN)) + 1
    chosen = tuple(sorted(order[:enough].tolist()))
    needed = float(pricing.least[list(chosen)].sum())
    star = pricing.star
    lacking: list[tuple[Limit, tuple[int, ...], float]] = []
    for column, (kind, rest) in enumerate(star.resources):
        price = pricing.best.cell[:, column].copy()
        if column in COVERED:
            at = COVERED.index(column) * len(HALVES)
            price += pricing.best.cover[:, at : at + len(HALVES)].sum(axis=1)
        rows = np.nonzero((price > 0) & np.isfinite(star.room[:, column]))[0]
        if len(rows):
            limit = Limit(kind, f"{star.devices[rows[0]].id}{rest}")
            lacking.append((limit, tuple(rows.tolist()), float(star.room[rows, column].clip(min=0.0).sum())))
    links = np.nonzero(pricing.best.bit > 0)[0]
    if len(links):
        lacking.append((Limit("link", ""), tuple(links.tolist()), float(star.access_bps[links].sum())))
    return Shortage(chosen, tuple(lacking), (needed - room) / needed)


def explained(problem: PlacementProblem, proof: Shortage) -> Infeasible:
    """The proof in sentences."""
    devices = problem.inventory.devices
    names = [problem.workflows[w].name for w in proof.workflows]
    sentences = [f"{listed(names)} do not fit together"]
    for limit, rows, room in proof.lacking:
        there, has = listed([devices[row].id for row in rows]), "has" if len(rows) == 1 else "together have"
        if limit.kind == "link":
            there = f"the way to {there}"
        sentences.append(f"{there} {has} {amount(limit, round(room))} {what(limit)} for them")
    lack = f"at least {100.0 * proof.missing:.2g} % of what they need there is missing"
    one = "one of them" if len(names) > 1 else "it"
    return Infeasible([*sentences, lack], hint=f"add devices or room there, or plan {one} elsewhere")
