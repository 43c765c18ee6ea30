"""``aif plan``: place a workflow's AIMs on an inventory and say why."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from enum import StrEnum
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aif.errors import ConfigError, Diagnostic

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from aif.model.placement import Placement, Usage
    from partitioner.policy import ModelFacts

app = typer.Typer(add_completion=False)

INVENTORY_NAME = "inventory.yaml"
PLAIN_WIDTH = 150
"""Columns of the table where the output is not a terminal."""

BAR_WIDTH = 12


class Format(StrEnum):
    """What to print."""

    TABLE = "table"
    JSON = "json"
    MERMAID = "mermaid"


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
    fmt: Annotated[Format, typer.Option("--format", help="what to print")] = Format.TABLE,
    time_limit: Annotated[
        float, typer.Option(min=0.1, max=86_400.0, help="seconds to search for the best placement")
    ] = 10.0,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="seed of the solver")] = 0,
    output: Annotated[Path | None, typer.Option(help="write there instead of to the terminal")] = None,
) -> None:
    """Load, plan, print."""
    from aif.config import load_catalogue, load_inventory, load_workflow
    from aif.config.workflow import workflow_file
    from partitioner.alternatives import choose
    from partitioner.planner import place
    from partitioner.policy import PlanPolicy
    from partitioner.report import mermaid, to_json

    file = workflow_file(workflow)
    contracts = load_catalogue(aims or _installed_aims())
    loaded = load_workflow(file, contracts)
    for warning in loaded.warnings:
        print(warning.render(), file=sys.stderr)
    devices = load_inventory(inventory or file.parent / INVENTORY_NAME)
    policy = PlanPolicy(broker_device=broker)
    chosen = choose(
        [loaded.workflow],
        contracts,
        devices,
        policy,
        lambda problem, limit_s: place(problem, time_limit_s=limit_s, seed=seed),
        releases=_model_facts(releases),
        time_limit_s=time_limit,
    )
    placement = chosen.placement
    for aim, reference in sorted(chosen.stand_ins[0].items()):
        print(f"{aim} runs as {reference}", file=sys.stderr)
    match fmt:
        case Format.JSON:
            text = to_json(placement)
        case Format.MERMAID:
            text = mermaid(chosen.workflows, placement)
        case Format.TABLE:
            text = table_text(placement) if output is not None else ""
    if output is not None:
        _write(output, text)
        print(f"wrote {output}", file=sys.stderr)
    elif text:
        print(text, end="")
    else:
        from rich.console import Console

        console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
        render(placement, console)


def _installed_aims() -> Sequence[Path]:
    spec = find_spec("aims")
    return [Path(place) for place in (spec.submodule_search_locations or ())] if spec is not None else []


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
    try:
        with tempfile.TemporaryDirectory(dir=path.parent) as beside:
            whole = Path(beside) / path.name
            whole.write_text(text, encoding="utf-8")
            whole.replace(path)
    except OSError as wrong:
        raise ConfigError([Diagnostic("AIF-E0100", f"cannot write {path}: {wrong.strerror}")]) from wrong


def table_text(placement: Placement, width: int = PLAIN_WIDTH) -> str:
    """The table without colours."""
    from rich.console import Console

    target = StringIO()
    render(placement, Console(file=target, width=width, color_system=None))
    return "".join(line.rstrip() + "\n" for line in target.getvalue().splitlines())


def render(placement: Placement, console: Console) -> None:
    """Print where each AIM goes and why, how full the devices are, latencies and the objective."""
    title = f"{placement.workflow}@{placement.workflow_version}"
    console.print(
        f"[bold]{title}[/] on inventory [bold]{placement.inventory}[/] v{placement.inventory_version}"
    )
    parts: list[RenderableType] = [_aims(placement), _devices(placement)]
    if placement.paths:
        parts.append(_paths(placement))
    for part in parts:
        console.print(part)
    terms = ", ".join(f"{name} {value:.4g}" for name, value in placement.terms.items())
    proof = "proven optimal" if placement.gap == 0 else f"at most {placement.gap:.2%} above the optimum"
    console.print(
        f"objective {placement.objective:.5g} ({terms or 'nothing to pay'}); "
        f"bound {placement.bound:.5g}, {proof}; {placement.method} in {placement.seconds:.2f} s",
        soft_wrap=True,
        highlight=False,
    )


def _table(*columns: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        right = column in ("latency", "planned", "deadline", "power")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    return table


def _aims(placement: Placement) -> Table:
    from rich.markup import escape

    from partitioner.report import aim_rows

    table = _table("AIM", "device", "implementation", "latency", "figure", "why there", "why not elsewhere")
    for row in aim_rows(placement):
        latency = f"{row.latency_us:,.0f} us" if row.rule else ""
        elsewhere = "\n".join(row.elsewhere)
        cells = (row.aim, row.device, row.implementation, latency, row.rule, row.reason, elsewhere)
        table.add_row(*(escape(cell) for cell in cells))
    return table


def _devices(placement: Placement) -> Table:
    table = _table("device", "RAM", "flash", "CPU", "power")
    for usage in placement.usage:
        table.add_row(usage.device, *_bars(usage), _power(usage.power_mw))
    return table


def _bars(usage: Usage) -> tuple[str, str, str]:
    from partitioner.report import shares

    share = shares(usage)
    ram = f"{_size(usage.ram_bytes)} of {_size(usage.ram_limit_bytes)}"
    flash = f"{_size(usage.flash_bytes)} of {_size(usage.flash_limit_bytes)}"
    cpu = f"{usage.cpu_share:.1%} of {usage.cpu_limit:.0%}"
    return (
        f"{_bar(share.get('RAM', 0.0))} {ram}",
        f"{_bar(share['flash'])} {flash}" if "flash" in share else "not budgeted",
        f"{_bar(share.get('CPU', 0.0))} {cpu}",
    )


def _bar(share: float) -> str:
    """Filled to the used share; anything used shows at least one step."""
    from partitioner.report import FULL

    steps = min(BAR_WIDTH, max(round(share * BAR_WIDTH), 1 if share > 0 else 0))
    colour = "red" if share > FULL else "green"
    return f"[{colour}]{'█' * steps}[/][dim]{'░' * (BAR_WIDTH - steps)}[/]"


def _power(milliwatts: float) -> str:
    return f"{milliwatts:,.0f} mW" if milliwatts >= 100 else f"{milliwatts:.3g} mW"


def _size(bytes_: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if bytes_ >= size:
            return f"{bytes_ / size:.1f} {unit}"
    return f"{bytes_} B"


def _paths(placement: Placement) -> Table:
    table = _table("path", "planned", "deadline", "")
    for path in placement.paths:
        deadline = "none" if path.deadline_ms is None else f"{path.deadline_ms:,.0f} ms"
        bar = "" if not path.deadline_ms else _bar(path.latency_ms / path.deadline_ms)
        table.add_row(path.id, f"{path.latency_ms:,.1f} ms", deadline, bar)
    return table
