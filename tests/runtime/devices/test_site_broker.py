"""Rights that follow deployments and revocations, at a real Mosquitto."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from aif.errors import CertificateRevoked
from aif.runtime.devices.site_broker import BrokerRecord, Reload, SiteBroker
from aif.transport.base import Transport
from aif.transport.mosquitto_config import ChannelAccess
from aif.trusted.certificates import Subject
from aif.trusted.state import SiteState, StateFile, write_atomically
from tests.adversary.test_broker_rules import Broker, SetUp, joined

NUMBER = ChannelAccess("aif/ch/Adding-7/count/number", "left", ("right",))
LEFT, RIGHT = Subject.device("left"), Subject.device("right")


def now() -> datetime:
    return datetime.now(UTC)


def site_of(made: SetUp) -> SiteBroker:
    """A site whose broker is the one of the set-up, with nothing deployed."""
    StateFile(made.folder / "site.cbor", SiteState).save(SiteState.create("test", os.urandom))
    site = SiteBroker(made.folder)
    site.configure(BrokerRecord(str(made.files.root), devices=("left", "right", "third")))
    return site


@pytest.mark.integration
def test_a_channel_is_open_only_while_its_workflow_is_deployed(tmp_path: Path) -> None:
    made = SetUp(tmp_path)
    site = site_of(made)
    assert site.refresh() is Reload.NOT_RUNNING
    broker = Broker(made.files.configuration, made.port)

    async def journey() -> None:
        async with (
            joined(made.transport(made.context(LEFT))) as left,
            joined(made.transport(made.context(RIGHT))) as right,
        ):
            await left.publish(NUMBER.topic, "before")
            await right.settle()
            assert right.payloads == []

            assert site.deployed("Adding-7", [NUMBER]) is Reload.TOLD
            async with asyncio.timeout(20):
                while not right.payloads:  # the broker takes the signal when it comes to it
                    await left.publish(NUMBER.topic, "during")
                    await right.settle()
            await right.publish(NUMBER.topic, "from its reader")
            await left.settle()
            assert left.payloads == []

            assert site.undeployed("Adding-7") is Reload.TOLD
            async with asyncio.timeout(20):
                while True:
                    seen = len(right.payloads)
                    await left.publish(NUMBER.topic, "after")
                    await right.settle()
                    if len(right.payloads) == seen:
                        break
            assert set(right.payloads) <= {"during", "after"}

    try:
        asyncio.run(journey())
    finally:
        broker.stop()


@pytest.mark.integration
def test_revoking_closes_what_is_open_and_what_may_come(tmp_path: Path) -> None:
    made = SetUp(tmp_path)
    site = site_of(made)
    site.deployed("Adding-7", [NUMBER])
    broker = Broker(made.files.configuration, made.port)
    stolen = made.context(LEFT)

    async def refused(transport: Transport) -> None:
        with pytest.raises(CertificateRevoked) as caught:
            await transport.connect()
        assert caught.value.hint
        assert not caught.value.of_broker

    async def journey() -> None:
        async with (
            joined(made.transport(made.context(LEFT))) as left,
            joined(made.transport(made.context(RIGHT))) as right,
        ):
            await left.publish(NUMBER.topic, "before")
            await right.settle()
            assert right.payloads == ["before"]
            assert site.revoke("left", now=now()) is Reload.TOLD
            async with asyncio.timeout(20):  # the broker reads its rules when it gets to the signal
                heard = 0
                while len(right.payloads) > heard:
                    heard = len(right.payloads)
                    await left.publish(NUMBER.topic, "after")
                    await right.settle()
            await refused(made.transport(stolen))

    try:
        asyncio.run(journey())
    finally:
        broker.stop()
    assert "left" not in (made.files.root / "access-rules").read_text().replace("# left is revoked", "")
    site.admit("left")
    assert LEFT.user in (made.files.root / "access-rules").read_text()


def test_a_site_without_a_set_up_only_lists_certificates(tmp_path: Path) -> None:
    site = SiteBroker(tmp_path)
    assert site.revoke("left", now=now()) is Reload.NOT_CONFIGURED
    authority = site.authority(os.urandom, now=now())
    pem = authority.issue(LEFT, now=now()).pem
    assert site.revoke("left", now=now()) is Reload.NOT_CONFIGURED
    assert authority.replacement_reason(pem, LEFT, now=now()) == "revoked"
    assert site.deployed("Adding-7", [NUMBER]) is Reload.NOT_CONFIGURED
    assert site.url == ""


def test_a_number_that_belongs_to_another_program_is_not_signalled(tmp_path: Path) -> None:
    site = SiteBroker(tmp_path)
    StateFile(tmp_path / "site.cbor", SiteState).save(SiteState.create("test", os.urandom))
    site.configure(BrokerRecord(str(tmp_path), devices=("left", "right")))
    write_atomically(tmp_path / "mosquitto.pid", str(os.getpid()).encode())  # SIGHUP would end this process
    assert site.deployed("Adding-7", [NUMBER]) is Reload.NOT_RUNNING
    assert NUMBER.topic in (tmp_path / "access-rules").read_text()


def test_channels_of_devices_that_are_gone_do_not_hinder_the_others(tmp_path: Path) -> None:
    site = SiteBroker(tmp_path)
    site.configure(BrokerRecord(str(tmp_path), devices=("left", "right")))
    site.deployed("Adding-7", [NUMBER, ChannelAccess("aif/ch/Adding-7/a/b", "left", ("gone",))])
    rules = (tmp_path / "access-rules").read_text()
    assert NUMBER.topic in rules
    assert "Adding-7/a/b" not in rules
    site.configure(BrokerRecord(str(tmp_path), devices=("left", "right", "gone")))
    site.refresh()
    assert "Adding-7/a/b" in (tmp_path / "access-rules").read_text()
    site.only(())
    assert "aif/ch/" not in (tmp_path / "access-rules").read_text()
