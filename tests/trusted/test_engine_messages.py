"""Answers of a Security Engine that are none."""

from __future__ import annotations

import cbor2
import pytest

from aif.errors import PSAError, PSAStatus, RemoteProtocolError
from aif.trusted.engine_messages import decode_answer, encode_error, encode_result


def test_results_and_errors_arrive_as_they_were() -> None:
    assert decode_answer(encode_result(7, [b"x", 1]), 7) == [b"x", 1]
    with pytest.raises(PSAError, match="no") as caught:
        decode_answer(encode_error(7, PSAError(PSAStatus.INVALID_SIGNATURE, "no", hint="try")), 7)
    assert (caught.value.status, caught.value.hint) == (PSAStatus.INVALID_SIGNATURE, "try")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({0: 7, 1: 12345, 2: [PSAError.code, "m", "h"]}, "unknown status 12345"),
        ({0: 7, 1: -1, 2: [PSAError.code, "m", "h"]}, "unknown status -1"),
        ({0: 7, 1: -132, 2: ["AIF-E9999", "m", "h"]}, "cannot be read"),
        ({0: 7, 1: -132, 2: None}, "cannot be read"),
        ({0: 8, 1: 0, 2: None}, "not to this request"),
        ([7, 0, None], "not to this request"),
    ],
)
def test_an_answer_that_is_none_is_said_to_be(answer: object, message: str) -> None:
    with pytest.raises(RemoteProtocolError, match=message):
        decode_answer(cbor2.dumps(answer), 7)


@pytest.mark.parametrize(
    "answer",
    ["d823116e0af7", "a30007010002c249ffffffffffffffffff", "a30007010002d8236161"],
    ids=["regular expression of a number", "large number", "regular expression"],
)
def test_an_answer_with_tags_is_refused_before_anything_is_built_of_it(answer: str) -> None:
    with pytest.raises(RemoteProtocolError, match="holds a tag"):
        decode_answer(bytes.fromhex(answer), 7)
