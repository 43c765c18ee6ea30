"""The record of where and with what a benchmark ran.

Decides what is recorded and how much load forbids to start. Measures nothing.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import ssl
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.broker import SETTINGS, program

CALM_LOAD = 0.5
"""Highest one-minute load average at which a benchmark starts unless told otherwise."""

PACKAGES = (
    "tinyaif", "paho-mqtt", "cryptography", "PyNaCl", "msgspec", "eclipse-zenoh", "dora-rs", "gmqtt",
    "numpy", "ortools",
)  # fmt: skip


def load() -> float:
    """Load average of the last minute."""
    return os.getloadavg()[0]


def describe(*, seed: int, cpus: list[int], broker: bool = True) -> dict[str, Any]:
    """Versions, machine, broker settings (where one is used), seed and load, as they are now."""
    cpu = Path("/proc/cpuinfo").read_text()
    flags = set(_field(cpu, "flags").split())
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cpu": _field(cpu, "model name"),
        "cpu_count": os.cpu_count(),
        "cpus_used": cpus,
        "governor": governor.read_text().strip() if governor.exists() else "not told",
        "aes_instructions": "aes" in flags,
        "sha_instructions": "sha_ni" in flags,
        "openssl": ssl.OPENSSL_VERSION,
        "packages": {name: version for name in PACKAGES if (version := _version(name)) is not None},
        "mosquitto": _first_line([program(), "-h"]) if broker else "not used",
        "mosquitto_settings": SETTINGS.read_text().splitlines() if broker else [],
        "git": _first_line(["git", "describe", "--always", "--dirty", "--abbrev=12"]),
        "seed": seed,
        "load_before": os.getloadavg(),
    }


def _field(text: str, name: str) -> str:
    found = re.search(rf"^{re.escape(name)}\s*:\s*(.*)$", text, re.MULTILINE)
    return found[1] if found else "not told"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=10, cwd=Path(__file__).parent
        )
    except OSError:
        return "not told"
    return (done.stdout.splitlines() or ["not told"])[0]
