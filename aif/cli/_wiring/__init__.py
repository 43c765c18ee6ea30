"""The composition root: the only place that knows every package. Builds hosts, Controllers and their parts.

Verbs call these functions; nothing else in the project constructs a transport, an engine, a planner or a
store client for the runtime. One file composes one thing; this one only names what verbs may ask for.
"""

from __future__ import annotations

from aif.cli._wiring.connection import open_transport
from aif.cli._wiring.controller import build_controller, poll, run_controller
from aif.cli._wiring.device import (
    identity_of,
    model_fetcher,
    model_service,
    run_device,
    runtime_versions,
    start_engine,
)
from aif.cli._wiring.home import PACKAGE, SHIPPED_AIMS, VENDOR, Home, catalogue, device_hw_class
from aif.cli._wiring.local_network import MDNS, found_on_network
from aif.cli._wiring.process import now, run_until_signalled, stderr
from aif.cli._wiring.registry import revoke_in_registry, withdraw_rights

__all__ = [
    "MDNS",
    "PACKAGE",
    "SHIPPED_AIMS",
    "VENDOR",
    "Home",
    "build_controller",
    "catalogue",
    "device_hw_class",
    "found_on_network",
    "identity_of",
    "model_fetcher",
    "model_service",
    "now",
    "open_transport",
    "poll",
    "revoke_in_registry",
    "run_controller",
    "run_device",
    "run_until_signalled",
    "runtime_versions",
    "start_engine",
    "stderr",
    "withdraw_rights",
]
