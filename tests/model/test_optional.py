"""AIMs that may be left out: in which order, with what, and who would starve."""

from __future__ import annotations

import pytest

from aif.model.aim import Composition, PlacementHint
from aif.model.aiw import AIWMetadata, Availability, PathLimit, expand
from aif.model.check import check_workflow
from aif.model.optional import starving, steps
from aif.model.ports import Direction, PortRef
from tests.model.workflows import aim, catalogue, channel, port, sub, workflow

SOURCE = aim("Source", (), (port("out", Direction.OUTPUT, rate_hz=50.0),))
PIPE = aim("Pipe", ("in",), ("out",))
PAIR = aim(
    "Pair", ("in",), ("out",),
    composition=Composition(
        (sub("one", "Pipe"), sub("two", "Pipe")),
        (channel("aiw.in -> one.in"), channel("one.out -> two.in"), channel("two.out -> aiw.out")),
    ),
)  # fmt: skip
LIBRARY = catalogue(SOURCE, PIPE, PAIR)


def tree(*optional: str) -> AIWMetadata:
    """``a`` is read by ``b`` and ``c``; ``c`` by ``d``, a composite."""
    return workflow(
        [sub("a", "Source"), sub("b", "Pipe"), sub("c", "Pipe"), sub("d", "Pair")],
        ["a.out -> b.in", "a.out -> c.in", "c.out -> d.in", "b.out -> aiw.x", "d.out -> aiw.y"],
        outputs=("x", "y"),
        availability=Availability(optional=optional),
    )


def test_without_optional_aims_there_is_one_step() -> None:
    assert steps(expand(tree(), LIBRARY)) == (frozenset(),)


def test_aims_go_one_after_the_other_and_composites_as_a_whole() -> None:
    gone = steps(expand(tree("d", "c", "b"), LIBRARY))
    assert [sorted(step) for step in gone] == [
        [], ["d.one", "d.two"], ["c", "d.one", "d.two"], ["b", "c", "d.one", "d.two"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("optional", "starved"),
    [
        (("b",), []),
        (("d", "c"), []),
        (("c",), [("c", "d")]),
        (("c", "d"), [("c", "d")]),  # d would wait for c in between
        (("a",), [("a", "b"), ("a", "c")]),
        (("b", "d", "c", "a"), []),
    ],
)
def test_who_reads_from_it_must_go_before_it(
    optional: tuple[str, ...], starved: list[tuple[str, str]]
) -> None:
    assert list(starving(tree(*optional))) == starved
    found = check_workflow(tree(*optional), LIBRARY)
    assert [(f.code, f.anchor) for f in found] == [
        ("AIF-E0205", ("availability", name, "optional")) for name, _ in starved
    ]


def test_an_optional_aim_that_is_not_there() -> None:
    (finding,) = check_workflow(tree("bb"), LIBRARY)
    assert (finding.code, finding.message) == ("AIF-E0202", "optional names unknown AIM 'bb'")
    assert finding.anchor == ("availability", "bb", "optional")


def test_a_workflow_without_some_aims_names_them_nowhere() -> None:
    hint = PlacementHint(separate_from=("b", "c"), colocate_with=("d",), strength="hard")
    metadata = workflow(
        [sub("a", "Source", placement=hint), sub("b", "Pipe"), sub("c", "Pipe"), sub("d", "Pair")],
        ["a.out -> b.in", "a.out -> c.in", "c.out -> d.in", "b.out -> aiw.x", "d.out -> aiw.y"],
        outputs=("x", "y"),
        paths=(
            PathLimit("kept", PortRef("a", "out"), PortRef("b", "out"), 10.0),
            PathLimit("gone", PortRef("a", "out"), PortRef("c", "out"), 10.0),
        ),
    )
    less = expand(metadata, LIBRARY).without({"c", "d.one", "d.two"})
    assert [leaf.id for leaf in less.aims] == ["a", "b"]
    assert {str(c) for c in less.channels} == {"a.out -> b.in", "b.out -> aiw.x"}
    assert [path.id for path in less.metadata.paths] == ["kept"]
    assert less.aim("a").placement == PlacementHint(separate_from=("b",), strength="hard")
    part = expand(metadata, LIBRARY).without({"d.one"})
    assert part.aim("a").placement == hint  # a part of d is still there
