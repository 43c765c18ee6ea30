"""zenoh, peer to peer: the receiver listens, the driver connects; no broker and no router process."""

from __future__ import annotations

import asyncio
import importlib
import json
from pathlib import Path
from typing import Any

from benchmarks.broker import HOST
from benchmarks.cell import Role, Run
from benchmarks.certificates import Certificates
from benchmarks.contenders.link import START_S, Intake, Link
from benchmarks.contenders.peer_link import PeerLink

LOOK_S = 0.01


class ZenohLink(PeerLink):
    """One session. A full queue blocks the sender instead of dropping; round trips are not batched."""

    async def open(self) -> None:
        zenoh: Any = importlib.import_module("zenoh")  # in the extra `bench` only
        listens = self.role == "receiver"
        tls = self.run.cell.contender == "zenoh_tls"
        endpoint = json.dumps([f"tls/localhost:{self.run.port}" if tls else f"tcp/{HOST}:{self.run.port}"])
        config = zenoh.Config()
        config.insert_json5("scouting/multicast/enabled", "false")
        config.insert_json5("listen/endpoints", endpoint if listens else "[]")
        config.insert_json5("connect/endpoints", "[]" if listens else endpoint)
        if tls:
            files = Certificates.under(Path(self.run.folder).parent)
            section = {
                "root_ca_certificate": str(files.authority),
                "listen_certificate": str(files.certificate),
                "listen_private_key": str(files.key),
            }
            config.insert_json5("transport/link/tls", json.dumps(section))
        self._session = zenoh.open(config)
        self._subscriber = self._session.declare_subscriber(
            self.hears_on, lambda sample: self.arrived(sample.payload.to_bytes())
        )
        self._publisher = self._session.declare_publisher(
            self.sends_on,
            congestion_control=zenoh.CongestionControl.BLOCK,
            express=self.run.task == "ping",
        )
        if not listens:
            await self._until_matched()

    async def _until_matched(self) -> None:
        """Wait for the other peer's subscription; before that, messages would go nowhere."""
        for _ in range(int(START_S / LOOK_S)):
            if self._publisher.matching_status.matching:
                return
            await asyncio.sleep(LOOK_S)
        raise ConnectionError("zenoh's peers did not find each other")

    def publish(self, payload: bytes) -> None:
        self._publisher.put(payload)

    async def close(self) -> None:
        self._session.close()


def open_link(run: Run, role: Role, intake: Intake) -> Link:
    return ZenohLink(run, role, intake)
