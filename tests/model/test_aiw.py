"""Expansion: composites vanish, and nothing else does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aif.errors import CyclicTopology, ModelError, UnknownAIM, UnknownPort
from aif.model.aim import AIMMetadata, Composition, PlacementHint
from aif.model.aiw import MAX_AIMS, MAX_COMPOSITE_DEPTH, PathLimit, expand, leads
from aif.model.ports import AuthMode, BundleSettings, ChannelSpec, PortRef
from tests.model.workflows import aim, catalogue, channel, composition, sub, workflow

SOURCE = aim("Source", (), ("out",))
PIPE = aim("Pipe", ("in",), ("out",))
SINK = aim("Sink", ("in",))
BASIC = (SOURCE, PIPE, SINK)


def texts(channels: tuple[ChannelSpec, ...]) -> set[str]:
    return {str(one) for one in channels}


def pair(name: str = "Pair", use: str = "Pipe") -> AIMMetadata:
    """Two AIMs in a row, as one."""
    inside = composition(
        [sub("first", use), sub("second", use)],
        ["aiw.in -> first.in", "first.out -> second.in", "second.out -> aiw.out"],
    )
    return aim(name, ("in",), ("out",), composition=inside)


ROW = [sub("source", "Source"), sub("middle", "Pair"), sub("sink", "Sink")]
ROW_CHANNELS = ["source.out -> middle.in", "middle.out -> sink.in"]


def test_a_workflow_without_composites_stays_as_it_is() -> None:
    aiw = workflow([sub("a", "Source"), sub("b", "Sink")], ["a.out -> b.in"])
    expanded = expand(aiw, catalogue(*BASIC))
    assert expanded.channels == aiw.composition.channels
    assert [leaf.id for leaf in expanded.aims] == ["a", "b"]
    assert expanded.aim("a").metadata is SOURCE
    with pytest.raises(UnknownAIM, match="W has no AIM 'x'"):
        expanded.aim("x")


def test_a_composite_gives_way_to_its_parts() -> None:
    expanded = expand(workflow(ROW, ROW_CHANNELS), catalogue(*BASIC, pair()))
    assert [leaf.id for leaf in expanded.aims] == ["source", "middle.first", "middle.second", "sink"]
    assert texts(expanded.channels) == {
        "source.out -> middle.first.in",
        "middle.first.out -> middle.second.in",
        "middle.second.out -> sink.in",
    }


def test_composites_inside_composites() -> None:
    outer = pair("Outer", use="Pair")
    expanded = expand(
        workflow([sub("source", "Source"), sub("x", "Outer")], ["source.out -> x.in"]),
        catalogue(*BASIC, pair(), outer),
    )
    assert texts(expanded.channels) == {
        "source.out -> x.first.first.in",
        "x.first.first.out -> x.first.second.in",
        "x.first.second.out -> x.second.first.in",
        "x.second.first.out -> x.second.second.in",
    }


def test_two_composites_that_touch() -> None:
    aiw = workflow(
        [sub("a", "Pair"), sub("b", "Pair")], ["aiw.in -> a.in", "a.out -> b.in", "b.out -> aiw.out"]
    )
    assert texts(expand(aiw, catalogue(*BASIC, pair())).channels) == {
        "aiw.in -> a.first.in",
        "a.first.out -> a.second.in",
        "a.second.out -> b.first.in",
        "b.first.out -> b.second.in",
        "b.second.out -> aiw.out",
    }


def test_a_composite_may_pass_an_input_straight_on() -> None:
    straight = aim(
        "Straight", ("in",), ("same", "piped"),
        composition=composition(
            [sub("p", "Pipe")], ["aiw.in -> aiw.same", "aiw.in -> p.in", "p.out -> aiw.piped"]
        ),
    )  # fmt: skip
    aiw = workflow(
        [sub("s", "Source"), sub("c", "Straight"), sub("x", "Sink"), sub("y", "Sink")],
        ["s.out -> c.in", "c.same -> x.in", "c.piped -> y.in"],
    )
    assert texts(expand(aiw, catalogue(*BASIC, straight)).channels) == {
        "s.out -> x.in", "s.out -> c.p.in", "c.p.out -> y.in",
    }  # fmt: skip


def test_an_input_and_an_output_of_one_name_are_two_ports() -> None:
    same = aim(
        "Same",
        ("x",),
        ("x",),
        composition=composition([sub("p", "Pipe")], ["aiw.x -> p.in", "p.out -> aiw.x"]),
    )
    aiw = workflow([sub("s", "Source"), sub("c", "Same"), sub("t", "Sink")], ["s.out -> c.x", "c.x -> t.in"])
    assert texts(expand(aiw, catalogue(*BASIC, same)).channels) == {"s.out -> c.p.in", "c.p.out -> t.in"}


def test_a_loop_around_a_composite_stays_a_loop() -> None:
    aiw = workflow([sub("c", "Pair")], [channel("c.out -> c.in", delay_records=1)])
    (loop,) = [c for c in expand(aiw, catalogue(*BASIC, pair())).channels if c.delay_records]
    assert str(loop) == "c.second.out -> c.first.in"


def test_outer_settings_hold_and_delays_add_up() -> None:
    inside = composition(
        [sub("p", "Pipe")],
        [
            channel("aiw.in -> p.in", auth=AuthMode.SIGNED, qos=1, bundle=BundleSettings(4), delay_records=2),
            channel("p.out -> aiw.out", auth=AuthMode.CHECKPOINT, bundle=BundleSettings(8)),
        ],
    )
    wrapped = aim("Wrapped", ("in",), ("out",), composition=inside)
    aiw = workflow(
        [sub("s", "Source"), sub("w", "Wrapped"), sub("t", "Sink")],
        [
            channel("s.out -> w.in", auth=AuthMode.AEAD, delay_records=1),
            channel("w.out -> t.in", bundle=BundleSettings(16)),
        ],
    )
    into, out_of = sorted(expand(aiw, catalogue(*BASIC, wrapped)).channels, key=str, reverse=False)
    assert (into.auth, into.qos, into.bundle, into.delay_records) == (AuthMode.AEAD, 1, BundleSettings(4), 3)
    assert (out_of.auth, out_of.qos, out_of.bundle) == (AuthMode.CHECKPOINT, 0, BundleSettings(16))


def test_the_placement_of_a_composite_holds_for_its_parts() -> None:
    inside = composition(
        [sub("a", "Pipe", placement=PlacementHint(device="own", colocate_with=("b",))), sub("b", "Pipe")],
        ["aiw.in -> a.in", "a.out -> b.in", "b.out -> aiw.out"],
    )
    aiw = workflow(
        [
            sub(
                "c",
                "C",
                placement=PlacementHint(device="far", zone="z", separate_from=("t",), strength="hard"),
            ),
            sub("t", "Sink"),
        ],
        ["aiw.in -> c.in", "c.out -> t.in"],
    )
    leaves = {leaf.id: leaf.placement for leaf in expand(
        aiw, catalogue(*BASIC, aim("C", ("in",), ("out",), composition=inside))
    ).aims}  # fmt: skip
    assert leaves["c.a"] == PlacementHint(
        device="own", zone="z", colocate_with=("c.b",), separate_from=("t",), strength="hard"
    )
    assert leaves["c.b"] == PlacementHint(device="far", zone="z", separate_from=("t",), strength="hard")
    assert leaves["t"] is None


def test_paths_to_a_composite_lead_to_the_parts_behind_its_port() -> None:
    fan = aim(
        "Fan", ("in",), ("out",),
        composition=composition(
            [sub("a", "Pipe"), sub("b", "Pipe")], ["aiw.in -> a.in", "aiw.in -> b.in", "b.out -> aiw.out"]
        ),
    )  # fmt: skip
    limits = (
        PathLimit("in", PortRef("s", "out"), PortRef("f", "in"), 10.0),
        PathLimit("through", PortRef("s", "out"), PortRef("f", "out"), 20.0),
        PathLimit("out", PortRef("f", "out"), PortRef("t", "in"), 30.0),
    )
    aiw = workflow(
        [sub("s", "Source"), sub("f", "Fan"), sub("t", "Sink")],
        ["s.out -> f.in", "f.out -> t.in"],
        paths=limits,
    )
    found = [
        (p.id, str(p.source), str(p.destination)) for p in expand(aiw, catalogue(*BASIC, fan)).metadata.paths
    ]
    assert found == [
        ("in", "s.out", "f.a.in"), ("in", "s.out", "f.b.in"),
        ("through", "s.out", "f.b.out"),
        ("out", "f.b.out", "t.in"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "destination", "connected"),
    [
        ("a.out", "b.in", True),
        ("a.out", "c.in", True),
        ("a.out", "b.out", True),
        ("a.out", "aiw.end", True),
        ("aiw.begin", "c.in", False),
        ("a.other", "c.in", False),  # another output of an AIM that leads there
        ("a.out", "d.in", False),  # behind a delay
        ("b.out", "b.in", False),
        ("a.out", "e.in", False),  # out at the boundary and in again is no path
        ("aiw.begin", "e.in", True),
        ("b.in", "c.in", False),  # a path begins where a record leaves
    ],
)
def test_where_records_lead(source: str, destination: str, connected: bool) -> None:
    channels = [
        channel("a.out -> b.in"), channel("b.out -> c.in"), channel("b.out -> aiw.end"),
        channel("b.out -> d.in", delay_records=1), channel("aiw.begin -> e.in"),
    ]  # fmt: skip
    assert leads(channels, PortRef.parse(source), PortRef.parse(destination)) is connected


def test_what_the_catalogue_does_not_hold_is_named_with_its_place() -> None:
    with pytest.raises(UnknownAIM, match=r"middle\.first uses Pipe@1\.0, which no AIM library offers"):
        expand(workflow(ROW, ROW_CHANNELS), catalogue(SOURCE, SINK, pair()))


@pytest.mark.parametrize("text", ["source.out -> middle.nothing", "middle.nothing -> sink.in"])
def test_a_channel_to_a_port_that_a_composite_lacks_is_not_dropped_silently(text: str) -> None:
    with pytest.raises(UnknownPort, match=r"Pair@1\.0 has no (input|output) 'nothing'"):
        expand(workflow(ROW, [text]), catalogue(*BASIC, pair()))


def test_a_composite_that_contains_itself_is_refused() -> None:
    a, b = pair("A", use="B"), pair("B", use="A")
    with pytest.raises(
        CyclicTopology, match=r"composite AIM A@1\.0 contains itself: A@1\.0 > B@1\.0 > A@1\.0"
    ):
        expand(workflow([sub("x", "A")]), catalogue(*BASIC, a, b))


def test_nesting_is_bounded_and_said_so() -> None:
    names = [f"C{n}" for n in range(MAX_COMPOSITE_DEPTH + 1)]
    chain = [
        aim(n, composition=Composition((sub("x", m),), ()))
        for n, m in zip(names, [*names[1:], "Source"], strict=True)
    ]
    expand(workflow([sub("x", names[1])]), catalogue(*BASIC, *chain))
    with pytest.raises(CyclicTopology, match="nested more than 8 deep"):
        expand(workflow([sub("x", names[0])]), catalogue(*BASIC, *chain))


@pytest.mark.parametrize("innermost", ["Source", "Empty"])
def test_composites_cannot_multiply_without_bound(innermost: str) -> None:
    ten = [sub(f"x{n}", "NEXT") for n in range(10)]
    levels = [
        aim(
            f"L{n}",
            composition=Composition(tuple(sub(s.id, f"L{n + 1}" if n < 6 else innermost) for s in ten), ()),
        )
        for n in range(7)
    ]
    with pytest.raises(ModelError, match=f"expands to more than {MAX_AIMS:,} AIMs"):
        expand(
            workflow([sub("x", "L0")]),
            catalogue(*BASIC, aim("Empty", composition=Composition((), ())), *levels),
        )


# --- connectivity, as a property -------------------------------------------------------------------


@st.composite
def nested(draw: st.DrawFn) -> tuple[dict[str, AIMMetadata], list[str]]:
    """A row of AIMs, each basic or a composite that is again such a row, up to three deep."""
    known = catalogue(*BASIC)

    def row(depth: int) -> list[str]:
        uses = []
        for _ in range(draw(st.integers(1, 3))):
            if depth < 3 and draw(st.booleans()):
                parts = row(depth + 1)
                name = f"N{len(known)}"
                ids = [f"p{n}" for n in range(len(parts))]
                ends = ["aiw.in", *(f"{i}.out" for i in ids)], [*(f"{i}.in" for i in ids), "aiw.out"]
                channels = [f"{a} -> {b}" for a, b in zip(*ends, strict=True)]
                inner = composition([sub(i, u) for i, u in zip(ids, parts, strict=True)], channels)
                known[f"{name}@1.0"] = aim(name, ("in",), ("out",), composition=inner)
                uses.append(name)
            else:
                uses.append("Pipe")
        return uses

    return known, row(0)


def basic_parts(known: dict[str, AIMMetadata], use: str) -> int:
    inner = known[f"{use}@1.0"].composition
    return 1 if inner is None else sum(basic_parts(known, s.use.partition("@")[0]) for s in inner.aims)


@given(nested())
@settings(max_examples=60, deadline=None)
def test_expansion_keeps_what_is_connected(made: tuple[dict[str, AIMMetadata], list[str]]) -> None:
    known, uses = made
    ids = [f"a{n}" for n in range(len(uses))]
    ends = ["aiw.in", *(f"{i}.out" for i in ids)], [*(f"{i}.in" for i in ids), "aiw.out"]
    aiw = workflow(
        [sub(i, u) for i, u in zip(ids, uses, strict=True)],
        [f"{a} -> {b}" for a, b in zip(*ends, strict=True)],
        inputs=("in",), outputs=("out",),
    )  # fmt: skip
    expanded = expand(aiw, known)
    leaves = {leaf.id for leaf in expanded.aims}
    assert len(leaves) == sum(basic_parts(known, use) for use in uses)
    assert all(leaf.metadata.composition is None for leaf in expanded.aims)
    # one unbroken row through every leaf, from the workflow's input to its output
    following = {c.source: c.destination for c in expanded.channels}
    assert len(following) == len(expanded.channels) == len(leaves) + 1
    at, visited = PortRef("aiw", "in"), set()
    while (reached := following[at]) != PortRef("aiw", "out"):
        assert reached.aim in leaves
        visited.add(reached.aim)
        at = PortRef(reached.aim, "out")
    assert visited == leaves
