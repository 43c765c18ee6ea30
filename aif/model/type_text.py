"""Reading type text: the standard's grammar with its extensions, every error with its position.

Decides: which texts are types. Does not decide: what a valid type is (``type_tree.py``).

Invariants: work and recursion are bounded by `MAX_TEXT_CHARACTERS` and `MAX_NESTING`; only
`TypeSyntaxError` is raised; ``byte`` is ``uint8``, and neither parentheses nor empty struct members
survive.

Source: MPAI-AIF V2, "Information about types" (grammar): ``fifo_type = [ base_type , NAME ]``. The outer
name may be left out, a member's may not.
"""

from __future__ import annotations

import difflib
import re
from typing import Final

from aif.errors import ModelError, TypeSyntaxError
from aif.model.type_tree import (
    MAX_NESTING,
    MAX_RECORD_BYTES,
    NAME,
    SCALAR_CODES,
    Array,
    Empty,
    FixedArray,
    Member,
    Node,
    Scalar,
    String,
    Struct,
    Variant,
)

MAX_TEXT_CHARACTERS: Final = 4096
KEYWORDS: Final = frozenset({*SCALAR_CODES, "byte", "string"})
_TOKEN: Final = re.compile(r"[ \t\r\n]*(?:([A-Za-z_][A-Za-z0-9_]*|[0-9]+|[{}\[\]();|])|$)", re.ASCII)


def read_type(text: str) -> tuple[Node, str]:
    """The type and the outer name ("" without one) in ``text``, at most 4096 characters.

    Raises:
        TypeSyntaxError: with the position, and what was expected there.
    """
    return _Parser(text).record()


class _Parser:
    """Recursive descent over the tokens of one text; recursion is bounded by `MAX_NESTING`."""

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > MAX_TEXT_CHARACTERS:
            raise TypeSyntaxError(
                f"a type text has at most {MAX_TEXT_CHARACTERS} characters, this has {len(text)}",
                text[:40],
                MAX_TEXT_CHARACTERS,
            )
        self.words: list[tuple[str, int]] = []  # (word, position); "" marks the end
        position = 0
        while not self.words or self.words[-1][0]:
            found = _TOKEN.match(text, position)
            if found is None:
                position += len(text[position:]) - len(text[position:].lstrip(" \t\r\n"))
                raise self.error(
                    f"unexpected {text[position]!r} (members are separated by ';', alternatives by '|')",
                    position,
                )
            position = found.end()
            word = found[1] or ""
            self.words.append((word, position - len(word)))
        self.index = 0

    @property
    def word(self) -> str:
        return self.words[self.index][0]

    def error(self, message: str, position: int | None = None) -> TypeSyntaxError:
        return TypeSyntaxError(
            message, self.text, self.words[self.index][1] if position is None else position
        )

    def accept(self, word: str) -> bool:
        if self.word != word:
            return False
        self.index += bool(word)  # the end is never passed
        return True

    def expected(self, what: str) -> TypeSyntaxError:
        return self.error(f"expected {what}, found {repr(self.word) if self.word else 'the end'}")

    def record(self) -> tuple[Node, str]:
        if self.accept(""):
            return Empty(), ""
        root = self.base(0)
        name = self.name() if NAME.fullmatch(self.word) else ""
        if not self.accept(""):
            raise self.expected("the end of the type" if name else "a name or the end of the type")
        return root, name

    def name(self) -> str:
        name = self.word
        if not NAME.fullmatch(name):
            raise self.expected("a name")
        self.index += 1
        if self.word == "[":
            raise self.error(f"lengths stand before the name: write 'TYPE[...] {name}'")
        return name

    def base(self, depth: int) -> Node:
        if depth > MAX_NESTING:
            raise self.error(f"nested more than {MAX_NESTING} deep")
        start = self.words[self.index][1]
        node = self.element(depth)
        lengths: list[int | None] = []
        while self.accept("["):
            lengths.append(self.length())
            if len(lengths) > MAX_NESTING:
                raise self.error(f"nested more than {MAX_NESTING} deep")
        try:
            for length in reversed(lengths):
                node = Array(node) if length is None else FixedArray(node, length)
        except ModelError as error:
            raise self.error(str(error), start) from None
        return node

    def length(self) -> int | None:
        if self.accept("]"):
            return None
        digits = self.word
        if not digits.isdigit() or digits.startswith("0") or len(digits) > len(str(MAX_RECORD_BYTES)):
            raise self.expected(f"']' or a length 1..{MAX_RECORD_BYTES}")
        self.index += 1
        if not self.accept("]"):
            raise self.expected("']'")
        return int(digits)

    def element(self, depth: int) -> Node:
        word = self.word
        if word in KEYWORDS:
            self.index += 1
            return String() if word == "string" else Scalar("uint8" if word == "byte" else word)
        if self.accept("("):
            inner = self.base(depth + 1)
            if not self.accept(")"):
                raise self.expected("')'")
            return inner
        if word == "{":
            return self.braces(depth + 1)
        if NAME.fullmatch(word):
            near = difflib.get_close_matches(word, sorted(KEYWORDS), n=1)
            raise self.error(f"unknown type {word!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        raise self.expected("a type (a scalar, '{' or '(')")

    def braces(self, depth: int) -> Struct | Variant:
        start = self.words[self.index][1]
        self.accept("{")
        members = [self.member(depth)]
        separator = self.word if self.word in {";", "|"} else ""
        while separator and self.accept(separator):
            members.append(self.member(depth))
        if not self.accept("}"):
            raise self.expected(f"{separator!r} or '}}'" if separator else "';', '|' or '}'")
        try:
            if separator == "|":
                return Variant(tuple(members))
            return Struct(tuple(member for member in members if member.name))
        except ModelError as error:
            raise self.error(str(error), start) from None

    def member(self, depth: int) -> Member:
        if self.word in {";", "|", "}"}:
            return Member(Empty())
        return Member(self.base(depth), self.name())
