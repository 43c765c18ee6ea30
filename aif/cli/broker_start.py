"""``aif broker start``: the Mosquitto of this home folder, in this process's place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

from aif.cli._options import HomeOption


def start(home: HomeOption = Path(".aif")) -> NoReturn:
    """Start the Mosquitto that `aif broker config` wrote for this home folder; this process becomes it."""
    from aif.cli import _wiring as wiring
    from aif.cli.broker_config import BrokerFiles
    from aif.errors import NotFound
    from aif.runtime.devices.site_broker import SiteBroker
    from aif.runtime.processes import die_with_parent
    from aif.transport import mosquitto

    site = SiteBroker(wiring.Home(home).site)
    if not site.configured:
        raise NotFound(
            f"{home} has no broker set-up",
            hint="`aif broker config --inventory FILE --output FOLDER` writes one",
        )
    program = mosquitto.program()
    die_with_parent()
    arguments = [str(program), "-c", str(BrokerFiles(site.folder).configuration)]
    os.execv(program, arguments)  # noqa: S606  # no shell is wanted: this process is to be the broker
