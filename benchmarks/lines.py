"""``python -m benchmarks.lines``: lines of code per trusted service, as a Markdown table.

A line of code holds something else than a comment or a part of a docstring. What belongs to which service is
said here; what stands nowhere counts as shared.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]

SERVICES: Final[Mapping[str, tuple[str, ...]]] = {
    "Communication Service": (
        "trusted/communication", "trusted/secure_sender",
        "protocol/aif1", "protocol/bundle", "protocol/channel_receiver", "protocol/channel_sender",
        "protocol/events", "protocol/fragment", "protocol/frame", "protocol/intake", "protocol/ledger",
        "protocol/message", "protocol/outbox", "protocol/peer", "protocol/watermark", "protocol/window",
        "protocol/numbers", "protocol/numbering", "protocol/carried_state",
    ),
    "Model Service (key side and slots)": (
        "trusted/model_service", "trusted/protected_models", "trusted/content_keys", "trusted/model_trial",
        "trusted/trials", "protocol/chunks", "protocol/content_keys", "protocol/ticket",
    ),
    "Storage Service": (
        "trusted/storage", "trusted/sealed_store", "trusted/records", "trusted/record_database",
        "trusted/remote_disk", "trusted/floors", "trusted/bound_notes",
    ),
    "Encryption Service": (
        "trusted/encryption", "trusted/primitives", "trusted/key_ring", "trusted/psa",
    ),
    "Attestation Service": (
        "trusted/attestation", "trusted/measure", "protocol/appraisal", "protocol/evidence", "protocol/cose",
    ),
    "Security Engine": (
        "trusted/engine_link", "trusted/engine_messages", "trusted/engine_owner", "trusted/engine_process",
        "trusted/security_core", "trusted/security_engine",
    ),
    "Keys, enrolment, audit": (
        "trusted/authority", "trusted/certificates", "trusted/client_folder", "trusted/state",
        "protocol/audit", "protocol/enrolment", "protocol/gate", "protocol/grant", "protocol/pairing",
        "protocol/stamp", "protocol/wrap",
    ),
}  # fmt: skip
OTHERS: Final = "shared by all of them"


def code_lines(source: str) -> int:
    """Lines that hold code."""
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in _NO_CODE
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(lines - set(_docstring_lines(ast.parse(source))))


_NO_CODE: Final = frozenset(
    {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
)


def _docstring_lines(tree: ast.AST) -> Iterator[int]:
    """Also of the strings that stand behind an attribute to describe it."""
    for node in ast.walk(tree):
        constant = node.value if isinstance(node, ast.Expr) else None
        if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
            yield from range(constant.lineno, (constant.end_lineno or constant.lineno) + 1)


def table() -> dict[str, tuple[int, int]]:
    """Files and lines of code by service."""
    known = {name: service for service, names in SERVICES.items() for name in names}
    counted = dict.fromkeys((*SERVICES, OTHERS), (0, 0))
    for folder in ("trusted", "protocol"):
        for file in sorted((ROOT / "aif" / folder).glob("*.py")):
            if file.stem == "__init__":
                continue
            service = known.pop(f"{folder}/{file.stem}", OTHERS)
            files, lines = counted[service]
            counted[service] = files + 1, lines + code_lines(file.read_text(encoding="utf-8"))
    if known:
        raise LookupError(f"there is no {min(known)}: renamed or removed?")
    return counted


def main() -> int:
    counted = table()
    print("| service | files | lines of code |\n|---|---:|---:|")
    for service, (files, lines) in counted.items():
        print(f"| {service} | {files} | {lines:,} |")
    total = sum(files for files, _ in counted.values()), sum(lines for _, lines in counted.values())
    print(f"| all | {total[0]} | {total[1]:,} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
