"""A release counts only when it has run; one that crashes, hangs or answers in another shape never does."""

from __future__ import annotations

import faulthandler
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nacl.bindings import crypto_scalarmult_base

from aif.engines.base import TensorSpec
from aif.errors import (
    EngineCrashed,
    EngineError,
    EngineUnavailable,
    ModelRejected,
    NotFound,
    PSAError,
    PSAStatus,
    ResourceExceeded,
)
from aif.protocol.chunks import SealedRelease, split_ciphertext
from aif.protocol.content_keys import KeyUse, wrap_content_key
from aif.protocol.ticket import Slot, ticket_digest
from aif.trusted.model_service import FIRMWARE_ABI, FIRMWARE_VERSION, SlotContent
from aif.trusted.model_trial import run_apart, sample_inputs, try_model
from aif.trusted.protected_models import DeviceFacts, OpenModel, ProtectedModels
from aif.trusted.storage import StorageService
from aif.trusted.trials import MAX_TRIES
from tests.trusted.test_model_service import (
    CONTENT_KEY,
    DEVICE,
    HW,
    LIMITS,
    SESSION_SK,
    TICKET_KEY,
    Bench,
    again,
    ciphertext,
    make_bench,
    make_ticket,
    release,
)

INPUTS = (TensorSpec("x", (1, 4), "int8"), TensorSpec("f", (2,), "float32"), TensorSpec("b", (3,), "bool"))
OUTPUTS = (TensorSpec("y", (1, 2), "int8"),)
FACE = "int8[1][4] -> int8[1][2]"


def good(_: Sequence[Any]) -> list[Any]:
    return [np.zeros((1, 2), np.int8)]


# --- one trial ----------------------------------------------------------------------------------------


def test_inputs_cover_the_ends_and_are_the_same_each_time() -> None:
    first, again_ = (list(sample_inputs(INPUTS, 4)) for _ in range(2))
    assert [[t.tobytes() for t in tensors] for tensors in first] == [
        [t.tobytes() for t in tensors] for tensors in again_
    ]
    for tensors in first:
        assert [(t.shape, str(t.dtype)) for t in tensors] == [(s.shape, s.dtype) for s in INPUTS]
        assert np.all(np.abs(tensors[1]) <= 1.0)
    assert np.all(first[0][0] == -128)
    assert np.all(first[1][0] == 127)


def test_what_passes_says_what_it_takes_and_gives() -> None:
    assert try_model(INPUTS, OUTPUTS, good) == "int8[1][4], float32[2], bool[3] -> int8[1][2]"


@pytest.mark.parametrize(
    "results",
    [[], [np.zeros((1, 2), np.int8)] * 2, [np.zeros((2, 1), np.int8)], [np.zeros((1, 2), np.uint8)]],
    ids=["none", "too many", "another shape", "another type"],
)
def test_results_that_the_model_did_not_announce_are_refused(results: list[Any]) -> None:
    with pytest.raises(EngineError, match="the model"):
        try_model(INPUTS, OUTPUTS, lambda _: results)


# --- watched from outside -------------------------------------------------------------------------------


def test_an_abort_ends_the_copy_alone() -> None:
    def work() -> str:
        faulthandler.disable()  # an abort is what is wanted
        os.abort()

    with pytest.raises(EngineCrashed, match="SIGABRT"):
        run_apart(work)


def test_a_hang_is_ended() -> None:
    def work() -> str:
        while True:
            time.sleep(60)  # hangs, as a model in an endless loop would

    begun = time.monotonic()
    with pytest.raises(EngineCrashed, match=r"within 0\.2 s"):
        run_apart(work, limit_s=0.2)
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize(
    ("error", "words"),
    [(EngineError("no such operator"), "no such operator"), (ValueError("secret"), "unforeseen ValueError")],
)
def test_errors_come_back_without_what_was_not_foreseen(error: Exception, words: str) -> None:
    def work() -> str:
        raise error

    with pytest.raises(EngineError, match=words):
        run_apart(work)


def test_an_exit_and_too_many_words() -> None:
    with pytest.raises(EngineCrashed, match="exit 3"):
        run_apart(lambda: os._exit(3))
    assert len(run_apart(lambda: "x" * 100_000)) < 100_000


def test_no_process_is_left() -> None:
    assert run_apart(lambda: "fine") == "fine"
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


# --- inside the Security Engine -------------------------------------------------------------------------


class Fake:
    """A model whose inference is a function."""

    def __init__(self, infer: Callable[[Sequence[Any]], Sequence[Any]]) -> None:
        self.inputs, self.outputs, self.infer = INPUTS[:1], OUTPUTS, infer

    def reset(self) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing is open."""


def aborting(_: Sequence[Any]) -> list[Any]:
    faulthandler.disable()  # an abort is what is wanted
    os.abort()


def killed(_: SlotContent) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return FACE


def hanging(_: Sequence[Any]) -> list[Any]:
    while True:
        time.sleep(60)  # as a model in an endless loop would


def misshapen(_: Sequence[Any]) -> list[Any]:
    return [np.zeros((5, 5), np.int8)]


@pytest.mark.parametrize(
    ("infer", "error"),
    [(good, None), (aborting, EngineCrashed), (hanging, EngineCrashed), (misshapen, EngineError)],
)
def test_a_sealed_release_is_tried_in_a_copy_and_the_engine_goes_on(
    infer: Callable[[Sequence[Any]], Sequence[Any]], error: type[EngineError] | None, tmp_path: Path
) -> None:
    facts = DeviceFacts(DEVICE, HW, FIRMWARE_VERSION, FIRMWARE_ABI, bytes(TICKET_KEY.verify_key))
    opener: OpenModel = lambda *_, **__: Fake(infer)  # noqa: E731
    wanted = release()
    key = wrap_content_key(
        CONTENT_KEY,
        crypto_scalarmult_base(SESSION_SK),
        os.urandom(32),
        ticket_digest(wanted.ticket),
        KeyUse.RUN,
    )
    with closing(StorageService(tmp_path, b"\x0e" * 32, random=os.urandom)) as storage:
        models = ProtectedModels(
            facts, SESSION_SK, storage.keys, open_model=lambda: opener, random=os.urandom
        )

        def handed_in() -> int:
            handle = models.begin(wanted.ticket, key, "tflite")
            sealed = SealedRelease.of_ticket(make_ticket(b"model one"))
            models.add_chunks(handle, 0, split_ciphertext(sealed, ciphertext(b"model one")))
            return handle

        if error is None:
            assert models.trial(handed_in(), 5_000) == FACE
        else:
            with pytest.raises(error):
                models.trial(handed_in(), 200)
        inputs, _ = models.finish(handed_in())  # the engine itself is as before
        assert inputs == INPUTS[:1]
        with pytest.raises(PSAError):
            models.trial(12345, 200)


# --- the slot -------------------------------------------------------------------------------------------


@pytest.fixture(params=[False, True], ids=["sealed", "in place"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    made = make_bench(tmp_path, in_place=request.param)
    install(made, 1, lambda _: FACE)
    return made


def install(
    bench: Bench,
    counter: int,
    prove: Callable[[SlotContent], str],
    *,
    package: bytes = b"p",
    content: bytes = b"",
) -> None:
    content = content or b"model %d" % counter
    present = bench.service.installed("kws")
    slot = Slot.B if present is not None and present.slot == Slot.A else Slot.A
    wanted = bench.publish(content, counter, slot)
    bench.service.install(
        wanted, LIMITS, bench.fetch, wrapped_key=bench.key(wanted), prove=prove, package=package
    )


def verdict(error: Exception) -> Callable[[SlotContent], str]:
    def prove(_: SlotContent) -> str:
        raise error

    return prove


def test_a_release_is_tried_in_its_slot_before_it_counts(bench: Bench) -> None:
    def prove(slot: SlotContent) -> str:
        assert bench.model() == b"model 1"  # the one before is in force
        assert slot.content in (b"model 2", ciphertext(b"model 2", 2))
        return FACE

    install(bench, 2, prove)
    assert bench.model() == b"model 2"
    assert bench.state.load().trials == ()


@pytest.mark.parametrize("error", [EngineError("refused"), EngineCrashed("SIGABRT"), EngineCrashed("hung")])
def test_a_release_that_fails_leaves_the_one_before_and_is_not_tried_again(
    bench: Bench, error: EngineError
) -> None:
    with pytest.raises(ModelRejected, match=str(error)) as refused:
        install(bench, 2, verdict(error))
    assert refused.value.hint
    assert bench.model() == b"model 1"
    downloads = len(bench.downloads)
    later = again(bench.folder.parent, in_place=bench.in_place)  # it is remembered over a restart
    with pytest.raises(ModelRejected, match=str(error)):
        install(later, 2, lambda _: FACE)
    assert (later.downloads, len(bench.downloads)) == ([], downloads)
    install(bench, 3, lambda _: FACE, content=b"model 2")  # the same bytes under a new number are
    assert bench.model() == b"model 2"


def test_another_shape_for_the_same_aim_is_refused_and_for_a_new_one_is_not(bench: Bench) -> None:
    with pytest.raises(ModelRejected, match=r"int8\[1\]\[9\].*for the same AIM"):
        install(bench, 2, lambda _: "int8[1][9] -> int8[1][2]")
    assert bench.model() == b"model 1"
    install(bench, 3, lambda _: "int8[1][9] -> int8[1][2]", package=b"new code")
    assert bench.model() == b"model 3"


@pytest.mark.parametrize(
    "error",
    [
        EngineUnavailable("not installed"),
        ResourceExceeded("no room"),
        NotFound("no key"),
        PSAError(PSAStatus.INSUFFICIENT_MEMORY, "full"),
    ],
)
def test_what_says_nothing_about_the_release_is_no_verdict(bench: Bench, error: Exception) -> None:
    for _ in range(MAX_TRIES + 1):
        with pytest.raises(type(error)):
            install(bench, 2, verdict(error))
        assert bench.model() == b"model 1"
    install(bench, 2, lambda _: FACE)
    assert bench.model() == b"model 2"


def test_an_engine_that_dies_in_every_trial_is_the_releases_fault(bench: Bench) -> None:
    lost = PSAError(PSAStatus.COMMUNICATION_FAILURE, "the engine was lost")
    for _ in range(MAX_TRIES):
        with pytest.raises(PSAError):
            install(bench, 2, verdict(lost))
    with pytest.raises(ModelRejected, match=f"died in each of its {MAX_TRIES} trials"):
        install(bench, 2, lambda _: FACE)
    assert bench.model() == b"model 1"


def test_a_kill_in_the_trial_leaves_the_one_before_and_three_are_enough(bench: Bench) -> None:
    home = bench.folder.parent
    for _ in range(MAX_TRIES):
        child = os.fork()
        if child == 0:
            try:
                install(bench, 2, killed)
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status)
        assert again(home, in_place=bench.in_place).model() == b"model 1"
    after = again(home, in_place=bench.in_place)
    with pytest.raises(ModelRejected):
        install(after, 2, lambda _: FACE)
    assert after.downloads == []
    assert after.model() == b"model 1"


def test_verdicts_take_bounded_room(bench: Bench) -> None:
    for counter in range(2, 90):
        with pytest.raises(ModelRejected):
            install(bench, counter, verdict(EngineError("no")))
    notes = bench.state.load()
    assert len(notes.rejected) <= 64
    assert notes.rejected[-1].counter == 89
