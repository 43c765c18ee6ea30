from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema

from aif.engines import tflm_child
from aif.engines.base import EngineConfig
from aif.engines.registry import open_engine
from aif.engines.tflm import MAX_ARENA_BYTES, MIN_ARENA_BYTES, TFLMEngine
from aif.errors import ArenaOverflow, EngineCrashed, EngineError, EngineUnavailable

pytestmark = pytest.mark.integration

ZEROS = np.zeros((1, 8), np.int8)
ROOT = Path(__file__).resolve().parents[2]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(autouse=True)
def no_leaks(model: bytes) -> Iterator[None]:
    before = open_files()
    yield
    assert open_files() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.mark.parametrize(
    ("number", "name"),
    [(signal.SIGSEGV, "SIGSEGV"), (signal.SIGABRT, "SIGABRT"), (signal.SIGKILL, "SIGKILL")],
)
def test_a_child_killed_by_a_signal_is_an_error_that_names_it(
    number: signal.Signals, name: str, model: bytes
) -> None:
    with TFLMEngine(model, 8192) as engine:
        os.kill(engine.pid, number)
        with pytest.raises(EngineCrashed, match=rf"the TFLite-Micro process died \({name}\)") as caught:
            engine.infer([ZEROS])
        assert "only this model is affected" in caught.value.hint
        with pytest.raises(EngineCrashed, match="the engine is closed"):
            engine.infer([ZEROS])


def test_a_crashed_model_can_be_opened_again(model: bytes) -> None:
    with TFLMEngine(model, 8192) as first:
        expected = first.infer([ZEROS])[0]
        os.kill(first.pid, signal.SIGSEGV)
        with pytest.raises(EngineCrashed):
            first.infer([ZEROS])
    with TFLMEngine(model, 8192) as second:
        assert (second.infer([ZEROS])[0] == expected).all()


def test_a_child_that_hangs_is_given_up(model: bytes) -> None:
    with TFLMEngine(model, 8192, EngineConfig(timeout_s=2.0)) as engine:
        os.kill(engine.pid, signal.SIGSTOP)
        with pytest.raises(EngineCrashed, match="did not answer in 2 s"):
            engine.infer([ZEROS])


def test_closing_interrupts_a_request_of_another_thread(model: bytes) -> None:
    engine = TFLMEngine(model, 8192)
    os.kill(engine.pid, signal.SIGSTOP)
    found: list[Exception] = []

    def ask() -> None:
        try:
            engine.infer([ZEROS])
        except EngineCrashed as error:
            found.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while not engine._lock.locked():
        assert thread.is_alive()
    engine.close()
    thread.join()
    assert [str(error) for error in found] == ["the engine was closed while it worked"]


def test_an_interrupted_request_never_answers_the_next_one(model: bytes) -> None:
    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    with TFLMEngine(model, 8192) as engine:
        os.kill(engine.pid, signal.SIGSTOP)
        previous = signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(KeyboardInterrupt):
                engine.infer([ZEROS])
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        with pytest.raises(EngineCrashed, match="the engine is closed"):
            engine.infer([ZEROS])


def test_threads_take_turns(model: bytes) -> None:
    rng = np.random.default_rng(0)
    inputs = [rng.integers(-128, 128, (1, 8)).astype(np.int8) for _ in range(4)]
    with TFLMEngine(model, 8192) as engine:
        expected = [engine.infer([x])[0] for x in inputs]
        wrong: list[int] = []

        def work(n: int) -> None:
            wrong.extend(n for _ in range(200) if (engine.infer([inputs[n]])[0] != expected[n]).any())

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_the_child_inherits_no_secret_and_is_limited(model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIF_SECRET", "do-not-inherit")
    monkeypatch.setenv("PYTHONPATH", "/tmp/evil")  # noqa: S108 - never created
    with TFLMEngine(model, 8192) as engine:
        process = Path(f"/proc/{engine.pid}")
        environment = process.joinpath("environ").read_bytes()
        limits = process.joinpath("limits").read_text(encoding="ascii").splitlines()
        names = sorted(str(entry.readlink()) for entry in process.joinpath("fd").iterdir())
        assert os.getpgid(engine.pid) == engine.pid  # Ctrl-C in a terminal does not reach it
    assert b"do-not-inherit" not in environment
    assert b"evil" not in environment
    assert b"OPENBLAS_NUM_THREADS=1" in environment
    soft = {line[:26].strip(): line[26:].split()[0] for line in limits}
    assert soft["Max core file size"] == "0"
    assert soft["Max address space"] == str(2 << 30)
    assert soft["Max file size"] == str(1 << 20)
    assert int(soft["Max cpu time"]) <= 32
    assert [name.split(":")[0] for name in names if not name.startswith("/")] == ["pipe"] * 2
    assert len(names) == 4  # those, and the log twice


def test_the_child_dies_with_its_parent() -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import numpy as np\n"
        "from aif.authoring.int8 import build; from aif.authoring.layers import Dense\n"
        "from aif.engines.tflm import TFLMEngine\n"
        "e = TFLMEngine(build([Dense(np.eye(2), np.zeros(2))], np.ones((2, 2))), 8192)\n"
        "print(e.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(ROOT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        try:
            poll = select.poll()
            poll.register(child, select.POLLIN)
            assert poll.poll(0) == []
            parent.kill()
            assert poll.poll(30_000) != []
        finally:
            os.close(child)


@pytest.mark.parametrize("arena_bytes", [-1, 0, MIN_ARENA_BYTES - 1, MAX_ARENA_BYTES + 1, 1 << 62])
def test_absurd_arenas_are_refused_before_a_process_starts(arena_bytes: int, model: bytes) -> None:
    with pytest.raises(EngineError, match="is not within 512 to 67,108,864 B"):
        TFLMEngine(model, arena_bytes)


def test_too_small_an_arena_is_an_overflow_whose_figure_works(large_model: bytes) -> None:
    digest = sha256(large_model).hexdigest()
    with pytest.raises(ArenaOverflow) as caught:
        open_engine("tflm", large_model, sha256=digest, arena_bytes=2000, name="large 1.0.0")
    needed = caught.value.needed_bytes
    assert caught.value.available_bytes == 2000
    assert str(caught.value) == f"large 1.0.0 needs an arena of {needed:,} B, 2,000 B are available"
    with open_engine("tflm", large_model, sha256=digest, arena_bytes=needed) as engine:
        assert engine.infer([np.zeros((1, 64, 4), np.int8)])[0].shape == (1, 8)
    with pytest.raises(EngineError):
        TFLMEngine(large_model, needed - 64)


def test_an_arena_of_nothing_is_an_overflow_too(model: bytes, digest: str) -> None:
    with pytest.raises(ArenaOverflow) as caught:
        open_engine("tflm", model, sha256=digest)
    assert caught.value.available_bytes == 0
    assert 1000 < caught.value.needed_bytes < 4096


def with_operator(model: bytes, code: int) -> bytes:
    """The model, its first operator declared as another one."""
    parsed = schema.ModelT.InitFromPackedBuf(model, 0)
    parsed.operatorCodes[0].builtinCode = code
    parsed.operatorCodes[0].deprecatedBuiltinCode = min(code, 127)
    builder = flatbuffers.Builder()
    builder.Finish(parsed.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_an_operator_that_is_missing_is_named(model: bytes) -> None:
    content = with_operator(model, schema.BuiltinOperator.DENSIFY)
    with pytest.raises(EngineError, match="Didn't find op for builtin opcode 'DENSIFY'") as caught:
        open_engine("tflm", content, sha256=sha256(content).hexdigest(), arena_bytes=8192)
    assert "place this model on a gateway" in caught.value.hint


def test_damaged_models_with_a_fresh_digest_only_cost_an_engine_error(model: bytes) -> None:
    rng = np.random.default_rng(4)
    outcomes = {"ran": 0, "refused": 0}
    for _ in range(20):
        mutant = np.frombuffer(model, np.uint8).copy()
        mutant[rng.integers(0, len(mutant), 3)] = rng.integers(0, 256, 3)
        content = mutant.tobytes()
        try:
            with open_engine("tflm", content, sha256=sha256(content).hexdigest(), arena_bytes=8192) as engine:
                engine.infer([np.zeros(spec.shape, spec.dtype) for spec in engine.inputs])
            outcomes["ran"] += 1
        except (EngineError, ArenaOverflow):
            outcomes["refused"] += 1
    assert outcomes["ran"] > 0
    assert outcomes["refused"] > 0


PRELUDE = (
    "import os, struct, sys, time\n"
    "def need(n):\n"
    "    data = sys.stdin.buffer.read(n)\n"
    "    if len(data) != n: sys.exit(0)\n"
    "    return data\n"
    "def request(): return need(struct.unpack('<BI', need(5))[1])\n"
    "def answer(status, data, length=None):\n"
    "    os.write(1, struct.pack('<BI', status, len(data) if length is None else length) + data)\n"
    'GOOD = b\'{"inputs": [{"dtype": "int8", "shape": [1, 8], "scales": [], "zero_points": []}],\'\\\n'
    '       b\'"outputs": [{"dtype": "int8", "shape": [1, 4], "scales": [], "zero_points": []}]}\'\n'
)


@pytest.fixture
def child_that(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Replace the child by a program of the attacker: a model that took its interpreter over."""

    def install(program: str) -> None:
        path = tmp_path / "child.py"
        path.write_text(PRELUDE + program, encoding="ascii")
        monkeypatch.setattr(tflm_child, "__file__", str(path))

    return install


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("request(); answer(0, b'', 1 << 31); request()", "announced 2,147,483,648 B, at most 65,536 B"),
        ("request(); answer(1, b'', 1 << 20); request()", "announced 1,048,576 B, at most 2,000 B"),
        ("request(); answer(0, b'nonsense'); request()", "sent a description that cannot be read"),
        ("request(); answer(0, b'[' * 60000); request()", "sent a description that cannot be read"),
        ('request(); answer(0, b\'{"inputs": 1, "outputs": []}\'); request()', "that cannot be read"),
        ('request(); answer(0, b\'{"inputs": [], "outputs": []}\'); request()', "needs 1 to 64 inputs"),
        ('request(); answer(0, b\'{"inputs": [{}], "outputs": [{}]}\'); request()', "tensor input_0"),
        ("request(); answer(0, b'half', 9)", r"died \(exit code 0\); its last message: nothing"),
        ("request(); os.close(1); request()", "closed its answers without ending"),
        ("sys.exit(3)", r"died \(exit code 3\)"),
        (
            "request(); os.write(2, b'\\x1b[31mred\\n' + b'x' * 5000); sys.exit(1)",
            r"its last message: x{200}$",
        ),
        ("os.write(2, b'\\x1b[31mred\\n'); sys.exit(1)", r"its last message: \?\[31mred$"),
        ("request(); answer(1, b'bad\\x07\\xff'); request()", "refused: bad\\?"),
    ],
)
def test_what_a_hostile_child_answers_on_loading_is_bounded_and_checked(
    program: str, message: str, child_that: Callable[[str], None], model: bytes
) -> None:
    child_that(program)
    with pytest.raises(EngineError, match=message):
        TFLMEngine(model, 8192)


@pytest.mark.parametrize("size", [0, 3, 5, 1 << 20])
def test_an_answer_of_another_size_is_refused(
    size: int, child_that: Callable[[str], None], model: bytes
) -> None:
    child_that(f"request(); answer(0, GOOD); request(); answer(0, bytes({size})); request()")
    with TFLMEngine(model, 8192) as engine, pytest.raises(EngineCrashed, match=r"announced|answered"):
        engine.infer([ZEROS])


def test_a_child_that_never_reads_a_large_model_is_given_up(child_that: Callable[[str], None]) -> None:
    child_that("time.sleep(600)")
    with pytest.raises(EngineCrashed, match="did not answer in 1 s"):
        TFLMEngine(bytes(8 << 20), 8192, EngineConfig(timeout_s=1.0))


def test_processor_time_of_a_request_is_bounded(child_that: Callable[[str], None], model: bytes) -> None:
    child_that("import resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 2))\nwhile True: pass")
    with pytest.raises(EngineCrashed, match=r"died \(SIGXCPU, more than 1 s of processor time\)"):
        TFLMEngine(model, 8192, EngineConfig(cpu_s=1))


def test_a_missing_interpreter_package_says_what_to_install(
    model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(EngineUnavailable, match="not installed") as caught:
        TFLMEngine(model, 8192)
    assert "pip install tflite-micro" in caught.value.hint


def test_a_process_that_cannot_start_is_an_engine_error(
    model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(EngineUnavailable, match="cannot be started"):
        TFLMEngine(model, 8192)
