"""One new edition of a repository's TUF metadata, built in memory.

Decides the delegation shape, versions, expiries and who signs what; it reads no clock and writes no file.
The shape: root (2 of 3 keys) names the keys of targets, snapshot and timestamp; targets lists no content and
delegates ``aim/<vendor>/*/*`` to one role per publisher; a publisher with many targets delegates to hashed
bins.

Invariants: what is signed on top of was itself verified; every changed role gets exactly one new version;
snapshot and timestamp carry length and SHA-256 of what they name, so that two files with one version number
cannot be swapped; the timestamp comes last in ``files``, and until it is in place the old edition is the
valid one; nothing is signed with a key that the delegating role does not list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Signed,
    Snapshot,
    SuccinctRoles,
    TargetFile,
    Targets,
    Timestamp,
)

from aif.errors import StoreError, UntrustedSigner
from store.keys import RoleKeys, publisher_role
from store.limits import (
    BIN_STEPS,
    MAX_ROOT_BYTES,
    MAX_SNAPSHOT_BYTES,
    MAX_TARGETS_BYTES,
    MAX_TIMESTAMP_BYTES,
    ROOT_LIFETIME,
    ROOT_THRESHOLD,
    SNAPSHOT_LIFETIME,
    TARGETS_LIFETIME,
    TIMESTAMP_LIFETIME,
)
from store.release import Release, release_from_target

_S = TypeVar("_S", Root, Timestamp, Snapshot, Targets)
_HASHES: Final = ["sha256"]
_MAX_BYTES: Final = {
    "root": MAX_ROOT_BYTES,
    "timestamp": MAX_TIMESTAMP_BYTES,
    "snapshot": MAX_SNAPSHOT_BYTES,
}

ReadMetadata = Callable[[str], bytes]
"""bytes of one metadata file by its name, such as ``7.snapshot.json``"""


class Edition:
    """The metadata of a repository and the changes made to it.

    Args:
        read: gives the bytes of a metadata file.
        root: the root metadata in force.
        now: the moment of signing, UTC.
    """

    def __init__(self, read: ReadMetadata, root: Root, now: datetime) -> None:
        self._read = read
        self._root = root
        self._now = now
        self._timestamp = Timestamp()
        self._snapshot = Snapshot(meta={})
        # a version is raised by signing; these two have never been signed
        self._timestamp.version = self._snapshot.version = 0
        self._targets: dict[str, Targets] = {}
        self._changed: dict[str, None] = {}  # roles in the order in which they were changed
        self._snapshot_due = False

    @classmethod
    def first(cls, keys: RoleKeys, now: datetime) -> tuple[Edition, bytes]:
        """The first edition of a new repository without publishers, and its root signed by every root key."""
        root = Root(version=1, expires=_utc(now) + ROOT_LIFETIME, consistent_snapshot=True)
        for role in ("root", "targets", "snapshot", "timestamp"):
            for signer in keys.signers(role):
                root.add_key(signer.public_key, role)
        root.roles["root"].threshold = ROOT_THRESHOLD
        edition = cls(_nothing_to_read, root, _utc(now))
        edition._targets["targets"] = Targets(delegations=Delegations(keys={}, roles={}))
        edition._changed["targets"] = None
        return edition, _sign(root, "root", keys.signers("root"))

    @classmethod
    def current(cls, read: ReadMetadata, root: bytes, now: datetime) -> Edition:
        """The edition that the timestamp names.

        Raises:
            StoreError: the repository's own metadata is damaged.
        """
        signed_root = _parse(Root, root, "root")
        edition = cls(read, _verified(signed_root, signed_root, "root"), _utc(now))
        signed_timestamp = _parse(Timestamp, read("timestamp.json"), "timestamp")
        edition._timestamp = _verified(edition._root, signed_timestamp, "timestamp")
        edition._snapshot = edition._load(
            Snapshot, "snapshot", edition._timestamp.snapshot_meta, edition._root
        )
        return edition

    # --- reading ------------------------------------------------------------------------------------

    def publishers(self) -> tuple[str, ...]:
        """Role names of all publishers."""
        return tuple(_delegations(self._role("targets")).roles or ())

    def releases(self, publisher: str) -> Iterator[Release]:
        """Every release of one publisher.

        Raises:
            UntrustedSigner: nobody of that name publishes here.
        """
        for leaf in self._leaves(publisher):
            for path, target in self._role(leaf).targets.items():
                yield release_from_target(path, target.length, target.hashes, target.custom)

    # --- changing -----------------------------------------------------------------------------------

    def add_publisher(self, vendor: str, keys: RoleKeys) -> None:
        """Delegate ``aim/<vendor>/*/*`` to the key of ``vendor``.

        Raises:
            StoreError: the vendor is a publisher already.
        """
        role = publisher_role(vendor)
        delegations = _delegations(self._role("targets"))
        if delegations.roles is None or role in delegations.roles:
            raise StoreError(f"{vendor} is a publisher of this store already")
        (signer,) = keys.signers(role)
        key = signer.public_key
        # TUF patterns match segment by segment: one * never covers a slash (§4.5, PATHPATTERN)
        delegations.roles[role] = DelegatedRole(
            role, [key.keyid], threshold=1, terminating=True, paths=[f"aim/{vendor}/*/*"]
        )
        delegations.keys[key.keyid] = key
        self._targets[role] = Targets()
        self._changed |= {"targets": None, role: None}

    def replace_publisher(self, vendor: str, keys: RoleKeys) -> None:
        """Delegate to another key of ``vendor``; all that it has published is signed again with that.

        Raises:
            UntrustedSigner: nobody of that name publishes here.
        """
        role = publisher_role(vendor)
        roles = dict.fromkeys([*self._leaves(role), role])
        for each in roles:
            self._role(each)  # while the old key still counts
        delegations = _delegations(self._role("targets"))
        delegated = (delegations.roles or {})[role]
        (signer,) = keys.signers(role)
        key = signer.public_key
        for keyid in delegated.keyids:
            delegations.keys.pop(keyid, None)
        delegated.keyids[:] = [key.keyid]
        delegations.keys[key.keyid] = key
        bins = self._role(role).delegations
        if bins is not None and bins.succinct_roles is not None:
            bins.succinct_roles.keyids[:] = [key.keyid]
            bins.keys = {key.keyid: key}
        self._changed |= {"targets": None, **roles}

    def put(self, release: Release) -> None:
        """Add or replace the target of a release; spread a publisher that has grown over bins."""
        publisher = publisher_role(release.vendor)
        leaf = self._leaf(publisher, release.path)
        self._role(leaf).targets[release.path] = TargetFile(
            release.length, {"sha256": release.sha256}, release.path, {"custom": release.target_custom()}
        )
        self._changed[leaf] = None
        self._spread(publisher)

    def renew(self, *, targets: bool) -> None:
        """Sign again what has lived half its life: the snapshot, and with ``targets`` every targets role."""
        self._snapshot_due |= self._half_over(self._snapshot, SNAPSHOT_LIFETIME)
        if targets:
            leaves = [leaf for publisher in self.publishers() for leaf in self._leaves(publisher)]
            for role in dict.fromkeys(["targets", *self.publishers(), *leaves]):
                if self._half_over(self._role(role), TARGETS_LIFETIME):
                    self._changed[role] = None

    # --- signing ------------------------------------------------------------------------------------

    def files(self, keys: RoleKeys) -> list[tuple[str, bytes]]:
        """The new metadata files by name, in the order in which they must reach the disk.

        Raises:
            UntrustedSigner: a key is not one that the delegating role lists.
            StoreError: a key is missing, or a file would be larger than clients accept.
        """
        files: list[tuple[str, bytes]] = []
        for role in self._changed:
            targets = self._role(role)
            old = self._snapshot.meta.get(f"{role}.json")
            targets.version = old.version + 1 if old else 1
            targets.expires = self._now + TARGETS_LIFETIME
            content = self._sign_as(targets, role, keys)
            self._snapshot.meta[f"{role}.json"] = MetaFile.from_data(targets.version, content, _HASHES)
            files.append((f"{targets.version}.{role}.json", content))
        if self._changed or self._snapshot_due:
            self._snapshot.version += 1
            self._snapshot.expires = self._now + SNAPSHOT_LIFETIME
            content = self._sign_as(self._snapshot, "snapshot", keys)
            self._timestamp.snapshot_meta = MetaFile.from_data(self._snapshot.version, content, _HASHES)
            files.append((f"{self._snapshot.version}.snapshot.json", content))
        self._timestamp.version += 1
        self._timestamp.expires = self._now + TIMESTAMP_LIFETIME
        files.append(("timestamp.json", self._sign_as(self._timestamp, "timestamp", keys)))
        return files

    def _sign_as(self, signed: _S, role: str, keys: RoleKeys) -> bytes:
        signers = keys.signers(_key_holder(role))
        listed = self._delegator(role).get_delegated_role(role).keyids
        for signer in signers:
            if signer.public_key.keyid not in listed:
                raise UntrustedSigner(
                    f"the key in {keys.directory} is not the {role} key of this store",
                    hint="use the key directory that the store or the publisher was created with",
                )
        content = _sign(signed, role, signers)
        limit = _MAX_BYTES.get(role, MAX_TARGETS_BYTES)
        if len(content) > limit:
            raise StoreError(
                f"{role} metadata would take {len(content):,} B, clients accept {limit:,} B",
                hint="shorten the release metadata",
            )
        return content

    # --- roles --------------------------------------------------------------------------------------

    def _delegator(self, role: str) -> Root | Targets:
        if role in self._root.roles:
            return self._root
        holder = _key_holder(role)
        return self._role("targets" if holder == role else holder)

    def _role(self, role: str) -> Targets:
        if role not in self._targets:
            meta = self._snapshot.meta.get(f"{role}.json")
            if meta is None:
                raise UntrustedSigner(
                    f"{role} does not publish in this store", hint="add it with `aif store add-publisher`"
                )
            self._targets[role] = self._load(Targets, role, meta, self._delegator(role))
        return self._targets[role]

    def _load(self, kind: type[_S], role: str, meta: MetaFile, delegator: Root | Targets) -> _S:
        data = self._read(f"{meta.version}.{role}.json")
        try:
            meta.verify_length_and_hashes(data)
        except RepositoryError as error:
            raise _damaged(role) from error
        return _verified(delegator, _parse(kind, data, role), role)

    def _leaves(self, publisher: str) -> tuple[str, ...]:
        delegations = self._role(publisher).delegations
        if delegations is None or delegations.succinct_roles is None:
            return (publisher,)
        return tuple(delegations.succinct_roles.get_roles())

    def _leaf(self, publisher: str, path: str) -> str:
        delegations = self._role(publisher).delegations
        if delegations is None or delegations.succinct_roles is None:
            return publisher
        return delegations.succinct_roles.get_role_for_target(path)

    def _spread(self, publisher: str) -> None:
        """Give a publisher the number of bins that ``BIN_STEPS`` asks for. Bins are never taken back."""
        targets = {
            path: target
            for leaf in self._leaves(publisher)
            for path, target in self._role(leaf).targets.items()
        }
        bits = max((bits for count, bits in BIN_STEPS if len(targets) >= count), default=0)
        role = self._role(publisher)
        old = role.delegations.succinct_roles if role.delegations else None
        if bits <= (old.bit_length if old else 0):
            return
        parent = _delegations(self._role("targets"))
        keyids = list((parent.roles or {})[publisher].keyids)
        # the number of bits is part of the name: a wider set of bins is a new set of roles
        bins = SuccinctRoles(keyids, 1, bits, f"{publisher}.b{bits}")
        role.delegations = Delegations({keyid: parent.keys[keyid] for keyid in keyids}, succinct_roles=bins)
        role.targets.clear()
        # bins of a narrower set keep their place in the snapshot, as TUF §5.5.5 wants, but get no new version
        self._changed = {name: None for name in self._changed if _key_holder(name) != publisher}
        for name in bins.get_roles():
            self._targets[name] = Targets()
        for path, target in targets.items():
            self._targets[bins.get_role_for_target(path)].targets[path] = target
        self._changed |= dict.fromkeys([*bins.get_roles(), publisher])

    def _half_over(self, signed: Signed, lifetime: timedelta) -> bool:
        return signed.expires - self._now < lifetime / 2


def _key_holder(role: str) -> str:
    """The role whose key signs ``role``: bins are signed by their publisher."""
    return ".".join(role.split(".")[:2])


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("the moment of signing needs a time zone")
    return moment.astimezone(UTC).replace(microsecond=0)


def _nothing_to_read(name: str) -> bytes:
    raise StoreError(f"{name} does not exist in a new store")


def _delegations(targets: Targets) -> Delegations:
    if targets.delegations is None:
        raise _damaged("targets")
    return targets.delegations


def _damaged(role: str) -> StoreError:
    return StoreError(
        f"the {role} metadata of this store is damaged, nothing was signed",
        hint="restore the repository directory; a mirror with the newest timestamp will do",
    )


def _parse(kind: type[_S], data: bytes, role: str) -> Metadata[_S]:
    try:
        metadata: Metadata[_S] = Metadata.from_bytes(data)
    except RepositoryError as error:
        raise _damaged(role) from error
    if not isinstance(metadata.signed, kind):
        raise _damaged(role)
    return metadata


def _verified(delegator: Root | Targets | Metadata[Root], metadata: Metadata[_S], role: str) -> _S:
    by = delegator.signed if isinstance(delegator, Metadata) else delegator
    try:
        by.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except RepositoryError as error:
        raise _damaged(role) from error
    return metadata.signed


def _sign(signed: _S, role: str, signers: tuple[CryptoSigner, ...]) -> bytes:
    metadata = Metadata(signed)
    try:
        for signer in signers:
            metadata.sign(signer, append=True)
        return metadata.to_bytes()
    except RepositoryError as error:
        raise StoreError(f"the {role} metadata cannot be signed: {error}") from error
