"""AIMs alone: every way to write one, every way to get it wrong, and exactly what its author is told."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aif.errors import (
    AIFError,
    AIMFailed,
    ConfigError,
    CreationFailed,
    InvalidRecord,
    LengthOrHashMismatch,
    NotFound,
    PortTimeout,
    RecordTooLarge,
    UnconnectedPort,
    UnknownPort,
)
from aif.runtime.host.trial import Reading, try_aim

PORTS = """\
inputs: {number: {type: int32}}
outputs: {twice: {type: int32}}
"""
ENTRY = "module:Tried"


def make(folder: Path, code: str, contract: str = PORTS, implementation: str = "") -> Path:
    """An AIM folder: ``code`` is the body of class ``Tried``, or a whole module."""
    runs = implementation or f"{{id: here, runtime: python, entry: '{ENTRY}', ram_bytes: 1, instructions: 1}}"
    head = "schema: 1\naim: {name: Tried, version: '1.0', implementer: me}\n"
    (folder / "aim.yaml").write_text(f"{head}{dedent(contract)}implementations:\n  - {runs}\n")
    body = dedent(code)
    if "class " not in body:
        body = "from aif.sdk import AIM\n\n\nclass Tried(AIM):\n" + indent(body, "    ")
    (folder / "module.py").write_text(body)
    return folder


def attempt(
    folder: Path, records: Mapping[str, Sequence[Any]] | None = None, **options: Any
) -> dict[str, list[Any]]:
    return asyncio.run(try_aim(folder, records, **options))


DOUBLER = "def process(self, number): return {'twice': 2 * number}"


# --- ways to write an AIM -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        DOUBLER,
        "async def process(self, number): return {'twice': 2 * number}",
        "def process(self, number):\n    yield {'twice': 2 * number}",
        "async def process(self, number):\n    yield {'twice': 2 * number}",
        "def process(self, **inputs): return {'twice': 2 * inputs['number']}",
        "async def setup(self): self.k = 2\ndef process(self, number): return {'twice': self.k * number}",
    ],
    ids=["plain", "async", "generator", "async generator", "any inputs", "async setup"],
)
def test_every_form_of_process_gives_the_same_records(code: str, tmp_path: Path) -> None:
    assert attempt(make(tmp_path, code), {"number": [1, -5, 7]}) == {"twice": [2, -10, 14]}


def test_one_invocation_may_give_none_or_several_records(tmp_path: Path) -> None:
    code = "def process(self, number):\n    for n in range(number):\n        yield {'twice': n}"
    assert attempt(make(tmp_path, code), {"number": [0, 3, 1]}) == {"twice": [0, 1, 2, 0]}


def test_setup_and_close_frame_the_invocations(tmp_path: Path) -> None:
    code = """\
        def setup(self): self.seen = []
        def process(self, number): self.seen.append(number)
        async def close(self):
            from pathlib import Path
            Path(__file__).with_name('seen.txt').write_text(str(self.seen))
        """
    assert attempt(make(tmp_path, code), {"number": [4, 5]}) == {"twice": []}
    assert (tmp_path / "seen.txt").read_text() == "[4, 5]"


def test_code_may_import_its_own_folder_and_a_changed_folder_is_loaded_anew(tmp_path: Path) -> None:
    code = "from aif.sdk import AIM\nfrom .factor import K\n\nclass Tried(AIM):\n"
    code += "    def process(self, number): return {'twice': K * number}\n"
    make(tmp_path, code)
    for factor in (2, 3):
        (tmp_path / "factor.py").write_text(f"K = {factor}\n")
        assert attempt(tmp_path, {"number": [5]}) == {"twice": [5 * factor]}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(-(2**30), 2**30 - 1), max_size=40))
def test_nothing_is_lost_or_reordered(tmp_path_factory: pytest.TempPathFactory, numbers: list[int]) -> None:
    folder = make(tmp_path_factory.mktemp("aim"), DOUBLER)
    assert attempt(folder, {"number": numbers}) == {"twice": [2 * n for n in numbers]}


def test_records_are_what_another_device_would_see(tmp_path: Path) -> None:
    contract = """\
        types: {Pair_t: "{int16[2] values; string name}"}
        inputs: {pair: {type: Pair_t, payload_bytes: 32}}
        outputs: {kind: {type: string, payload_bytes: 64}, back: {type: Pair_t, payload_bytes: 32}}
        """
    code = "def process(self, pair): return {'kind': type(pair.values).__name__, 'back': pair}"
    out = attempt(make(tmp_path, code, contract), {"pair": [{"values": [1, 2], "name": "x"}]})
    assert out["kind"] == ["memoryview"]
    assert (out["back"][0].name, list(out["back"][0].values)) == ("x", [1, 2])


# --- several inputs -------------------------------------------------------------------------------------

TWO = """\
inputs: {a: {type: int32}, b: {type: int32}}
outputs: {both: {type: "int32[2]"}}
"""
PAIR = "def process(self, a, b): return {'both': [a, -1 if b is None else b]}"


@pytest.mark.parametrize(
    "trigger", ["", "trigger: {join: timestamp}\n", "trigger: {all: [a], join: latest}\n"]
)
def test_the_nth_records_of_all_inputs_belong_together(trigger: str, tmp_path: Path) -> None:
    out = attempt(make(tmp_path, PAIR, TWO + trigger), {"a": [1, 2, 3], "b": [10, 20, 30]})
    assert [list(pair) for pair in out["both"]] == [[1, 10], [2, 20], [3, 30]]


def test_the_shorter_input_ends_the_trial(tmp_path: Path) -> None:
    out = attempt(make(tmp_path, PAIR, TWO), {"a": [1, 2, 3], "b": [10]})
    assert [list(pair) for pair in out["both"]] == [[1, 10]]


def test_an_input_may_be_taken_in_groups(tmp_path: Path) -> None:
    contract = "inputs: {number: {type: int32, consumes: 3}}\noutputs: {twice: {type: int32}}\n"
    code = "def process(self, number): return {'twice': sum(number)}"
    assert attempt(make(tmp_path, code, contract), {"number": range(1, 9)}) == {"twice": [6, 15]}


def test_an_optional_input_may_be_left_out(tmp_path: Path) -> None:
    contract = TWO.replace("b: {type: int32}", "b: {type: int32, optional: true}")
    folder = make(tmp_path, PAIR.replace(" b)", " b=None)"), contract)
    assert [list(pair) for pair in attempt(folder, {"a": [1, 2]})["both"]] == [[1, -1], [2, -1]]


# --- sources and time -----------------------------------------------------------------------------------

SOURCE = "outputs: {twice: {type: int32, rate_hz: 1}}\n"
SENSING = "{id: here, runtime: python, entry: 'module:Tried', ram_bytes: 1, instructions: 1, "
SENSING += "requires: {sensors: [imu]}}"
READ = "async def process(self): return {'twice': 2 * (await self.context.sensor('imu').read()).values}"


def test_a_source_reads_its_sensor_to_the_end(tmp_path: Path) -> None:
    folder = make(tmp_path, READ, SOURCE, SENSING)
    assert attempt(folder, sensors={"imu": [Reading(1), Reading(2)]}) == {"twice": [2, 4]}


def test_an_aim_with_a_period_stops_where_told(tmp_path: Path) -> None:
    code = "n = 0\ndef process(self):\n    self.n += 1\n    return {'twice': 2 * self.n}"
    contract = "outputs: {twice: {type: int32}}\nperiod_ms: 86400000\n"
    assert attempt(make(tmp_path, code, contract), at_most=3) == {"twice": [2, 4, 6]}


def test_an_aim_that_waits_forever_is_given_up(tmp_path: Path) -> None:
    code = "async def process(self, number):\n    import asyncio\n    await asyncio.Event().wait()"
    with pytest.raises(PortTimeout) as refused:
        attempt(make(tmp_path, code), {"number": [1]}, timeout_s=0.05)
    assert str(refused.value) == "Tried@1.0 did not end within 0.05 s"


# --- what an author gets wrong --------------------------------------------------------------------------


def told(kind: type[AIFError], folder: Path, **options: Any) -> str:
    with pytest.raises(kind) as refused:
        attempt(folder, options.pop("records", {"number": [1]}), **options)
    return str(refused.value)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "def process(self, nummer): return {}",
            "Tried.process takes (nummer) but Tried@1.0 declares the inputs (number)",
        ),
        (
            "def process(self): return {}",
            "Tried.process takes () but Tried@1.0 declares the inputs (number)",
        ),
        ("x = 1", "Tried defines no process()"),
        ("class Tried: pass", "<class 'MODULE.Tried'> is not a subclass of aif.sdk.AIM"),
        ("class Other: pass", "module:Tried of Tried@1.0 cannot be loaded: AttributeError: "),
        (
            "import nowhere_at_all  # class",
            "module:Tried of Tried@1.0 cannot be loaded: ModuleNotFoundError: ",
        ),
        ("1 / 0  # class", "module:Tried of Tried@1.0 cannot be loaded: ZeroDivisionError: division by zero"),
    ],
)
def test_code_that_does_not_serve_the_contract_never_starts(code: str, message: str, tmp_path: Path) -> None:
    found = told(CreationFailed, make(tmp_path, code))
    start, _, rest = message.partition("MODULE")
    assert found.startswith(start)
    assert found.endswith(rest) or message.endswith(": ")


def test_what_the_code_raises_is_told_with_its_cause(tmp_path: Path) -> None:
    code = "def process(self, number): return {'twice': 1 // number}"
    with pytest.raises(AIMFailed) as refused:
        attempt(make(tmp_path, code), {"number": [1, 0, 1]})
    assert str(refused.value) == "Tried failed: ZeroDivisionError: integer division or modulo by zero"
    assert isinstance(refused.value.__cause__, ZeroDivisionError)


def test_a_failure_in_setup_is_told(tmp_path: Path) -> None:
    code = "def setup(self): raise ValueError('no table')\n" + DOUBLER
    assert told(AIMFailed, make(tmp_path, code)) == "Tried failed: ValueError: no table"


def test_the_first_failure_ends_the_trial_even_where_a_host_would_restart(tmp_path: Path) -> None:
    code = "def process(self, number): return {'twice': 1 // number}"
    folder = make(tmp_path, code, PORTS + "restart_limit: 5\n")
    assert "ZeroDivisionError" in told(AIMFailed, folder, records={"number": [0, 1]})


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("5", "Tried: process() returned int, not records by output port"),
        ("{'thrice': 3}", "Tried: process() returned a record for 'thrice'; outputs are: twice"),
        (
            "{'twice': 'two'}",
            "Tried.twice: int32 takes an integer -2147483648..2147483647, not str",
        ),
        (
            "{'twice': 2**31}",
            "Tried.twice: int32 takes an integer -2147483648..2147483647, not 2147483648",
        ),
    ],
)
def test_a_wrong_result_is_told_with_the_port_and_its_type(result: str, message: str, tmp_path: Path) -> None:
    assert told(InvalidRecord, make(tmp_path, f"def process(self, number): return {result}")) == message


def test_a_record_larger_than_its_port_is_refused(tmp_path: Path) -> None:
    contract = PORTS.replace("twice: {type: int32}", "twice: {type: string, payload_bytes: 8}")
    folder = make(tmp_path, "def process(self, number): return {'twice': 'x' * 5}", contract)
    assert told(RecordTooLarge, folder) == "Tried.twice: 9 B, the limit is 8 B"


# --- what a tester gets wrong ---------------------------------------------------------------------------


def test_records_must_suit_the_inputs(tmp_path: Path) -> None:
    folder = make(tmp_path, DOUBLER)
    assert told(UnknownPort, folder, records={"nmber": [1]}) == "Tried@1.0 has no input 'nmber'"
    assert told(UnconnectedPort, folder, records={}) == "Tried@1.0 needs records for its input number"
    assert told(InvalidRecord, folder, records={"number": [1.5]}) == (
        "Tried.number: int32 takes an integer -2147483648..2147483647, not 1.5"
    )


def test_parameters_are_checked_like_those_of_a_workflow(tmp_path: Path) -> None:
    contract = PORTS + "parameters: {gain: {type: number, maximum: 3}}\n"
    code = "def process(self, number): return {'twice': int(self.context.parameters['gain'] * number)}"
    folder = make(tmp_path, code, contract)
    assert attempt(folder, {"number": [2]}, parameters={"gain": 1.5}) == {"twice": [3]}
    assert told(CreationFailed, folder) == "parameter gain of Tried is required"
    assert told(CreationFailed, folder, parameters={"gain": 4.0}) == (
        "parameter gain of Tried must be at most 3"
    )


def test_an_unknown_implementation_and_a_missing_sensor_are_named(tmp_path: Path) -> None:
    folder = make(tmp_path, READ, SOURCE, SENSING)
    assert told(CreationFailed, folder, records=None, implementation="mcu") == (
        "Tried@1.0 has no implementation 'mcu'"
    )
    assert told(NotFound, folder, records=None) == "the trial has no sensor imu"


def test_an_aim_may_not_read_a_sensor_that_its_contract_does_not_require(tmp_path: Path) -> None:
    folder = make(tmp_path, READ, SOURCE)
    assert told(NotFound, folder, records=None, sensors={"imu": [Reading(1)]}) == (
        "Tried does not require a sensor 'imu'"
    )


def test_a_composite_aim_is_tried_by_its_parts(tmp_path: Path) -> None:
    text = """\
        schema: 1
        aim: {name: Whole, version: '1.0', implementer: me}
        inputs: {number: {type: int32}}
        outputs: {twice: {type: int32, from: part.twice}}
        aims: [{id: part, use: Tried@1.0, inputs: {number: aiw.number}}]
        """
    (tmp_path / "aim.yaml").write_text(dedent(text))
    assert told(CreationFailed, tmp_path) == "Whole@1.0 is a composite AIM and does nothing itself"


def test_a_folder_without_a_contract_is_refused(tmp_path: Path) -> None:
    assert "aim.yaml" in told(ConfigError, tmp_path)


def test_a_model_that_is_not_the_pinned_one_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    pinned = hashlib.sha256(b"the right one").hexdigest()
    runs = (
        f"{{id: here, runtime: tflite, ram_bytes: 1, mac_count: 1, "
        f"model: {{file: m.tflite, sha256: {pinned}, bytes: 13}}}}"
    )
    folder = make(tmp_path, DOUBLER, implementation=runs)
    found = told(LengthOrHashMismatch, folder, model=b"another one")
    assert found.startswith(f"the model of Tried: SHA-256 is {hashlib.sha256(b'another one').hexdigest()}")


def test_numpy_records_need_no_conversion(tmp_path: Path) -> None:
    contract = "inputs: {row: {type: 'int8[3]'}}\noutputs: {sum: {type: int32}}\n"
    code = "def process(self, row): return {'sum': sum(row)}"
    rows = np.array([[1, 2, 3], [-128, 127, 0]], np.int8)
    assert attempt(make(tmp_path, code, contract), {"row": rows}) == {"sum": [6, -1]}  # type: ignore[dict-item]  # rows
