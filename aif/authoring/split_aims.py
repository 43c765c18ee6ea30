"""Contracts of a split model: an AIM for each part, and a composite AIM that stands for the whole.

Decides: names, ports and figures of those AIMs. Does not: choose the cut (``split``) or place anything.

The parts take over from the whole AIM who answers for it, its profile, its outer ports, and of each of its
implementations with this model the runtime, processor, flash and trust. Arenas and sizes of files are
measured, multiply-accumulates counted; instructions are shared out by these, as an estimate. Where no AIM
runs the whole model, one is made. Texts are in canonical form and pass ``aif validate``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from aif.authoring.split import QUEUE_DEPTH, STACK_BYTES, Part, Split
from aif.config.aim import AIM_FILE, read_aim
from aif.config.document import parse_document
from aif.config.findings import Findings
from aif.config.format import format_text
from aif.engines.base import TensorSpec
from aif.errors import RecordTypeMismatch, SplitRefused
from aif.model.aim import AIMMetadata, Implementation, Requirements, Runtime
from aif.model.ports import Port
from aif.model.records import Annotation, PortType, RecordType, compatible

INTERPRETER_INSTRUCTIONS: Final = 10_000
"""Taken for one call of the TFLite-Micro interpreter, whatever the model."""
INSTRUCTIONS_PER_MAC: Final = 6.2
"""Counted for dense int8 layers on an emulated Cortex-M4F."""
KERNEL_FLASH_BYTES: Final = 16_384
"""Assumed for the kernels of a model whose AIM says nothing better."""
GATEWAY_RAM_BYTES: Final = 1 << 20

Files = Mapping[str, bytes]
"""Content by file name inside one folder."""


@dataclass(frozen=True, slots=True)
class SplitAIMs:
    """What to write: folders by name, the composite's last; and the composite's ``Name@version``."""

    folders: Mapping[str, Files]
    reference: str


def whole_aim(name: str, whole: Part, *, implementer: str) -> tuple[AIMMetadata, Files]:
    """Contract and folder of an AIM around a model that has none; ports ``input`` and ``output``."""
    common = {"security": "attested"}
    costs = _costs(whole, _estimated(whole.mac_count))
    document = {
        "schema": 1,
        "aim": _identity(_camel(name), "1.0", implementer, f"The model {name}, whole."),
        "profile": "secure",
        "types": {"Input_t": _type(whole.inputs), "Output_t": _type(whole.outputs)},
        "inputs": {"input": {"type": "Input_t"}},
        "outputs": {"output": {"type": "Output_t"}},
        "implementations": [
            {
                "id": "mcu",
                "runtime": "tflm",
                "model": _model(name, whole),
                "ram_bytes": whole.arena_bytes + STACK_BYTES,
                "arena_bytes": whole.arena_bytes,
                "flash_bytes": KERNEL_FLASH_BYTES,
                **costs,
                **common,
            },
            {
                "id": "gateway",
                "runtime": "tflite",
                "os": ["Linux"],
                "model": _model(name, whole),
                "ram_bytes": GATEWAY_RAM_BYTES,
                **costs,
                **common,
            },
        ],
    }
    text = _canonical(document)
    findings = Findings(parse_document(text.decode(), AIM_FILE))
    read = read_aim(findings)
    findings.raise_errors()
    if read is None:  # read_aim reports before it gives up
        raise AssertionError
    return read.metadata, {AIM_FILE: text, f"{name}.tflite": whole.model}


def split_aims(split: Split, whole: AIMMetadata) -> SplitAIMs:
    """Folders of the parts and of the composite.

    Args:
        split: the cut model; ``split.name`` is the Store component of the whole.
        whole: contract of the AIM that it serves, with one input, one output and no code of its own.

    Raises:
        SplitRefused: the AIM has other ports, code around the model, or another model.
        RecordTypeMismatch: a port does not carry the model's tensor.
    """
    used = list(_served(split, whole))
    source, result = whole.inputs[0], whole.outputs[0]
    _check_port(source, split.whole.inputs)
    _check_port(result, split.whole.outputs)
    suffix = "_".join(map(str, split.cuts))
    stem, name = f"{split.name}_at_{suffix}", f"{whole.name}At{'And'.join(map(str, split.cuts))}"
    folders: dict[str, Files] = {}
    rows: list[dict[str, Any]] = []
    last = len(split.parts)
    for number, part in enumerate(split.parts, start=1):
        part_name, component = f"{name}Part{number}", f"{stem}_part_{number}"
        takes = source.name if number == 1 else "tensor"
        gives = result.name if number == last else "tensor"
        document = {
            "schema": 1,
            "aim": _identity(
                part_name,
                whole.version,
                whole.implementer,
                f"Operators {part.first + 1} to {part.last} of {split.name}, part {number} of {last}.",
            ),
            "profile": str(whole.profile),
            "types": {
                "Input_t": _port_type(source.type) if number == 1 else _type(part.inputs),
                "Output_t": _port_type(result.type) if number == last else _type(part.outputs),
            },
            "inputs": {takes: {"type": "Input_t", **_queue(source, number)}},
            "outputs": {gives: {"type": "Output_t"}},
            "restart_limit": whole.restart_limit,
            "implementations": [_implementation(code, component, part, split.whole) for code in used],
        }
        folders[component] = {AIM_FILE: _canonical(document), f"{component}.tflite": part.model}
        before = "aiw." + source.name if number == 1 else f"part_{number - 1}.tensor"
        rows.append(
            {"id": f"part_{number}", "use": f"{part_name}@{whole.version}", "inputs": {takes: before}}
        )
    composite = {
        "schema": 1,
        "aim": _identity(
            name, whole.version, whole.implementer, f"{whole.name} with its model cut into {last} parts."
        ),
        "profile": str(whole.profile),
        "stands_for": whole.reference,
        "types": {"Input_t": _port_type(source.type), "Output_t": _port_type(result.type)},
        "inputs": {source.name: {"type": "Input_t", **_queue(source, 1)}},
        "outputs": {result.name: {"type": "Output_t", "from": f"part_{last}.{result.name}"}},
        "aims": rows,
    }
    folders[stem] = {AIM_FILE: _canonical(composite)}
    return SplitAIMs(folders, f"{name}@{whole.version}")


def _served(split: Split, whole: AIMMetadata) -> Iterator[Implementation]:
    """Implementations of the whole that are this model without code around it."""
    if len(whole.inputs) != 1 or len(whole.outputs) != 1:
        raise SplitRefused(
            f"{whole.reference} has {len(whole.inputs)} inputs and {len(whole.outputs)} outputs; "
            "an AIM to split has one of each"
        )
    if whole.parameters:
        raise SplitRefused(f"{whole.reference} has parameters, which the parts of a model do not take")
    if whole.deadline_ms is not None or whole.period_ms is not None:
        raise SplitRefused(
            f"{whole.reference} has a deadline or a period of its own, which no part alone can keep",
            hint="set a deadline on a path of the workflow instead",
        )
    found = False
    for code in whole.implementations:
        if code.model is not None and code.model.component == split.name and _is_alone(code):
            found = True
            yield code
    if not found:
        raise SplitRefused(
            f"no implementation of {whole.reference} is the model {split.name} alone",
            hint="name the model's file as its component: "
            + (
                ", ".join(sorted({i.model.component for i in whole.implementations if i.model}))
                or "it has none"
            ),
        )


def _is_alone(code: Implementation) -> bool:
    return not code.entry and code.requires == Requirements()


def _check_port(port: Port, tensor: TensorSpec) -> None:
    """The port carries exactly the tensor; the message of a mismatch shows both."""
    note = _annotation(tensor)
    said = port.type.annotation
    if note is not None and said is not None and isinstance(said.scale, float | int):
        # a file keeps float32, so 0.04 in a contract is 0.0399999991 there
        same = float(np.float32(said.scale)) == tensor.scale
        note = Annotation(said.scale, tensor.zero_point) if same else note
    carried = PortType(RecordType.parse(_type_text(tensor)), note)
    try:
        compatible(carried, port.type)
    except RecordTypeMismatch as wrong:
        raise RecordTypeMismatch(
            f"port {port.name} is not the model's tensor: {wrong}", hint=wrong.hint
        ) from wrong


def _implementation(code: Implementation, component: str, part: Part, whole: Part) -> dict[str, Any]:
    micro = code.runtime is Runtime.TFLM
    stack = max(0, code.ram_bytes - code.arena_bytes) if code.arena_bytes else STACK_BYTES
    share = part.mac_count / whole.mac_count if whole.mac_count else 1.0
    total = code.instructions or _estimated(whole.mac_count)
    fixed = min(INTERPRETER_INSTRUCTIONS, total)
    made: dict[str, Any] = {
        "id": code.id,
        "runtime": str(code.runtime),
        "arch": list(code.arch),
        "os": list(code.os),
        "model": _model(component, part),
        "ram_bytes": part.arena_bytes + stack if micro else code.ram_bytes,
    }
    if micro:
        made |= {"arena_bytes": part.arena_bytes}
    if micro or code.flash_bytes:
        made |= {"flash_bytes": code.flash_bytes}
    made |= _costs(part, fixed + round((total - fixed) * share))
    return {key: value for key, value in made.items() if value != []} | {"security": str(code.security)}


def _costs(part: Part, instructions: int) -> dict[str, int]:
    return {"instructions": instructions} | ({"mac_count": part.mac_count} if part.mac_count else {})


def _estimated(mac_count: int) -> int:
    return INTERPRETER_INSTRUCTIONS + round(INSTRUCTIONS_PER_MAC * mac_count)


def _model(component: str, part: Part) -> dict[str, Any]:
    return {"file": f"{component}.tflite", "sha256": part.sha256, "bytes": len(part.model)}


def _queue(source: Port, number: int) -> dict[str, Any]:
    depth = source.queue_depth if number == 1 else QUEUE_DEPTH
    return {"queue_depth": depth, "overflow": str(source.overflow)}


def _identity(name: str, version: str, implementer: str, description: str) -> dict[str, str]:
    return {"name": name, "version": version, "implementer": implementer, "description": description}


def _type_text(tensor: TensorSpec) -> str:
    """Without the batch of one, as ports carry it."""
    shape = tensor.shape[1:] if len(tensor.shape) > 1 and tensor.shape[0] == 1 else tensor.shape
    return tensor.dtype + "".join(f"[{d}]" for d in shape or (1,))


def _annotation(tensor: TensorSpec) -> Annotation | None:
    return Annotation(tensor.scale, tensor.zero_point) if tensor.scale else None


def _type(tensor: TensorSpec) -> dict[str, Any]:
    return _port_type(PortType(RecordType.parse(_type_text(tensor)), _annotation(tensor)))


def _port_type(kind: PortType) -> dict[str, Any]:
    note = kind.annotation
    said = {} if note is None else {k: getattr(note, k) for k in ("scale", "zero_point", "axis", "unit")}
    return {"type": str(kind.record)} | {k: v for k, v in said.items() if v is not None}


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def _canonical(document: Mapping[str, Any]) -> bytes:
    """The document as YAML in canonical form; JSON is YAML 1.2."""
    return format_text(json.dumps(document), AIM_FILE).encode()
