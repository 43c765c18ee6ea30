"""Published instances can be made again; their plans are allowed and cost what is written, not less."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.published import FOLDER, better, canonical, cost_of, digest, main
from partitioner.instances.families import FAMILIES, instance

FILES = sorted(FOLDER.glob("*.json"))
SMALL = 100


def test_there_are_some_of_every_family() -> None:
    assert {file.name.split("-")[0] for file in FILES} == set(FAMILIES)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_is_published_is_true(file: Path) -> None:
    known = json.loads(file.read_text())
    made = known["generator"]
    if made["aims"] > SMALL:
        pytest.skip("large ones are made again by `python -m benchmarks.published`")
    drawn = instance(made["family"], made["aims"], made["devices"], made["seed"])
    assert digest(drawn) == known["sha256"]
    cost = cost_of(drawn, {key: (there[0], there[1]) for key, there in known["best"]["plan"].items()})
    assert cost == pytest.approx(known["best"]["objective"], abs=1e-7)
    assert known["bound"]["objective"] <= cost + 1e-7
    if "instance" in known:
        assert canonical(drawn) == known["instance"]


def test_only_better_results_replace_known_ones(tmp_path: Path) -> None:
    assert main(["base", "10", "3", "--seconds", "5", "--folder", str(tmp_path)]) == 0
    file = tmp_path / "base-10-3.json"
    known = json.loads(file.read_text())
    worse = known | {
        "best": known["best"] | {"objective": 99.0},
        "bound": known["bound"] | {"objective": 0.1},
    }
    assert better(known, worse) == known
    assert better(worse, known) == known
    other = worse | {"sha256": "0" * 64}
    assert better(known, other) == other


def test_a_plan_that_breaks_a_rule_is_refused() -> None:
    drawn = instance("base", 10, 10, 3)
    with pytest.raises(ValueError, match="is not placed"):
        cost_of(drawn, {})
