"""The linear master problem: one whole assignment per workflow, mixed, under everything that workflows share.

Decides what room is worth: the dual prices of its rows. A *column* is one assignment of one workflow. Rows
exist only for what some column takes. Its value is no bound of any plan, since columns may be missing; what
its prices prove is for ``prices`` to say. With ``weight`` 0 it asks instead how much of the workflows cannot
be placed at all.

Source: Dantzig and Wolfe, "Decomposition principle for linear programs" (1960).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import ortools.linear_solver.pywraplp as lp

from partitioner.search.star import Floats, Ints


@dataclass(frozen=True, slots=True)
class Column:
    """One assignment of one workflow.

    Attributes:
        workflow: whose.
        cost: objective units, alone.
        uses: amount by cell (see ``prices``).
        opens: devices that run one of its AIMs.
    """

    workflow: int
    cost: float
    uses: Mapping[int, float]
    opens: frozenset[int]


class Master:
    """The restricted linear programme; columns are added, never taken away."""

    def __init__(
        self,
        workflows: int,
        room: Floats,
        *,
        unplaced: float,
        opening: float = 0.0,
        share: Mapping[int, float] | None = None,
        balance: float = 0.0,
        weight: float = 1.0,
        alike: Ints,
    ) -> None:
        """A programme without columns.

        Args:
            workflows: how many.
            room: amount by cell; infinite where it does not matter.
            unplaced: price of a workflow without a column.
            opening: price of each device that runs an AIM.
            share: by cell that counts for ``balance``, the whole of which an amount is a share.
            balance: price of the highest share.
            weight: of the columns' own costs.
            alike: by cell, the first one of those that share a row at the beginning; rows of their own come
                with ``tighten``.
        """
        self.alike, self.together = alike, np.zeros(len(room))
        np.add.at(self.together, alike, room)
        self.room, self.share, self.opening, self.weight = room, dict(share or {}), opening, weight
        self.solver = lp.Solver.CreateSolver("GLOP")
        self.objective = self.solver.Objective()
        self.objective.SetMinimization()
        self.placed = [self.solver.Constraint(1.0, self.solver.infinity()) for _ in range(workflows)]
        for row in self.placed:
            left_out = self.solver.NumVar(0.0, self.solver.infinity(), "")
            row.SetCoefficient(left_out, 1.0)
            self.objective.SetCoefficient(left_out, unplaced)
        self.sorts: dict[int, lp.Constraint] = {}
        self.cells: dict[int, lp.Constraint] = {}
        self.shares: dict[int, lp.Constraint] = {}
        self.opened: dict[int, lp.Variable] = {}
        self.opening_rows: dict[tuple[int, int], lp.Constraint] = {}
        self.columns: list[tuple[Column, lp.Variable]] = []
        self.known: set[tuple[int, float, frozenset[tuple[int, float]]]] = set()
        self.value = np.inf
        """Objective of the last solution."""
        self.pivots = 0
        """Of the last solution, and about as many for setting it up."""
        self.highest = None
        if balance and self.share:
            self.highest = self.solver.NumVar(0.0, self.solver.infinity(), "")
            self.objective.SetCoefficient(self.highest, balance)

    def add(self, column: Column) -> bool:
        """Offer a column; False when it is known already."""
        key = (column.workflow, round(column.cost, 9), frozenset(column.uses.items()))
        if key in self.known:
            return False
        self.known.add(key)
        variable = self.solver.NumVar(0.0, self.solver.infinity(), "")
        self.objective.SetCoefficient(variable, self.weight * column.cost)
        self.placed[column.workflow].SetCoefficient(variable, 1.0)
        taken: dict[int, float] = {}
        for cell, amount in column.uses.items():
            row = int(self.alike[cell])
            if np.isfinite(self.together[row]):
                taken[row] = taken.get(row, 0.0) + amount
            if cell in self.cells:
                self.cells[cell].SetCoefficient(variable, amount / self._unit(cell))
            if self.highest is not None and cell in self.share:
                self._share(cell).SetCoefficient(variable, amount / self.share[cell])
        for row, amount in taken.items():
            # rows are shares of the room, since bytes beside microseconds upset the solver
            self._sort(row).SetCoefficient(variable, amount / max(self.together[row], 1.0))
        if self.opening:
            for device in column.opens:
                self._opening(column.workflow, device).SetCoefficient(variable, 1.0)
        self.columns.append((column, variable))
        return True

    def solve(self) -> bool:
        """Solve; False when the solver gave up."""
        solved = self.solver.Solve() == lp.Solver.OPTIMAL
        self.pivots = int(self.solver.iterations()) + len(self.columns)
        if solved:
            self.value = float(self.objective.Value())
        return bool(solved)

    def tighten(self) -> int:
        """Rows for cells that the last solution overfills while their sort together has room; how many."""
        load: dict[int, float] = {}
        for column, share in self.chosen():
            for cell, amount in column.uses.items():
                load[cell] = load.get(cell, 0.0) + share * amount
        full = [c for c, amount in load.items() if amount > self.room[c] + 1e-6 * self._unit(c)]
        fresh = [cell for cell in full if cell not in self.cells]
        for cell in fresh:
            self.cells[cell] = self.solver.Constraint(
                -self.solver.infinity(), self.room[cell] / self._unit(cell)
            )
        for column, variable in self.columns:
            for cell in fresh:
                if cell in column.uses:
                    self.cells[cell].SetCoefficient(variable, column.uses[cell] / self._unit(cell))
        return len(fresh)

    def cell_prices(self) -> Floats:
        """Dual price of each cell, per unit of its amount."""
        found = np.zeros(len(self.room))
        for first, row in self.sorts.items():
            found[first] = max(0.0, -row.dual_value()) / max(self.together[first], 1.0)
        found = found[self.alike]
        for cell, row in self.cells.items():
            found[cell] += max(0.0, -row.dual_value()) / self._unit(cell)
        return found

    def share_prices(self) -> dict[int, float]:
        """Dual price of a whole share of each cell that counts for balance."""
        return {cell: max(0.0, -row.dual_value()) for cell, row in self.shares.items()}

    def opening_prices(self) -> dict[tuple[int, int], float]:
        """By workflow and device."""
        return {key: max(0.0, -row.dual_value()) for key, row in self.opening_rows.items()}

    def chosen(self) -> list[tuple[Column, float]]:
        """Columns with their shares in the solution."""
        return [(c, v.solution_value()) for c, v in self.columns if v.solution_value() > 1e-6]

    def _unit(self, cell: int) -> float:
        return max(float(self.room[cell]), 1.0)

    def _sort(self, first: int) -> lp.Constraint:
        if first not in self.sorts:
            most = self.together[first] / max(self.together[first], 1.0)
            self.sorts[first] = self.solver.Constraint(-self.solver.infinity(), most)
        return self.sorts[first]

    def _share(self, cell: int) -> lp.Constraint:
        if cell not in self.shares:
            self.shares[cell] = self.solver.Constraint(-self.solver.infinity(), 0.0)
            self.shares[cell].SetCoefficient(self.highest, -1.0)
        return self.shares[cell]

    def _opening(self, workflow: int, device: int) -> lp.Constraint:
        key = (workflow, device)
        if key not in self.opening_rows:
            if device not in self.opened:
                self.opened[device] = self.solver.NumVar(0.0, self.solver.infinity(), "")
                self.objective.SetCoefficient(self.opened[device], self.opening)
            self.opening_rows[key] = self.solver.Constraint(-self.solver.infinity(), 0.0)
            self.opening_rows[key].SetCoefficient(self.opened[device], -1.0)
        return self.opening_rows[key]
