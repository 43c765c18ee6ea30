"""Names and ids: what is a name, and that ids never mix."""

from __future__ import annotations

import hashlib

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aif.errors import LocalProtocolError
from aif.protocol.identifiers import (
    check_aiw_name,
    check_device_name,
    device_of_enrolment_cn,
    enrolment_cn,
    id16,
)


def test_an_id_is_the_hash_of_kind_and_text() -> None:
    expected = hashlib.blake2b(cbor2.dumps(["AIF-ID-1", "device", "mcu-1"]), digest_size=16).digest()
    assert id16("device", "mcu-1") == expected
    assert id16("device", "mcu-1").hex() == "cf920303b875a1c15af799bf93633d56"


def test_ids_of_different_kinds_differ() -> None:
    assert len({id16("device", "x"), id16("aim", "x"), id16("hwclass", "x"), id16("aim", "X")}) == 4


@pytest.mark.parametrize("text", ["", "x" * 257])
def test_texts_out_of_bounds_have_no_id(text: str) -> None:
    with pytest.raises(LocalProtocolError):
        id16("aim", text)


@pytest.mark.parametrize("name", ["a", "mcu-1", "gw_2", "a" * 32])
def test_device_names(name: str) -> None:
    assert check_device_name(name) == name
    assert device_of_enrolment_cn(enrolment_cn(name)) == name


BAD_DEVICES = ["", "1a", "-a", "Gw", "a.b", "a/b", "a+", "#", "a\0", "a\n", "é", "a" * 33, "a b"]


@pytest.mark.parametrize("name", BAD_DEVICES)
def test_other_device_names_are_refused(name: str) -> None:
    with pytest.raises(LocalProtocolError, match="not a device name"):
        check_device_name(name)
    with pytest.raises(LocalProtocolError):
        device_of_enrolment_cn(f"enrol.{name}")


def test_a_site_certificate_name_is_no_factory_certificate_name() -> None:
    with pytest.raises(LocalProtocolError, match="factory certificate"):
        device_of_enrolment_cn("mcu-1")


@pytest.mark.parametrize("name", ["GestureRecognition", "aiw-demo", "MMC-ASR-V2.5", "_x", "a" * 64])
def test_workflow_names(name: str) -> None:
    assert check_aiw_name(name) == name


@given(st.text(max_size=80))
def test_a_workflow_name_is_always_one_topic_level(name: str) -> None:
    try:
        check_aiw_name(name)
    except LocalProtocolError:
        return
    assert not set(name) & set("/+#\0\n $")
    assert 1 <= len(name) <= 64
