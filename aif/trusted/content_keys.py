"""Where content keys rest: with the publisher who made them, and with the sites that were given them.

Decides which file holds them and when one is made, kept and given on; the bytes that travel are those of
``protocol.content_keys``. Does not seal models, and does not decide which device gets a key.

Invariants: each is one private file (mode 0600) that is replaced as a whole; a key is on disk before anything
is sealed with it; a key serves one release.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from nacl.bindings import crypto_scalarmult_base

from aif.errors import NotFound
from aif.protocol.content_keys import ContentKey, open_hand_over, seal_hand_over
from aif.protocol.limits import KEY_BYTES
from aif.trusted.state import StateFile

FILE_NAME: Final = "content_keys.cbor"

Random = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class PublisherKeys:
    """The publisher's file."""

    keys: tuple[ContentKey, ...] = ()


@dataclass(frozen=True, slots=True)
class SiteKeys:
    """The site's file: the key that hand-overs are sealed to, what was handed over, and the site's policy."""

    exchange_secret: bytes = field(repr=False)
    keys: tuple[ContentKey, ...] = ()
    plain_models: bool = False
    """Whether devices of this site may install models that are not encrypted."""


class PublisherVault:
    """Content keys of one publisher, in the folder of the store's signing keys."""

    def __init__(self, folder: Path, random: Random) -> None:
        self._file = StateFile(folder / FILE_NAME, PublisherKeys)
        self._random = random
        if not self._file.exists():
            self._file.save(PublisherKeys())

    def new_key(self, path: str) -> bytes:
        """A fresh key for the release that is about to be published at ``path``.

        What an interrupted publication left under that path is replaced: nothing was published with it.
        """
        key = self._random(KEY_BYTES)
        self._file.update(lambda state: replace(state, keys=_with(state.keys, [ContentKey(path, key)])))
        return key

    def has(self, path: str) -> bool:
        return any(one.path == path for one in self._file.load().keys)

    def hand_over(self, site_pk: bytes) -> bytes:
        """All keys, sealed to one site.

        Raises:
            LocalProtocolError: too many for one document.
        """
        return seal_hand_over(self._file.load().keys, site_pk, self._random(KEY_BYTES))


class SiteVault:
    """Content keys of one site, and whether it takes plain models."""

    def __init__(self, folder: Path, random: Random) -> None:
        self._file = StateFile(folder / FILE_NAME, SiteKeys)
        if not self._file.exists():
            self._file.save(SiteKeys(random(KEY_BYTES)))

    @property
    def public_key(self) -> bytes:
        """X25519 key that publishers seal their hand-overs to."""
        return crypto_scalarmult_base(self._file.load().exchange_secret)

    @property
    def plain_models(self) -> bool:
        return self._file.load().plain_models

    def set_plain_models(self, *, allowed: bool) -> None:
        self._file.update(lambda state: replace(state, plain_models=allowed))

    def take(self, hand_over: bytes) -> list[str]:
        """Keep what a publisher handed over. Returns the paths of the releases whose key is new here.

        Raises:
            DecryptionFailed, RemoteProtocolError: not a hand-over for this site; nothing is kept.
        """
        state = self._file.load()
        given = open_hand_over(hand_over, state.exchange_secret)
        known = set(state.keys)
        new = [one for one in given if one not in known]
        if new:
            self._file.update(lambda current: replace(current, keys=_with(current.keys, new)))
        return [one.path for one in new]

    def key(self, path: str) -> bytes:
        """The content key of the release at ``path``.

        Raises:
            NotFound: nobody handed it over.
        """
        for one in self._file.load().keys:
            if one.path == path:
                return one.key
        raise NotFound(
            f"this site has no content key for {path}",
            hint="send the publisher what `aif site key` prints, and give what `aif store hand-over` writes "
            "there to `aif site take`",
        )


def _with(keys: tuple[ContentKey, ...], new: Iterable[ContentKey]) -> tuple[ContentKey, ...]:
    """The keys with new ones, which replace those of the same path."""
    merged = {one.path: one for one in keys} | {one.path: one for one in new}
    return tuple(merged.values())
