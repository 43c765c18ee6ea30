"""Every picture of every plan is well formed, whole, self-contained and the same for the same plan."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from xml.etree import ElementTree as ET

import pytest

from aif.model.aiw import Workflow
from aif.model.placement import Assignment, LinkUsage, Placement, Usage
from aif.model.standby import served_by
from partitioner.checker.exhaustive import best_placement
from partitioner.instances.families import instance, keeping_standbys
from partitioner.instances.generate import tiny_instance, workflow
from partitioner.planner import place, plan
from partitioner.report import lanes_svg as lanes
from partitioner.report import page
from partitioner.report.compare import compare
from partitioner.report.diagrams import dot
from partitioner.report.drawing import drawing_of
from partitioner.report.lanes_svg import BLOCK, STYLE, lanes_svg, percent
from partitioner.report.page import placement_page

SVG = "{http://www.w3.org/2000/svg}"
Plan = tuple[tuple[Workflow, ...], Placement]


@pytest.fixture(scope="module")
def plans() -> list[Plan]:
    """Plans of generated instances, those with most AIMs among them."""
    found: list[Plan] = []
    for seed in range(60):
        instance = tiny_instance(seed)
        if best_placement(*instance.arguments) is not None:
            found.append((instance.workflows, place(instance.problem(), workers=1)))
    assert len(found) > 20
    return found


def parsed(document: str) -> ET.Element:
    """The tree of a well-formed document; a page's HTML is well-formed XML too."""
    return ET.fromstring(document.removeprefix("<!DOCTYPE html>\n"))  # noqa: S314  drawn here


def texts(root: ET.Element, tag: str = f"{SVG}text") -> list[str]:
    """Whole texts: what the tool tip says where a text was cut."""
    return [node.findtext(f"{SVG}title") or node.text or "" for node in root.iter(tag)]


def statements(source: str) -> Iterator[tuple[str, ...]]:
    """A small reader of DOT: nodes ``(n, label)``, edges ``(a, b)``, clusters ``(label,)``."""
    token = re.compile(r'\s*(?:("(?:[^"\\]|\\.)*")|(->|[{}\[\]=,;])|([A-Za-z_0-9.]+))')
    words, position = [], 0
    while source[position:].strip():
        found = token.match(source, position)
        assert found is not None, source[position : position + 40]
        words.append(found[0].strip())
        position = found.end()
    assert words[:3] == ["digraph", "placement", "{"]
    depth, number = 1, 3
    while number < len(words):
        word = words[number]
        if word == "subgraph":
            assert words[number + 2] == "{"
            depth, number = depth + 1, number + 3
        elif word == "}":
            depth, number = depth - 1, number + 1
        else:
            end = words.index(";", number)
            statement = words[number:end]
            attributes = statement[statement.index("[") + 1 : -1]
            assert statement[-1] == "]"
            given = dict(zip(attributes[::4], attributes[2::4], strict=True))
            if "->" in statement:
                yield statement[0], statement[2]
            elif word == "graph" and depth == 2:
                yield (given["label"],)
            elif word.startswith("n") and word != "node":
                yield word, given["label"]
            number = end + 1
    assert depth == 0


def test_svg_shows_every_aim_channel_device_and_link(plans: list[Plan]) -> None:
    for workflows, placement in plans:
        root = parsed(lanes_svg(workflows, placement))
        shown = texts(root)
        for assignment in placement.assignments:
            assert assignment.aim in shown
        for device in {a.device for a in placement.assignments} | {u.device for u in placement.usage}:
            assert device in shown
        assert all(link.link in shown for link in placement.links)
        drawing = drawing_of(workflows, placement)
        wires = [p for p in root.iter(f"{SVG}path") if "wire" in p.get("class", "").split()]
        assert len(wires) == len(drawing.wires)
        assert sum("remote" in p.get("class", "") for p in wires) == sum(w.remote for w in drawing.wires)


def test_svg_boxes_do_not_overlap_and_stay_inside(plans: list[Plan]) -> None:
    for workflows, placement in plans:
        root = parsed(lanes_svg(workflows, placement))
        width, height = float(root.get("width", "")), float(root.get("height", ""))
        boxes = [r for r in root.iter(f"{SVG}rect") if r.get("class") == "block"]
        corners = [(float(r.get("x", "")), float(r.get("y", ""))) for r in boxes]
        assert len(corners) == len(placement.assignments)
        for (x1, y1), (x2, y2) in combinations(corners, 2):
            assert abs(x1 - x2) >= BLOCK[0] or abs(y1 - y2) >= BLOCK[1]
        for rect in root.iter(f"{SVG}rect"):
            assert float(rect.get("x", "0")) + float(rect.get("width", "")) <= width
            assert float(rect.get("y", "0")) + float(rect.get("height", "")) <= height


@pytest.mark.parametrize("devices", [("up", "down"), ("down", "up")])
def test_no_wire_runs_through_a_block(devices: tuple[str, str]) -> None:
    """One AIM feeds two that stand above each other, and one far behind them, in the same lane or another."""
    ways = [("imu", "extract"), ("extract", "a"), ("extract", "b"), ("a", "join"), ("b", "join")]
    ways += [("imu", "join"), ("imu", "sink"), ("join", "sink")]
    aims = ("sink", "imu", "extract", "a", "b", "join")  # the sink's lane is drawn first
    placed = tuple(Assignment(aim, devices[aim == "sink"], "c") for aim in aims)
    flow = workflow("W", [], [(f"{source}.y", f"{reader}.x") for source, reader in ways])
    root = parsed(lanes_svg([flow], Placement("W", "1.0", "lab", 1, placed)))
    blocks = [
        (float(r.get("x", "")), float(r.get("y", ""))) for r in root.iter(f"{SVG}rect") if r.get("rx") == "6"
    ]
    level = re.compile(r"([\d.]+) ([\d.]+)H([\d.]+)")
    runs = [run for path in root.iter(f"{SVG}path") for run in level.findall(path.get("d", ""))]
    assert len(runs) == 2
    for start, y, end in runs:
        assert not [
            (left, top)
            for left, top in blocks
            if top <= float(y) <= top + BLOCK[1] and left < float(end) and float(start) < left + BLOCK[0]
        ]


def test_svg_wires_lead_from_their_writer_to_their_reader(plans: list[Plan]) -> None:
    for workflows, placement in plans:
        drawing = drawing_of(workflows, placement)
        column = {block.key: block.column for lane in drawing.lanes for block in lane.blocks}
        assert all(w.delayed or column[w.source] < column[w.destination] for w in drawing.wires)


def test_dot_has_a_cluster_per_device_and_an_edge_per_channel(plans: list[Plan]) -> None:
    for workflows, placement in plans:
        read = list(statements(dot(workflows, placement)))
        assert len([s for s in read if len(s) == 1]) == len({a.device for a in placement.assignments})
        nodes = {s[0]: s[1].strip('"').split("\\n")[0] for s in read if len(s) == 2 and s[1].startswith('"')}
        assert sorted(nodes.values()) == sorted(a.aim for a in placement.assignments)
        edges = [(nodes[a], nodes[b]) for a, b in (s for s in read if len(s) == 2) if b in nodes]
        assert edges == [(w.source, w.destination) for w in drawing_of(workflows, placement).wires]


def test_html_is_well_formed_and_holds_the_tables(plans: list[Plan]) -> None:
    for workflows, placement in plans:
        text = placement_page(workflows, placement, compare(placement, placement))
        root = parsed(text)
        assert root.get("lang") == "en"
        rows = [head.text for head in root.iter("th") if head.get("scope") == "row"]
        assert [row for row in rows if row in {a.aim for a in placement.assignments}] == [
            a.aim for a in placement.assignments
        ]
        assert all(table.find("caption") is not None for table in root.iter("table"))
        assert root.find(f".//{SVG}svg") is not None


def test_pictures_load_nothing_and_run_nothing(plans: list[Plan]) -> None:
    for workflows, placement in plans:
        for text in (lanes_svg(workflows, placement), placement_page(workflows, placement)):
            assert set(re.findall(r"https?://[^\"']+", text)) == {"http://www.w3.org/2000/svg"}
            assert not re.search(r"<script|<link|<img|<iframe|@import|url\((?!#)|\son\w+=", text)


def test_equal_plans_give_equal_pictures(plans: list[Plan]) -> None:
    workflows, placement = plans[0]
    later = replace(placement, seconds=placement.seconds + 1.0)
    for draw in (lanes_svg, dot, placement_page):
        assert draw(workflows, placement) == draw(workflows, later)


def test_screen_readers_get_a_title_and_sentences(plans: list[Plan]) -> None:
    workflows, placement = plans[0]
    root = parsed(lanes_svg(workflows, placement))
    named = [node.get("id") for node in root if node.tag in (f"{SVG}title", f"{SVG}desc")]
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == " ".join(filter(None, named))
    about = root.findtext(f"{SVG}desc") or ""
    assert all(f"{a.device}" in about and a.aim in about for a in placement.assignments)


HOSTILE = '</text><script>alert("1")</script>&\x00\x1b\ud800\\" ] }'


@pytest.mark.parametrize("name", [HOSTILE, "x" * 400, "语" * 60, ""])
def test_no_name_breaks_a_picture(name: str) -> None:
    placement = Placement(
        name,
        "1",
        name,
        1,
        (Assignment(name + "a", name, name, name, rejected={name: name}),),
        usage=(Usage(name, 1, 2, 0, 0, 0.1, 0.8, 1.0),),
        links=(LinkUsage(name, (name, "b"), 5, 10),),
    )
    picture = lanes_svg([], placement)
    root = parsed(picture)
    parsed(placement_page([], placement))
    assert "<script" not in picture
    assert list(statements(dot([], placement)))
    width = float(root.get("width", ""))
    for node in root.iter(f"{SVG}text"):
        assert float(node.get("x", "")) < width
        assert len(node.text or "") <= 120
    if name.isalnum():
        assert f"{name}a" in texts(root)


def test_bars_are_as_long_as_shares_and_full_ones_say_so() -> None:
    def bar(share: float) -> tuple[float, str]:
        root = parsed(f"<g>{''.join(lanes.bar(0, 0, 'RAM', share, ''))}</g>")
        filled = next(r for r in root.iter("rect") if r.get("class") != "track")
        return float(filled.get("width", "")), " ".join(t.text or "" for t in root.iter("text"))

    assert bar(0.5) == (lanes.BAR[0] / 2, "RAM 50 % ")
    assert bar(0.0)[0] == 0
    assert bar(0.0001) == (2.0, "RAM < 1 % ")
    assert bar(0.9)[1] == "RAM 90 % full "
    assert bar(7.0) == (lanes.BAR[0], "RAM 700 % full ")
    assert percent(0.0) == "0 %"


def test_many_idle_devices_and_links_are_counted_not_drawn() -> None:
    usage = tuple(Usage(f"d{n}", 0, 9, 0, 0, 0.0, 0.8, 0.0) for n in range(500))
    links = tuple(LinkUsage(f"l{n}", ("a", "b"), 0, 9) for n in range(500))
    placement = Placement("w", "1", "i", 1, (Assignment("a", "d3", "c"),), usage=usage, links=links)
    root = parsed(lanes_svg([], placement))
    shown = texts(root)
    assert f"and {499 - lanes.MAX_IDLE} more devices that run nothing" in shown
    assert f"and {500 - lanes.MAX_IDLE} more links without traffic" in shown
    assert float(root.get("height", "")) < 1000


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.1."""
    digits = colour.lstrip("#")
    digits = digits if len(digits) == 6 else "".join(2 * d for d in digits)
    parts = [int(digits[n : n + 2], 16) / 255 for n in (0, 2, 4)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("part", [0, 1], ids=["light", "dark"])
def test_texts_and_bars_stand_out_in_both_colour_schemes(part: int) -> None:
    style = STYLE.split("@media")[part]

    def fill(name: str) -> str:
        found = re.search(rf"(?:^|[}}{{,]){re.escape(name)}(?:,\.\w+)?{{[^}}]*?fill:(#\w+)", style)
        assert found is not None, name
        return found[1]

    for ground in (".page", ".lane", ".block"):
        for ink in ("text", ".s", ".alarm"):
            assert contrast(fill(ink), fill(ground)) >= 4.5, (ink, ground)
    for bar in (".use", ".over"):
        assert contrast(fill(bar), fill(".track")) >= 3.0, bar


def test_the_page_forbids_itself_to_load_anything() -> None:
    assert "default-src 'none'" in placement_page([], Placement("w", "1", "i", 1, ()))
    assert "url(" not in page.STYLE


def test_names_that_are_cut_keep_both_ends() -> None:
    name = "machine-hall-north-gateway-07"
    placed = Placement(
        "W", "1.0", "lab", 1, (Assignment("a", name, "c"),), (Usage(name, 1, 2, 0, 0, 0.1, 0.8, 1.0),)
    )
    root = parsed(lanes_svg([], placed))
    tips = [node.find(f"{SVG}title") for node in root.iter(f"{SVG}text")]
    assert [tip.tail for tip in tips if tip is not None and tip.text == name] == ["machine-hall-no…ateway-07"]


def test_a_standby_stands_in_the_column_of_its_aim_and_is_drawn_dashed() -> None:
    given = keeping_standbys(instance("base", 12, 10, 0), share=1.0)
    placement = plan(given.problem(), time_limit_s=10.0).placement()
    drawing = drawing_of(given.workflows, placement)
    columns = {block.key: block.column for lane in drawing.lanes for block in lane.blocks}
    standbys = [key for key in columns if served_by(key)]
    assert standbys
    assert all(columns[key] == columns[served_by(key)] for key in standbys)
    assert dot(given.workflows, placement).count('style="rounded,dashed"') == len(standbys)
    assert lanes_svg(given.workflows, placement).count("stroke-dasharray") >= len(standbys)
