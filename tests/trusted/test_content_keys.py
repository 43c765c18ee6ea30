"""Content keys at rest: private, kept before use, given on only sealed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aif.errors import DecryptionFailed, NotFound
from aif.trusted.content_keys import FILE_NAME, PublisherVault, SiteVault


def test_a_site_has_what_its_publisher_handed_over_and_nobody_else_does(tmp_path: Path) -> None:
    publisher = PublisherVault(tmp_path / "publisher", os.urandom)
    site, stranger = (SiteVault(tmp_path / name, os.urandom) for name in ("site", "stranger"))
    key = publisher.new_key("aim/v/kws/1")
    document = publisher.hand_over(site.public_key)
    assert site.take(document) == ["aim/v/kws/1"]
    assert site.key("aim/v/kws/1") == key
    assert site.take(document) == []
    with pytest.raises(DecryptionFailed):
        stranger.take(document)
    with pytest.raises(NotFound, match="no content key for aim/v/kws/1"):
        stranger.key("aim/v/kws/1")
    assert key not in document


def test_keys_of_several_publishers_add_up(tmp_path: Path) -> None:
    site = SiteVault(tmp_path / "site", os.urandom)
    for vendor in ("v", "w"):
        publisher = PublisherVault(tmp_path / vendor, os.urandom)
        publisher.new_key(f"aim/{vendor}/kws/1")
        site.take(publisher.hand_over(site.public_key))
    assert site.key("aim/v/kws/1") != site.key("aim/w/kws/1")


def test_every_release_has_a_key_of_its_own_also_when_a_publication_was_interrupted(tmp_path: Path) -> None:
    publisher = PublisherVault(tmp_path, os.urandom)
    keys = {publisher.new_key(path) for path in ("aim/v/kws/1", "aim/v/kws/1", "aim/v/kws/2")}
    assert len(keys) == 3
    assert publisher.has("aim/v/kws/1")
    assert not publisher.has("aim/v/kws/3")


def test_files_are_private_and_survive(tmp_path: Path) -> None:
    publisher, site = PublisherVault(tmp_path / "p", os.urandom), SiteVault(tmp_path / "s", os.urandom)
    publisher.new_key("aim/v/kws/1")
    site.take(publisher.hand_over(site.public_key))
    again = SiteVault(tmp_path / "s", os.urandom)
    assert (again.public_key, again.key("aim/v/kws/1")) == (site.public_key, site.key("aim/v/kws/1"))
    for folder in ("p", "s"):
        assert (tmp_path / folder / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_plain_models_are_refused_until_somebody_allows_them(tmp_path: Path) -> None:
    site = SiteVault(tmp_path, os.urandom)
    assert not site.plain_models
    site.set_plain_models(allowed=True)
    assert SiteVault(tmp_path, os.urandom).plain_models
    site.set_plain_models(allowed=False)
    assert not site.plain_models
