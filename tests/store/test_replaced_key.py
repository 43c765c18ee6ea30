"""A publisher whose key was stolen gets another: what it published stays, the old key counts nowhere."""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Snapshot

from aif.errors import SignatureInvalid, StoreError, UntrustedSigner
from store.keys import RoleKeys
from store.repository import Repository
from tests.store.test_client import MODEL, PATH, Simulator


@pytest.fixture
def sim(repository: Repository, keys: RoleKeys, now: datetime, tmp_path: Path) -> Simulator:
    simulator = Simulator(repository, keys, now, tmp_path)
    simulator.publish(1)
    return simulator


@pytest.fixture
def stolen(sim: Simulator, tmp_path: Path) -> RoleKeys:
    """All keys as they were before the replacement."""
    shutil.copytree(sim.keys.directory, tmp_path / "stolen")
    return RoleKeys.load(tmp_path / "stolen")


@pytest.mark.parametrize("releases", [1, 40], ids=["one file", "bins"])
def test_the_old_key_signs_nothing_any_more_and_the_releases_stay(
    sim: Simulator, stolen: RoleKeys, monkeypatch: pytest.MonkeyPatch, releases: int
) -> None:
    monkeypatch.setattr("store.edition.BIN_STEPS", ((20, 2),))
    for counter in range(2, releases + 1):
        sim.publish(counter)
    client = sim.client()
    client.fetch(PATH)
    found = sim.repository.replace_publisher("acme", now=sim.time)
    assert {release.path for release in found} == {f"aim/acme/kws/{n}" for n in range(1, releases + 1)}
    later = sim.client(floors=client.floors)
    assert later.fetch(PATH) == MODEL
    thief = Repository.open(sim.repository.directory, stolen)
    with pytest.raises(UntrustedSigner):
        thief.publish("acme", "kws", releases + 1, b"evil", kind="model", custom={}, now=sim.time)
    sim.publish(releases + 1, b"good")
    assert sim.client(floors=later.floors).fetch(f"aim/acme/kws/{releases + 1}") == b"good"
    sim.repository.publish("globex", "kws", 1, b"theirs", kind="model", custom={}, now=sim.time)
    assert sim.client(cache="other").fetch("aim/globex/kws/1") == b"theirs"


def test_the_old_key_is_refused_even_with_the_online_keys(sim: Simulator, stolen: RoleKeys) -> None:
    sim.repository.replace_publisher("acme", now=sim.time)
    number = max(int(path.name.split(".")[0]) for path in sim.metadata("x").parent.glob("*.snapshot.json"))
    snapshot = Metadata[Snapshot].from_file(str(sim.metadata(f"{number}.snapshot.json"))).signed
    version = snapshot.meta["publisher.acme.json"].version
    forged = sim.targets(f"{version}.publisher.acme.json")
    forged.version = version + 1
    content = sim.sign(forged, "publisher.acme", f"{version + 1}.publisher.acme.json", stolen)
    sim.sign_top(**{"publisher.acme": content})
    with pytest.raises(SignatureInvalid):
        sim.client().fetch(PATH)


def test_nothing_changes_where_a_key_that_must_sign_is_missing(sim: Simulator) -> None:
    key = sim.keys.directory / "publisher.acme.pem"
    before = key.read_bytes()
    with pytest.raises(UntrustedSigner, match=r"publisher\.nobody does not publish"):
        sim.repository.replace_publisher("nobody", now=sim.time)
    (sim.keys.directory / "targets.pem").unlink()
    with pytest.raises(StoreError, match=r"targets\.pem is not in"):
        sim.repository.replace_publisher("acme", now=sim.time)
    assert key.read_bytes() == before
    sim.publish(2)


def test_a_replacement_that_was_cut_off_is_run_again(sim: Simulator) -> None:
    """The new key is on the disk, the metadata that names it is not."""
    sim.keys.replace_publisher("acme")
    with pytest.raises(UntrustedSigner):
        sim.publish(2)
    sim.repository.replace_publisher("acme", now=sim.time)
    sim.publish(2)
    assert sim.client().fetch("aim/acme/kws/2") == MODEL
