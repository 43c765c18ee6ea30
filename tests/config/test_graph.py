import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from aif.config import Catalogue, load_catalogue, load_workflow
from aif.config.graph import Graph, arrange, graph_of, mermaid
from aif.config.svg import BOX_WIDTH, svg
from aif.model.aiw import Workflow
from aif.model.placement import Assignment, Placement

SVG = "{http://www.w3.org/2000/svg}"
LOOPED = """\
schema: 1
aiw: {name: Looped, version: "1.0", implementer: demo}
inputs: {extra: {type: "{uint64 t_us; int16[6] sample}", rate_hz: 1, bind: {sensor: imu}}}
aims:
  - {id: imu, use: IMUSource@1.0}
  - {id: imu_with_a_very_long_identifier, use: IMUSource@1.0}
  - id: extract
    use: MotionFeatures@1.0
    inputs: {samples: [imu.samples, imu_with_a_very_long_identifier.samples]}
  - {id: classify, use: GestureClassifier@1.0, inputs: {features: extract.features}}
  - {id: both, use: MotionClassifier@1.0, inputs: {samples: aiw.extra}}
  - {id: sink, use: EventSink@1.0, inputs: {event: [classify.event, both.event]}}
outputs: {events: classify.event}
"""


@pytest.fixture
def looped(tmp_path: Path, catalogue: Catalogue) -> Workflow:
    (tmp_path / "w.aiw.yaml").write_text(LOOPED)
    return load_workflow(tmp_path, catalogue).workflow


def placed(workflow: Workflow, *devices: str) -> Placement:
    rows = (Assignment(leaf.id, devices[n % len(devices)], "x") for n, leaf in enumerate(workflow.aims))
    return Placement(workflow.name, "1.0", "lab", 1, tuple(rows))


def test_mermaid_names_ports_and_types(examples: Path, catalogue: Catalogue) -> None:
    graph = graph_of(load_workflow(examples / "gesture", catalogue).workflow)
    assert (
        mermaid(graph)
        == """\
flowchart LR
  n0["imu<br/>IMUSource@1.0"]
  n1["extract<br/>MotionFeatures@1.0"]
  n2["classifier<br/>GestureClassifier@1.0"]
  n3["sink<br/>EventSink@1.0"]
  n4(["aiw (outputs)<br/>outputs of the workflow"])
  n0 -->|"samples → samples: #123;uint64 t_us; int16#91;6#93; sample#125;"| n1
  n1 -->|"features → features: Features_t"| n2
  n2 -->|"event → event: GestureEvent_t"| n3
  n2 -->|"event → events: GestureEvent_t"| n4
"""
    )


def test_mermaid_groups_by_device(looped: Workflow) -> None:
    text = mermaid(graph_of(looped, placed(looped, "wrist", "gw")))
    assert '  subgraph d0["wrist"]\n    n1["imu<br/>IMUSource@1.0"]\n' in text
    assert text.count("subgraph") == 2


def test_columns_follow_the_data(looped: Workflow) -> None:
    columns = [[box.id for box in column if not box.bend] for column in arrange(graph_of(looped)).columns]
    assert set(columns[0]) == {"imu", "imu_with_a_very_long_identifier", "aiw (inputs)"}
    assert set(columns[1]) == {"extract", "both.extract"}
    assert set(columns[2]) == {"classify", "both.classify"}
    assert set(columns[3]) == {"sink", "aiw (outputs)"}


def boxes(drawn: ET.Element) -> list[tuple[float, float, float, float]]:
    return [
        (float(r.attrib["x"]), float(r.attrib["y"]), float(r.attrib["width"]), float(r.attrib["height"]))
        for r in drawn.iter(f"{SVG}rect")
        if r.attrib.get("width") == str(BOX_WIDTH)
    ]


def texts(drawn: ET.Element) -> list[tuple[float, float, float, float]]:
    """The space each text takes, by a wide estimate of its characters."""
    found = []
    for text in drawn.iter(f"{SVG}text"):
        size = {"id": 7.9, "use": 5.9, "port": 5.9, "type": 5.9}[text.attrib["class"]]
        shown = "".join(part for part in text.itertext() if part != text.findtext(f"{SVG}title"))
        width = size * len(shown)
        x, y = float(text.attrib["x"]), float(text.attrib["y"])
        found.append((x - width if text.attrib.get("text-anchor") == "end" else x, y - 9, width, 10.0))
    return found


def overlap(one: tuple[float, ...], two: tuple[float, ...]) -> bool:
    return (
        one[0] < two[0] + two[2]
        and two[0] < one[0] + one[2]
        and one[1] < two[1] + two[3]
        and two[1] < one[1] + one[3]
    )


def drawing(graph: Graph) -> ET.Element:
    return ET.fromstring(svg(graph))  # noqa: S314 - our own text


@pytest.mark.parametrize("devices", [(), ("wrist", "gw", "a-device-with-a-name-of-some-length")])
def test_nothing_overlaps_and_all_is_inside(looped: Workflow, devices: tuple[str, ...]) -> None:
    drawn = drawing(graph_of(looped, placed(looped, *devices) if devices else None))
    width, height = float(drawn.attrib["width"]), float(drawn.attrib["height"])
    for shapes in (boxes(drawn), texts(drawn)):
        assert shapes
        for position, one in enumerate(shapes):
            assert one[0] >= 0
            assert one[1] >= 0
            assert one[0] + one[2] <= width
            assert one[1] + one[3] <= height
            assert not any(overlap(one, other) for other in shapes[:position]), one


def test_lines_run_from_port_to_port(looped: Workflow) -> None:
    drawn = drawing(graph_of(looped))
    ports = {(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in drawn.iter(f"{SVG}circle")}
    lines = [p.attrib["d"] for p in drawn.iter(f"{SVG}path") if p.attrib.get("class", "").startswith("line")]
    assert len(lines) == len(looped.channels)
    for line in lines:
        numbers = [float(number) for number in re.findall(r"-?\d+\.?\d*", line)]
        assert (numbers[0], numbers[1]) in ports
        assert (numbers[-2] + 4, numbers[-1]) in ports


def test_cut_labels_are_complete_in_the_tool_tip(looped: Workflow) -> None:
    drawn = drawing(graph_of(looped, placed(looped, "wrist", "gw")))
    titles = [title.text for title in drawn.iter(f"{SVG}title")]
    assert "imu_with_a_very_long_identifier: IMUSource@1.0 on gw" in titles
    assert "{uint64 t_us; int16[6] sample}" in titles
    assert "imu.samples → extract.samples: {uint64 t_us; int16[6] sample}" in titles


def test_channels_between_devices_stand_out(looped: Workflow) -> None:
    drawn = drawing(graph_of(looped, placed(looped, "wrist", "gw")))
    remote = [p for p in drawn.iter(f"{SVG}path") if p.attrib.get("class") == "line remote"]
    on = {a.aim: a.device for a in placed(looped, "wrist", "gw").assignments}
    inner = [c for c in looped.channels if not (c.source.at_boundary or c.destination.at_boundary)]
    assert len(remote) == sum(on[c.source.aim] != on[c.destination.aim] for c in inner)
    assert 0 < len(remote) < len(inner)


def test_feedback_is_drawn_below(tmp_path: Path) -> None:
    step = tmp_path / "aims/step"
    step.mkdir(parents=True)
    (step / "aim.yaml").write_text("""\
schema: 1
aim: {name: Step, version: "1.0", implementer: demo}
inputs: {x: {type: int32}}
outputs: {y: {type: int32}}
period_ms: 100
implementations: [{id: py, runtime: python, entry: "a.b:C", ram_bytes: 1, instructions: 1}]
""")
    (tmp_path / "w.aiw.yaml").write_text("""\
schema: 1
aiw: {name: Loop, version: "1.0", implementer: demo}
aims:
  - {id: a, use: Step@1.0, inputs: {x: b.y}}
  - {id: b, use: Step@1.0, inputs: {x: a.y}}
channels: [{output: b.y, input: a.x, delay: 3}]
""")
    graph = graph_of(load_workflow(tmp_path, load_catalogue([tmp_path / "aims"])).workflow)
    assert [(line.source, line.destination) for line in arrange(graph).feedback] == [("b", "a")]
    drawn = drawing(graph)
    (line,) = [p for p in drawn.iter(f"{SVG}path") if "feedback" in p.attrib.get("class", "")]
    lane = float(re.findall(r"V(\d+\.?\d*)", line.attrib["d"])[0])
    assert all(y + height < lane for _, y, _, height in boxes(drawn))
    assert "delay 3" in [text.text for text in drawn.iter(f"{SVG}text")]
    assert "-.->|" in mermaid(graph)


def test_devices_beyond_the_colours_are_told_apart_by_numbers(tmp_path: Path, catalogue: Catalogue) -> None:
    aims = "".join(f"  - {{id: imu_{n}, use: IMUSource@1.0}}\n" for n in range(12))
    file = tmp_path / "many.aiw.yaml"
    file.write_text(f'schema: 1\naiw: {{name: Many, version: "1.0", implementer: demo}}\naims:\n{aims}')
    workflow = load_workflow(file, catalogue).workflow
    few, many = (
        svg(graph_of(workflow, placed(workflow, *(f"gw-{n}" for n in range(count))))) for count in (8, 12)
    )
    assert all(f">gw-{n}<" in few for n in range(8))
    assert all(f">{n + 1} gw-{n}<" in many and f">{n + 1}<" in many for n in range(12))
