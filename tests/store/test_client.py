from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from aif.errors import (
    AIFError,
    DownloadInterrupted,
    Expired,
    LengthOrHashMismatch,
    NotFound,
    RollbackDetected,
    SignatureInvalid,
    StoreError,
    TrustError,
    Yanked,
)
from store.client import StoreClient
from store.floors import Floors
from store.keys import RoleKeys
from store.limits import MAX_RESUMES, MAX_TIMESTAMP_BYTES
from store.release import Release
from store.repository import Repository
from store.server import StoreServer

MODEL = bytes(range(256)) * 400
PATH = "aim/acme/kws/1"


class Simulator:
    """A repository that an attacker can change between it and its client.

    Attributes:
        replies: bytes sent in place of a file, by path.
        cut_after: bytes after which a blob transfer is cut; taken from the front, one per request.
        requests: what was asked, with offsets.
    """

    def __init__(self, repository: Repository, keys: RoleKeys, now: datetime, base: Path) -> None:
        self.repository = repository
        self.keys = keys
        self.time = now
        self.base = base
        self.replies: dict[str, bytes] = {}
        self.cut_after: list[int] = []
        self.endless = False
        self.requests: list[tuple[str, int]] = []

    def fetch(self, path: str, offset_bytes: int = 0) -> Iterator[bytes]:
        self.requests.append((path, offset_bytes))
        content = self.replies.get(path)
        if content is None:
            try:
                content = (self.repository.directory / path).read_bytes()
            except FileNotFoundError as error:
                raise NotFound(f"no {path}") from error
        content = content[offset_bytes:]
        if path.startswith("blobs/") and self.cut_after:
            yield content[: self.cut_after.pop(0)]
            raise DownloadInterrupted("cut")
        for start in range(0, len(content), 1000):
            yield content[start : start + 1000]
        while self.endless:
            yield bytes(1000)

    def publish(self, counter: int, content: bytes = MODEL) -> Release:
        return self.repository.publish(
            "acme", "kws", counter, content, kind="model", custom={"name": "kws"}, now=self.time
        )

    def client(self, cache: str = "cache", floors: Floors | None = None) -> StoreClient:
        root = self.repository.root_bytes()
        return StoreClient(
            "http://store", self.base / cache, root, fetcher=self, now=lambda: self.time, floors=floors
        )

    def metadata(self, name: str) -> Path:
        return self.repository.directory / "metadata" / name

    def sign(self, signed: Any, role: str, name: str, keys: RoleKeys | None = None) -> bytes:
        """Put metadata in place that the attacker could get signed with the keys of ``role``."""
        metadata = Metadata(signed)
        for signer in (keys or self.keys).signers(role):
            metadata.sign(signer, append=True)
        self.metadata(name).write_bytes(metadata.to_bytes())
        return metadata.to_bytes()

    def sign_top(self, **roles: bytes) -> None:
        """A new snapshot and timestamp over changed targets roles: what stolen online keys can do."""
        timestamp = Metadata[Timestamp].from_file(str(self.metadata("timestamp.json"))).signed
        number = timestamp.snapshot_meta.version
        snapshot = Metadata[Snapshot].from_file(str(self.metadata(f"{number}.snapshot.json"))).signed
        for name, content in roles.items():
            version = Metadata[Targets].from_bytes(content).signed.version
            snapshot.meta[f"{name}.json"] = MetaFile.from_data(version, content, ["sha256"])
        snapshot.version += 1
        content = self.sign(snapshot, "snapshot", f"{snapshot.version}.snapshot.json")
        timestamp.snapshot_meta = MetaFile.from_data(snapshot.version, content, ["sha256"])
        timestamp.version += 1
        self.sign(timestamp, "timestamp", "timestamp.json")

    def targets(self, name: str) -> Targets:
        return Metadata[Targets].from_file(str(self.metadata(name))).signed


@pytest.fixture
def sim(repository: Repository, keys: RoleKeys, now: datetime, tmp_path: Path) -> Simulator:
    simulator = Simulator(repository, keys, now, tmp_path)
    simulator.publish(1)
    return simulator


# --- the straight line ------------------------------------------------------------------------------


def test_publish_and_fetch_over_http(sim: Simulator, tmp_path: Path) -> None:
    with StoreServer(sim.repository.directory) as server:
        root = sim.repository.root_bytes()
        client = StoreClient(server.url, tmp_path / "http", root, now=lambda: sim.time)
        assert client.fetch(PATH) == MODEL
        sim.publish(2, b"newer")
        with pytest.raises(NotFound):
            client.find("aim/acme/kws/2")  # the view is consistent until it is refreshed
        client.refresh()
        assert client.fetch("aim/acme/kws/2") == b"newer"
        assert client.fetch_blob(client.find(PATH).sha256, len(MODEL)) == MODEL


def test_a_found_release_is_what_was_published(sim: Simulator) -> None:
    release = sim.publish(2, b"newer")
    assert sim.client().find("aim/acme/kws/2") == release


def test_progress_reaches_the_length_and_the_cache_is_used(sim: Simulator) -> None:
    client = sim.client()
    seen: list[tuple[int, int]] = []
    client.fetch(PATH, progress=lambda received, total: seen.append((received, total)))
    assert seen[-1] == (len(MODEL), len(MODEL))
    assert [received for received, _ in seen] == sorted(received for received, _ in seen)
    sim.requests.clear()
    assert client.fetch(PATH) == MODEL
    assert sim.requests == []


def test_a_deleted_cache_is_made_again(sim: Simulator) -> None:
    client = sim.client()
    client.fetch(PATH)
    shutil.rmtree(sim.base / "cache")
    client.refresh()
    assert client.fetch(PATH) == MODEL


def test_two_clients_share_a_cache(sim: Simulator) -> None:
    assert sim.client().fetch(PATH) == MODEL
    sim.requests.clear()
    assert sim.client().fetch(PATH) == MODEL
    assert not any(path.startswith("blobs/") for path, _ in sim.requests)


def test_threads_that_want_the_same_content_download_it_once(sim: Simulator) -> None:
    name = blob(sim)
    clients = [sim.client() for _ in range(4)]
    with ThreadPoolExecutor(len(clients)) as threads:
        assert set(threads.map(lambda client: client.fetch(PATH), clients)) == {MODEL}
    assert [path for path, _ in sim.requests].count(name) == 1


def test_a_yanked_release_is_found_but_not_fetched(sim: Simulator) -> None:
    client = sim.client()
    client.fetch(PATH)
    sim.repository.yank(PATH, "wrong labels", now=sim.time)
    client.refresh()
    assert client.find(PATH).yanked == "wrong labels"
    with pytest.raises(Yanked, match="aim/acme/kws/1 was withdrawn: wrong labels"):
        client.fetch(PATH)


@pytest.mark.parametrize("path", ["aim/acme/kws/9", "aim/acme/other/1", "aim/nobody/kws/1"])
def test_an_unknown_target_is_not_found(sim: Simulator, path: str) -> None:
    with pytest.raises(NotFound, match=f"has no {path}"):
        sim.client().find(path)


def test_a_deployment_that_disagrees_with_the_publisher_gets_nothing(sim: Simulator) -> None:
    client = sim.client()
    release = client.find(PATH)
    assert client.fetch(PATH, expected_sha256=release.sha256, expected_length=release.length) == MODEL
    with pytest.raises(LengthOrHashMismatch, match="the deployment wants"):
        client.fetch(PATH, expected_sha256="0" * 64)
    with pytest.raises(LengthOrHashMismatch, match="the deployment wants"):
        client.fetch(PATH, expected_length=1)


# --- content ----------------------------------------------------------------------------------------


def blob(sim: Simulator) -> str:
    return f"blobs/{sim.client('look').find(PATH).sha256}"


def nothing_kept(sim: Simulator) -> bool:
    cache = sim.base / "cache"
    return not any([*(cache / "blobs").iterdir(), *(cache / "parts").iterdir()])


@pytest.mark.parametrize("position", [0, 1, len(MODEL) // 2, len(MODEL) - 1])
def test_a_flipped_bit_in_a_blob_is_refused(sim: Simulator, position: int) -> None:
    sim.replies[blob(sim)] = MODEL[:position] + bytes([MODEL[position] ^ 1]) + MODEL[position + 1 :]
    with pytest.raises(LengthOrHashMismatch, match="not those that were signed"):
        sim.client().fetch(PATH)
    assert nothing_kept(sim)
    sim.replies.clear()
    assert sim.client().fetch(PATH) == MODEL


def test_a_blob_that_is_too_long_or_endless_is_stopped_at_the_length(sim: Simulator) -> None:
    sim.replies[blob(sim)] = MODEL + b"x"
    with pytest.raises(LengthOrHashMismatch, match=rf"more than the {len(MODEL):,} B"):
        sim.client().fetch(PATH)
    sim.replies.clear()
    sim.endless = True
    with pytest.raises(LengthOrHashMismatch, match=rf"more than the {len(MODEL):,} B"):
        sim.client().fetch_blob(blob_digest(sim), len(MODEL))
    assert nothing_kept(sim)


def blob_digest(sim: Simulator) -> str:
    return next(release.sha256 for release in sim.repository.releases())


def test_endless_metadata_is_stopped(sim: Simulator) -> None:
    sim.endless = True
    with pytest.raises(LengthOrHashMismatch, match="another length or hash"):
        sim.client().refresh()


def test_a_blob_that_is_too_short_is_an_interruption_that_keeps_what_came(sim: Simulator) -> None:
    sim.replies[blob(sim)] = MODEL[:5000]
    with pytest.raises(DownloadInterrupted, match=r"stopped early; 5,000 of 102,400 B are kept"):
        sim.client().fetch(PATH)
    sim.replies.clear()
    sim.requests.clear()
    assert sim.client().fetch(PATH) == MODEL
    assert sim.requests[-1] == (blob(sim), 5000)


def test_a_cut_download_continues_where_it_stopped(sim: Simulator) -> None:
    name = blob(sim)
    sim.cut_after = [30_000, 20_000]
    assert sim.client().fetch(PATH) == MODEL
    assert [offset for path, offset in sim.requests if path == name] == [0, 30_000, 50_000]
    assert list((sim.base / "cache" / "parts").iterdir()) == []


def test_a_download_without_progress_is_given_up_and_continued_by_the_next_call(sim: Simulator) -> None:
    name = blob(sim)
    sim.cut_after = [40_000, 0]
    with pytest.raises(DownloadInterrupted, match=r"40,000 of 102,400 B are kept") as caught:
        sim.client().fetch(PATH)
    assert "continues where it stopped" in caught.value.hint
    assert sim.client().fetch(PATH) == MODEL
    assert [offset for path, offset in sim.requests if path == name] == [0, 40_000, 40_000]


def test_a_store_that_cuts_after_every_byte_is_given_up(sim: Simulator) -> None:
    name = blob(sim)
    sim.cut_after = [1] * 1000
    with pytest.raises(DownloadInterrupted, match=rf"{MAX_RESUMES + 1} of 102,400 B are kept"):
        sim.client().fetch(PATH)
    assert sum(path == name for path, _ in sim.requests) == MAX_RESUMES + 1


@pytest.mark.parametrize("left_over", [b"damaged" * 100, MODEL + b"too long", bytes(len(MODEL))])
def test_a_damaged_part_of_an_earlier_run_does_no_harm(sim: Simulator, left_over: bytes) -> None:
    client = sim.client()
    (sim.base / "cache" / "parts" / client.find(PATH).sha256).write_bytes(left_over)
    assert client.fetch(PATH) == MODEL
    assert list((sim.base / "cache" / "parts").iterdir()) == []


def test_a_damaged_cached_blob_is_fetched_again(sim: Simulator) -> None:
    client = sim.client()
    client.fetch(PATH)
    cached = sim.base / "cache" / "blobs" / client.find(PATH).sha256
    cached.write_bytes(bytes(len(MODEL)))
    assert client.fetch(PATH) == MODEL
    assert cached.read_bytes() == MODEL


@pytest.mark.parametrize(
    ("digest", "length"), [("../x", 5), ("0" * 64, 0), ("0" * 64, 2**40), ("0" * 64, -1)]
)
def test_a_ticket_with_impossible_values_is_refused_before_any_request(
    sim: Simulator, digest: str, length: int
) -> None:
    client = sim.client()
    with pytest.raises(StoreError):
        client.fetch_blob(digest, length)
    assert sim.requests == []


def test_a_ticket_for_a_longer_blob_than_there_is_gets_nothing(sim: Simulator) -> None:
    with StoreServer(sim.repository.directory) as server:
        client = StoreClient(
            server.url, sim.base / "cache", sim.repository.root_bytes(), now=lambda: sim.time
        )
        with pytest.raises(LengthOrHashMismatch, match="shorter than"):
            client.fetch_blob(blob_digest(sim), len(MODEL) + 1)
    assert nothing_kept(sim)


# --- trust ------------------------------------------------------------------------------------------

METADATA = ["timestamp.json", "2.snapshot.json", "1.targets.json", "2.publisher.acme.json"]


@pytest.mark.parametrize("name", METADATA)
def test_no_changed_byte_of_metadata_is_believed(sim: Simulator, name: str) -> None:
    original = sim.metadata(name).read_bytes()
    for position in range(0, len(original), 37):
        sim.replies[f"metadata/{name}"] = original[:position] + b"~" + original[position + 1 :]
        with pytest.raises((TrustError, LengthOrHashMismatch)):
            sim.client(f"cache{position}").find(PATH)


@pytest.mark.parametrize("name", METADATA)
@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[" * 3000, b'{"signed": {}, "signatures": []}', b"\xff\xfe"]
)
def test_metadata_that_is_not_metadata_is_refused(sim: Simulator, name: str, content: bytes) -> None:
    sim.replies[f"metadata/{name}"] = content
    with pytest.raises((TrustError, LengthOrHashMismatch)):
        sim.client().find(PATH)


def test_another_stores_root_believes_nothing_here(sim: Simulator, tmp_path: Path) -> None:
    other_keys = RoleKeys.create(tmp_path / "other-keys", ["acme"])
    other = Repository.create(tmp_path / "other", other_keys, now=sim.time)
    client = StoreClient(
        "http://store", tmp_path / "c", other.root_bytes(), fetcher=sim, now=lambda: sim.time
    )
    with pytest.raises(SignatureInvalid) as caught:
        client.find(PATH)
    assert "is this the store that the device was provisioned for?" in caught.value.hint


def test_a_planted_root_in_the_cache_is_not_believed(sim: Simulator, tmp_path: Path) -> None:
    other_keys = RoleKeys.create(tmp_path / "other-keys", ["acme"])
    other = Repository.create(tmp_path / "other", other_keys, now=sim.time)
    cached = tmp_path / "cache" / "metadata"
    (cached / "root_history").mkdir(parents=True)
    for planted in ("root.json", "root_history/1.root.json", "root_history/2.root.json"):
        (cached / planted).write_bytes(other.root_bytes())
    assert sim.client().fetch(PATH) == MODEL


def test_a_damaged_provisioned_root_is_a_trust_error(sim: Simulator) -> None:
    client = StoreClient("http://store", sim.base / "c", b"not a root", fetcher=sim, now=lambda: sim.time)
    with pytest.raises(TrustError, match="cannot be verified"):
        client.refresh()


@pytest.mark.parametrize(
    ("age", "role"), [(timedelta(days=1, seconds=1), "timestamp"), (timedelta(days=366), "root")]
)
def test_a_frozen_store_is_refused_when_its_time_is_over(sim: Simulator, age: timedelta, role: str) -> None:
    client = sim.client()
    client.fetch(PATH)
    sim.time += age
    with pytest.raises(Expired, match=f"{role}.* is expired") as caught:
        client.find(PATH)
    assert "aif store refresh" in caught.value.hint
    with pytest.raises(Expired):
        sim.client("fresh").find(PATH)


def test_a_day_passes_and_a_refreshed_store_is_believed_again(sim: Simulator) -> None:
    client = sim.client()
    client.find(PATH)
    sim.time += timedelta(days=4)
    sim.repository.refresh_timestamp(now=sim.time)
    assert client.find(PATH).counter == 1


def test_expired_targets_are_refused_even_under_a_fresh_timestamp(sim: Simulator) -> None:
    sim.time += timedelta(days=91)
    sim.repository.refresh_timestamp(now=sim.time)
    with pytest.raises(Expired, match="targets is expired"):
        sim.client().find(PATH)


def test_new_roots_are_followed_step_by_step(sim: Simulator, tmp_path: Path) -> None:
    root = Metadata[Root].from_bytes(sim.repository.root_bytes()).signed
    new_keys = RoleKeys.create(tmp_path / "new-keys", [])
    old_timestamp = sim.keys.signers("timestamp")[0].public_key.keyid
    root.revoke_key(old_timestamp, "timestamp")
    root.add_key(new_keys.signers("timestamp")[0].public_key, "timestamp")
    root.version = 2
    metadata = Metadata(root)
    for signer in sim.keys.signers("root")[:2]:  # two of three are enough
        metadata.sign(signer, append=True)
    sim.metadata("2.root.json").write_bytes(metadata.to_bytes())
    with pytest.raises(SignatureInvalid):
        sim.client("too-early").refresh()
    timestamp = Metadata[Timestamp].from_file(str(sim.metadata("timestamp.json"))).signed
    sim.sign(timestamp, "timestamp", "timestamp.json", new_keys)
    client = sim.client()
    assert client.find(PATH).counter == 1
    assert client.floors.root == 2


def test_a_root_signed_by_one_key_of_three_is_refused(sim: Simulator) -> None:
    root = Metadata[Root].from_bytes(sim.repository.root_bytes()).signed
    root.version = 2
    metadata = Metadata(root)
    metadata.sign(sim.keys.signers("root")[0])
    sim.metadata("2.root.json").write_bytes(metadata.to_bytes())
    with pytest.raises(SignatureInvalid):
        sim.client().refresh()


# --- rollback, mix-and-match, delegation ------------------------------------------------------------


def saved(sim: Simulator) -> Path:
    copy = sim.base / "saved"
    shutil.copytree(sim.repository.directory / "metadata", copy)
    return copy


def roll_back(sim: Simulator, copy: Path) -> None:
    shutil.rmtree(sim.repository.directory / "metadata")
    shutil.copytree(copy, sim.repository.directory / "metadata")


def test_an_old_copy_of_the_store_is_refused_by_the_cache(sim: Simulator) -> None:
    copy = saved(sim)
    sim.publish(2, b"newer")
    client = sim.client()
    client.refresh()
    roll_back(sim, copy)
    with pytest.raises(RollbackDetected):
        client.refresh()


def test_an_old_copy_of_the_store_is_refused_after_the_cache_was_deleted(sim: Simulator) -> None:
    copy = saved(sim)
    sim.publish(2, b"newer")
    floors = sim.client().refresh()
    roll_back(sim, copy)
    # without floors nothing can be noticed: this is what the floors are for
    sim.client("no-memory").refresh()
    with pytest.raises(
        RollbackDetected, match="offers version 2 of role timestamp, version 3 was seen before"
    ):
        sim.client("empty", floors).refresh()
    with pytest.raises(RollbackDetected):
        sim.client("empty", floors).fetch(PATH)


def test_one_publishers_old_metadata_under_a_new_snapshot_is_refused_without_cache(sim: Simulator) -> None:
    old = sim.metadata("2.publisher.acme.json").read_bytes()
    sim.publish(2, b"fixed")
    floors = sim.client().refresh()
    sim.sign_top(**{"publisher.acme": old})
    with pytest.raises(RollbackDetected, match=r"version 2 of role publisher\.acme, version 3"):
        sim.client("empty", floors).refresh()
    with pytest.raises(RollbackDetected):
        sim.client().refresh()


@pytest.mark.parametrize("name", ["3.snapshot.json", "3.publisher.acme.json"])
def test_files_of_two_editions_do_not_mix(sim: Simulator, name: str) -> None:
    old = sim.metadata(name.replace("3.", "2.")).read_bytes()
    sim.publish(2, b"newer")
    sim.replies[f"metadata/{name}"] = old
    with pytest.raises((TrustError, LengthOrHashMismatch)):
        sim.client().find("aim/acme/kws/2")


def test_two_signed_files_with_one_version_number_cannot_be_swapped(sim: Simulator) -> None:
    targets = sim.targets("2.publisher.acme.json")
    targets.targets.clear()
    original = sim.metadata("2.publisher.acme.json").read_bytes()
    sim.replies["metadata/2.publisher.acme.json"] = sim.sign(
        targets, "publisher.acme", "2.publisher.acme.json"
    )
    assert sim.replies["metadata/2.publisher.acme.json"] != original
    with pytest.raises(LengthOrHashMismatch):
        sim.client().find(PATH)


def test_a_publisher_cannot_publish_under_another_name(sim: Simulator) -> None:
    globex = sim.targets("1.publisher.globex.json")
    for path in ("aim/acme/kws/7", "aim/acme/kws/1", "aim/nobody/kws/1"):
        entry = TargetFile.from_data(path, b"trojan")
        entry.unrecognized_fields["custom"] = {"kind": "model", "measurement": "0" * 64, "release": {}}
        globex.targets[path] = entry
    globex.version = 2
    sim.sign_top(**{"publisher.globex": sim.sign(globex, "publisher.globex", "2.publisher.globex.json")})
    client = sim.client()
    for path in ("aim/acme/kws/7", "aim/nobody/kws/1"):
        with pytest.raises(NotFound):
            client.find(path)
    assert client.fetch(PATH) == MODEL


def test_the_online_keys_alone_cannot_publish(sim: Simulator) -> None:
    targets = sim.targets("2.publisher.acme.json")
    targets.targets[PATH].hashes["sha256"] = "0" * 64
    targets.version = 3
    sim.sign_top(**{"publisher.acme": sim.sign(targets, "snapshot", "3.publisher.acme.json")})
    with pytest.raises(SignatureInvalid):
        sim.client().find(PATH)


def test_a_signed_entry_that_is_malformed_is_refused(sim: Simulator) -> None:
    targets = sim.targets("2.publisher.acme.json")
    targets.targets[PATH].unrecognized_fields["custom"] = {"kind": "model"}
    targets.version = 3
    sim.sign_top(**{"publisher.acme": sim.sign(targets, "publisher.acme", "3.publisher.acme.json")})
    with pytest.raises(TrustError, match="malformed"):
        sim.client().find(PATH)


def test_targets_that_delegate_to_nobody_are_a_trust_error(sim: Simulator) -> None:
    targets = sim.targets("1.targets.json")
    targets.delegations = None
    targets.version = 2
    sim.sign_top(targets=sim.sign(targets, "targets", "2.targets.json"))
    with pytest.raises(TrustError, match="does not delegate"):
        sim.client().releases()


# --- the way to the store ---------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [StoreError("not reachable"), DownloadInterrupted("cut")])
def test_what_the_fetcher_says_reaches_the_caller(sim: Simulator, failure: AIFError) -> None:
    client = sim.client()

    class Down:
        def fetch(self, path: str, offset_bytes: int = 0) -> Iterator[bytes]:
            del path, offset_bytes
            raise failure

    client._fetcher = Down()
    with pytest.raises(type(failure), match=str(failure)):
        client.refresh()


def test_a_server_that_is_no_store_is_named(sim: Simulator) -> None:
    client = sim.client()
    shutil.rmtree(sim.repository.directory / "metadata")
    with pytest.raises(NotFound, match=r"no metadata/timestamp\.json") as caught:
        client.refresh()
    assert caught.value.hint == "is this the address of an MPAI Store?"


def test_an_outage_leaves_the_verified_view_in_use_until_it_expires(sim: Simulator) -> None:
    client = sim.client()
    client.fetch(PATH)
    sim.replies["metadata/timestamp.json"] = b"damaged on the way"
    with pytest.raises(TrustError):
        client.refresh()
    assert client.fetch(PATH) == MODEL
    sim.time += timedelta(days=2)
    with pytest.raises(TrustError):
        client.fetch(PATH)


def test_a_cache_that_cannot_be_written_says_so(sim: Simulator) -> None:
    client = sim.client()
    shutil.rmtree(sim.base / "cache")
    (sim.base / "cache").write_text("a file")
    with pytest.raises(StoreError, match="cannot use the cache"):
        client.refresh()


def test_an_idle_poll_is_one_small_file(sim: Simulator) -> None:
    client = sim.client()
    client.find(PATH)
    sim.requests.clear()
    client.refresh()
    assert sim.requests == [("metadata/2.root.json", 0), ("metadata/timestamp.json", 0)]
    assert sim.metadata("timestamp.json").stat().st_size < MAX_TIMESTAMP_BYTES // 4
