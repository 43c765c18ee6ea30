"""Every counter has its words."""

from __future__ import annotations

from aif.gateway.causes import MEANS, in_words
from aif.protocol.numbers import Cause


def test_no_counter_is_without_words_and_no_words_without_counter() -> None:
    assert set(MEANS) == set(Cause)
    assert len(set(MEANS.values())) == len(MEANS)


def test_only_what_happened_is_told_and_strange_names_stay() -> None:
    told = in_words({"lost": 1_200, "frame.tag": 0, "loss.gap": 2, "new.cause": 1})
    assert told == "1,200 lost; 2 gaps: later messages came, these did not (loss.gap); 1 new.cause"
