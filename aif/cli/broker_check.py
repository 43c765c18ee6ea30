"""``aif broker check``: does the broker serve as this home folder's site needs it?"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from aif.cli._options import BrokerOption, HomeOption

app = typer.Typer(add_completion=False)


@app.command()
def check(
    device: Annotated[str, typer.Option("--device", help="A device of this home folder, to speak as.")],
    broker: BrokerOption = "",
    home: HomeOption = Path(".aif"),
) -> int:
    """Measure an exchange at QoS 0 and 1, and check TLS and access rules. The Controller must be stopped."""
    from aif.cli import _wiring as wiring
    from aif.cli._broker_access import BrokerOptions, broker_access
    from aif.protocol.topics import Enrolment, EnrolmentTopic, Up, UpTopic
    from aif.runtime.processes import only_one
    from aif.transport.echo import Echo, echo
    from aif.trusted.certificates import Subject

    place = wiring.Home(home)
    place.known_device(device)
    ours = broker_access(BrokerOptions(broker), place.controller_tls, Subject.controller())
    theirs = broker_access(BrokerOptions(str(ours)), place.device_tls(device), Subject.device(device))

    async def measure() -> Echo:
        async with (
            wiring.open_transport(ours, "controller") as controller,
            wiring.open_transport(theirs, "", enrol=True) as asking,
        ):
            return await echo(
                asking, controller,
                question=str(EnrolmentTopic(device, Enrolment.REQUEST)),
                answer=str(EnrolmentTopic(device, Enrolment.RESPONSE)),
                forbidden=str(UpTopic(device, Up.STATUS)),
            )  # fmt: skip

    with only_one(place.site / "running.lock", "the Controller of this site"):
        seen = asyncio.run(measure())
    print(f"broker        {ours}")
    print(f"TLS           {'mutual, 1.3' if ours.tls is not None else 'NONE: for one machine only'}")
    rules = f"NONE: anybody may write {seen.open_topics[0]}" if seen.open_topics else "in force"
    print(f"access rules  {rules}")
    print(f"exchange      {seen.qos_0_ms:.2f} ms at QoS 0, {seen.qos_1_ms:.2f} ms at QoS 1 (medians)")
    if seen.delayed:
        print("small packets are held back (Nagle's algorithm): set `set_tcp_nodelay true` at the broker")
    return 1 if seen.delayed or seen.open_topics else 0
