"""A host that uses its Security Engine for everything, then holds still while its memory is searched.

Usage: ``python engine_host.py FOLDER TICKET_PK``. It prints the session key as hexadecimal digits, reads a
line with ticket, wrapped key and sealed chunks (hexadecimal, separated by spaces), loads and runs the model,
makes mistakes and prints every text that an error or object gives, then ``ready`` and its engine's process
id. It ends with its standard input.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from aif.errors import AIFError
from aif.trusted.psa import Algorithm, KeyAttributes, KeyType, KeyUsage
from aif.trusted.security_engine import EngineSettings, SecurityEngine

OWNER = bytes([1]) * 16


def main() -> None:
    folder, ticket_pk = Path(sys.argv[1]), bytes.fromhex(sys.argv[2])
    settings = EngineSettings(
        folder, bytes(16), "hw", bytes(16), 1, 1, None, ticket_pk, "aif.engines.registry:open_engine"
    )
    with SecurityEngine(settings, clock=time.monotonic) as engine:
        say(engine.session_pk.hex())
        ticket, wrapped, *chunks = map(bytes.fromhex, sys.stdin.readline().split())
        model = engine.load_model(ticket, wrapped, chunks, runtime="tflite")
        outputs = model.infer([bytes(8)])
        owner = engine.owner(OWNER)
        attributes = KeyAttributes(KeyType.ED25519_KEY_PAIR, Algorithm.PURE_EDDSA, KeyUsage.SIGN_MESSAGE, 255)
        owner.psa_sign_message(owner.psa_generate_key(attributes), Algorithm.PURE_EDDSA, b"message")
        owner.psa_ps_set(1, b"asset")
        say(repr((engine, engine.__dict__, model, owner, owner.__dict__, outputs)))
        for mistake in (
            lambda: model.infer([b"short"]),
            lambda: engine.load_model(ticket, wrapped[:-1] + b"x", chunks, runtime="tflite"),
            lambda: engine.load_model(ticket, wrapped, chunks[::-1], runtime="tflite"),
            lambda: engine.load_model(ticket, wrapped, chunks, runtime="unknown"),
            lambda: owner.psa_export_public_key(5),
            lambda: owner.psa_ps_get(2, 0, 1),
            lambda: engine.open_grant(b"no grant", 0),
        ):
            try:
                mistake()
            except AIFError as error:
                say(repr(error) + error.diagnostics().replace("\n", " "))
        say(f"ready {engine.pid}")
        sys.stdin.readline()


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
