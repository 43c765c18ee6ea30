"""A log that somebody changed: whatever was done before a signed head shows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from aif.errors import AuditBroken
from aif.protocol.audit import START, Entry, Head, chain, encode_entry, frame, records, sign_head, verify_log

KEY = SigningKey(b"\x05" * 32)
PUBLIC = KEY.verify_key.encode()


def head(number: int, value: bytes, key: SigningKey = KEY) -> bytes:
    return sign_head(Head(number, value, number), lambda message: key.sign(message).signature)


def log(count: int, *, heads_every: int = 4) -> tuple[list[bytes], bytes]:
    """Records of a log, and its newest head."""
    value, newest = START, head(0, START)
    written = [newest]
    for number in range(1, count + 1):
        record = encode_entry(Entry(number, 1_000 + number, "grant", "left", {"digest": f"{number:064x}"}))
        value = chain(value, record)
        written.append(record)
        if number % heads_every == 0:
            newest = head(number, value)
            written.append(newest)
    return written, newest


def verify(written: list[bytes], newest: bytes) -> tuple[list[Entry], int]:
    return verify_log([b"".join(frame(record) for record in written)], newest, PUBLIC)


def test_a_whole_log_is_read() -> None:
    entries, signed = verify(*log(10))
    assert [entry.number for entry in entries] == list(range(1, 11))
    assert signed == 8


def test_rotation_keeps_the_chain() -> None:
    written, newest = log(8)
    cut = written.index(head(4, _value(4)))
    parts = [written[: cut + 1], written[cut:]]
    assert verify_log([b"".join(map(frame, part)) for part in parts], newest, PUBLIC)[1] == 8
    # the older file is gone: its head stands for it
    entries, _ = verify_log([b"".join(map(frame, parts[1]))], newest, PUBLIC)
    assert [entry.number for entry in entries] == [5, 6, 7, 8]
    with pytest.raises(AuditBroken):
        verify_log([b"".join(map(frame, parts[0]))], newest, PUBLIC)


def _value(count: int) -> bytes:
    value = START
    for record in log(count, heads_every=1_000)[0][1:]:
        value = chain(value, record)
    return value


@given(st.data())
def test_whatever_is_deleted_edited_moved_or_inserted_shows(data: st.DataObject) -> None:
    written, newest = log(8)
    at = data.draw(st.integers(1, 8 + 1))
    other = data.draw(st.integers(1, 8 + 1).filter(lambda n: n != at))
    match data.draw(st.sampled_from(["delete", "edit", "move", "repeat", "cut"])):
        case "delete":
            del written[at]
        case "edit":
            changed = bytearray(written[at])
            changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
            written[at] = bytes(changed)
        case "move":
            written[at], written[other] = written[other], written[at]
        case "repeat":
            written.insert(at, written[at])
        case "cut":
            del written[at:]
    if written == log(8)[0] or [r for r in written if r[0] != 0xD2] == [r for r in log(8)[0] if r[0] != 0xD2]:
        return  # only a head was removed or repeated: the entries are as they were
    with pytest.raises(AuditBroken):
        verify(written, newest)


def test_the_edited_entry_is_near_the_place_that_is_named() -> None:
    written, newest = log(12)
    forged = Entry(6, 1_006, "grant", "right", {"digest": f"{6:064x}"})
    written[7] = encode_entry(forged)
    with pytest.raises(AuditBroken, match="an entry between 5 and 8 was changed"):
        verify(written, newest)


def test_a_chain_that_was_made_anew_needs_the_controller_s_key() -> None:
    written, newest = log(4)
    stranger = SigningKey(b"\x06" * 32)
    forged = [head(0, START, stranger), *written[1:5], head(4, _value(4), stranger)]
    with pytest.raises(AuditBroken, match="did not sign"):
        verify(forged, newest)


def test_a_log_that_was_cut_off_says_where() -> None:
    written, newest = log(8)
    with pytest.raises(AuditBroken, match="ends at entry 4; the Controller signed 8"):
        verify(written[:6], newest)
    whole = b"".join(map(frame, written))
    with pytest.raises(AuditBroken, match="ends within a record"):
        list(records(whole[:-1]))


def test_long_facts_are_left_out() -> None:
    entry = Entry(1, 2, "excluded", "left", {"reason": "x" * 5_000})
    assert b"xx" not in encode_entry(entry)
