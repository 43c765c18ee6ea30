"""Publishing models: sealed once per release under a key of its own, and never twice the same."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from aif.authoring.publication import Publisher, StoredModel
from aif.errors import StoreError
from aif.protocol.chunks import ChunkCipher, ModelAssembly, split_ciphertext
from aif.protocol.content_keys import check_commitment
from aif.trusted.content_keys import PublisherVault, SiteVault
from store.files import FileLayer
from store.keys import RoleKeys
from store.release import Release
from store.repository import Repository
from store.sealing import hw_classes_of, sealing_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = StoredModel("kws", bytes(range(256)) * 40, 4096, 1, 1.0, 1.0, 1, ("a",), {"threshold": 0.5}, {})


class Desk:
    """A publisher, their store, and a site that was given the keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        keys = RoleKeys.create(folder / "keys", ["v"])
        self.files = FullDisk()
        self.repository = Repository.create(folder / "store", keys, now=NOW, files=self.files)
        self.vault = PublisherVault(folder / "keys", os.urandom)
        self.publisher = Publisher(self.repository, "v", lambda: NOW, self.vault)
        self.site = SiteVault(folder / "site", os.urandom)

    def blob(self, release: Release) -> bytes:
        return (self.folder / "store" / "blobs" / release.sha256).read_bytes()

    def opened(self, release: Release) -> bytes:
        """The model as a site with the key opens it."""
        self.site.take(self.vault.hand_over(self.site.public_key))
        sealing = sealing_of(release)
        assert sealing is not None
        key = self.site.key(release.path)
        check_commitment(key, sealing.release.release_id, sealing.key_commitment)
        assembly = ModelAssembly(ChunkCipher(key, sealing.release))
        for index, chunk in enumerate(split_ciphertext(sealing.release, self.blob(release))):
            assembly.add(index, chunk)
        return assembly.finish()


class FullDisk(FileLayer):
    """Writes until it is told that there is no room."""

    full = False

    def publish(self, path: Path, content: bytes, *, mode: int = 0o644) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        super().publish(path, content, mode=mode)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_model_is_stored_as_ciphertext_that_its_key_opens(desk: Desk) -> None:
    release = desk.publisher.model(MODEL)
    assert release.measurement == hashlib.sha256(MODEL.tflite).hexdigest() != release.sha256
    assert release.length == len(desk.blob(release)) == len(MODEL.tflite) + 3 * 16
    stored = b"".join(path.read_bytes() for path in (desk.folder / "store").rglob("*") if path.is_file())
    assert MODEL.tflite[:64] not in stored
    assert desk.opened(release) == MODEL.tflite


def test_the_same_model_is_published_once(desk: Desk) -> None:
    assert desk.publisher.model(MODEL) == desk.publisher.model(MODEL)
    assert len(desk.repository.releases()) == 1


@pytest.mark.parametrize(
    "changed",
    [
        replace(MODEL, tflite=MODEL.tflite[::-1]),
        replace(MODEL, parameters={"threshold": 0.6}),
        replace(MODEL, arena_bytes=8192),
    ],
)
def test_every_release_has_a_key_of_its_own(desk: Desk, changed: StoredModel) -> None:
    first, second = desk.publisher.model(MODEL), desk.publisher.model(changed)
    assert (first.counter, second.counter) == (1, 2)
    assert desk.opened(first) == MODEL.tflite
    assert desk.opened(second) == changed.tflite
    assert desk.site.key(first.path) != desk.site.key(second.path)
    assert desk.blob(first)[:64] != desk.blob(second)[:64]


def test_a_publisher_who_lost_the_key_publishes_again(desk: Desk) -> None:
    first = desk.publisher.model(MODEL)
    (desk.folder / "keys" / "content_keys.cbor").unlink()
    again = Publisher(desk.repository, "v", lambda: NOW, PublisherVault(desk.folder / "keys", os.urandom))
    second = again.model(MODEL)
    assert (second.counter, second.measurement) == (2, first.measurement)


def test_a_plain_model_is_published_sealed_when_it_is_published_again(desk: Desk) -> None:
    plain = desk.publisher.model(MODEL, plain=True)
    assert sealing_of(plain) is None
    assert desk.blob(plain) == MODEL.tflite
    sealed = desk.publisher.model(MODEL)
    assert sealed.counter == 2
    assert desk.opened(sealed) == MODEL.tflite


def test_a_publication_that_was_interrupted_does_not_lend_its_key_to_the_next(desk: Desk) -> None:
    desk.files.full = True
    with pytest.raises((OSError, StoreError)):
        desk.publisher.model(MODEL)
    desk.files.full = False
    desk.site.take(desk.vault.hand_over(desk.site.public_key))
    unused = desk.site.key("aim/v/kws/1")
    release = desk.publisher.model(replace(MODEL, tflite=MODEL.tflite[::-1]))
    assert release.counter == 1
    assert desk.opened(release) == MODEL.tflite[::-1]
    assert desk.site.key(release.path) != unused


def test_a_model_can_be_for_some_hardware_only(desk: Desk) -> None:
    assert hw_classes_of(desk.publisher.model(MODEL)) == frozenset()
    assert hw_classes_of(desk.publisher.model(MODEL, hw_classes=["b/a"])) == {"b/a"}
