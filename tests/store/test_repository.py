from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from aif.errors import NotFound, StoreError, UntrustedSigner
from store import edition as edition_module
from store.client import StoreClient
from store.files import FileLayer, exclusive_lock
from store.keys import RoleKeys
from store.release import Release
from store.repository import Repository

MODEL = b"a model" * 100


class DirectoryFetcher:
    """The bytes of a repository directory, as a server would send them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def fetch(self, path: str, offset_bytes: int = 0) -> Iterator[bytes]:
        try:
            yield (self.directory / path).read_bytes()[offset_bytes:]
        except FileNotFoundError as error:
            raise NotFound(f"no {path}") from error


def publish(repository: Repository, counter: int, content: bytes, now: datetime) -> Release:
    return repository.publish(
        "acme", "kws", counter, content, kind="model", custom={"name": "kws", "arena_bytes": 22_000}, now=now
    )


def metadata(repository: Repository, name: str) -> bytes:
    return (repository.directory / "metadata" / name).read_bytes()


def tree(repository: Repository) -> dict[str, bytes]:
    files = (path for path in repository.directory.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(repository.directory)): path.read_bytes() for path in files}


# --- shape ------------------------------------------------------------------------------------------


def test_roles_thresholds_expiries_and_delegations(repository: Repository, now: datetime) -> None:
    root = Metadata[Root].from_bytes(repository.root_bytes()).signed
    assert {name: (len(role.keyids), role.threshold) for name, role in root.roles.items()} == {
        "root": (3, 2),
        "targets": (1, 1),
        "snapshot": (1, 1),
        "timestamp": (1, 1),
    }
    assert root.consistent_snapshot
    assert root.expires - now == timedelta(days=365)
    timestamp = Metadata[Timestamp].from_bytes(metadata(repository, "timestamp.json")).signed
    snapshot = Metadata[Snapshot].from_bytes(metadata(repository, "1.snapshot.json")).signed
    targets = Metadata[Targets].from_bytes(metadata(repository, "1.targets.json")).signed
    assert timestamp.expires - now == timedelta(days=1)
    assert snapshot.expires - now == timedelta(days=7)
    assert targets.expires - now == timedelta(days=90)
    assert targets.targets == {}
    assert targets.delegations is not None
    assert targets.delegations.roles is not None
    patterns = {name: (role.paths, role.terminating) for name, role in targets.delegations.roles.items()}
    assert patterns == {
        "publisher.acme": (["aim/acme/*/*"], True),
        "publisher.globex": (["aim/globex/*/*"], True),
    }
    assert all(meta.hashes for meta in (timestamp.snapshot_meta, *snapshot.meta.values()))


def test_a_second_store_in_one_directory_is_refused(
    repository: Repository, keys: RoleKeys, now: datetime
) -> None:
    with pytest.raises(StoreError, match=r"a store at .* already"):
        Repository.create(repository.directory, keys, now=now)


def test_a_missing_store_says_what_to_do(keys: RoleKeys, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no store at") as caught:
        Repository.open(tmp_path / "nothing", keys)
    assert "aif store init" in caught.value.hint


# --- publishing -------------------------------------------------------------------------------------


def test_a_release_describes_what_was_published(repository: Repository, now: datetime) -> None:
    release = publish(repository, 3, MODEL, now)
    digest = hashlib.sha256(MODEL).hexdigest()
    assert (release.path, release.sha256, release.length) == ("aim/acme/kws/3", digest, len(MODEL))
    assert release.measurement == digest
    assert release.custom == {"name": "kws", "arena_bytes": 22_000}
    assert (repository.directory / "blobs" / digest).read_bytes() == MODEL
    assert repository.releases() == (release,)


def test_publishing_the_same_again_changes_nothing(repository: Repository, now: datetime) -> None:
    first = publish(repository, 3, MODEL, now)
    publish(repository, 4, b"newer", now)
    before = tree(repository)
    assert publish(repository, 3, MODEL, now + timedelta(hours=1)) == first
    assert tree(repository) == before


@pytest.mark.parametrize("counter", [0, 2, 3])
def test_counters_only_grow(repository: Repository, now: datetime, counter: int) -> None:
    publish(repository, 3, MODEL, now)
    before = tree(repository)
    with pytest.raises(StoreError, match="the newest counter of kws is 3") as caught:
        publish(repository, counter, b"other content", now)
    assert caught.value.hint.startswith("use 4")
    assert tree(repository) == before


def test_counters_of_other_components_and_vendors_are_free(repository: Repository, now: datetime) -> None:
    publish(repository, 3, MODEL, now)
    repository.publish("acme", "vad", 1, MODEL, kind="model", custom={}, now=now)
    repository.publish("globex", "kws", 1, MODEL, kind="model", custom={}, now=now)
    assert [release.path for release in repository.releases()] == [
        "aim/acme/kws/3",
        "aim/acme/vad/1",
        "aim/globex/kws/1",
    ]
    assert len(list((repository.directory / "blobs").iterdir())) == 1


def test_a_damaged_blob_is_written_again(repository: Repository, now: datetime) -> None:
    release = publish(repository, 1, MODEL, now)
    blob = repository.directory / "blobs" / release.sha256
    blob.write_bytes(MODEL[:-1] + b"?")
    publish(repository, 2, MODEL, now)
    assert blob.read_bytes() == MODEL


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "virus"}, "'virus' is not a kind"),
        ({"content": b""}, "content of 0 B"),
        ({"vendor": "../x"}, "vendor"),
        ({"component": "a/b"}, "component"),
        ({"counter": -1}, "counter -1"),
        ({"counter": 2**32}, "counter 4294967296"),
        ({"custom": {"scale": 0.5}}, "a float at custom.scale"),
        ({"measurement": "none"}, "not a SHA-256"),
    ],
)
def test_a_value_out_of_range_is_refused_before_anything_is_written(
    repository: Repository, now: datetime, change: dict[str, object], message: str
) -> None:
    before = tree(repository)
    values: dict[str, object] = {
        "vendor": "acme", "component": "kws", "counter": 1, "content": MODEL, "kind": "model", "custom": {}
    }  # fmt: skip
    with pytest.raises(StoreError, match=message):
        repository.publish(**(values | change), now=now)  # type: ignore[arg-type]
    assert tree(repository) == before


def test_a_vendor_without_delegation_cannot_publish(
    repository: Repository, keys: RoleKeys, now: datetime
) -> None:
    keys.add_publisher("initech")
    with pytest.raises(UntrustedSigner, match=r"publisher\.initech does not publish in this store"):
        repository.publish("initech", "kws", 1, MODEL, kind="model", custom={}, now=now)
    repository.add_publisher("initech", now=now)
    repository.publish("initech", "kws", 1, MODEL, kind="model", custom={}, now=now)
    with pytest.raises(StoreError, match="is a publisher of this store already"):
        repository.add_publisher("initech", now=now)


@pytest.mark.parametrize("role", ["publisher.acme", "snapshot", "timestamp"])
def test_the_key_of_another_store_signs_nothing(
    repository: Repository, keys: RoleKeys, tmp_path: Path, now: datetime, role: str
) -> None:
    other = RoleKeys.create(tmp_path / "other", ["acme"])
    shutil.copy(other.directory / f"{role}.pem", keys.directory / f"{role}.pem")
    before = tree(repository)
    with pytest.raises(UntrustedSigner, match=f"is not the {role} key of this store"):
        publish(repository, 1, MODEL, now)
    assert tree(repository) == before


def test_publishing_needs_no_offline_key(repository: Repository, keys: RoleKeys, now: datetime) -> None:
    for name in ("root-1", "root-2", "root-3", "targets", "publisher.globex"):
        (keys.directory / f"{name}.pem").unlink()
    publish(repository, 1, MODEL, now)
    (keys.directory / "publisher.acme.pem").unlink()
    repository.refresh_timestamp(now=now + timedelta(days=5))


@pytest.mark.parametrize("name", ["timestamp.json", "2.snapshot.json", "2.publisher.acme.json"])
def test_nothing_is_signed_on_top_of_metadata_that_was_changed_on_disk(
    repository: Repository, now: datetime, name: str
) -> None:
    publish(repository, 1, MODEL, now)
    path = repository.directory / "metadata" / name
    path.write_bytes(path.read_bytes().replace(b"2026", b"2027"))
    before = tree(repository)
    with pytest.raises(StoreError, match="metadata of this store is damaged, nothing was signed"):
        publish(repository, 2, b"new", now)
    assert tree(repository) == before


def test_two_publications_at_a_time_are_refused(repository: Repository, now: datetime) -> None:
    with (
        exclusive_lock(repository.directory / ".lock", wait=False),
        pytest.raises(StoreError, match="is being changed by another process"),
    ):
        publish(repository, 1, MODEL, now)
    publish(repository, 1, MODEL, now)


# --- yanking and renewing ---------------------------------------------------------------------------


def test_a_yanked_release_is_marked_and_its_counter_stays_used(repository: Repository, now: datetime) -> None:
    publish(repository, 1, MODEL, now)
    yanked = repository.yank("aim/acme/kws/1", "wrong labels", now=now)
    assert repository.releases() == (yanked,)
    assert yanked.yanked == "wrong labels"
    with pytest.raises(StoreError, match="newest counter of kws is 1"):
        publish(repository, 1, MODEL, now)


def test_yanking_needs_a_release_and_a_reason(repository: Repository, now: datetime) -> None:
    with pytest.raises(NotFound, match="nothing is published at aim/acme/kws/7"):
        repository.yank("aim/acme/kws/7", "because", now=now)
    with pytest.raises(StoreError, match="needs a reason"):
        repository.yank("aim/acme/kws/7", "", now=now)


def versions(repository: Repository) -> tuple[int, int, dict[str, int]]:
    timestamp = Metadata[Timestamp].from_bytes(metadata(repository, "timestamp.json")).signed
    number = timestamp.snapshot_meta.version
    snapshot = Metadata[Snapshot].from_bytes(metadata(repository, f"{number}.snapshot.json")).signed
    return timestamp.version, number, {name: meta.version for name, meta in snapshot.meta.items()}


def test_refreshing_signs_only_what_is_due(repository: Repository, now: datetime) -> None:
    all_first = {"targets.json": 1, "publisher.acme.json": 1, "publisher.globex.json": 1}
    repository.refresh_timestamp(now=now + timedelta(days=1))
    assert versions(repository) == (2, 1, all_first)
    repository.refresh_timestamp(now=now + timedelta(days=4))
    assert versions(repository) == (3, 2, all_first)
    repository.renew(now=now + timedelta(days=5))
    assert versions(repository) == (4, 2, all_first)
    repository.renew(now=now + timedelta(days=50))
    assert versions(repository) == (5, 3, dict.fromkeys(all_first, 2))


def test_a_moment_without_a_time_zone_is_refused(repository: Repository, now: datetime) -> None:
    with pytest.raises(ValueError, match="time zone"):
        repository.refresh_timestamp(now=now.replace(tzinfo=None))


# --- many targets -----------------------------------------------------------------------------------


def test_a_publisher_that_grows_is_spread_over_bins_and_stays_readable(
    repository: Repository, now: datetime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edition_module, "BIN_STEPS", ((4, 1), (7, 3)))
    client = client_for(repository.directory, repository.root_bytes(), tmp_path / "cache", now)
    for counter in range(1, 12):
        publish(repository, counter, b"content %d" % counter, now)
        client.refresh()
        for earlier in range(1, counter + 1):
            assert client.fetch(f"aim/acme/kws/{earlier}") == b"content %d" % earlier
    with pytest.raises(NotFound):
        client.find("aim/acme/kws/12")
    assert {name.rpartition("-")[0] for name in client.floors.targets if "-" in name} == {
        "publisher.acme.b1",
        "publisher.acme.b3",
    }
    assert sum(name.startswith("publisher.acme.b3-") for name in client.floors.targets) == 8
    repository.yank("aim/acme/kws/5", "wrong", now=now)
    client.refresh()
    assert client.find("aim/acme/kws/5").yanked == "wrong"
    repository.renew(now=now + timedelta(days=60))
    assert len(repository.releases()) == 11


# --- crashes and failing disks ----------------------------------------------------------------------


class FailingFileLayer(FileLayer):
    """Fails one disk operation, as a full disk does."""

    def __init__(self, fails_at: int) -> None:
        self.left = fails_at

    def _fail_when_due(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(self, path: Path, content: bytes, mode: int) -> None:
        path.write_bytes(content[:7])
        self._fail_when_due()
        super().write(path, content, mode)

    def replace(self, source: Path, target: Path) -> None:
        self._fail_when_due()
        super().replace(source, target)


def client_for(directory: Path, root: bytes, cache: Path, now: datetime) -> StoreClient:
    return StoreClient("test", cache, root, fetcher=DirectoryFetcher(directory), now=lambda: now)


def test_a_full_disk_leaves_the_old_repository(
    repository: Repository, keys: RoleKeys, now: datetime, tmp_path: Path
) -> None:
    publish(repository, 1, MODEL, now)
    failures = 0
    for step in range(100):
        copy = tmp_path / "copies" / str(step)
        shutil.copytree(repository.directory, copy)
        broken = Repository.open(copy, keys, files=FailingFileLayer(step))
        client = client_for(copy, repository.root_bytes(), tmp_path / str(step), now)
        try:
            publish(broken, 2, b"new", now)
        except StoreError as error:
            failures += 1
            assert "No space left on device" in str(error)  # noqa: PT017 - the loop ends with a success
            assert not list(copy.rglob("*.tmp"))
            assert client.fetch("aim/acme/kws/1") == MODEL
            with pytest.raises(NotFound):
                client.find("aim/acme/kws/2")
        else:
            assert client.fetch("aim/acme/kws/2") == b"new"
            break
    assert failures == 8  # blob, publisher, snapshot, timestamp: write and rename


@pytest.mark.integration
def test_kill_at_every_disk_operation_leaves_the_old_or_the_new_repository(
    repository: Repository, keys: RoleKeys, now: datetime, tmp_path: Path
) -> None:
    publish(repository, 1, MODEL, now)
    output = tmp_path / "crashed"
    output.mkdir()
    program = Path(__file__).with_name("crash_publisher.py")
    arguments = [program, repository.directory, keys.directory, output, now.isoformat()]
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    subprocess.run([sys.executable, *map(str, arguments)], check=True, timeout=60, env=environment)
    steps: list[str] = json.loads((output / "steps.json").read_text())
    assert len(steps) == 12  # four files, each written, renamed, and its directory flushed
    seen_new = []
    for number, step in enumerate(steps):
        crashed = output / str(number)
        client = client_for(crashed, repository.root_bytes(), tmp_path / f"cache{number}", now)
        assert client.fetch("aim/acme/kws/1") == MODEL, step
        try:
            content = client.fetch("aim/acme/kws/2")
        except NotFound:
            seen_new.append(False)
        else:
            assert content == b"the second model" * 1000, step
            seen_new.append(True)
        # and the next publisher finds nothing in its way, nor does a client that saw the crashed state
        reopened = Repository.open(crashed, keys)
        publish(reopened, 3, b"third", now)
        assert not list(crashed.rglob("*.tmp")), step
        client.refresh()
        assert client.fetch("aim/acme/kws/3") == b"third", step
    # renaming timestamp.json is what makes the new repository visible
    assert seen_new == [False] * 11 + [True]
