"""``aif plan``: place a workflow's AIMs on an inventory, say why, compare, suppose, and draw."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from enum import StrEnum
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aif.errors import ConfigError, Diagnostic, Infeasible, PlacementError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from aif.config import Catalogue
    from aif.model.aiw import Workflow
    from aif.model.inventory import Inventory
    from aif.model.placement import Placement
    from partitioner.alternatives import Chosen
    from partitioner.objectives import Solve, Weighted
    from partitioner.planner import Plan
    from partitioner.policy import ModelFacts
    from partitioner.problem.build import PlacementProblem

app = typer.Typer(add_completion=False)

INVENTORY_NAME = "inventory.yaml"


class Format(StrEnum):
    """What to print."""

    TABLE = "table"
    JSON = "json"
    MERMAID = "mermaid"
    DOT = "dot"
    SVG = "svg"
    HTML = "html"


ENDINGS = {
    ".json": Format.JSON,
    ".mmd": Format.MERMAID,
    ".dot": Format.DOT,
    ".gv": Format.DOT,
    ".svg": Format.SVG,
    ".html": Format.HTML,
}


@app.command(help="Place a workflow's AIMs on an inventory and say why.")
def plan(
    workflow: Annotated[Path, typer.Argument(help="workflow file (*.aiw.yaml) or its folder")],
    inventory: Annotated[
        Path | None, typer.Option(help=f"inventory file; default: {INVENTORY_NAME} beside the workflow")
    ] = None,
    aims: Annotated[
        list[Path] | None, typer.Option(help="AIM library; may be given again; default: the installed one")
    ] = None,
    releases: Annotated[
        Path | None, typer.Option(help="folder of models (COMPONENT.tflite) whose real sizes are used")
    ] = None,
    broker: Annotated[
        str | None, typer.Option(help="device that runs the message broker; default: direct routes")
    ] = None,
    fmt: Annotated[
        Format | None,
        typer.Option("--format", help="what to print; default: by the output's ending, else table"),
    ] = None,
    time_limit: Annotated[
        float, typer.Option(min=0.1, max=86_400.0, help="seconds to search for the best placement")
    ] = 10.0,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="seed of the solver")] = 0,
    reproducible: Annotated[
        bool,
        typer.Option(
            "--reproducible",
            help="the same plan on every computer, however busy: the time limit is counted in work, a second "
            "of it about one of an idle processor",
        ),
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="write there instead of to the terminal")
    ] = None,
    what_if: Annotated[
        list[str] | None,
        typer.Option(
            help="suppose a value of the inventory, as in mcu-2.ram=64KiB, mcu-2.sensors+=imu or "
            "'link(gw-1,mcu-1).bandwidth=10kbps'; may be given again"
        ),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(help="suppose that a device or 'link(ID)' is not there; may be given again"),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            help="instead of the workflow's: latency, energy, traffic, devices, exposure, migration, "
            "balance, or several with weights, as in energy=1,latency=0.2"
        ),
    ] = None,
    lexicographic: Annotated[
        str | None,
        typer.Option(help="objectives in order, as in latency,energy; later ones may cost earlier ones 1 %"),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(help="plan in JSON that runs now: show what moves; the objective migration prices it"),
    ] = None,
    pareto: Annotated[
        bool, typer.Option("--pareto", help="plans between lowest latency and lowest energy: table or plot")
    ] = False,
    announced: Annotated[
        Path | None,
        typer.Option(help="home of a running Controller: what devices announced to it comes before the file"),
    ] = None,
    points: Annotated[int, typer.Option(min=2, max=100, help="plans that --pareto shows at most")] = 8,
) -> None:
    """Load, plan, print."""
    from aif.cli._plan_file import read_plan
    from aif.config import load_catalogue, load_workflow
    from aif.config.whatif import supposed_inventory
    from aif.config.workflow import workflow_file

    form = fmt or (ENDINGS.get(output.suffix, Format.TABLE) if output is not None else Format.TABLE)
    _check_options(form, objective, lexicographic, compare, pareto=pareto)
    file = workflow_file(workflow)
    contracts = load_catalogue(aims or _installed_aims())
    loaded = load_workflow(file, contracts)
    for warning in loaded.warnings:
        print(warning.render(), file=sys.stderr)
    devices = supposed_inventory(
        inventory or file.parent / INVENTORY_NAME, what_if or (), without or (),
        announced=_announced(announced) if announced is not None else None,
    )  # fmt: skip
    before = read_plan(compare) if compare is not None else None
    settings = _Settings(
        loaded.workflow,
        contracts,
        devices,
        broker=broker,
        releases=_model_facts(releases),
        current={} if before is None else {a.aim: a.device for a in before.assignments},
        time_limit_s=time_limit,
        seed=seed,
        reproducible=reproducible,
    )
    for aim, reference in sorted(settings.stand_ins.items()):
        print(f"{aim} runs as {reference}", file=sys.stderr)
    try:
        if pareto:
            text = _front(settings, form, points)
        else:
            text = _placement(settings, form, objective, lexicographic, before, to_file=output is not None)
    except Infeasible as wrong:
        raise Infeasible(wrong.core, hint="; ".join(filter(None, (wrong.hint, settings.slower())))) from None
    if output is not None:
        _write(output, text)
        print(f"wrote {output}", file=sys.stderr)
    else:
        print(text, end="")


class _Settings:
    """Everything that stays the same when plans differ only in their weights."""

    def __init__(
        self,
        workflow: Workflow,
        contracts: Catalogue,
        inventory: Inventory,
        *,
        broker: str | None,
        releases: Mapping[str, ModelFacts],
        current: Mapping[str, str],
        time_limit_s: float,
        seed: int,
        reproducible: bool,
    ) -> None:
        from aif.model.stand_ins import stand_ins_of
        from partitioner.policy import PlanPolicy
        from partitioner.search.pace import Clock, Work

        self._written, self._contracts = workflow, contracts
        self._has_chains = bool(stand_ins_of(workflow, contracts))
        self.inventory, self.policy = inventory, PlanPolicy(broker_device=broker)
        self.releases, self.current = releases, current
        self.time_limit_s, self.seed = time_limit_s, seed
        self.pace = Work() if reproducible else Clock()

    @cached_property
    def chosen(self) -> Chosen:
        """The plan by the file's own weights; which chains stand for AIMs is decided by them."""
        from partitioner.alternatives import choose

        return choose(
            [self._written], self._contracts, self.inventory, self.policy,
            lambda problem, limit_s: self._find(problem, limit_s).placement(),
            releases=self.releases, current=self.current, time_limit_s=self.time_limit_s,
            pace=self.pace,
        )  # fmt: skip

    @property
    def workflow(self) -> Workflow:
        """As it is placed; where no chain can stand for an AIM, that needs no plan."""
        return self.chosen.workflows[0] if self._has_chains else self._written

    @property
    def stand_ins(self) -> Mapping[str, str]:
        return self.chosen.stand_ins[0] if self._has_chains else {}

    def _find(self, problem: PlacementProblem, time_limit_s: float, *, in_full: bool = True) -> Plan:
        from partitioner.planner import plan as find

        return find(problem, time_limit_s=time_limit_s, seed=self.seed, in_full=in_full, pace=self.pace)

    def solve(self, workflow: Workflow, *, in_full: bool = True) -> Plan:
        from partitioner.problem.build import build_problem

        problem = build_problem(
            [workflow], self.inventory, self.policy, releases=self.releases, current=self.current
        )
        return self._find(problem, self.time_limit_s, in_full=in_full)

    def slower(self) -> str:
        """At which lower rate the workflow would have room, if it accepts one; else nothing."""
        from aif.model.degrading import rates_of, slowed

        for rate in rates_of(self._written.metadata)[1:]:
            with suppress(PlacementError):
                self.solve(slowed(self._written, rate), in_full=False)
                return f"there is room for {rate:.0%} of its rate, which it accepts when a device is lost"
        return ""

    @property
    def by_weights(self) -> Solve:
        from partitioner.objectives import weighing

        return lambda weights: self.solve(weighing([self.workflow], weights)[0])


def _check_options(
    form: Format, objective: str | None, lexicographic: str | None, compare: Path | None, *, pareto: bool
) -> None:
    """Refuse options that contradict each other, before anything is loaded."""
    from partitioner.objectives import read_order, read_weights

    if objective is not None and lexicographic is not None:
        raise PlacementError("--objective and --lexicographic exclude each other", hint="give one of them")
    if pareto and (objective is not None or lexicographic is not None or compare is not None):
        raise PlacementError(
            "--pareto chooses the objectives itself",
            hint="leave out --objective, --lexicographic and --compare",
        )
    if pareto and form in (Format.MERMAID, Format.DOT):
        raise PlacementError(f"--pareto has no {form} form", hint="use table, json, svg or html")
    if compare is not None and form in (Format.MERMAID, Format.DOT, Format.SVG):
        raise PlacementError(f"a comparison has no {form} form", hint="use table, json or html")
    named = [
        *(read_weights(objective) if objective else ()),
        *(read_order(lexicographic) if lexicographic else ()),
    ]
    if "migration" in named and compare is None:
        raise PlacementError(
            "the objective migration needs to know what runs now",
            hint="give that plan with --compare PLAN.json",
        )


def _placement(
    settings: _Settings,
    form: Format,
    objective: str | None,
    lexicographic: str | None,
    before: Placement | None,
    *,
    to_file: bool,
) -> str:
    """One plan in the form that was asked for; a table on a terminal is printed at once."""
    from aif.cli._plan_tables import render_comparison, render_placement
    from partitioner.report.compare import compare, comparison_json
    from partitioner.report.diagrams import dot, mermaid
    from partitioner.report.lanes_svg import lanes_svg
    from partitioner.report.page import placement_page
    from partitioner.report.written import to_json

    placement, weighted = _planned(settings, objective, lexicographic)
    _check_channels(settings, placement)
    placement = replace(placement, stand_ins=dict(settings.stand_ins))
    workflows = [settings.workflow]
    comparison = compare(before, placement) if before is not None else None
    match form:
        case Format.JSON:
            return to_json(placement) if comparison is None else comparison_json(comparison)
        case Format.MERMAID:
            return mermaid(workflows, placement)
        case Format.DOT:
            return dot(workflows, placement)
        case Format.SVG:
            return lanes_svg(workflows, placement)
        case Format.HTML:
            return placement_page(workflows, placement, comparison)

    def render(console: Console) -> None:
        render_placement(placement, console)
        if weighted is not None:
            console.print(f"planned in order as --objective {weighted.option}", highlight=False)
        if comparison is not None:
            render_comparison(comparison, console)

    return _shown(render, to_file=to_file)


def _check_channels(settings: _Settings, placement: Placement) -> None:
    """Refuse a plan that no deployment would take: a device cannot hold its channels, or their records.

    Raises:
        PlacementError: with the device or channel, and both numbers.
    """
    from aif.errors import PlacementError, StartFailed
    from aif.protocol.numbers import limits_of
    from aif.runtime.mapping.channel_limits import check_numbers, check_sizes
    from aif.runtime.mapping.channels import remote_channels

    workflow = settings.workflow
    aims = {leaf.id for leaf in workflow.aims}
    device_of = {a.aim: a.device for a in placement.assignments if a.aim in aims}
    limits = {device.id: limits_of(device.device_class) for device in settings.inventory.devices}
    channels = remote_channels(workflow.name, workflow, device_of, limits)
    try:
        check_sizes(workflow, channels)
        check_numbers(channels, limits)
    except StartFailed as error:
        raise PlacementError(f"the plan cannot be deployed: {error}", hint=error.hint) from error


def _planned(
    settings: _Settings, objective: str | None, lexicographic: str | None
) -> tuple[Placement, Weighted | None]:
    """The plan, and its weights where an order was asked for."""
    from partitioner.objectives import in_order, read_order, read_weights

    if lexicographic is not None:
        weighted = in_order(settings.by_weights, read_order(lexicographic))
        return weighted.plan.placement(), weighted
    if objective is not None:
        return settings.by_weights(read_weights(objective)).placement(), None
    return settings.chosen.placement, None


def _front(settings: _Settings, form: Format, points: int) -> str:
    from aif.cli._plan_tables import render_front
    from partitioner.pareto import front, front_json
    from partitioner.report.front_svg import front_svg
    from partitioner.report.page import front_page

    found = front(settings.by_weights, points)
    title = f"{settings.workflow.name} on {settings.inventory.name}: energy against latency"
    match form:
        case Format.JSON:
            return front_json(found)
        case Format.SVG:
            return front_svg(found, title)
        case Format.HTML:
            return front_page(found, title)
    return _shown(lambda console: render_front(found, console), to_file=True)


def _shown(render: Callable[[Console], None], *, to_file: bool) -> str:
    """Print a table with colours on a terminal; everywhere else, its text."""
    from aif.cli._plan_tables import plain

    if to_file or not sys.stdout.isatty():
        return plain(render)
    from rich.console import Console

    render(Console())
    return ""


def _installed_aims() -> Sequence[Path]:
    spec = find_spec("aims")
    return [Path(place) for place in (spec.submodule_search_locations or ())] if spec is not None else []


def _announced(home: Path) -> Mapping[str, Mapping[str, Any]]:
    """What the devices of a running site say of themselves.

    Raises:
        NotConnected: no Controller runs there.
    """
    import asyncio

    from aif.cli import _wiring as wiring
    from aif.cli._scan import said_by
    from aif.transport import local

    return said_by(asyncio.run(local.call(wiring.Home(home).socket, "scan")))


def _model_facts(folder: Path | None) -> Mapping[str, ModelFacts]:
    """Sizes of the models in a folder, by component name."""
    from partitioner.policy import ModelFacts

    if folder is None:
        return {}
    if not folder.is_dir():
        raise ConfigError(
            [Diagnostic("AIF-E0100", f"{folder} is not a folder of models", hint="see --releases")]
        )
    return {file.stem: ModelFacts(file.stat().st_size) for file in sorted(folder.glob("*.tflite"))}


def _write(path: Path, text: str) -> None:
    """Replace ``path`` in one step, so that nobody ever reads half a plan.

    Raises:
        ConfigError: it cannot be written there.
    """
    from aif.config.format import write_atomically

    try:
        write_atomically(path, text)
    except OSError as wrong:
        raise ConfigError([Diagnostic("AIF-E0100", f"cannot write {path}: {wrong.strerror}")]) from wrong
