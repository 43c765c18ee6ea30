"""``aif site``: what a site tells publishers, takes from them, and allows."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from aif.cli._options import HomeOption

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Take content keys of models from publishers; show and set the site's policy.",
)


class Allowed(StrEnum):
    """A rule of the policy."""

    ALLOW = "allow"
    REFUSE = "refuse"


@app.command()
def key(home: HomeOption = Path(".aif")) -> None:
    """Print this site's public key, to which a publisher seals its content keys."""
    from aif.cli import _wiring as wiring
    from aif.trusted.content_keys import SiteVault

    print(SiteVault(wiring.Home(home).site, os.urandom).public_key.hex())


@app.command()
def take(
    file: Annotated[Path, typer.Argument(help="What `aif store hand-over` wrote for this site.")],
    home: HomeOption = Path(".aif"),
) -> None:
    """Keep the content keys that a publisher handed over."""
    from aif.cli import _wiring as wiring
    from aif.errors import NotFound
    from aif.protocol.limits import MAX_HAND_OVER_BYTES
    from aif.trusted.content_keys import SiteVault

    try:
        with file.open("rb") as opened:
            document = opened.read(MAX_HAND_OVER_BYTES + 1)
    except OSError as error:
        raise NotFound(f"{file} cannot be read: {error.strerror}") from error
    taken = SiteVault(wiring.Home(home).site, os.urandom).take(document)
    for path in taken:
        print(path)
    print(f"{len(taken)} new content keys")


@app.command()
def policy(
    plain_models: Annotated[
        Allowed | None,
        typer.Option("--plain-models", help="Whether devices may install models that are not encrypted."),
    ] = None,
    home: HomeOption = Path(".aif"),
) -> None:
    """Show the site's policy, and change what is given. A running Controller follows with its next plan."""
    from aif.cli import _wiring as wiring
    from aif.trusted.content_keys import SiteVault

    vault = SiteVault(wiring.Home(home).site, os.urandom)
    if plain_models is not None:
        vault.set_plain_models(allowed=plain_models is Allowed.ALLOW)
    print(f"plain models: {Allowed.ALLOW if vault.plain_models else Allowed.REFUSE}")
