"""Findings about one file, and how a file's shape is checked: every wrong key and value at once.

Decides the words a user reads for each kind of mistake. After a mistake the value is forgotten and the
rest is still checked; ``spoilt`` remembers what, so that later checks do not report consequences.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from aif.config.codes import Code
from aif.config.document import KINDS, Document, Path_
from aif.config.fields import Table, inner, keys_of, table_of
from aif.config.yaml_reader import ListNode, MapNode, Node, ScalarNode
from aif.errors import ConfigError, Diagnostic, ModelError, TypeSyntaxError
from aif.model.check import nearest

MAX_FINDINGS = 100
"""Findings reported per file; more help nobody."""

_ROUNDS = 8

AnyTable = TypeVar("AnyTable", bound=Table)

_MUST_BE = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a map",
    "model_type": "a map",
    "model_attributes_type": "a map",
    "finite_number": "a finite number",
}

_BOUNDS = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


@dataclass(slots=True)
class Findings:
    """Collects what is wrong in one document."""

    document: Document
    items: list[Diagnostic] = field(default_factory=list)
    spoilt: set[tuple[str, str]] = field(default_factory=set)
    """(top key, name of its entry or id of its item); the name is empty when it cannot be known."""

    gone: set[tuple[str, str]] = field(default_factory=set)
    """Those of ``spoilt`` that are left out as a whole."""

    def add(
        self,
        code: str,
        message: str,
        path: Path_,
        *,
        key: bool = False,
        label: str = "",
        notes: Sequence[str] = (),
        hint: str = "",
        severity: str = "error",
    ) -> None:
        at = self.document.location(path, key=key)
        self.items.append(Diagnostic(code, message, at, label, tuple(notes), hint, severity))

    def suggest(self, word: str, known: Iterable[str]) -> str:
        """A hint for an unknown ``word``; none when there are more findings than anybody reads."""
        return nearest(word, known) if len(self.items) < MAX_FINDINGS else ""

    @property
    def errors(self) -> list[Diagnostic]:
        return [item for item in self.items if item.severity == "error"]

    def add_model_error(self, path: Path_, wrong: ModelError) -> None:
        """Report what the model refused; a syntax error of a type text points into the text."""
        at = self.document.location(path)
        node = self.document.find(path)[0]
        if isinstance(wrong, TypeSyntaxError) and isinstance(node, ScalarNode):
            lead = 1 if node.style in ("'", '"') else 0
            written = self.document.text[node.start + lead : node.end - lead]
            if written == wrong.text and node.line == node.end_line:
                at = replace(at, column=at.column + lead + wrong.position, length=1)
        self.items.append(Diagnostic(wrong.code, str(wrong), at, hint=wrong.hint))

    def spoil(self, path: Path_) -> None:
        """Remember that the value at ``path`` was wrong."""
        name, whole = "", len(path) <= 2
        if len(path) > 1:
            entry = self.document.find(path[:2])[0]
            given = entry.get("id") if isinstance(entry, MapNode) and isinstance(path[1], int) else None
            name = str(path[1]) if isinstance(path[1], str) else ""
            if path[2:3] == ("id",):  # it cannot be told what it should be
                whole = True
            elif isinstance(given, ScalarNode):
                name = given.text
        self.spoilt.add((str(path[0]), name))
        if whole:
            self.gone.add((str(path[0]), name))

    def touched(self, top: str, name: str) -> bool:
        """Whether the entry ``name`` under the key ``top`` was wrong, or may have been."""
        return (top, name) in self.spoilt or (top, "") in self.spoilt

    def missing(self, top: str, name: str) -> bool:
        """Whether the entry ``name`` under the key ``top`` is left out as a whole, or may be."""
        return (top, name) in self.gone or (top, "") in self.gone

    def raise_errors(self) -> None:
        """Raise everything found, in the order of the text.

        Raises:
            ConfigError: at least one finding is an error.
        """
        if self.errors:
            raise ConfigError(in_order(self.items)[:MAX_FINDINGS])


def in_order(findings: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Findings by file, line and column, each once."""
    return sorted(
        dict.fromkeys(findings),
        key=lambda d: (d.location.path, d.location.line, d.location.column) if d.location else ("", 0, 0),
    )


def read_shape(findings: Findings, table: type[AnyTable]) -> AnyTable | None:
    """The document as ``table``, with what is wrong added to ``findings`` and left out.

    Returns:
        None when too much is wrong for the rest to be checked.
    """
    document = findings.document
    _refuse_empty(findings, document.root, ())
    reported = False
    for _ in range(_ROUNDS):
        try:
            return table.model_validate(document.plain())
        except ValidationError as wrong:
            errors = wrong.errors(include_url=False)
        if not reported:
            _report(findings, table, errors)
            reported = True
        if not _forget(findings, [error for error in errors if not _stand_in(document, error)]):
            return None
    return None


def _refuse_empty(findings: Findings, node: MapNode | ListNode, path: Path_) -> None:
    """``deadline_ms:`` with nothing behind it is a forgotten value, not a wish for the default."""
    steps: list[tuple[str | int, object]] = (
        [(key, value) for key, (_, value) in node.entries.items()]
        if isinstance(node, MapNode)
        else list(enumerate(node.items))
    )
    for step, value in reversed(steps):
        here = (*path, step)
        if isinstance(value, MapNode | ListNode):
            _refuse_empty(findings, value, here)
        elif isinstance(value, ScalarNode) and value.value is None and not value.text and not value.style:
            findings.add(Code.VALUE, f"{subject(findings.document, here)} has no value", here, key=True)
            findings.spoil(here)
            findings.document.discard(here)


def subject(document: Document, path: Path_) -> str:
    """What a message calls the thing at ``path``: its key, or the id of a list's item."""
    if not path:
        return "the file"
    last = path[-1]
    if isinstance(last, str):
        return last
    node, _, exists = document.find(path)
    name = node.get("id") if exists and isinstance(node, MapNode) else None
    if isinstance(name, ScalarNode) and name.text:
        return f"{name.text} in {path[-2]}"
    return f"{path[-2]}[{last}]"


def _existing(document: Document, loc: Path_) -> Path_:
    """The part of ``loc`` that the document holds; short forms and unions add steps of their own."""
    length = len(loc)
    while not document.find(loc[:length])[2]:
        length -= 1
    return loc[:length]


def _report(findings: Findings, table: type[Table], errors: Sequence[ErrorDetails]) -> None:
    document = findings.document
    grouped: dict[tuple[Path_, str], list[ErrorDetails]] = {}
    for error in errors:
        path = _existing(document, error["loc"])
        one_by_one = error["type"] in ("missing", "extra_forbidden")
        grouped.setdefault((path, str(error["loc"]) if one_by_one else ""), []).append(error)
    for (path, _), group in grouped.items():
        _report_one(findings, table, path, group)


def _report_one(findings: Findings, table: type[Table], path: Path_, group: Sequence[ErrorDetails]) -> None:
    error, document = group[0], findings.document
    kind, loc, context = error["type"], error["loc"], error.get("ctx", {})
    if kind == "missing":
        wanted, owner = str(loc[-1]), annotation_at(table, loc[:-1])
        meaning = keys_of(known).get(wanted, "") if (known := table_of(owner)) else ""
        whole = f" of {subject(document, path)}" if path else ""
        findings.add(
            Code.MISSING_KEY, f"missing key {wanted!r}{whole}", path, hint=meaning and f"{wanted}: {meaning}"
        )
        return
    if kind == "extra_forbidden":
        known = table_of(annotation_at(table, path[:-1]))
        hint = findings.suggest(str(path[-1]), keys_of(known)) if known else ""
        findings.add(Code.UNKNOWN_KEY, f"unknown key {path[-1]!r}", path, key=True, hint=hint)
        return
    name = subject(document, path)
    is_key = loc[-1:] == ("[key]",)
    found = "" if is_key else _found(document, path)
    code, hint = Code.VALUE, str(context.get("hint", ""))
    if kind in ("value", "unit"):
        message, found = f"{name} {context['message']}", ""
        code = Code.UNIT if kind == "unit" else Code.VALUE
    elif kind == "literal_error":
        node = document.find(path)[0]
        choices = [choice.strip("'") for choice in str(context["expected"]).replace(" or ", ", ").split(", ")]
        message, found = f"{name} must be {context['expected']}".replace("'", ""), ""
        given = node.text if isinstance(node, ScalarNode) else ""
        close = nearest(given, choices)
        hint = close if close.startswith("did you mean") else ""
    elif kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        bound = context[key]
        message = (
            f"{name} must be {words} {bound:,}"
            if isinstance(bound, int)
            else f"{name} must be {words} {bound:g}"
        )
        found = ""
    elif kind in ("too_short", "string_too_short"):
        message = f"{name} must hold at least {context['min_length']}"
    elif kind in ("too_long", "string_too_long"):
        message = f"{name} must hold at most {context['max_length']:,}"
    else:
        kinds = dict.fromkeys(
            _MUST_BE.get(one["type"], one["msg"][:1].lower() + one["msg"][1:]) for one in group
        )
        message = f"{name} must be {' or '.join(kinds)}"
        node = document.find(path)[0]
        if kind == "string_type" and isinstance(node, ScalarNode) and node.value is not None:
            hint = f'write it in quotes: "{node.text}"'
    findings.add(code, message, path, key=is_key, label=found, hint=hint)


def annotation_at(table: type[Table], path: Path_) -> object:
    """The annotation of the value at ``path``, None where nothing is known."""
    annotation: object = table
    for step in path:
        annotation = inner(annotation, step)
    return annotation


def _found(document: Document, path: Path_) -> str:
    node = document.find(path)[0]
    if isinstance(node, ListNode):
        return "is a list"
    if isinstance(node, MapNode):
        return "is a map"
    value = node.value if isinstance(node, ScalarNode) else None
    if isinstance(value, bool):
        return f"is {str(value).lower()}"
    if isinstance(value, str):
        return "is text"
    return "is null" if value is None else "is a number"


def _stand_in(document: Document, error: ErrorDetails) -> bool:
    """Put something valid where a file says what it is, so that a slip there does not hide the rest."""
    loc = error["loc"]
    if error["type"] == "extra_forbidden":
        return False
    owner: Node | None = document.root if loc == ("schema",) else None
    if len(loc) == 2 and loc[0] in KINDS:
        owner = document.root.get(str(loc[0]))
    if not isinstance(owner, MapNode):
        return False
    key = str(loc[-1])
    numbers: dict[Path_, int] = {("schema",): 1, ("inventory", "version"): 0}
    value: int | str = numbers.get(loc, "unreadable")
    made = ScalarNode(
        owner.line, owner.column, owner.start, owner.start, owner.line, value=value, text=str(value)
    )
    owner.entries[key] = (owner.entries[key][0] if key in owner.entries else made, made)
    return True


def _forget(findings: Findings, errors: Sequence[ErrorDetails]) -> bool:
    """Take out what is wrong; False when that is the whole file.

    List positions move when an item goes, so items go last to first.
    """
    document = findings.document
    paths = {_existing(document, error["loc"]) for error in errors}
    if () in paths:
        return False
    for error in errors:
        path = _existing(document, error["loc"])
        findings.spoil(path[:-1] if error["loc"][-1:] == ("[key]",) else path)
    for path in sorted(paths, key=_position, reverse=True):
        document.discard(path)
    return True


def _position(path: Path_) -> list[tuple[int, str]]:
    return [(step, "") if isinstance(step, int) else (-1, step) for step in path]
