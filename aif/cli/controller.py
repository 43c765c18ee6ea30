"""``aif controller``: plan, attest, deploy and watch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aif.cli._options import BrokerOption, CAOption, CertOption, ClientOption, HomeOption, KeyOption
from aif.transport.clients import DEFAULT_CLIENT

app = typer.Typer(add_completion=False)


@app.command()
def controller(
    store: Annotated[str, typer.Option("--store", help="Address of the MPAI Store, http://HOST:PORT.")],
    broker: BrokerOption = "",
    heartbeat_ms: Annotated[
        float,
        typer.Option(
            "--heartbeat-ms",
            min=20.0,
            max=10_000.0,
            help="Time between two questions to each device; one that has left four of them without a word "
            "is lost. Devices at work are asked five times as often, but for microcontrollers and those on "
            "batteries or slow links. One whose connection ends is asked at once, whatever this says.",
        ),
    ] = 500.0,
    mdns: Annotated[
        bool,
        typer.Option(
            "--mdns", help="Announce the broker on the local network, for devices with --broker mdns:."
        ),
    ] = False,
    home: HomeOption = Path(".aif"),
    ca: CAOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    client: ClientOption = DEFAULT_CLIENT,
) -> int:
    """Run the Controller of a site until stopped (Ctrl-C)."""
    from aif.cli import _wiring as wiring
    from aif.cli._broker_access import BrokerOptions, broker_access
    from aif.errors import NotFound
    from aif.runtime.devices.liveness import HeartbeatSettings
    from aif.runtime.processes import die_with_parent, only_one, say_ready
    from aif.trusted.certificates import Subject

    die_with_parent()
    place = wiring.Home(home)
    if not (place.store / "metadata").is_dir():
        raise NotFound(
            f"there is no store in {place.root} to take the trust root from",
            hint="make one with `aif store publish`, or give the --home that has it",
        )
    options = BrokerOptions(broker, ca, cert, key, client)
    access = broker_access(options, place.controller_tls, Subject.controller())
    with only_one(place.site / "running.lock", "the Controller of this site"):
        return wiring.run_until_signalled(
            wiring.run_controller(
                home=place,
                broker=access,
                store_url=store,
                heartbeat=HeartbeatSettings(interval_ms=heartbeat_ms),
                log_stream=wiring.stderr(),
                mdns=mdns,
                ready=say_ready,
            )
        )
