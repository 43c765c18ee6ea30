"""The whole error tree on one screen.

Every error has a stable code (its page is ``docs/errors/<code>.md``), data on attributes, a one-line
``str()`` and a ``diagnostics()`` text that says what, where, why and what to do. Families decide the
exit code of the command line. Verification raises; nothing here is ever returned as a bool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class SourceLocation:
    """A place in a user's file. ``line`` and ``column`` count from 1; ``text`` is that line as written."""

    path: str
    line: int
    column: int
    length: int = 1
    text: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding about a user's file: message, place, the label under the caret, notes, and help."""

    code: str
    message: str
    location: SourceLocation | None = None
    label: str = ""
    notes: tuple[str, ...] = ()
    hint: str = ""
    severity: str = "error"

    def render(self) -> str:
        lines = [f"{self.severity}[{self.code}]: {self.message}"]
        if self.location is not None:
            at = self.location
            lines.append(f"  --> {at}")
            if at.text:
                gutter = str(at.line)
                indent = "".join("\t" if c == "\t" else " " for c in at.text[: at.column - 1])
                caret = indent.ljust(at.column - 1) + "^" * max(1, at.length)
                lines.append(f"{gutter} | {at.text}")
                lines.append(f"{' ' * len(gutter)} | {caret} {self.label}".rstrip())
        lines.extend(f"   = {note}" for note in self.notes)
        if self.hint:
            lines.append(f"   = help: {self.hint}")
        return "\n".join(lines)


class AIFError(Exception):
    """Root of every error raised by this project."""

    code: ClassVar[str] = "AIF-E0001"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message

    def diagnostics(self) -> str:
        """The whole story for a human, several lines."""
        text = f"error[{self.code}]: {self}"
        cause = self.__cause__
        if cause is not None and (getattr(cause, "strerror", None) or str(cause)) not in str(self):
            text += f"\n   = cause: {type(cause).__name__}: {cause}"
        return text + (f"\n   = help: {self.hint}" if self.hint else "")


# --- configuration: the user's files --------------------------------------------------------------


class ConfigError(AIFError):
    """All findings of a file (or of a whole workflow) at once, each with file:line:column."""

    code = "AIF-E0100"
    exit_code = 2

    def __init__(self, findings: Sequence[Diagnostic]) -> None:
        count = len(findings)
        first = findings[0].message if findings else "invalid configuration"
        super().__init__(first if count == 1 else f"{first} (and {count - 1} more)")
        self.findings: tuple[Diagnostic, ...] = tuple(findings)

    def diagnostics(self) -> str:
        return "\n\n".join(finding.render() for finding in self.findings)


# --- model: values that contradict each other -----------------------------------------------------


class ModelError(AIFError):
    code = "AIF-E0200"
    exit_code = 2


class TypeSyntaxError(ModelError):
    """A record type text that the grammar does not allow. ``position`` counts characters from 0."""

    code = "AIF-E0201"

    def __init__(self, message: str, text: str, position: int) -> None:
        super().__init__(f"{message} at character {position + 1} of {text!r}")
        self.text, self.position = text, position


class UnknownAIM(ModelError):
    code = "AIF-E0202"


class RecordTypeMismatch(ModelError):
    code = "AIF-E0203"


class UnknownPort(ModelError):
    code = "AIF-E0204"


class UnconnectedPort(ModelError):
    code = "AIF-E0205"


class CyclicTopology(ModelError):
    code = "AIF-E0206"


class InvalidRecord(ModelError):
    """A value that its record type cannot hold, or bytes that are not one of its encodings."""

    code = "AIF-E0207"


class RecordTooLarge(InvalidRecord):
    code = "AIF-E0208"


class SplitRefused(ModelError):
    """A model that cannot be cut at all, or not so that its parts fit what was asked for."""

    code = "AIF-E0211"


# --- placement ------------------------------------------------------------------------------------


class PlacementError(AIFError):
    code = "AIF-E0300"
    exit_code = 4


class Infeasible(PlacementError):
    """No placement exists. ``core`` holds one sentence per conflicting requirement."""

    code = "AIF-E0301"

    def __init__(self, core: Sequence[str], *, hint: str = "") -> None:
        super().__init__("no placement exists: " + "; ".join(core), hint=hint)
        self.core: tuple[str, ...] = tuple(core)

    def diagnostics(self) -> str:
        lines = [f"error[{self.code}]: no placement exists", *(f"   = {line}" for line in self.core)]
        return "\n".join([*lines, f"   = help: {self.hint}"] if self.hint else lines)


class SolverTimeout(PlacementError):
    code = "AIF-E0302"


# --- protocol: bytes and order on the wire --------------------------------------------------------


class ProtocolError(AIFError):
    code = "AIF-E0400"
    exit_code = 5


class LocalProtocolError(ProtocolError):
    """This program misused a protocol object."""

    code = "AIF-E0401"


class RemoteProtocolError(ProtocolError):
    """The peer sent something the protocol does not allow. ``counter`` names the drop counter, if any."""

    code = "AIF-E0402"

    def __init__(self, message: str, *, counter: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.counter = counter


# --- trust ----------------------------------------------------------------------------------------


class TrustError(AIFError):
    code = "AIF-E0500"
    exit_code = 6


class SignatureInvalid(TrustError):
    code = "AIF-E0501"


class Expired(TrustError):
    code = "AIF-E0502"


class RollbackDetected(TrustError):
    code = "AIF-E0503"


class ReplayDetected(TrustError):
    code = "AIF-E0504"


class DecryptionFailed(TrustError):
    code = "AIF-E0505"


class AttestationRejected(TrustError):
    """Evidence that the Verifier refused. ``step`` is the appraisal step that failed."""

    code = "AIF-E0506"

    def __init__(self, message: str, *, step: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.step = step


class EnrolmentRefused(TrustError):
    code = "AIF-E0507"


class NotAuthorised(TrustError):
    code = "AIF-E0508"


class PlainModelRefused(NotAuthorised):
    """A model release that is not encrypted, where the site has not allowed such."""

    code = "AIF-E0509"


class PSAStatus(IntEnum):
    """Status codes (PSA Certified Status code API 1.0); 0 is success, errors are negative."""

    SUCCESS = 0
    GENERIC_ERROR = -132
    NOT_PERMITTED = -133
    NOT_SUPPORTED = -134
    INVALID_ARGUMENT = -135
    INVALID_HANDLE = -136
    BAD_STATE = -137
    ALREADY_EXISTS = -139
    DOES_NOT_EXIST = -140
    INSUFFICIENT_MEMORY = -141
    INSUFFICIENT_STORAGE = -142
    INSUFFICIENT_DATA = -143
    SERVICE_FAILURE = -144
    COMMUNICATION_FAILURE = -145
    STORAGE_FAILURE = -146
    INVALID_SIGNATURE = -149
    CORRUPTION_DETECTED = -151
    DATA_CORRUPT = -152


class PSAError(TrustError):
    """A trusted service refused or failed; ``status`` is the PSA code and never ``SUCCESS``."""

    code = "AIF-E0510"

    def __init__(self, status: PSAStatus, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message} ({status.name})", hint=hint)
        self.status = status


class AuditBroken(TrustError):
    """The audit log was changed or cut off."""

    code = "AIF-E0520"


# --- store ----------------------------------------------------------------------------------------


class StoreError(AIFError):
    code = "AIF-E0600"
    exit_code = 7


class NotFound(StoreError):
    code = "AIF-E0601"


class Yanked(StoreError):
    code = "AIF-E0602"


class LengthOrHashMismatch(StoreError):
    code = "AIF-E0603"


class DownloadInterrupted(StoreError):
    code = "AIF-E0604"


class UntrustedSigner(StoreError):
    code = "AIF-E0605"


# --- transport ------------------------------------------------------------------------------------


class TransportError(AIFError):
    code = "AIF-E0700"
    exit_code = 8


class NotConnected(TransportError):
    code = "AIF-E0701"


class BrokerRefused(TransportError):
    code = "AIF-E0702"


class PublishTimeout(TransportError):
    code = "AIF-E0703"


class MessageTooLarge(TransportError):
    code = "AIF-E0704"


class TLSFailed(BrokerRefused):
    """TLS with a broker failed. ``of_broker`` says whose certificate was refused: the broker's, or ours."""

    code = "AIF-E0705"

    def __init__(self, message: str, *, of_broker: bool = False, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.of_broker = of_broker


class CertificateMissing(TLSFailed):
    code = "AIF-E0706"


class CertificateExpired(TLSFailed):
    code = "AIF-E0707"


class UnknownAuthority(TLSFailed):
    code = "AIF-E0708"


class WrongBrokerName(TLSFailed):
    code = "AIF-E0709"


class CertificateRevoked(TLSFailed):
    code = "AIF-E0710"


class GrantExhausted(TransportError):
    """All frames of a grant are used up; the message was not taken, and may be sent under the next grant."""

    code = "AIF-E0711"


# --- life cycle and ports -------------------------------------------------------------------------


class LifecycleError(AIFError):
    code = "AIF-E0800"
    exit_code = 9


class InvalidTransition(LifecycleError):
    code = "AIF-E0801"


class AlreadyRunning(LifecycleError):
    code = "AIF-E0802"


class StartFailed(LifecycleError):
    code = "AIF-E0803"


class StopFailed(LifecycleError):
    code = "AIF-E0804"


class CreationFailed(LifecycleError):
    """``kind`` is module, port, channel or external (MPAI_ERROR_*_CREATION_FAILED)."""

    code = "AIF-E0805"

    def __init__(self, message: str, *, kind: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.kind = kind


class QueueFull(LifecycleError):
    code = "AIF-E0806"


class PortTimeout(LifecycleError):
    code = "AIF-E0807"


class AIMFailed(LifecycleError):
    """The author's code of one AIM raised; only that AIM is affected."""

    code = "AIF-E0808"


class EndOfData(LifecycleError):
    """A source has nothing more to give; its AIM finishes and the end travels downstream."""

    code = "AIF-E0809"


# --- resources ------------------------------------------------------------------------------------


class ResourceExceeded(AIFError):
    code = "AIF-E0900"
    exit_code = 10


class ArenaOverflow(ResourceExceeded):
    code = "AIF-E0901"

    def __init__(self, what: str, *, needed_bytes: int, available_bytes: int, hint: str = "") -> None:
        super().__init__(
            f"{what} needs an arena of {needed_bytes:,} B, {available_bytes:,} B are available", hint=hint
        )
        self.needed_bytes, self.available_bytes = needed_bytes, available_bytes


class FlashOverflow(ResourceExceeded):
    code = "AIF-E0902"

    def __init__(self, what: str, *, needed_bytes: int, available_bytes: int, hint: str = "") -> None:
        super().__init__(
            f"{what} needs {needed_bytes:,} B of flash, {available_bytes:,} B are available", hint=hint
        )
        self.needed_bytes, self.available_bytes = needed_bytes, available_bytes


class ConversionRefused(ResourceExceeded):
    """An int8 conversion that lost more accuracy than allowed."""

    code = "AIF-E0904"


# --- engines --------------------------------------------------------------------------------------


class EngineError(AIFError):
    """The inference engine refused a model or an input and said why."""

    code = "AIF-E1000"
    exit_code = 11


class EngineCrashed(EngineError):
    """The engine's process died or hung; only the AIM that used it is affected."""

    code = "AIF-E1001"


class EngineUnavailable(EngineError):
    code = "AIF-E1002"


class ModelRejected(EngineError):
    """A release that failed its trial on this device; the one before it stays in force."""

    code = "AIF-E1003"
