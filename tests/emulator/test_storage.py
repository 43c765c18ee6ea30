from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aif.emulator.storage import MAX_FILES, EmulatedUnit, Wear
from aif.errors import InvalidRecord, LocalProtocolError, NotFound, ResourceExceeded
from aif.model.inventory import StorageUnit

FLASH = StorageUnit("internal_flash", 40_960, write_bps=320_000.0)


class PowerLost(Exception):  # noqa: N818 - it is an event of the test, not an error of the program
    pass


def test_what_was_written_is_read_by_the_next_who_opens_the_unit(tmp_path: Path) -> None:
    unit = EmulatedUnit(FLASH, tmp_path / "flash")
    unit.write("b.tflite", b"model")
    unit.write("a.tflite", b"")
    again = EmulatedUnit(FLASH, tmp_path / "flash")
    assert again.read("b.tflite") == b"model"
    assert again.names() == ("a.tflite", "b.tflite")
    assert (again.used_bytes, again.free_bytes) == (5, 40_955)
    again.remove("b.tflite")
    again.remove("b.tflite")
    with pytest.raises(NotFound, match=r"internal_flash holds no b\.tflite") as caught:
        again.read("b.tflite")
    assert caught.value.hint == "it holds: a.tflite"


def test_a_full_unit_says_how_much_is_missing(tmp_path: Path) -> None:
    unit = EmulatedUnit(FLASH, tmp_path)
    unit.write("a", bytes(30_000))
    with pytest.raises(ResourceExceeded) as caught:
        unit.write("b", bytes(10_961))
    assert str(caught.value) == "b needs 10,961 B on internal_flash, 10,960 B are available"
    unit.write("b", bytes(10_960))
    assert unit.free_bytes == 0


def test_a_replacement_needs_room_for_both_versions(tmp_path: Path) -> None:
    unit = EmulatedUnit(FLASH, tmp_path)
    unit.write("a", bytes(21_000))
    with pytest.raises(ResourceExceeded, match="19,960 B are available"):
        unit.write("a", bytes(21_000))
    assert unit.read("a") == bytes(21_000)
    unit.remove("a")
    unit.write("a", bytes(21_000))


def test_a_reader_of_the_old_version_reads_it_to_its_end(tmp_path: Path) -> None:
    unit = EmulatedUnit(FLASH, tmp_path)
    unit.write("a", b"old version")
    with (tmp_path / "a").open("rb", buffering=0) as reader:
        assert reader.read(4) == b"old "
        unit.write("a", b"NEW VERSION")
        assert reader.read() == b"version"
    assert unit.read("a") == b"NEW VERSION"
    assert {path.name for path in tmp_path.iterdir()} == {"a", ".wear"}


def test_the_number_of_files_is_bounded(tmp_path: Path) -> None:
    unit = EmulatedUnit(FLASH, tmp_path)
    for number in range(MAX_FILES):
        (tmp_path / f"f{number}").touch()
    with pytest.raises(ResourceExceeded, match="holds 1,024 files, which is the most it can"):
        unit.write("one-more", b"")
    unit.write("f0", b"x")


@pytest.mark.parametrize("name", ["", ".wear", "../a", "a/b", "/a", "x" * 65, "a\n", ".torn.a"])
def test_a_name_cannot_lead_out_of_the_unit(tmp_path: Path, name: str) -> None:
    unit = EmulatedUnit(FLASH, tmp_path / "flash")
    for use in (lambda: unit.write(name, b"x"), lambda: unit.read(name), lambda: unit.remove(name)):
        with pytest.raises(LocalProtocolError, match="is not the name of a file on a storage unit"):
            use()
    assert list(tmp_path.rglob("*")) == [tmp_path / "flash"]


@given(cut=st.integers(0, 9_000), size=st.integers(0, 9_000), old=st.none() | st.binary(max_size=50))
def test_the_power_may_fail_at_any_byte(
    tmp_path_factory: pytest.TempPathFactory, cut: int, size: int, old: bytes | None
) -> None:
    folder = tmp_path_factory.mktemp("flash")
    if old is not None:
        EmulatedUnit(FLASH, folder).write("a", old)

    def power(written_bytes: int) -> None:
        if written_bytes >= cut:
            raise PowerLost

    new = b"\xa5" * size
    try:
        EmulatedUnit(FLASH, folder, power=power).write("a", new)
    except PowerLost:
        expected = old
    else:
        assert size < cut
        expected = new
    unit = EmulatedUnit(FLASH, folder)
    assert unit.names() == (() if expected is None else ("a",))
    assert expected is None or unit.read("a") == expected
    assert {path.name for path in folder.iterdir()} <= {"a", ".wear"}


def test_the_power_is_asked_before_every_page_and_before_the_end(tmp_path: Path) -> None:
    asked: list[int] = []
    EmulatedUnit(FLASH, tmp_path, power=asked.append).write("a", bytes(9_000))
    assert asked == [0, 4_096, 8_192, 9_000]


def test_wear_grows_with_every_page_and_outlives_the_process(tmp_path: Path) -> None:
    unit = EmulatedUnit(FLASH, tmp_path)
    assert unit.wear() == Wear(0, 0.0, 10_000)
    unit.write("a", bytes(4_097))
    unit.write("wear", bytes(4_096))
    unit.remove("a")
    assert EmulatedUnit(FLASH, tmp_path).wear() == Wear(3, 0.3, 10_000)


def test_an_interrupted_write_wears_too(tmp_path: Path) -> None:
    def power(written_bytes: int) -> None:
        raise PowerLost

    with pytest.raises(PowerLost):
        EmulatedUnit(FLASH, tmp_path, power=power).write("a", bytes(8_192))
    assert EmulatedUnit(FLASH, tmp_path).wear().erased_pages == 2


@pytest.mark.parametrize(
    ("kind", "pages", "endurance"),
    [
        ("spiffs", 1, 100_000),
        ("eefs", 4, 1_000_000),
        ("sdfs", 2, None),
        ("disk", 1, None),
        ("other", 1, None),
    ],
)
def test_each_kind_wears_in_its_own_pages(
    tmp_path: Path, kind: str, pages: int, endurance: int | None
) -> None:
    unit = EmulatedUnit(StorageUnit(kind, 1 << 20), tmp_path)
    unit.write("a", bytes(1_000))
    wear = unit.wear()
    assert (wear.erased_pages, wear.endurance_cycles) == (pages, endurance)


@pytest.mark.parametrize("content", ["", "x", "-1", "[1]", "true", "1.5", "9" * 70])
def test_a_damaged_count_of_wear_is_told(tmp_path: Path, content: str) -> None:
    unit = EmulatedUnit(FLASH, tmp_path)
    (tmp_path / ".wear").write_text(content)
    with pytest.raises(InvalidRecord, match="is damaged") as caught:
        unit.wear()
    assert caught.value.hint == "delete it to count from 0"


def test_writing_takes_the_declared_time(tmp_path: Path) -> None:
    assert EmulatedUnit(FLASH, tmp_path).write("a", bytes(4_000)) == 100_000  # 32,000 bit at 320 kbit/s
    assert EmulatedUnit(FLASH, tmp_path).write_us(1) == 25
    assert EmulatedUnit(StorageUnit("eefs", 10, write_bps=3e6), tmp_path).write_us(1) == 3
    assert EmulatedUnit(StorageUnit("sdfs", 10), tmp_path).write_us(10) == 0
