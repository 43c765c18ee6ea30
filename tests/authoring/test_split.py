"""Choosing cuts by what was measured, and the contracts that come of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import aif.authoring.split as split_module
from aif.authoring.flatbuffer import FlatbufferWriter
from aif.authoring.publication import packaged_models
from aif.authoring.split import QUEUE_DEPTH, STACK_BYTES, Limits, Split, Splitter
from aif.authoring.split_aims import Files, split_aims, whole_aim
from aif.config import load_aim, load_catalogue
from aif.config.format import format_file
from aif.engines.tflm import TFLMEngine
from aif.errors import ConfigError, LengthOrHashMismatch, NotFound, RecordTypeMismatch, SplitRefused
from aif.model.aim import AIMMetadata, Parameter, Requirements, Runtime
from aif.model.records import Annotation, PortType
from tests.authoring.models import random_model

pytestmark = pytest.mark.integration

MODEL = random_model(6, length=3)


@pytest.fixture(scope="module")
def splitter() -> Splitter:
    return Splitter(MODEL, "model")


@pytest.fixture(scope="module")
def halves(splitter: Splitter) -> Split:
    return splitter.into(2)


def test_the_table_has_every_border_and_its_arenas_work(splitter: Splitter) -> None:
    rows = splitter.halves()
    assert [border.position for border, _, _ in rows] == [b.position for b in splitter.sequence.borders]
    for border, before, after in rows:
        assert (before.last, after.first) == (border.position, border.position)
        assert before.outputs == border.tensor == after.inputs
        assert before.mac_count + after.mac_count == splitter.whole().mac_count
        TFLMEngine(before.model, before.arena_bytes).close()
        TFLMEngine(after.model, after.arena_bytes).close()


def test_the_whole_is_the_given_file(splitter: Splitter) -> None:
    assert splitter.whole().model == MODEL


def test_into_parts_of_even_memory(splitter: Splitter, halves: Split) -> None:
    sequence, last = splitter.sequence, splitter.operator_count

    def peak(cut: int) -> int:
        return max(sequence.peak_bytes(0, cut), sequence.peak_bytes(cut, last))

    assert len(halves.parts) == 2
    assert peak(halves.cuts[0]) == min(peak(border.position) for border in sequence.borders)


def test_limits_are_kept_by_as_few_parts_as_possible(splitter: Splitter) -> None:
    steps = [splitter.part(n, n + 1) for n in range(splitter.operator_count)]
    smallest = max(len(part.model) for part in steps)
    split = splitter.within(Limits(model_bytes=smallest))
    assert all(len(part.model) <= smallest for part in split.parts)
    for one, other in zip(split.parts, split.parts[1:], strict=False):
        longer = splitter.part(one.first, one.last + 1)
        assert len(longer.model) > smallest, "each part is as long as it can be"
        assert one.last == other.first
    assert split.parts[-1].last == splitter.operator_count


def test_the_limit_of_ram_counts_arena_stack_and_waiting_tensors(splitter: Splitter) -> None:
    split = splitter.within(Limits(ram_bytes=_ram(splitter) - 1))
    assert len(split.parts) >= 2
    for part in split.parts[1:]:
        waiting = QUEUE_DEPTH * part.inputs.size_bytes
        assert part.arena_bytes + STACK_BYTES + waiting < _ram(splitter)


def _ram(splitter: Splitter) -> int:
    whole = splitter.whole()
    return whole.arena_bytes + STACK_BYTES + 8 * whole.inputs.size_bytes


def test_what_cannot_be_done_says_why(splitter: Splitter) -> None:
    with pytest.raises(SplitRefused, match=r"operators 1 to 1 .CONV_2D. alone take .* 100 B of RAM are"):
        splitter.within(Limits(ram_bytes=100))
    with pytest.raises(SplitRefused, match="the whole keeps these limits already"):
        splitter.within(Limits(ram_bytes=1 << 20, model_bytes=1 << 20))
    with pytest.raises(SplitRefused, match="there is no cut 99") as caught:
        splitter.at([99])
    assert caught.value.hint.startswith("possible cuts: 1, ")
    for count in (1, 17):
        with pytest.raises(SplitRefused, match=f"{count} parts are not possible, 2 to "):
            splitter.into(count)


def test_a_chain_that_answers_differently_is_refused(
    splitter: Splitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = splitter.sequence.borders[0].position
    last = splitter.part(cut, splitter.operator_count)
    broken = bytearray(last.model)
    weights = max(range(0, len(broken) - 64, 16), key=lambda n: len(set(broken[n : n + 64])))
    broken[weights : weights + 64] = bytes(64)
    monkeypatch.setitem(splitter._parts, (cut, splitter.operator_count), replace(last, model=bytes(broken)))
    with pytest.raises(SplitRefused, match="answers differently from the whole"):
        splitter.at([cut])


def test_cuts_that_no_microcontroller_takes_are_not_chosen(
    splitter: Splitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = min(border.tensor.size_bytes for border in splitter.sequence.borders)
    monkeypatch.setattr(split_module, "MAX_CROSSING_BYTES", largest)
    split = splitter.into(2)
    assert split.parts[0].outputs.size_bytes <= largest
    monkeypatch.setattr(split_module, "MAX_CROSSING_BYTES", 0)
    with pytest.raises(SplitRefused, match="at every cut more than 0 B cross"):
        splitter.into(2)


# --- contracts --------------------------------------------------------------------------------------------


def written(folder: Path, folders: dict[str, Files]) -> Path:
    for name, files in folders.items():
        (folder / name).mkdir(parents=True)
        for file, content in files.items():
            (folder / name / file).write_bytes(content)
    return folder


def made(halves: Split) -> tuple[AIMMetadata, dict[str, Files], str]:
    whole, files = whole_aim("model", halves.whole, implementer="demo")
    aims = split_aims(halves, whole)
    return whole, {"model": files, **aims.folders}, aims.reference


def test_the_contracts_are_valid_and_canonical_and_pin_their_models(halves: Split, tmp_path: Path) -> None:
    whole, folders, reference = made(halves)
    catalogue = load_catalogue([written(tmp_path, folders)])
    assert catalogue[reference].stands_for == whole.reference
    assert len(catalogue) == 2 + len(halves.parts)
    for folder in folders:
        text, canonical = format_file(tmp_path / folder / "aim.yaml")
        assert text == canonical
    for number, part in enumerate(halves.parts, start=1):
        one = catalogue[f"ModelAt{halves.cuts[0]}Part{number}@1.0"]
        (model,) = packaged_models(one, catalogue.folder(one.reference))
        assert (model.tflite, model.arena_bytes) == (part.model, part.arena_bytes)
        micro = one.implementation("mcu")
        assert micro is not None
        assert (micro.runtime, micro.arena_bytes, micro.mac_count or 0) == (
            Runtime.TFLM,
            part.arena_bytes,
            part.mac_count,
        )
        note = one.inputs[0].type.annotation
        assert note is not None
        assert (note.scale, note.zero_point) == (part.inputs.scale, part.inputs.zero_point)


def test_instructions_of_the_whole_are_shared_out(halves: Split) -> None:
    whole, _ = whole_aim("model", halves.whole, implementer="demo")
    assert whole.implementations[0].instructions is not None
    aims = split_aims(halves, whole)
    texts = [files["aim.yaml"].decode() for files in list(aims.folders.values())[:-1]]
    given = [int(text.partition("instructions: ")[2].split()[0]) for text in texts]
    assert sum(given) == pytest.approx(whole.implementations[0].instructions + 10_000, abs=2)


def with_port(whole: AIMMetadata, **changes: object) -> AIMMetadata:
    return replace(whole, inputs=(replace(whole.inputs[0], **changes),))  # type: ignore[arg-type]  # field names


def test_an_aim_that_is_not_this_model_is_refused(halves: Split) -> None:
    whole, _ = whole_aim("model", halves.whole, implementer="demo")
    code = whole.implementations[0]
    assert code.model is not None
    for changed, reason in (
        (replace(whole, inputs=whole.inputs * 2), "has 2 inputs and 1 outputs"),
        (replace(whole, deadline_ms=5.0), "has a deadline or a period of its own"),
        (replace(whole, parameters=(Parameter("gain", "number", 1.0),)), "has parameters"),
        (
            replace(whole, implementations=(replace(code, requires=Requirements(("imu",))),)),
            "is the model model alone",
        ),
        (replace(whole, implementations=(replace(code, entry="module:A"),)), "is the model model alone"),
        (
            replace(whole, implementations=(replace(code, model=replace(code.model, component="other")),)),
            "is the model model alone",
        ),
    ):
        with pytest.raises(SplitRefused, match=reason):
            split_aims(halves, changed)
    coarse = PortType(whole.inputs[0].type.record, Annotation(0.5, 0))
    with pytest.raises(RecordTypeMismatch, match="port input is not the model's tensor"):
        split_aims(halves, with_port(whole, type=coarse))


def test_a_contract_may_say_the_scale_in_decimals(halves: Split) -> None:
    whole, _ = whole_aim("model", halves.whole, implementer="demo")
    note = whole.inputs[0].type.annotation
    assert note is not None
    assert note.scale != 0.05, "a file keeps float32"
    decimal = PortType(whole.inputs[0].type.record, replace(note, scale=0.05, unit="g"))
    aims = split_aims(halves, with_port(whole, type=decimal))
    first = next(iter(aims.folders.values()))["aim.yaml"].decode()
    assert "scale: 0.05," in first
    assert "unit: g" in first


def test_a_model_in_a_package_must_be_the_pinned_one(halves: Split, tmp_path: Path) -> None:
    whole, folders, _ = made(halves)
    written(tmp_path, {"model": folders["model"]})
    file = tmp_path / "model" / "model.tflite"
    file.write_bytes(MODEL + b"\0")
    with pytest.raises(LengthOrHashMismatch, match=r"not the model that Model@1.0 pins"):
        packaged_models(whole, tmp_path / "model")
    file.unlink()
    with pytest.raises(NotFound, match=r"lacks its model model.tflite"):
        packaged_models(whole, tmp_path / "model")


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("stands_for: Model@1.0", "stands_for: Modal@1.0", "no AIM library offers Modal@1.0"),
        ("outputs: {output:", "outputs: {result:", "its outputs are result, not output"),
        ("stands_for: Model@1.0", "stands_for: COMPOSITE", "is composite itself"),
        ("zero_point: -3", "zero_point: -4", "port input: annotations differ"),
    ],
)
def test_a_composite_that_cannot_stand_for_another_aim_is_refused(
    halves: Split, tmp_path: Path, before: str, after: str, reason: str
) -> None:
    _, folders, reference = made(halves)
    file = written(tmp_path, folders) / f"model_at_{halves.cuts[0]}" / "aim.yaml"
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after.replace("COMPOSITE", reference)))
    with pytest.raises(ConfigError) as caught:
        load_catalogue([tmp_path])
    assert reason in "\n".join(finding.message for finding in caught.value.findings)


def test_stands_for_needs_parts(tmp_path: Path) -> None:
    file = tmp_path / "aim.yaml"
    file.write_text(
        "schema: 1\naim: {name: A, version: '1.0', implementer: x}\nstands_for: B@1.0\n"
        "implementations: [{id: any, runtime: python, entry: 'm:A', ram_bytes: 1, instructions: 1}]\n"
    )
    with pytest.raises(ConfigError, match="stands_for needs aims"):
        load_aim(file)


def test_a_float_model_is_split_too() -> None:
    writer = FlatbufferWriter("float")
    kinds = writer._schema.TensorType
    tensors = [writer.activation(name, (1, 4), 1.0, 0) for name in ("a", "b", "c")]
    for tensor in writer._graph.tensors:
        tensor.type, tensor.quantization = kinds.FLOAT32, None
    writer.logistic(tensors[0], tensors[1])
    writer.softmax(tensors[1], tensors[2])
    split = Splitter(writer.finish(tensors[0], tensors[2]), "model").at([1])
    assert split.parts[0].outputs.dtype == "float32"
