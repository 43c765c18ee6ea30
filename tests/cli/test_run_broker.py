"""`aif run --broker mosquitto`, as far as it is refused before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from aif.cli import _wiring as wiring
from aif.cli._local_run import LocalRun, RunOptions
from aif.cli.broker import app
from aif.errors import AlreadyRunning, NotFound
from aif.runtime.devices.site_broker import BrokerRecord, SiteBroker
from aif.transport import mosquitto

GESTURE = Path(__file__).parents[2] / "workflows" / "gesture"


def run(home: Path) -> LocalRun:
    return LocalRun(
        RunOptions(
            GESTURE / "gesture.aiw.yaml", GESTURE / "inventory.yaml", home, (), "mosquitto", None,
            follow=False, speed=None,
        )
    )  # fmt: skip


@pytest.fixture
def without_mosquitto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(mosquitto, "_ALSO_IN", "")


def test_without_mosquitto_nothing_is_done_and_the_hint_says_how_to_get_it(
    tmp_path: Path, without_mosquitto: None
) -> None:
    with pytest.raises(NotFound, match="Mosquitto is not installed") as refused:
        run(tmp_path / "home").run()
    assert "apt install mosquitto" in refused.value.hint
    assert not (tmp_path / "home").exists()


def test_a_home_folder_of_somebody_elses_broker_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mosquitto, "program", lambda: Path("mosquitto"))
    home = wiring.Home(tmp_path / "home")
    home.site.mkdir(parents=True)
    SiteBroker(home.site).configure(BrokerRecord("/etc/mosquitto/tinyaif", "mqtts://broker:8883"))
    with pytest.raises(AlreadyRunning, match="/etc/mosquitto/tinyaif") as refused:
        run(home.root).run()
    assert "--home" in refused.value.hint


def test_there_is_nothing_to_start_without_a_set_up(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["start", "--home", str(tmp_path)])
    assert isinstance(result.exception, NotFound)
    assert "aif broker config" in result.exception.hint
