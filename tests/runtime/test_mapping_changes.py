"""Which AIMs and channel ends of two documents are the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aif.model.ports import AuthMode
from aif.protocol.deployment import DeployedAIM, Deployment, ModelRelease, RemoteChannel
from aif.runtime.mapping_changes import same_end, same_part, staying_aims, staying_standbys

MODEL = ModelRelease("m", "m/1", 1, bytes(32), 10, 0, b"ticket")
ONE = DeployedAIM("one", "One@1.0", bytes(32), "any", {"n": 1}, MODEL)
TWO = DeployedAIM("two", "Two@1.0", bytes(32), "any", {})
CHANNEL = RemoteChannel(
    bytes(16), "t", "one.out", "here", ("two.in", "three.in"), ("there", "far"), AuthMode.SIGNED, 0, 1, 0.0,
    1000, 0,
)  # fmt: skip
PART = Deployment(1, "here", "W-1", "W", "1.0", 4, 100, "http://store", (ONE, TWO), (), (CHANNEL,), ())


def test_a_part_is_the_same_whatever_its_version_its_store_and_its_tickets() -> None:
    installed = replace(ONE, model=replace(MODEL, ticket=b""))
    later = replace(PART, mapping_version=9, issued_us=200, store_url="http://other", aims=(installed, TWO))
    assert same_part(PART, later)
    assert staying_aims(PART, later) == {"one", "two"}


@pytest.mark.parametrize(
    "other",
    [
        replace(ONE, parameters={"n": 2}),
        replace(ONE, implementation="slow"),
        replace(ONE, package_sha256=bytes([1]) * 32),
        replace(ONE, model=replace(MODEL, counter=2)),
    ],
    ids=["parameter", "implementation", "package", "model"],
)
def test_an_aim_in_other_words_does_not_stay(other: DeployedAIM) -> None:
    after = replace(PART, aims=(other, TWO))
    assert not same_part(PART, after)
    assert staying_aims(PART, after) == {"two"}


def test_standbys_are_a_part_of_their_own() -> None:
    ready = replace(PART, aims=(ONE,), standbys=(TWO,))
    assert not same_part(replace(PART, aims=(ONE,)), ready)
    assert same_part(ready, replace(ready, mapping_version=9))
    assert staying_standbys(ready, ready) == {"two"}
    other = replace(ready, standbys=(replace(TWO, implementation="slow"),))
    assert staying_standbys(ready, other) == set()
    assert staying_aims(ready, PART) == {"one"}, "one that takes over begins"
    assert staying_standbys(ready, PART) == set()


def test_an_end_stays_when_only_the_far_ends_move() -> None:
    moved = replace(CHANNEL, destination_devices=("elsewhere", "far"))
    assert not same_part(PART, replace(PART, remote_channels=(moved,)))
    assert same_end(CHANNEL, moved, "here")
    assert same_end(CHANNEL, replace(CHANNEL, source_device="new"), "far")
    assert not same_end(CHANNEL, moved, "there")
    assert not same_end(CHANNEL, moved, "elsewhere")
    assert not same_end(CHANNEL, None, "here")
    assert not same_end(CHANNEL, replace(CHANNEL, qos=1), "here")
    assert not same_end(CHANNEL, replace(CHANNEL, source_device="new"), "here")


def test_an_end_is_another_when_its_frames_stay_on_the_host_now() -> None:
    within = replace(CHANNEL, destination_devices=("here", "here"))
    assert not same_end(CHANNEL, within, "here")
