"""Who is compared, by name.

Decides the list; each client has a file of its own, imported only in the process that runs it.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.cell import Role, Run
from benchmarks.contenders.link import Intake, Link

Open = Callable[[Run, Role, Intake], Link]


@dataclass(frozen=True, slots=True)
class Contender:
    """One name in the tables."""

    module: str
    """Where its ``open_link`` is."""
    needs: tuple[str, ...] = ()
    """Import names beyond the project's own requirements (the extra ``bench``)."""
    brokerless: bool = False
    note: str = ""

    def missing(self) -> list[str]:
        """Which of ``needs`` are not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]

    def open(self, run: Run, role: Role, intake: Intake) -> Link:
        """This contender's end of a run."""
        open_link: Open = importlib.import_module(f"benchmarks.contenders.{self.module}").open_link
        return open_link(run, role, intake)


CONTENDERS = {
    "paho_plain": Contender("paho_client", note="TCP_NODELAY set, bytes"),
    "paho_waiting": Contender(
        "paho_client", note="as paho_plain; the application's thread waits and publishes"
    ),
    "paho_stock": Contender("paho_client", note="as paho_waiting and as paho comes, without TCP_NODELAY"),
    "paho_typed": Contender("paho_client", ("msgspec",), note="msgspec record per message"),
    "paho_tls": Contender("paho_client", note="TLS to the broker, which sees everything"),
    "paho_bundled": Contender("paho_client", ("msgspec",), note="K msgspec records per packet, unprotected"),
    "obvious": Contender(
        "paho_client", ("msgspec",), note="msgspec, Ed25519, XChaCha20 per message (PyNaCl)"
    ),
    "gmqtt": Contender("gmqtt_client", ("gmqtt",), note="asyncio client, bytes"),
    "zenoh": Contender("zenoh_session", ("zenoh",), brokerless=True, note="peer to peer, no broker process"),
    "zenoh_typed": Contender("zenoh_session", ("zenoh", "msgspec"), brokerless=True, note="msgspec records"),
    "zenoh_tls": Contender("zenoh_session", ("zenoh",), brokerless=True, note="TLS between the two peers"),
    "dora": Contender("dora_node", ("dora", "pyarrow"), brokerless=True, note="two nodes and dora's daemon"),
    "aif_paho": Contender("aif_port", note="port to port over paho, the default client"),
    "aif_fast": Contender("aif_port", note="port to port over the event loop's own client, --client fast"),
}
