# ruff: noqa: E501
# Each row of the tables is one mistake and the exact words said about it; they read best in one line.

from collections.abc import Callable
from pathlib import Path

import pytest

from aif.config import Catalogue, load_aim, load_catalogue
from aif.model.ports import BundleSettings, PortRef

Said = Callable[[Callable[[], object]], list[str]]

LEAF = """\
schema: 1
aim: {name: NAME, version: "1.0", implementer: demo}
inputs: {x: {type: int32}}
outputs: {y: {type: int32}}
implementations: [{id: py, runtime: python, entry: "a.b:C", ram_bytes: 1, instructions: 1}]
"""
COMPOSITE = """\
schema: 1
aim: {name: NAME, version: "1.0", implementer: demo}
inputs: {x: {type: int32}}
outputs: {y: {type: int32, from: b.y}}
aims:
  - {id: a, use: USED@1.0, inputs: {x: aiw.x}}
  - {id: b, use: USED@1.0, inputs: {x: a.y}}
"""


def write(folder: Path, name: str, text: str) -> Path:
    place = folder / name.lower()
    place.mkdir()
    (place / "aim.yaml").write_text(text.replace("NAME", name))
    return place


def test_a_library_is_a_mapping_by_reference_and_knows_the_folders(
    catalogue: Catalogue, examples: Path
) -> None:
    assert "GestureClassifier@1.0" in catalogue
    assert len(catalogue) == 9
    assert catalogue.folder("MotionFeatures@1.0") == examples / "aims/motion_features"
    with pytest.raises(KeyError):
        catalogue.folder("None@1.0")


def test_a_folder_named_twice_is_read_once(examples: Path) -> None:
    aims = examples / "aims"
    assert len(load_catalogue([aims, aims / "event_sink", aims / ".." / "aims"])) == 9


def test_a_composite_keeps_its_channels_and_their_settings(examples: Path) -> None:
    composition = load_aim(examples / "aims/motion_classifier/aim.yaml").composition
    assert composition is not None
    assert [str(c) for c in composition.channels] == [
        "aiw.samples -> extract.samples",
        "extract.features -> classify.features",
        "classify.event -> aiw.event",
    ]
    set_up = composition.channels[1]
    assert (set_up.qos, set_up.bundle) == (1, BundleSettings(max_messages=1))
    assert composition.channels[0].source == PortRef("aiw", "samples")
    assert composition.aims[0].parameters == {"mode": "exact"}


def test_two_folders_with_one_reference_show_both_places(tmp_path: Path, said: Said) -> None:
    write(tmp_path, "Leaf", LEAF)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/aim.yaml").write_text("# copied\n" + LEAF.replace("NAME", "Leaf"))
    assert said(lambda: load_catalogue([tmp_path])) == [
        "3 [Leaf] AIF-E0106 two AIM folders offer Leaf@1.0 (give one of them another version, or leave its folder out)"
    ]


def test_the_findings_of_all_files_come_together(tmp_path: Path, said: Said) -> None:
    write(tmp_path, "One", LEAF.replace("int32}}\nout", "int31}}\nout"))
    write(tmp_path, "Two", LEAF.replace("implementer", "author"))
    found = said(lambda: load_catalogue([tmp_path]))
    assert [line.split()[2] for line in found] == ["AIF-E0201", "AIF-E0103", "AIF-E0102"]


def test_a_library_that_is_no_folder_is_named(tmp_path: Path, said: Said) -> None:
    found = said(lambda: load_catalogue([tmp_path / "none"]))
    assert found[0].endswith(f"AIF-E0109 the AIM library {(tmp_path / 'none').as_posix()} is not a folder")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("USED@1.0, inputs: {x: a.y", "Leef@1.0, inputs: {x: a.y", "7 [Leef@1.0] AIF-E0202 no AIM library offers Leef@1.0 (did you mean 'Leaf@1.0'?)"),
        ("x: aiw.x", "x: aiw.z", "6 [aiw.z] AIF-E0204 workflow Pair has no output port 'z' (known: x)"),
        ("from: b.y", "from: b.z", "4 [b.z] AIF-E0204 b (Leaf@1.0) has no output port 'z' (known: y)"),
        ("y: {type: int32,", "y: {type: int16,", "4 [b.y] AIF-E0203 record types differ on channel b.y -> aiw.y (put an AIM that converts between them)"),
        (", inputs: {x: a.y}", "", "7 [b] AIF-E0205 required input b.x is not connected (add to b: inputs: {x: <aim>.<port>})"),
    ],
)  # fmt: skip
def test_composites_are_checked_like_workflows(
    tmp_path: Path, said: Said, old: str, new: str, expected: str
) -> None:
    write(tmp_path, "Leaf", LEAF)
    assert old in COMPOSITE
    write(tmp_path, "Pair", COMPOSITE.replace(old, new).replace("USED", "Leaf"))
    assert said(lambda: load_catalogue([tmp_path])) == [expected]


def test_a_composite_that_contains_itself_is_refused(tmp_path: Path, said: Said) -> None:
    write(tmp_path, "One", COMPOSITE.replace("USED", "Two"))
    write(tmp_path, "Two", COMPOSITE.replace("USED", "One"))
    assert said(lambda: load_catalogue([tmp_path])) == [
        "2 [One] AIF-E0206 composite AIM One@1.0 contains itself: One@1.0 > Two@1.0 > One@1.0",
        "2 [Two] AIF-E0206 composite AIM Two@1.0 contains itself: Two@1.0 > One@1.0 > Two@1.0",
    ]


def test_a_composite_that_would_explode_is_refused_without_expanding_it(tmp_path: Path, said: Said) -> None:
    write(tmp_path, "Level0", LEAF)
    many = "".join(f"  - {{id: n{i}, use: USED@1.0, inputs: {{x: aiw.x}}}}\n" for i in range(64))
    wide = COMPOSITE[: COMPOSITE.index("  - {")].replace("b.y", "n0.y") + many
    for level in range(1, 4):
        write(tmp_path, f"Level{level}", wide.replace("USED", f"Level{level - 1}"))
    assert said(lambda: load_catalogue([tmp_path])) == [
        "2 [Level3] AIF-E0206 expands to 262,144 AIMs, at most 4,096 are accepted"
    ]
