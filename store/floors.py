"""Rollback floors: the newest metadata versions ever seen, kept where the download cache is not.

Deleting a cache must not make old metadata acceptable again: a TUF client with an empty cache has nothing to
compare with and believes any version whose signature has not expired. So the caller keeps a ``Floors`` value
in trusted storage, hands it to the client, and stores the value that comes back.

Invariant: floors only rise. Roles below the top level are compared one by one, because a snapshot that
carries a higher version may still list an older version of one publisher (TUF §5.5.5).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from aif.errors import RollbackDetected, TrustError


@dataclass(frozen=True, slots=True)
class Floors:
    """Lowest versions still accepted; 0 accepts any.

    Attributes:
        root: version of the root role.
        timestamp: version of the timestamp role.
        snapshot: version of the snapshot role.
        targets: version by name of the targets role, of every publisher and of every bin.
    """

    root: int = 0
    timestamp: int = 0
    snapshot: int = 0
    targets: Mapping[str, int] = field(default_factory=dict, hash=False)

    def raised_to(self, seen: Floors) -> Floors:
        """The floors after metadata with the versions ``seen`` was verified.

        Raises:
            RollbackDetected: a version is lower than its floor, or a known role has disappeared.
        """
        pairs = [
            ("root", self.root, seen.root),
            ("timestamp", self.timestamp, seen.timestamp),
            ("snapshot", self.snapshot, seen.snapshot),
            *((role, floor, seen.targets.get(role, 0)) for role, floor in sorted(self.targets.items())),
        ]
        for role, floor, version in pairs:
            if version < floor:
                raise RollbackDetected(
                    f"the store offers version {version} of role {role}, version {floor} was seen before",
                    hint="someone serves an old copy of the store; never restore a store from an old backup",
                )
        return seen

    def to_document(self) -> dict[str, object]:
        """Plain values for JSON or CBOR."""
        return {
            "root": self.root,
            "timestamp": self.timestamp,
            "snapshot": self.snapshot,
            "targets": dict(self.targets),
        }

    @classmethod
    def from_document(cls, document: object) -> Floors:
        """Read what ``to_document`` wrote.

        Raises:
            TrustError: anything else. Damaged floors must not be taken for "nothing seen yet".
        """
        keys = {"root", "timestamp", "snapshot", "targets"}
        if not isinstance(document, Mapping) or set(document) != keys:
            raise TrustError(
                "stored rollback floors are damaged: expected root, timestamp, snapshot and targets"
            )
        targets = document["targets"]
        if not isinstance(targets, Mapping) or not all(isinstance(role, str) for role in targets):
            raise TrustError("stored rollback floors are damaged: targets is not a mapping of role names")
        numbers = [document["root"], document["timestamp"], document["snapshot"], *targets.values()]
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise TrustError("stored rollback floors are damaged: a version is not a whole number >= 0")
        return cls(
            root=document["root"],
            timestamp=document["timestamp"],
            snapshot=document["snapshot"],
            targets=dict(targets),
        )
