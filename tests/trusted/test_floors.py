"""Notes of a device that were put back: its Security Engine remembers what must not fall."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from aif.protocol.limits import UINT63_MAX
from aif.trusted.bound_notes import BoundNotes
from aif.trusted.floors import MAX_FLOORS, floors_of, lifted
from aif.trusted.model_service import NOTHING
from aif.trusted.psa import PSAError, PSAStatus
from aif.trusted.security_engine import EngineSettings, SecurityEngine
from aif.trusted.state import DeviceState, InstalledModel, StateFile
from store.floors import Floors

GRANT_PK, TICKET_PK = (bytes(SigningKey(bytes([n]) * 32).verify_key) for n in (1, 2))
NOTES = DeviceState(
    "left", "hw", bytes(32), None, b"root", GRANT_PK, TICKET_PK, bytes(32),
    time_floor_s=1_000, mapping_floor=7,
    store_floors=json.dumps(Floors(2, 9, 5, {"targets": 4}).to_document()),
    installed=(InstalledModel("kws", 3, b"k" * 32, 100, "A", b"ticket"),),
)  # fmt: skip


def settings(folder: Path, **changes: object) -> EngineSettings:
    plain = EngineSettings(
        folder / "engine", bytes(16), "hw", bytes(16), 1, 1, GRANT_PK, TICKET_PK, "aif.engines:none",
        create=True,
    )  # fmt: skip
    return replace(plain, **changes)  # type: ignore[arg-type]


def started(folder: Path, **changes: object) -> SecurityEngine:
    return SecurityEngine(settings(folder, **changes), clock=lambda: 0.0)


def notes_in(folder: Path) -> StateFile[DeviceState]:
    return StateFile(folder / "device.cbor", DeviceState)


def test_old_notes_are_lifted_to_the_floors_of_the_engine(tmp_path: Path) -> None:
    notes = notes_in(tmp_path)
    notes.save(NOTES)
    old = notes.path.read_bytes()
    with started(tmp_path) as engine:
        assert BoundNotes(notes, engine).take_up() == ()
        fresh = InstalledModel("kws", 4, b"n" * 32, 120, "B", b"newer")
        notes.update(lambda n: replace(n, time_floor_s=2_000, mapping_floor=9, installed=(fresh,)))
        seen = json.dumps(Floors(2, 11, 6, {"targets": 5}).to_document())
        notes.update(lambda n: replace(n, store_floors=seen))
    notes.path.write_bytes(old)  # somebody puts the old file back
    notes = notes_in(tmp_path)
    with started(tmp_path) as engine:
        bound = BoundNotes(notes, engine)
        assert bound.take_up() == ("mapping", "model kws", "store snapshot", "store timestamp", "time")
        now = notes.load()
        assert (now.time_floor_s, now.mapping_floor) == (2_000, 9)
        assert now.installed == (InstalledModel("kws", 3, NOTHING, 0, "A"),)  # release 4 may come, 3 may not
        assert Floors.from_document(json.loads(now.store_floors)) == Floors(2, 11, 6, {"targets": 4})
        assert bound.take_up() == ()
    notes = notes_in(tmp_path)
    with started(tmp_path) as engine:
        assert BoundNotes(notes, engine).take_up() == ()


def test_notes_without_floors_or_with_damaged_ones_are_lifted_too(tmp_path: Path) -> None:
    floors = floors_of(NOTES)
    for store_floors in ("", "{", "[]", '{"root": "many"}'):
        bare = replace(NOTES, time_floor_s=0, mapping_floor=0, installed=(), store_floors=store_floors)
        after, fallen = lifted(bare, floors)
        assert set(fallen) == set(floors)
        assert floors_of(after) == floors
        assert Floors.from_document(json.loads(after.store_floors)) == Floors(2, 9, 5)


_names = st.sampled_from(["time", "mapping", "store root", "store snapshot", "model a", "model b/c"])


@given(st.dictionaries(_names, st.integers(1, UINT63_MAX)), st.dictionaries(_names, st.integers(1, 100)))
def test_lifting_never_lowers_and_leaves_nothing_below(first: dict[str, int], second: dict[str, int]) -> None:
    once, _ = lifted(NOTES, first)
    twice, _ = lifted(once, second)
    found = floors_of(twice)
    for floors in (floors_of(NOTES), first, second):
        assert all(found[name] >= value for name, value in floors.items())
    assert lifted(twice, first) == (twice, ())


def test_a_model_that_was_given_up_is_no_old_file(tmp_path: Path) -> None:
    notes = notes_in(tmp_path)
    notes.save(NOTES)
    with started(tmp_path) as engine:
        bound = BoundNotes(notes, engine)
        bound.take_up()
        given_up = InstalledModel("kws", 2, NOTHING, 0, "A")
        notes.update(lambda n: replace(n, installed=(given_up,)))
        assert bound.take_up() == ()
        assert notes.load().installed == (given_up,)


def test_floors_are_of_one_site_and_need_one(tmp_path: Path) -> None:
    with started(tmp_path, grant_pk=None, ticket_pk=None) as engine:
        assert engine.floors() == {}
        with pytest.raises(PSAError) as refused:
            engine.lift_floors({"time": 1})
        assert refused.value.status is PSAStatus.BAD_STATE
        engine.enrolled(grant_pk=GRANT_PK, ticket_pk=TICKET_PK)
        engine.lift_floors({"time": 5})
        before = engine.storage_generation()
        engine.lift_floors({"time": 4})
        assert (engine.floors(), engine.storage_generation()) == ({"time": 5}, before)
    with started(tmp_path, grant_pk=TICKET_PK) as engine:
        assert engine.floors() == {}
    with started(tmp_path) as engine:
        assert engine.floors() == {"time": 5}


def test_floors_are_bounded_and_checked(tmp_path: Path) -> None:
    with started(tmp_path) as engine:
        for wrong in ({"time": -1}, {"time": UINT63_MAX + 1}, {"n" * 257: 1}):
            with pytest.raises(PSAError):
                engine.lift_floors(wrong)
        with pytest.raises(PSAError):
            engine.call("lift_floors", [["time", True], ["mapping"]])
        engine.lift_floors({f"model {n}": 1 for n in range(MAX_FLOORS)})
        with pytest.raises(PSAError) as refused:
            engine.lift_floors({"one more": 1})
        assert refused.value.status is PSAStatus.INSUFFICIENT_STORAGE


KILLED = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
from aif.trusted.bound_notes import BoundNotes
from tests.trusted.test_floors import notes_in, started

folder, step = Path(sys.argv[1]), sys.argv[2]
notes = notes_in(folder)
with started(folder) as engine:
    bound, tell = BoundNotes(notes, engine), notes.witness
    bound.take_up()

    def die(state):
        if step == "between":
            os.kill(os.getpid(), signal.SIGKILL)
        bound._tell(state)
        os.kill(os.getpid(), signal.SIGKILL)

    def change(state):
        if step == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(state, mapping_floor=state.mapping_floor + 1)

    notes.witness = die
    notes.update(change)
"""


@pytest.mark.parametrize(
    ("step", "mapping", "remembered"), [("before", 7, 7), ("between", 8, 7), ("after", 8, 8)]
)
def test_a_kill_at_any_step_is_no_old_file(tmp_path: Path, step: str, mapping: int, remembered: int) -> None:
    notes_in(tmp_path).save(NOTES)
    child = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), step],
        check=False,
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert child.returncode == -signal.SIGKILL
    notes = notes_in(tmp_path)
    with started(tmp_path) as engine:
        assert engine.floors()["mapping"] == remembered
        assert BoundNotes(notes, engine).take_up() == ()
        assert notes.load().mapping_floor == engine.floors()["mapping"] == mapping
