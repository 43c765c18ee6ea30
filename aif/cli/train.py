"""``aif train``: train the models of the AIM library on the data of installed packages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aif.cli._options import HomeOption

app = typer.Typer(add_completion=False)


@app.command()
def train(
    home: HomeOption = Path(".aif"),
    force: Annotated[bool, typer.Option("--force", help="Train again even if nothing changed.")] = False,
) -> None:
    """Train the gesture and anomaly models, convert them to int8, and record the held-out people."""
    from aif.cli import _wiring as wiring
    from aif.cli._progress import step_bar
    from aif.cli._publishing import train_motion_models

    with step_bar("training") as progress:
        models = train_motion_models(wiring.Home(home), progress, force=force)
    for model in models:
        print(
            f"{model.name}: {len(model.tflite):,} B, arena {model.arena_bytes:,} B, "
            f"float {model.accuracy_float:.4f}, int8 {model.accuracy_int8:.4f} "
            f"({model.examples:,} held-out examples)"
        )
