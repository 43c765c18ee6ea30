"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aif.transport.clients import Client

HomeOption = Annotated[
    Path,
    typer.Option(
        "--home", help="Folder with this machine's keys, store, models and logs.", envvar="AIF_HOME"
    ),
]
AimsOption = Annotated[
    list[Path],
    typer.Option("--aims", help="Folder with AIM folders, beside the shipped library; repeatable."),
]
BrokerOption = Annotated[
    str,
    typer.Option(
        "--broker",
        help="MQTT broker, mqtt://HOST:PORT, or mqtts:// for TLS; nodes of a cluster with commas between; "
        "mdns: lets a device look for it on the local network. "
        "Default: what `aif broker config` wrote into the home folder, else mqtt://127.0.0.1:1883.",
        show_default=False,
    ),
]
ClientOption = Annotated[
    Client,
    typer.Option(
        "--client",
        help="MQTT client: paho, or fast: the event loop's own, which costs less per message.",
        envvar="AIF_CLIENT",
    ),
]
CAOption = Annotated[
    Path | None, typer.Option("--ca", help="With TLS: PEM file of whom to trust. Default: the home folder's.")
]
CertOption = Annotated[
    Path | None,
    typer.Option(
        "--cert", help="With TLS: PEM file of this client's certificate. Default: the home folder's."
    ),
]
KeyOption = Annotated[
    Path | None, typer.Option("--key", help="PEM file of its key. Default: the file of the certificate.")
]
InventoryOption = Annotated[Path, typer.Option("--inventory", help="Inventory file.")]
RemoteDiskOption = Annotated[
    Path | None,
    typer.Option(
        "--remote-disk",
        exists=True,
        file_okay=False,
        writable=True,
        help="Folder where a remote disk is mounted; AIMs keep sealed data there.",
    ),
]
DEFAULT_BROKER = "mqtt://127.0.0.1:1883"
