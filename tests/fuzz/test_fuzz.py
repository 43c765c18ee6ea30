"""A short campaign over every decoder; ``python -m tests.fuzz`` runs a long one."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.fuzz.campaign import Decoder, DecoderDefect, Tally, fuzz, inputs
from tests.fuzz.decoders import DECODERS, feed
from tests.fuzz.inputs import damaged_tree

SLOW = frozenset({"yaml:aim", "yaml:aiw", "yaml:inventory", "store metadata"})
INPUTS, SLOW_INPUTS = 800, 80


@pytest.mark.parametrize("name", DECODERS)
def test_only_documented_refusals_in_bounded_time_and_memory(name: str, tmp_path: Path) -> None:
    count = SLOW_INPUTS if name in SLOW else INPUTS
    tally = feed(name, tmp_path, range(2), count)
    assert tally.inputs == 2 * count
    assert tally.accepted > 0, "no input got through: the seeds are not valid any more"


def test_a_batch_is_the_same_every_time(tmp_path: Path) -> None:
    decoder = DECODERS["control"](tmp_path)
    once, again, other = (list(inputs(decoder, Random(seed), 200)) for seed in ("1", "1", "2"))
    assert once == again
    assert once != other
    assert len(set(once)) > 150


def _failing_at(data: bytes) -> None:
    if data.startswith(b"\xff"):
        raise KeyError("deep inside")
    raise ValueError("refused")


def test_an_undocumented_error_is_a_defect_that_can_be_repeated() -> None:
    decoder = Decoder("example", (b"\xff\0",), lambda: _failing_at, (ValueError,))
    with pytest.raises(DecoderDefect, match="example, seed 3, batch 0, input ff") as told:
        fuzz(decoder, batches=range(1), batch_inputs=10, seed=3)
    assert isinstance(told.value.__cause__, KeyError)


def test_memory_that_grows_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[bytes] = []
    decoder = Decoder("leak", (b"x",), lambda: lambda _: kept.append(bytes(1 << 20)), (ValueError,))
    monkeypatch.setattr("tests.fuzz.campaign.GROWTH_BYTES", 8 << 20)
    with pytest.raises(DecoderDefect, match="memory grew"):
        fuzz(decoder, batches=range(200), batch_inputs=5)


def test_tallies_add_up() -> None:
    assert Tally(1, 1, 0.5, 7, 1.0) + Tally(2, 0, 0.1, 9, 1.0) == Tally(3, 1, 0.5, 9, 2.0)


def test_damage_leaves_the_original_alone() -> None:
    tree = {"a": [1, {"b": b"x"}], 2: "text"}
    rng = Random(1)
    changed = [damaged_tree(rng, tree) for _ in range(200)]
    assert tree == {"a": [1, {"b": b"x"}], 2: "text"}
    assert sum(copy != tree for copy in changed) > 150
