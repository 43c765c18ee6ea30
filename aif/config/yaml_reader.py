"""YAML 1.2 text → nodes that know their place.

Decides what is acceptable YAML here (one document, bounded depth and size, no tags, no duplicate or nested
keys) and how plain scalars are read (the core schema: ``on`` and ``no`` are text). Does not decide what the
keys mean.

Invariants: nothing is constructed but text, numbers, booleans, null, lists and maps; the work is bounded by
the limits below whatever the text says, aliases counted in full; every refusal is a ConfigError with a place.

Source: YAML 1.2.2, §10.3 core schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from aif.config.codes import Code
from aif.errors import ConfigError, Diagnostic, SourceLocation

if TYPE_CHECKING:
    from ruamel.yaml.events import AliasEvent, Event, MappingStartEvent, ScalarEvent, SequenceStartEvent

MAX_DEPTH: Final = 32
MAX_ALIASES: Final = 64
MAX_NODES: Final = 200_000
"""Values in one document, with every alias counted as often as it is used."""

MAX_NUMBER_CHARACTERS: Final = 64

MAX_SHOWN: Final = 400
"""Characters of a line that is shown with a finding; longer lines are not repeated."""

LINE_BREAK: Final = "\n"
"""The only one: other spellings are replaced before reading (YAML 1.2.2, §5.4)."""

Value = str | int | float | bool | None

_INTEGER = re.compile(r"[-+]?[0-9]+")
_PREFIXED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL: Final[dict[str, Value]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


@dataclass(slots=True)
class Node:
    """A value and its place: ``line`` and ``column`` count from 1, ``start`` and ``end`` are text offsets."""

    line: int
    column: int
    start: int
    end: int
    end_line: int


@dataclass(slots=True)
class ScalarNode(Node):
    """``text`` is the scalar as read, ``style`` is YAML's: empty for plain, or one of ``' " | >``."""

    value: Value = None
    text: str = ""
    style: str = ""


@dataclass(slots=True)
class ListNode(Node):
    """``flow`` tells ``[a, b]`` from one item per line."""

    items: list[Node] = field(default_factory=list)
    flow: bool = False


@dataclass(slots=True)
class MapNode(Node):
    """Entries in the order of the text."""

    entries: dict[str, tuple[ScalarNode, Node]] = field(default_factory=dict)
    flow: bool = False

    def get(self, key: str) -> Node | None:
        entry = self.entries.get(key)
        return entry[1] if entry else None


class _Mark(Protocol):
    """A place as the YAML reader counts it, from 0."""

    line: int
    column: int
    index: int


def resolve_plain(text: str) -> Value:
    """Read a plain scalar by the YAML 1.2 core schema.

    Raises:
        ValueError: a number of more than 64 characters.

    >>> [resolve_plain(text) for text in ("on", "0x1F", "1e3", "~", "1_000")]
    ['on', 31, 1000.0, None, '1_000']
    """
    if text in _SPECIAL:
        return _SPECIAL[text]
    if not (_INTEGER.fullmatch(text) or _PREFIXED.fullmatch(text) or _FLOAT.fullmatch(text)):
        return text
    if len(text) > MAX_NUMBER_CHARACTERS:
        raise ValueError(f"a number of {len(text)} characters")
    if _INTEGER.fullmatch(text):
        return int(text)
    return int(text, 0) if _PREFIXED.fullmatch(text) else float(text)


def read_yaml(text: str, path: str) -> Node | None:
    """The tree of the one document in ``text``, None when there is nothing in it; ``path`` is only shown.

    Raises:
        ConfigError: the text is not acceptable YAML.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    builder = _Builder(path, text)
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            builder.take(event)
    except YAMLError as reason:
        raise builder.syntax(reason) from reason
    return builder.root


@dataclass(slots=True)
class _Open:
    """A list or map that is being read."""

    node: ListNode | MapNode
    anchor: str | None
    key: ScalarNode | None = None


class _Builder:
    """Turns the reader's events into nodes, with a stack of its own: depth is a limit, not a recursion."""

    def __init__(self, path: str, text: str) -> None:
        self.path, self.text, self.lines = path, text, text.split(LINE_BREAK)
        self.root: Node | None = None
        self._open: list[_Open] = []
        self._anchors: dict[str, Node] = {}
        self._documents = self._aliases = self._nodes = 0

    def take(self, event: Event) -> None:
        from ruamel.yaml import events

        if isinstance(event, events.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise self._refuse(
                    Code.SYNTAX, "a file holds one YAML document", event, hint="remove the second ---"
                )
        elif isinstance(event, events.AliasEvent):
            self._add(self._alias(event), None)
        elif isinstance(event, events.ScalarEvent):
            self._check(event)
            self._add(self._scalar(event), event.anchor)
        elif isinstance(event, events.MappingStartEvent | events.SequenceStartEvent):
            self._check(event)
            made = MapNode if isinstance(event, events.MappingStartEvent) else ListNode
            node = made(*_span(event), flow=bool(event.flow_style))
            if len(self._open) >= MAX_DEPTH:
                raise self._refuse(Code.LIMIT, f"nested more than {MAX_DEPTH} deep", event)
            if self._open and isinstance(self._open[-1].node, MapNode) and self._open[-1].key is None:
                raise self._refuse(Code.SYNTAX, "a key must be a word, not a list or a map", event)
            self._open.append(_Open(node, event.anchor))
        elif isinstance(event, events.MappingEndEvent | events.SequenceEndEvent):
            done = self._open.pop()
            done.node.end, done.node.end_line = event.end_mark.index, event.end_mark.line + 1
            self._add(done.node, done.anchor)

    def _scalar(self, event: ScalarEvent) -> ScalarNode:
        text, style = event.value, event.style or ""
        try:
            value = resolve_plain(text) if not style else text
        except ValueError as reason:
            raise self._refuse(Code.LIMIT, str(reason), event) from reason
        return ScalarNode(*_span(event), value=value, text=text, style=style)

    def _alias(self, event: AliasEvent) -> Node:
        self._aliases += 1
        if self._aliases > MAX_ALIASES:
            raise self._refuse(Code.LIMIT, f"more than {MAX_ALIASES} aliases", event)
        node = self._anchors.get(event.anchor)
        if node is None:
            raise self._refuse(Code.SYNTAX, f"alias *{event.anchor} has no complete anchor before it", event)
        self._count(sum(1 for _ in descendants(node)), event)
        return node

    def _check(self, event: ScalarEvent | MappingStartEvent | SequenceStartEvent) -> None:
        self._count(1, event)
        if event.tag is not None:
            raise self._refuse(
                Code.SYNTAX, f"tags such as {event.tag} are not used here", event, hint="remove the tag"
            )

    def _count(self, more: int, event: Event) -> None:
        self._nodes += more
        if self._nodes > MAX_NODES:
            raise self._refuse(Code.LIMIT, f"more than {MAX_NODES:,} values", event)

    def _add(self, node: Node, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = node
        if not self._open:
            self.root = node
            return
        top = self._open[-1]
        if isinstance(top.node, ListNode):
            top.node.items.append(node)
        elif top.key is None:
            if not isinstance(node, ScalarNode):
                raise ConfigError(
                    [
                        Diagnostic(
                            Code.SYNTAX, "a key must be a word", self._at(node.line - 1, node.column - 1)
                        )
                    ]
                )
            if node.text in top.node.entries:
                raise self._duplicate(node, top.node.entries[node.text][0])
            top.key = node
        else:
            top.node.entries[top.key.text] = (top.key, node)
            top.key = None

    def _duplicate(self, node: ScalarNode, first: ScalarNode) -> ConfigError:
        at = self._at(node.line - 1, node.column - 1, len(node.text))
        message = f"key {node.text!r} is given twice"
        return ConfigError(
            [
                Diagnostic(
                    Code.DUPLICATE,
                    message,
                    at,
                    notes=(f"first given at {self.path}:{first.line}:{first.column}",),
                )
            ]
        )

    def _at(self, line: int, column: int, length: int = 1) -> SourceLocation:
        text = self.lines[line] if line < len(self.lines) else ""
        shown = text if len(text) <= MAX_SHOWN else ""
        return SourceLocation(self.path, line + 1, column + 1, length, shown)

    def _refuse(self, code: Code, message: str, event: Event, *, hint: str = "") -> ConfigError:
        start: _Mark = event.start_mark
        end: _Mark = event.end_mark
        length = max(1, end.index - start.index) if end.line == start.line else 1
        return ConfigError([Diagnostic(code, message, self._at(start.line, start.column, length), hint=hint)])

    def syntax(self, reason: Exception) -> ConfigError:
        """The YAML reader's complaint as one diagnostic."""
        mark: _Mark | None = getattr(reason, "problem_mark", None) or getattr(reason, "context_mark", None)
        problem = getattr(reason, "problem", None) or getattr(reason, "reason", None) or "not YAML"
        if mark is None:  # a character that YAML forbids, reported by its offset
            before = self.text[: max(0, self.text.find(str(getattr(reason, "character", ""))))]
            at = self._at(before.count(LINE_BREAK), len(before) - before.rfind(LINE_BREAK) - 1)
        else:
            at = self._at(mark.line, mark.column)
        context = getattr(reason, "context", None)
        notes = (str(context),) if context else ()
        hint = (
            "quote text that holds ': ', ' #' or starts with one of [ { & * ! | > % @"
            if mark is not None
            else ""
        )
        if "\t" in at.text[: at.column]:
            hint = "indent with spaces, not with tabs"
        return ConfigError([Diagnostic(Code.SYNTAX, f"YAML: {problem}", at, notes=notes, hint=hint)])


def _span(event: Event) -> tuple[int, int, int, int, int]:
    start, end = event.start_mark, event.end_mark
    return start.line + 1, start.column + 1, start.index, end.index, end.line + 1


def descendants(node: Node) -> Iterator[Node]:
    """``node`` and everything below it, keys included, in the order of the text."""
    todo = [node]
    while todo:
        current = todo.pop()
        yield current
        if isinstance(current, MapNode):
            todo += [part for entry in reversed(current.entries.values()) for part in reversed(entry)]
        elif isinstance(current, ListNode):
            todo += reversed(current.items)
