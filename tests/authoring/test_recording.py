from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from aif.authoring.recording import MAX_RECORDING_BYTES, UNSEEN, Recording, read_recording, write_recording
from aif.errors import InvalidRecord


def recording(count: int = 10) -> Recording:
    rng = np.random.default_rng(0)
    return Recording(
        samples=rng.integers(-(2**15), 2**15, (count, 4, 2)).astype(np.int16),
        t_us=np.arange(1, count + 1, dtype=np.uint64) * np.uint64(1_000_000),
        label=(np.arange(count) % 3 - 1).astype(np.int8),
        subject=(np.arange(count) // 5).astype(np.int16),
        labels=("walk", "run"),
    )


def test_a_recording_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "held_out.npz"
    write_recording(path, recording())
    found = read_recording(path)
    for name in ("samples", "t_us", "label", "subject"):
        array: npt.NDArray[np.int64] = getattr(found, name)
        assert array.dtype == getattr(recording(), name).dtype
        assert (array == getattr(recording(), name)).all()
    assert found.labels == ("walk", "run")
    assert UNSEEN in found.label
    assert [entry.name for entry in tmp_path.iterdir()] == ["held_out.npz"]


def test_the_same_recording_is_the_same_file(tmp_path: Path) -> None:
    write_recording(tmp_path / "a", recording())
    write_recording(tmp_path / "b", recording())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "held_out.npz"
    write_recording(path, recording())
    before = path.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("aif.authoring.recording.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_recording(path, recording(20))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["held_out.npz"]


@pytest.mark.parametrize("count", [1, 3, 9, 10, 50])
def test_thinning_spreads_evenly_and_keeps_the_pace(count: int) -> None:
    whole = recording()
    some = whole.thinned(count)
    assert len(some) == min(count, 10)
    assert some.t_us.tolist() == whole.t_us[: len(some)].tolist()
    assert (some.samples[0] == whole.samples[0]).all()
    if count > 1:
        assert (some.samples[-1] == whole.samples[-1]).all()


@pytest.mark.parametrize(
    "change",
    [
        {"samples": np.zeros((10, 4), np.int16)},
        {"samples": np.zeros((10, 4, 2), np.int32)},
        {"samples": np.zeros((9, 4, 2), np.int16)},
        {"t_us": np.zeros(10, np.uint64)},
        {"t_us": np.arange(10, 0, -1, dtype=np.uint64)},
        {"label": np.full(10, 2, np.int8)},
        {"label": np.full(10, -2, np.int8)},
        {"label": np.zeros(9, np.int8)},
        {"subject": np.zeros((10, 1), np.int16)},
    ],
)
def test_arrays_that_contradict_each_other_are_refused(
    change: dict[str, npt.NDArray[np.int16]], tmp_path: Path
) -> None:
    good = recording()
    arrays = {name: getattr(good, name) for name in ("samples", "t_us", "label", "subject")} | change
    with pytest.raises(InvalidRecord, match="recording: "):
        Recording(**arrays, labels=good.labels)
    np.savez(tmp_path / "x.npz", **arrays, labels=np.array(good.labels))
    with pytest.raises(InvalidRecord, match="recording: "):
        read_recording(tmp_path / "x.npz")


def test_files_that_are_no_recording_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with pytest.raises(InvalidRecord, match="is not a recording"):
        read_recording(path)
    write_recording(path, recording())
    whole = path.read_bytes()
    for content in (b"", b"junk", whole[: len(whole) // 2], whole[:200] + b"\xff" * 8 + whole[208:]):
        path.write_bytes(content)
        with pytest.raises(InvalidRecord, match="is not a recording"):
            read_recording(path)


def test_a_pickle_in_a_recording_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, samples=np.array([{}], dtype=object))
    with pytest.raises(InvalidRecord, match="is not a recording"):
        read_recording(path)


def test_a_recording_that_would_unpack_to_too_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("samples.npy", "w") as file,
    ):
        for _ in range(MAX_RECORDING_BYTES // (8 << 20) + 1):
            file.write(bytes(8 << 20))
    with pytest.raises(InvalidRecord, match="a recording has at most 268,435,456 B"):
        read_recording(path)


def _npz(path: Path, **changed: bytes) -> None:
    """A whole recording in which some members have other bytes."""
    write_recording(path, recording())
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (members | {f"{name}.npy": data for name, data in changed.items()}).items():
            archive.writestr(name, content)


def _npy(header: str, body: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + body


@pytest.mark.parametrize(
    "header",
    [
        "",
        "{'descr': '<i2', 'fortran_order': False, 'shape': (",
        "{'descr': '<i2', 'fortran_order': False, 'shape': (9**9**9,), }\n",
        "{'descr': '<i2', 'fortran_order': False, 'shape': (999999999, 999999999, 999999999), }\n",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1, 1, 1), }\n",
        "{'descr': '<i2', 'fortran_order': True, 'shape': (1, 1, 1), }\n",
        "[" * 200 + "\n",
    ],
)
def test_headers_that_no_recording_has_are_refused_without_being_evaluated(
    header: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.npz"
    _npz(path, samples=_npy(header, b"\0\0"))
    with pytest.raises(InvalidRecord, match="is not a recording"):
        read_recording(path)


def test_an_archive_in_another_compression_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    _npz(path)
    content = path.read_bytes()
    for method in (b"\x0c", b"\x63"):  # bzip2, and one that zipfile does not know
        path.write_bytes(content.replace(b"PK\1\2\x14\3\x14\0\0\0\0", b"PK\1\2\x14\3\x14\0\0\0" + method))
        assert path.read_bytes() != content
        with pytest.raises(InvalidRecord, match="is not a recording"):
            read_recording(path)


def test_a_file_too_large_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with path.open("wb") as file:
        file.truncate(MAX_RECORDING_BYTES + 1)
    with pytest.raises(InvalidRecord, match="at most"):
        read_recording(path)
