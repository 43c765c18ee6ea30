"""Which fuzzer feeds which public decoder, and why some functions that sound like decoders need none.

A public function or method is taken for a decoder when its name says so (``open``, ``read``, ``decode``,
``verify`` and the like) and it takes bytes, text, a path or an untyped value. Each is either fed by a
fuzzer or listed with the reason why nobody outside decides what it gets; a test compares both with the code.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("aif", "store", "partitioner")
NO_DECODERS: Final = ROOT / "aif" / "cli"
"""Verbs of the command line: what they read goes to the decoders of other packages."""

SOUNDS_LIKE_ONE: Final = re.compile(
    r"^(open|read|decode|parse|load|unpack|verify|unwrap|appraise|split|check|from|receive|feed|certify)(_|\d|$)"
    r"|_from_|_url$|_reason$"
)
RAW: Final = frozenset(
    {"bytes", "str", "memoryview", "bytes | memoryview", "Buffer", "Path", "object", "BinaryIO"}
    | {"Mapping[str, Any]", "Any"}
)
"""Annotations of what has not been decoded yet."""

FED: Final[Mapping[str, str]] = {
    "aif.authoring.datasets.read_object_array": "object array",
    "aif.authoring.recording.read_recording": "recording",
    "aif.config.document.load_document": "yaml:aim",
    "aif.config.document.parse_document": "yaml:aiw",
    "aif.config.fields.Matches.check": "yaml:aim",
    "aif.config.yaml_reader.read_yaml": "yaml:inventory",
    "aif.engines.base.TensorSpec.from_details": "tensor details",
    "aif.gateway.device_metrics.read_metrics": "device metrics",
    "aif.model.ports.PortRef.parse": "names",
    "aif.model.records.RecordType.parse": "record type",
    "aif.model.tensors.Tensor.decode": "record",
    "aif.model.type_text.read_type": "record type",
    "aif.protocol.announcement.verify_announcement": "announcement",
    "aif.protocol.appraisal.appraise": "evidence",
    "aif.protocol.appraisal.verify_result": "attestation result",
    "aif.protocol.audit.verify_head": "audit log",
    "aif.protocol.audit.verify_log": "audit log",
    "aif.protocol.beacon.verify_beacon": "beacon",
    "aif.protocol.bundle.decode_bundle": "bundle",
    "aif.protocol.carried_state.unpack_state": "carried state",
    "aif.protocol.cbor.decode": "cbor",
    "aif.protocol.channel_receiver.ChannelReceiver.receive": "aif1:signed",
    "aif.protocol.chunks.ChunkCipher.open": "chunks",
    "aif.protocol.chunks.decode_chunk_message": "chunks",
    "aif.protocol.chunks.split_ciphertext": "chunks",
    "aif.protocol.content_keys.check_commitment": "content key",
    "aif.protocol.content_keys.open_hand_over": "hand-over",
    "aif.protocol.content_keys.unwrap_content_key": "content key",
    "aif.protocol.control.unpack": "control",
    "aif.protocol.control.verify_hello": "hello",
    "aif.protocol.control.verify_call": "call",
    "aif.protocol.cose.Sign1.verify": "cose:tagged",
    "aif.protocol.cose.check_ed25519_key": "enrolment request",
    "aif.protocol.cose.parse1": "cose:untagged",
    "aif.protocol.cose.verify1": "deployment",
    "aif.protocol.cose.verify_ed25519": "cose:tagged",
    "aif.protocol.deployment.verify": "deployment",
    "aif.protocol.documents.decode": "document:Deployment",
    "aif.protocol.enrolment.check_author": "enrolment request",
    "aif.protocol.enrolment.open_request": "enrolment request",
    "aif.protocol.enrolment.open_response": "enrolment response",
    "aif.protocol.evidence.open_alias_certificate": "evidence",
    "aif.protocol.evidence.read_claims": "evidence",
    "aif.protocol.evidence.read_evidence": "evidence",
    "aif.protocol.evidence.read_request": "attestation request",
    "aif.protocol.fragment.decode_fragment": "fragment",
    "aif.protocol.frame.FrameOpener.open": "aif1:aead",
    "aif.protocol.frame.FrameOpener.verify": "aif1:signed",
    "aif.protocol.grant.open_grant": "grant",
    "aif.protocol.identifiers.check_aiw_name": "names",
    "aif.protocol.identifiers.check_device_name": "names",
    "aif.protocol.message.unpack": "message",
    "aif.protocol.numbering.unpack_acknowledgement": "acknowledgement",
    "aif.protocol.numbering.unpack_numbered": "numbered message",
    "aif.protocol.pairing.read_pairing_code": "pairing code",
    "aif.protocol.stamp.check_stamp": "stamp",
    "aif.protocol.ticket.read_ticket": "ticket",
    "aif.protocol.ticket.verify_ticket": "ticket",
    "aif.protocol.topics.parse": "topic",
    "aif.protocol.watermark.decode_watermark": "watermark",
    "aif.protocol.wrap.check_x25519_key": "enrolment request",
    "aif.protocol.wrap.unwrap": "wrap",
    "aif.runtime.devices.registry.read_manifest": "manifest",
    "aif.transport.address.mqtt_url": "MQTT URL",
    "aif.transport.base.check_message": "names",
    "aif.transport.filters.check_filter": "names",
    "aif.transport.filters.check_topic": "names",
    "aif.transport.packets.PacketReader.feed": "mqtt packets",
    "aif.transport.packets.split_publish": "mqtt packets",
    "aif.trusted.authority.CertificateAuthority.certify": "signing request",
    "aif.trusted.authority.CertificateAuthority.replacement_reason": "certificate",
    "aif.trusted.engine_messages.decode_answer": "engine answer",
    "aif.trusted.engine_messages.decode_request": "engine request",
    "aif.trusted.records.open_record": "stored record",
    "partitioner.report.written.from_json": "plan report",
    "store.floors.Floors.from_document": "floors",
    "store.release.check_sha256": "names",
    "store.release.check_vendor": "names",
    "store.release.release_from_target": "release",
    "store.release.split_path": "names",
    "store.targets.unpack": "package",
}
"""Decoder to the fuzzer that runs it."""

ALSO_FED: Final[Mapping[str, str]] = {
    "aif.config.aim.read_aim": "yaml:aim",
    "aif.config.inventory.read_inventory": "yaml:inventory",
    "aif.config.workflow.read_workflow": "yaml:aiw",
    "aif.protocol.fragment.Reassembler.add": "fragment",
    "aif.protocol.gate.Gate.admit": "stamp",
    "aif.transport.local.LocalServer.start": "local call",
    "aif.transport.local.call": "local answer",
    "aif.transport.packets.packet_id_of": "mqtt packets",
    "aif.trusted.engine_messages.attributes_of": "engine request",
    "aif.trusted.engine_messages.check_arguments": "engine request",
    "store.client.StoreClient.releases": "store metadata",
}
"""Decoders whose names and arguments do not give them away."""

NOT_OUTSIDE: Final[Mapping[str, str]] = {
    "aif.authoring.publication.load_model": "reads what training wrote on the same computer",
    "aif.config.aim.load_aim": "load_document and read_aim, both fed",
    "aif.config.inventory.load_inventory": "load_document and read_inventory, both fed",
    "aif.config.workflow.load_workflow": "load_document and read_workflow, both fed",
    "aif.emulator.device.EmulatedDevice.open_engine": "bytes whose digest was verified",
    "aif.engines.arena.open_within_arena": "verified bytes; a hostile model meets a child process",
    "aif.engines.registry.load_runtime": "a name, looked up",
    "aif.engines.registry.open_engine": "verify_model comes first",
    "aif.engines.registry.verify_model": "compares a digest; no structure is read",
    "aif.engines.tflm_child.Worker.load": "verified bytes; runs in the child process that may die of them",
    "aif.engines.tflm_child.read_exactly": "counts bytes of a pipe between parent and child",
    "aif.gateway.summary.check_writable": "a path the user gave",
    "aif.runtime.host.acknowledged_channels.AcknowledgedChannels.open_return": "of a verified document",
    "aif.runtime.controller.controller.Controller.verify": "by the name of a device; its evidence is fed",
    "aif.runtime.mapping.releases.Ticketing.check": "check_commitment, which is fed",
    "aif.runtime.devices.registry.Site.certify": "CertificateAuthority.certify, which is fed",
    "aif.runtime.devices.registry.Site.open": "a folder of the site itself; its documents are fed",
    "aif.runtime.devices.registry.Site.open_or_create": "a folder of the site itself; its documents are fed",
    "aif.runtime.devices.registry.Site.open_window": "read_pairing_code, which is fed",
    "aif.runtime.devices.grants.GrantOffice.open_epoch": "makes the grants of an epoch; reads nothing",
    "aif.runtime.library.AIMLibrary.load_class": "sources whose digest was verified",
    "aif.runtime.host.engine_requests.EngineRequests.open_grant": "protocol.grant.open_grant, which is fed",
    "aif.runtime.host.models.DeviceModels.load": "split_ciphertext, verify_ticket, unwrap_content_key: fed",
    "aif.runtime.host.models.DeviceModels.open": "by the name of a component; what its slot holds is fed",
    "aif.runtime.host.platform.Platform.open_engine": "bytes whose digest was verified",
    "aif.sdk.check_class": "a class that was loaded, and its contract",
    "aif.trusted.attestation.Verifier.appraise": "protocol.evidence.appraise, which is fed",
    "aif.trusted.authority.CertificateAuthority.open_or_create": "a folder of the site itself",
    "aif.trusted.communication.SecureReceiver.receive": "ChannelReceiver.receive, which is fed",
    "aif.trusted.engine_owner.EngineArea.read": "by the name of an asset",
    "aif.trusted.model_service.ModelService.read": "by the name of a component; its digest is checked",
    "aif.trusted.protected_models.ProtectedModels.open_in_place": "its parts are fed, each on its own",
    "aif.trusted.security_core.SecurityCore.open_grant": "protocol.grant.open_grant, which is fed",
    "aif.trusted.security_engine.SecurityEngine.load_runtime": "a name, looked up",
    "aif.trusted.security_engine.SecurityEngine.load_model": "verify_ticket and ChunkCipher, both fed",
    "aif.trusted.security_engine.SecurityEngine.open_grant": "protocol.grant.open_grant, which is fed",
    "aif.trusted.security_engine.SecurityEngine.open_in_place": "decode_answer, which is fed",
    "aif.trusted.storage.SecureArea.read": "by the name of an asset; records are fed",
    "store.keys.RoleKeys.load": "a folder of the publisher itself",
    "store.repository.Repository.open": "a folder of the store itself",
    "aif.transport.clients.open_client": "opens a connection; packets and frames are fed",
    "partitioner.objectives.read_order": "words of a command line; tests/partitioner tries arbitrary text",
    "partitioner.objectives.read_weights": "words of a command line; tests/partitioner tries arbitrary text",
}
"""Functions that only sound like decoders of outside bytes, and why."""


def public_decoders() -> Iterator[str]:
    """Qualified names of everything public that sounds like a decoder of something raw."""
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            if NO_DECODERS not in file.parents:
                module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
                yield from _in(ast.parse(file.read_text()), module)


def _in(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[str]:
    for child in node.body:
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from _in(child, f"{prefix}.{child.name}")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and _is_decoder(child):
            yield f"{prefix}.{child.name}"


def _is_decoder(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    annotations = {ast.unparse(a.annotation) for a in arguments if a.annotation is not None}
    sounds = not function.name.startswith("_") and SOUNDS_LIKE_ONE.search(function.name) is not None
    return sounds and not annotations.isdisjoint(RAW)
