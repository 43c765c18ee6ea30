from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aif.errors import StoreError, TrustError
from store.limits import MAX_COUNTER, MAX_CUSTOM_BYTES
from store.release import check_custom, check_sha256, release_from_target, release_path, split_path

DIGEST = "ab" * 32
vendors = st.from_regex(r"[a-z][a-z0-9_-]{0,63}", fullmatch=True)
components = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,63}", fullmatch=True)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(vendors, components, st.integers(0, MAX_COUNTER))
def test_a_path_is_read_back_into_what_it_was_made_of(vendor: str, component: str, counter: int) -> None:
    assert split_path(release_path(vendor, component, counter)) == (vendor, component, counter)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "aim/acme/kws",
        "aim/acme/kws/01",
        "aim/acme/kws/-1",
        "aim/acme/kws/4294967296",
        "aim/acme/kws/1/2",
        "aim/../kws/1",
        "aim/acme/k*s/1",
        "aim/Acme/kws/1",
        "aim/acme/kws/\u0661",
        "aim/acme/kws\n/1",
        "aim//kws/1",
        "/aim/acme/kws/1",
        "other/acme/kws/1",
        "aim/acme/" + "k" * 65 + "/1",
    ],
)
def test_a_path_that_names_no_release_is_refused(path: str) -> None:
    with pytest.raises(StoreError):
        split_path(path)


@settings(deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_a_path_or_a_store_error(text: str) -> None:
    try:
        parts = split_path(text)
    except StoreError:
        return
    assert release_path(*parts) == text


@pytest.mark.parametrize(
    "text", ["", "../../etc/passwd", DIGEST.upper(), DIGEST[:-1], DIGEST + "0", DIGEST + "\n"]
)
def test_only_a_digest_becomes_a_file_name(text: str) -> None:
    with pytest.raises(StoreError):
        check_sha256(text)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=10), json_values, max_size=3))
def test_metadata_is_copied_or_refused(custom: dict[str, Any]) -> None:
    try:
        copied = check_custom(custom)
    except StoreError as error:
        assert "nested deeper" in str(error)  # noqa: PT017 - the other causes are excluded by the strategy
        return
    assert copied == custom
    assert copied is not custom


def test_metadata_with_a_fraction_is_refused_with_its_place() -> None:
    with pytest.raises(StoreError, match=r"a float at custom\.inputs\[0\]\.scale") as caught:
        check_custom({"inputs": [{"scale": 0.1}]})
    assert "text '0.1'" in caught.value.hint


def test_metadata_larger_than_the_limit_is_refused() -> None:
    with pytest.raises(StoreError, match=rf"{MAX_CUSTOM_BYTES} B are allowed"):
        check_custom({"notes": "x" * MAX_CUSTOM_BYTES})


GOOD: dict[str, Any] = {"kind": "model", "measurement": DIGEST, "release": {"name": "kws"}}


def test_a_release_survives_its_signed_form() -> None:
    release = release_from_target("aim/acme/kws/3", 10, {"sha256": DIGEST}, GOOD | {"yanked": "wrong labels"})
    assert (release.vendor, release.component, release.counter) == ("acme", "kws", 3)
    assert release_from_target(release.path, 10, {"sha256": DIGEST}, release.target_custom()) == release


@pytest.mark.parametrize(
    ("path", "length", "hashes", "custom"),
    [
        ("aim/acme/kws", 10, {"sha256": DIGEST}, GOOD),
        ("aim/acme/kws/3", 0, {"sha256": DIGEST}, GOOD),
        ("aim/acme/kws/3", 2**40, {"sha256": DIGEST}, GOOD),
        ("aim/acme/kws/3", 10, {"sha512": DIGEST * 2}, GOOD),
        ("aim/acme/kws/3", 10, {"sha256": "../" * 20}, GOOD),
        ("aim/acme/kws/3", 10, {"sha256": DIGEST}, None),
        ("aim/acme/kws/3", 10, {"sha256": DIGEST}, []),
        ("aim/acme/kws/3", 10, {"sha256": DIGEST}, GOOD | {"kind": 7}),
        ("aim/acme/kws/3", 10, {"sha256": DIGEST}, GOOD | {"measurement": ""}),
        ("aim/acme/kws/3", 10, {"sha256": DIGEST}, GOOD | {"yanked": None}),
        ("aim/acme/kws/3", 10, {"sha256": DIGEST}, GOOD | {"release": "text"}),
        ("aim/acme/kws/3", 10, {"sha256": DIGEST}, GOOD | {"release": {"a": 0.5}}),
    ],
)
def test_a_signed_entry_that_is_malformed_is_not_believed(
    path: str, length: int, hashes: dict[str, str], custom: object
) -> None:
    with pytest.raises(TrustError, match="malformed"):
        release_from_target(path, length, hashes, custom)
