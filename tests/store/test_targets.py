from __future__ import annotations

import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aif.errors import StoreError
from store import targets as targets_module
from store.targets import pack, unpack

FILES = {
    "aim.yaml": b"schema: 1\n",
    "module.py": b"class KWS: ...\n",
    "src/kws.c": b"int x;\n",
    "README.md": b"",
}


def make_folder(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def read_folder(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def archive(*members: tuple[str, bytes] | tarfile.TarInfo, compression: str = "") -> bytes:
    """An archive that ``pack`` would not make."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{compression}") as tar:  # type: ignore[call-overload]
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                entry = tarfile.TarInfo(member[0])
                entry.size = len(member[1])
                tar.addfile(entry, io.BytesIO(member[1]))
    return buffer.getvalue()


def special(name: str, kind: bytes, linkname: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, linkname
    return entry


def test_a_package_is_unpacked_into_the_same_folder(tmp_path: Path) -> None:
    names = unpack(pack(make_folder(tmp_path / "in", FILES)), tmp_path / "out")
    assert names == ("README.md", "aim.yaml", "module.py", "src/kws.c")
    assert read_folder(tmp_path / "out") == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_equal_folders_give_equal_bytes(tmp_path: Path) -> None:
    first = make_folder(tmp_path / "first", FILES)
    second = make_folder(tmp_path / "second", dict(reversed(FILES.items())))
    os.utime(second / "aim.yaml", (1, 1))
    (second / "module.py").chmod(0o755)
    make_folder(second, {"__pycache__/module.cpython-311.pyc": b"cache", "module.pyc": b"cache"})
    assert pack(first) == pack(second)
    # a change of layout would change every digest that was ever signed
    digest = hashlib.sha256(pack(first)).hexdigest()
    assert digest == "a6d9e284b4d91e6d5d21262a107c4c1094cbfc210aa6e0bd61956f86a0191f88"


_segment = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,8}", fullmatch=True)


@given(
    st.dictionaries(
        st.builds(lambda parts: "d/".join(parts) + ".txt", st.lists(_segment, min_size=1, max_size=3)),
        st.binary(max_size=2000),
        min_size=1,
        max_size=6,
    )
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_folder_comes_back(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    base = tmp_path_factory.mktemp("any")
    package = pack(make_folder(base / "in", files))
    unpack(package, base / "out")
    assert read_folder(base / "out") == files
    assert pack(base / "out") == package


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (".hidden.py", "not a name"),
        ("-rf.py", "not a name"),
        ("a b.py", "not a name"),
        ("weights.pkl", "not a type of file"),
        ("lib.so", "not a type of file"),
        ("Makefile", "not a type of file"),
        ("x" * 98 + ".py", "too long"),
        ("/".join("abcdefghi") + "/x.py", "deeper than 8"),
    ],
)
def test_what_no_package_holds_is_refused_by_name(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        pack(make_folder(tmp_path, {name: b"x"}))


def test_links_and_special_files_are_not_packed(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "a", FILES)
    (folder / "secret.txt").symlink_to("/etc/hostname")
    with pytest.raises(StoreError, match="not a regular file"):
        pack(folder)
    (folder / "secret.txt").unlink()
    (folder / "up").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(StoreError, match="not a regular file"):
        pack(folder)
    (folder / "up").unlink()
    os.mkfifo(folder / "pipe.txt")
    with pytest.raises(StoreError, match="not a regular file"):
        pack(folder)


def test_an_empty_folder_is_no_package(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no file to pack"):
        pack(tmp_path)


@pytest.mark.parametrize(
    "hostile",
    [
        archive(("../escape.py", b"x")),
        archive(("/etc/escape.py", b"x")),
        archive(("a/../../escape.py", b"x")),
        archive(("a//b.py", b"x")),
        archive(("./a.py", b"x")),
        archive(("a\\..\\b.py", b"x")),
        archive(("a\n.py", b"x")),
        archive(("\u0430.py", b"x")),
        archive((".bashrc", b"x")),
        archive(("run.sh", b"x")),
        archive(("a.py", b"x"), ("a.py", b"y")),
        archive(("a.py", b"x"), ("a.py/b.py", b"y")),
        archive(special("a.py", tarfile.SYMTYPE, "/etc/passwd")),
        archive(special("a.py", tarfile.LNKTYPE, "../escape")),
        archive(special("a.py", tarfile.CHRTYPE)),
        archive(special("a.py", tarfile.FIFOTYPE)),
        archive(special("a.py", tarfile.GNUTYPE_SPARSE)),
        archive(special("a", tarfile.DIRTYPE)),
        archive(("a.py", b"x"), compression="gz"),
        archive(("a.py", b"x"), compression="xz"),
        archive(),
        b"",
        b"not a package",
        archive(("a.py", b"x" * 5000))[:2000],
    ],
    ids=range(24),  # the bytes hold the time of their making
)
def test_a_hostile_archive_leaves_nothing_behind(tmp_path: Path, hostile: bytes) -> None:
    with pytest.raises(StoreError):
        unpack(hostile, tmp_path / "inner" / "out")
    (tmp_path / "inner").mkdir()
    with pytest.raises(StoreError):
        unpack(hostile, tmp_path / "inner" / "out")
    assert list(tmp_path.rglob("*")) == [tmp_path / "inner"]


def test_an_archive_that_claims_more_than_allowed_is_refused_before_unpacking(tmp_path: Path) -> None:
    bomb = tarfile.TarInfo("a.bin")
    bomb.size = 2**40
    with pytest.raises(StoreError, match="1,099,511,627,776 B"):
        unpack(bomb.tobuf(tarfile.GNU_FORMAT) + bytes(10_240), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_sums_and_counts_are_bounded_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder(tmp_path / "in", {f"f{n}.txt": bytes(3000) for n in range(4)})
    package = pack(folder)
    monkeypatch.setattr(targets_module, "MAX_PACKAGE_FILES", 3)
    for refused in (lambda: pack(folder), lambda: unpack(package, tmp_path / "out")):
        with pytest.raises(StoreError, match="at most 3 files"):
            refused()
    monkeypatch.setattr(targets_module, "MAX_PACKAGE_FILES", 4)
    monkeypatch.setattr(targets_module, "MAX_PACKAGE_BYTES", 11_000)
    for refused in (lambda: pack(folder), lambda: unpack(package, tmp_path / "out")):
        with pytest.raises(StoreError, match="than 11,000 B"):
            refused()
    monkeypatch.setattr(targets_module, "MAX_PACKAGE_FILE_BYTES", 2999)
    with pytest.raises(StoreError, match="files up to 2,999 B"):
        pack(folder)


def test_a_package_is_never_mixed_into_a_folder(tmp_path: Path) -> None:
    package = pack(make_folder(tmp_path / "in", FILES))
    (tmp_path / "out").mkdir()
    with pytest.raises(StoreError, match="exists already"):
        unpack(package, tmp_path / "out")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="exists already"):
        unpack(package, tmp_path / "link")


_whole = archive(("a.py", b"x" * 600), ("b/c.txt", b"y" * 600))


@given(st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_archive_raises_a_store_error_or_unpacks_plain_files(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    damaged = bytearray(_whole)
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, 1600))] = data.draw(st.integers(0, 255))
    base = tmp_path_factory.mktemp("damaged")
    try:
        unpack(bytes(damaged), base / "out")
    except StoreError:
        assert list(base.iterdir()) == []
    else:
        assert all(path.is_dir() or not path.is_symlink() for path in base.rglob("*"))
        assert all(path.is_relative_to(base / "out") for path in base.rglob("*"))


def test_models_stay_out_of_packages(tmp_path: Path) -> None:
    bare = make_folder(tmp_path / "a", FILES)
    with_model = make_folder(tmp_path / "b", {**FILES, "kws.tflite": b"weights nobody may read"})
    assert pack(with_model) == pack(bare)
