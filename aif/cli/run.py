"""``aif run``: start everything a workflow needs on this machine, show it live, stop cleanly."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aif.cli._options import AimsOption, ClientOption, HomeOption
from aif.transport.clients import DEFAULT_CLIENT

app = typer.Typer(add_completion=False)


@app.command()
def run(
    workflow: Annotated[Path, typer.Argument(help="AIW file, or a workflow folder.")],
    inventory: Annotated[
        Path | None, typer.Option("--inventory", help="Inventory; default: the one beside the workflow.")
    ] = None,
    home: HomeOption = Path(".aif"),
    aims: AimsOption = [],  # noqa: B006  # typer copies it
    broker: Annotated[
        str,
        typer.Option(
            "--broker",
            help="Use this MQTT broker instead of the embedded one; `mosquitto` starts one of your own, with "
            "TLS and access rules.",
        ),
    ] = "",
    summary: Annotated[
        Path | None, typer.Option("--summary", help="Write the summary to this JSON file.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Replay the recordings until Ctrl-C.")] = False,
    speed: Annotated[float | None, typer.Option("--speed", help="Replay this many times faster.")] = None,
    client: ClientOption = DEFAULT_CLIENT,
) -> int:
    """Run a workflow over processes of this machine, each device one process, and show what happens."""
    from aif.cli._local_run import LocalRun, RunOptions
    from aif.config.workflow import workflow_file

    file = workflow_file(workflow)
    options = RunOptions(
        file, inventory or file.parent / "inventory.yaml", home, tuple(aims), broker, summary, follow, speed,
        client,
    )  # fmt: skip
    return LocalRun(options).run()
