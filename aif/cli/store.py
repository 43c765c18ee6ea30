"""``aif store``: make, fill, show and serve the MPAI Store."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aif.cli._options import AimsOption, HomeOption

if TYPE_CHECKING:  # the store's libraries are heavy, and `aif store --help` needs none
    from store.repository import Repository

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Make, fill, show and serve the MPAI Store."
)


def _existing(home: Path) -> Repository:
    """The store in a home folder; unlike publishing, looking makes none.

    Raises:
        NotFound: there is none.
    """
    from aif.cli import _wiring as wiring
    from aif.cli._publishing import open_or_create_store
    from aif.errors import NotFound

    place = wiring.Home(home)
    if not (place.store / "metadata").is_dir():
        raise NotFound(f"there is no store at {place.store}", hint="make one with `aif store publish`")
    return open_or_create_store(place)


@app.command()
def init(home: HomeOption = Path(".aif")) -> None:
    """Make an empty store and its keys (root 2 of 3, targets, snapshot, timestamp, one publisher)."""
    from aif.cli import _wiring as wiring
    from aif.cli._publishing import open_or_create_store

    open_or_create_store(wiring.Home(home))
    print(f"store in {wiring.Home(home).store}, keys in {wiring.Home(home).store_keys}")


@app.command()
def publish(
    home: HomeOption = Path(".aif"),
    aims: AimsOption = [],  # noqa: B006  # typer copies it
    plain: Annotated[
        bool, typer.Option("--plain", help="Do not encrypt models; only sites that allow it take them.")
    ] = False,
) -> None:
    """Publish this runtime's reference value, the AIM library, and every trained model.

    Models are encrypted, each release under a key of its own. The site of the same home folder gets the keys;
    for another site see `hand-over`.
    """
    from aif.cli import _wiring as wiring
    from aif.cli._publishing import publish_everything

    for release in publish_everything(wiring.Home(home), wiring.catalogue(aims), plain=plain):
        print(f"{release.kind:<8} {release.path:<44} {release.length:>9,} B  {release.sha256[:16]}")


@app.command("hand-over")
def hand_over(
    site_key: Annotated[str, typer.Argument(help="The site's public key, as `aif site key` prints it.")],
    file: Annotated[Path, typer.Argument(help="Where to write the keys, sealed to that site.")],
    home: HomeOption = Path(".aif"),
) -> None:
    """Seal the content keys of all published models to one site."""
    import os

    from aif.cli import _wiring as wiring
    from aif.errors import TrustError
    from aif.trusted.content_keys import PublisherVault
    from aif.trusted.state import write_atomically

    _existing(home)
    try:
        site_pk = bytes.fromhex(site_key)
    except ValueError:
        site_pk = b""
    if len(site_pk) != 32:
        raise TrustError(
            f"{site_key[:80]!r} is not the public key of a site", hint="use what `aif site key` prints there"
        )
    document = PublisherVault(wiring.Home(home).store_keys, os.urandom).hand_over(site_pk)
    write_atomically(file, document)
    print(f"content keys for that site in {file}, {len(document):,} B; `aif site take` keeps them there")


@app.command("list")
def list_releases(home: HomeOption = Path(".aif")) -> None:
    """Show every release."""
    for release in _existing(home).releases():
        state = f"  withdrawn: {release.yanked}" if release.yanked else ""
        print(f"{release.kind:<8} {release.path:<44} {release.length:>9,} B  {release.sha256[:16]}{state}")


@app.command()
def withdraw(
    path: Annotated[str, typer.Argument(help="Path of the release, as `aif store list` shows it.")],
    reason: Annotated[str, typer.Option("--reason", help="Why, for everybody who asks for it.")],
    home: HomeOption = Path(".aif"),
) -> None:
    """Withdraw a release: nobody fetches it any more. Its number stays used."""
    from aif.cli import _wiring as wiring

    release = _existing(home).yank(path, reason, now=wiring.now())
    print(f"{release.path} is withdrawn: {reason}")


@app.command("replace-key")
def replace_key(
    publisher: Annotated[str, typer.Argument(help="Name of the publisher, the second part of its paths.")],
    home: HomeOption = Path(".aif"),
) -> None:
    """Replace the key of one publisher that was lost or stolen. Needs the targets key.

    What is published stays; withdraw what the publisher did not make.
    """
    from aif.cli import _wiring as wiring

    releases = _existing(home).replace_publisher(publisher, now=wiring.now())
    print(f"publisher {publisher} has a new key; the old one signs nothing any more")
    print("check these releases, and withdraw those that it did not make (`aif store withdraw`):")
    for release in releases:
        state = f"  withdrawn: {release.yanked}" if release.yanked else ""
        print(f"  {release.path:<44} {release.length:>9,} B  {release.sha256[:16]}{state}")


@app.command()
def refresh(home: HomeOption = Path(".aif")) -> None:
    """Sign new metadata where the old is about to expire."""
    from aif.cli import _wiring as wiring

    _existing(home).renew(now=wiring.now())
    print("store metadata renewed")


@app.command()
def serve(
    home: HomeOption = Path(".aif"),
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="TCP port on 127.0.0.1.")] = 8140,
) -> None:
    """Serve the store read-only over HTTP until stopped (Ctrl-C). Needs no key."""
    from aif.cli import _wiring as wiring
    from aif.runtime.processes import die_with_parent, say_ready
    from store.server import StoreServer

    die_with_parent()
    stop = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(
        signal.SIG_BLOCK, stop
    )  # before the server's thread exists, so that it inherits this
    server = StoreServer(wiring.Home(home).store, port=port)
    server.start()
    try:
        print(f"store on {server.url}", file=wiring.stderr(), flush=True)
        say_ready(url=server.url)
        signal.sigwait(stop)
    finally:
        server.stop()
