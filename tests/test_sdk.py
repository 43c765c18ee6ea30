"""The author's class against the contract."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from aif.errors import CreationFailed
from aif.model.aim import AIMMetadata, Implementation, Runtime, StateKind
from aif.model.ports import Direction, Port
from aif.model.records import PortType, RecordType
from aif.sdk import AIM, check_class


def port(name: str, *, optional: bool = False) -> Port:
    return Port(name, Direction.INPUT, PortType(RecordType.parse("int32")), 4, optional=optional)


CONTRACT = AIMMetadata("A", "1.0", "demo", inputs=(port("a"), port("b", optional=True)))


class Exact(AIM):
    def process(self, a: int, b: int | None = None) -> None: ...


class ByName(AIM):
    def process(self, *, a: int, b: int | None = None) -> None: ...


class AnyName(AIM):
    def process(self, **inputs: int) -> None: ...


class Some(AIM):
    def process(self, a: int, **inputs: int) -> None: ...


class Extra(AIM):
    def process(self, a: int, other: int = 5, **inputs: int) -> None: ...


class Asynchronous(AIM):
    async def process(self, a: int, b: int | None = None) -> None: ...


@pytest.mark.parametrize("cls", [Exact, ByName, AnyName, Some, Extra, Asynchronous])
def test_a_class_that_takes_every_input_serves(cls: type[AIM]) -> None:
    check_class(cls, CONTRACT)


class Missing(AIM):
    def process(self, a: int) -> None: ...


class Unknown(AIM):
    def process(self, a: int, c: int, b: int | None = None) -> None: ...


class UnknownToo(AIM):
    def process(self, c: int, **inputs: int) -> None: ...


class NoDefault(AIM):
    def process(self, a: int, b: int) -> None: ...


class NoDefaultEither(AIM):
    def process(self, b: int, **inputs: int) -> None: ...


class ByPosition(AIM):
    def process(self, a: int, b: int | None = None, /) -> None: ...


class Star(AIM):
    def process(self, *inputs: int) -> None: ...


class NoProcess(AIM):
    pass


@pytest.mark.parametrize(
    ("cls", "reason"),
    [
        (Missing, r"Missing.process takes \(a\) but A@1.0 declares the inputs \(a, b\)"),
        (Unknown, r"Unknown.process takes \(a, b, c\) but A@1.0 declares the inputs \(a, b\)"),
        (UnknownToo, r"UnknownToo.process takes \(c\) but A@1.0 declares the inputs \(a, b\)"),
        (NoDefault, "NoDefault.process needs a default for the optional input b"),
        (NoDefaultEither, "NoDefaultEither.process needs a default for the optional input b"),
        (ByPosition, "ByPosition.process takes a, b by position only"),
        (Star, r"Star.process takes \(inputs\) but A@1.0 declares the inputs \(a, b\)"),
        (NoProcess, r"NoProcess defines no process\(\)"),
        (int, "<class 'int'> is not a subclass of aif.sdk.AIM"),
        (5, "5 is not a subclass of aif.sdk.AIM"),
    ],
)
def test_what_differs_is_said(cls: Any, reason: str) -> None:
    with pytest.raises(CreationFailed, match=f"^{reason}$"):
        check_class(cls, CONTRACT)


class Moving(Exact):
    def checkpoint(self) -> bytes:
        return b"state"

    def restore(self, state: bytes) -> None: ...


def test_an_aim_that_moves_with_its_state_must_have_it() -> None:
    moves = Implementation("any", Runtime.PYTHON, 1000, state=StateKind.CHECKPOINTABLE, state_bytes=5)
    contract = replace(CONTRACT, implementations=(moves,))
    check_class(Moving, contract)
    with pytest.raises(CreationFailed, match=r"Exact lacks checkpoint\(\) or restore\(\)"):
        check_class(Exact, contract)


def test_an_aim_without_process_says_so_when_it_is_called() -> None:
    with pytest.raises(NotImplementedError, match="NoProcess defines no process"):
        NoProcess().process()
    assert NoProcess().checkpoint() == b""
    NoProcess().restore(b"")
    assert NoProcess().setup() is None
    assert NoProcess().close() is None
