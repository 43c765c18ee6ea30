"""`aif run --broker mosquitto`: one command, mutual TLS, access rules, and nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aif.transport.mosquitto import program
from tests.integration.terminals import DEVICES, GESTURE, descendants

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def test_a_run_over_a_production_broker_of_its_own(home: Path, tmp_path: Path) -> None:
    assert program().exists()
    summary, before = tmp_path / "summary.json", descendants(os.getpid())
    for _ in range(2):  # the second one finds certificates and devices that are enrolled
        done = subprocess.run(
            [
                sys.executable, "-m", "aif.cli.main", "run", GESTURE, "--home", home,
                "--broker", "mosquitto", "--speed", "200", "--summary", summary,
            ],
            capture_output=True, text=True, check=False, timeout=200,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        told = json.loads(summary.read_text())
        assert told["state"] == "completed"
        assert told["messages"]["rejected"] == told["messages"]["lost"] == 0
    assert descendants(os.getpid()) == before
    configuration = (home / "broker" / "mosquitto.conf").read_text()
    assert "require_certificate true" in configuration
    assert "tls_version tlsv1.3" in configuration
    rules = (home / "broker" / "access-rules").read_text()
    assert "aif/ch/" not in rules  # the channels were open while the workflow ran
    for name in DEVICES:
        assert f"CN={name}" in rules
        assert (home / "devices" / name / "tls" / "own.pem").stat().st_mode & 0o077 == 0
        assert "enrolled" not in (home / "logs" / f"{name}.log").read_text()  # it was, in the first run
