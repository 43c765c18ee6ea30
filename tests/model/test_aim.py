from __future__ import annotations

import pytest

from aif.errors import ModelError, UnknownPort
from aif.model.aim import AIMMetadata, Join, Parameter, ParameterValue, Trigger
from aif.model.inventory import Device, DeviceClass, Inventory, Link
from aif.model.placement import Assignment, Placement
from aif.model.ports import BOUNDARY, Direction, Port, PortRef
from aif.model.records import PortType, RecordType


def port(name: str, *, optional: bool = False) -> Port:
    return Port(name, Direction.INPUT, PortType(RecordType.parse("int32")), 4, optional=optional)


@pytest.mark.parametrize(
    ("parameter", "value", "problem"),
    [
        (Parameter("p", "integer", minimum=1, maximum=5), 3, ""),
        (Parameter("p", "integer", minimum=1), 0, "must be at least 1"),
        (Parameter("p", "integer", maximum=5), 6, "must be at most 5"),
        (Parameter("p", "integer"), True, "must be an integer"),
        (Parameter("p", "integer"), 1.0, "must be an integer"),
        (Parameter("p", "integer"), 1 << 63, f"must be between {1 - (1 << 63)} and {(1 << 63) - 1}"),
        (Parameter("p", "number"), 1, ""),
        (Parameter("p", "number"), float("nan"), "must be finite"),
        (Parameter("p", "number", maximum=1.0), float("-inf"), "must be finite"),
        (Parameter("p", "number"), 10**400, f"must be between {1 - (1 << 63)} and {(1 << 63) - 1}"),
        (Parameter("p", "number"), "1", "must be a number"),
        (Parameter("p", "boolean"), 1, "must be a boolean"),
        (Parameter("p", "boolean"), False, ""),
        (Parameter("p", "string", choices=("a", "b")), "c", "must be one of a, b"),
        (Parameter("p", "string"), 1, "must be a string"),
        (Parameter("p", "number[]", minimum=0.0), [1, 2.5], ""),
        (Parameter("p", "number[]", minimum=0.0), [1, -2], "must be at least 0"),
        (Parameter("p", "number[]"), [1, float("inf")], "must be finite"),
        (Parameter("p", "number[]"), [1, 10**400], f"must be between {1 - (1 << 63)} and {(1 << 63) - 1}"),
        (Parameter("p", "number[]"), [True], "must be a list of numbers"),
        (Parameter("p", "number[]"), 1, "must be a list of numbers"),
    ],
)
def test_a_parameter_says_what_is_wrong_with_a_value(
    parameter: Parameter, value: ParameterValue, problem: str
) -> None:
    assert parameter.problem_with(value) == problem


@pytest.mark.parametrize(
    ("trigger", "starts"),
    [
        (Trigger(), ("a", "b")),
        (Trigger(("b", "c")), ("b", "c")),
        (Trigger(("b", "c"), any_of=True), ("b", "c")),
        (Trigger(("b", "a"), join=Join.LATEST), ("b",)),
        (Trigger(join=Join.LATEST), ("a",)),
        (Trigger(join=Join.TIMESTAMP), ("a", "b")),
    ],
)
def test_what_starts_an_invocation(trigger: Trigger, starts: tuple[str, ...]) -> None:
    aim = AIMMetadata(
        "A", "1.0", "demo", inputs=(port("a"), port("b"), port("c", optional=True)), trigger=trigger
    )
    assert aim.trigger_inputs() == starts


def test_with_optional_inputs_only_each_of_them_starts_it() -> None:
    aim = AIMMetadata("A", "1.0", "demo", inputs=(port("a", optional=True), port("b", optional=True)))
    assert aim.trigger_inputs() == ("a", "b")
    assert not aim.is_source
    assert AIMMetadata("A", "1.0", "demo").is_source


def test_an_unknown_port_is_answered_with_the_known_ones() -> None:
    aim = AIMMetadata("A", "1.0", "demo", inputs=(port("a"),))
    with pytest.raises(UnknownPort, match=r"A@1\.0 has no input 'x'") as refused:
        aim.input("x")
    assert refused.value.hint == "it has: a"
    with pytest.raises(UnknownPort) as refused:
        aim.output("x")
    assert refused.value.hint == "it has: none"


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("a.b", PortRef("a", "b")),
        ("outer.inner.Port_1", PortRef("outer.inner", "Port_1")),
        ("aiw.in", PortRef(BOUNDARY, "in")),
    ],
)
def test_port_references_are_read_and_written(text: str, parsed: PortRef) -> None:
    assert PortRef.parse(text) == parsed
    assert str(parsed) == text
    assert parsed.at_boundary is (parsed.aim == "aiw")


@pytest.mark.parametrize(
    "text", ["", "a", ".", "a.", ".b", "a..b", "A.b", "a.1b", "a.b ", "a.b\n", "é.b", "a.é"]
)
def test_what_is_no_port_reference_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match="is not a port reference"):
        PortRef.parse(text)


def test_a_transfer_pays_for_latency_bandwidth_and_loss() -> None:
    link = Link("l", ("a", "b"), bandwidth_bps=8000.0, latency_ms=5.0, loss=0.5)
    assert link.transfer_ms(10) == pytest.approx((5.0 + 10.0) / 0.5)


def test_an_inventory_names_its_devices_when_one_is_missing() -> None:
    device = Device("gw", DeviceClass.GATEWAY, "board", 1, 1, frozenset())
    inventory = Inventory("lab", 1, (device,))
    assert inventory.device("gw") is device
    assert device.forwards
    with pytest.raises(ModelError, match="inventory lab has no device 'x'") as refused:
        inventory.device("x")
    assert refused.value.hint == "devices: gw"


@pytest.mark.parametrize(
    ("objective", "bound", "gap"), [(10.0, 10.0, 0.0), (10.0, 8.0, 0.2), (0.0, 0.0, 0.0), (8.0, 9.0, 0.0)]
)
def test_the_gap_is_the_share_that_is_not_proven(objective: float, bound: float, gap: float) -> None:
    placement = Placement("w", "1", "i", 1, (Assignment("a", "d", "x"),), objective=objective, bound=bound)
    assert placement.gap == pytest.approx(gap)
    assert placement.device_of("a") == "d"
    assert placement.on_device("d") == placement.assignments
