"""One configuration file: its text, its tree, and where each value is written.

Decides what is a readable file (size, UTF-8, a map at the top) and how a path of keys becomes
file:line:column. How YAML is read is decided by ``yaml_reader.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from aif.config.codes import Code
from aif.config.yaml_reader import LINE_BREAK, MAX_SHOWN, ListNode, MapNode, Node, ScalarNode, read_yaml
from aif.errors import ConfigError, Diagnostic, SourceLocation

MAX_DOCUMENT_BYTES: Final = 1 << 20
KINDS: Final = ("aim", "aiw", "inventory")
"""The top keys that tell the kinds of files apart."""

Path_ = tuple[str | int, ...]
"""Keys and list positions from the top of a document, such as ``("aims", 2, "use")``."""


@dataclass(slots=True)
class Document:
    """One file's text and its tree."""

    path: str
    text: str
    root: MapNode
    lines: list[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.lines = self.text.split(LINE_BREAK)

    @property
    def kind(self) -> str:
        """``aim``, ``aiw`` or ``inventory``: the top key that names the kind; empty when none does."""
        return next((kind for kind in KINDS if kind in self.root.entries), "")

    def plain(self) -> dict[str, object]:
        """The tree as dictionaries, lists and scalars."""
        return {key: _plain(value) for key, (_, value) in self.root.entries.items()}

    def find(self, path: Path_) -> tuple[Node, ScalarNode | None, bool]:
        """The value at ``path`` or the deepest on the way there, its key, and whether all of it exists."""
        node: Node = self.root
        key: ScalarNode | None = None
        for step in path:
            if isinstance(node, MapNode) and isinstance(step, str) and step in node.entries:
                key, node = node.entries[step]
            elif isinstance(node, ListNode) and isinstance(step, int) and step < len(node.items):
                key, node = None, node.items[step]
            else:
                return node, key, False
        return node, key, True

    def location(self, path: Path_, *, key: bool = False) -> SourceLocation:
        """Where ``path`` is written; the key itself on request, the owner's name where it is not written."""
        node, name, exists = self.find(path)
        if name is not None and (key or not exists or not isinstance(node, ScalarNode)):
            return self.place(name)
        if isinstance(node, MapNode) and "id" in node.entries:
            return self.place(node.entries["id"][1])
        if isinstance(node, MapNode) and node.entries and not node.flow:
            return self.place(next(iter(node.entries.values()))[0])
        return self.place(node)

    def place(self, node: Node) -> SourceLocation:
        text = self.lines[node.line - 1] if node.line <= len(self.lines) else ""
        length = node.end - node.start if node.end_line == node.line else len(text) - node.column + 1
        if not isinstance(node, ScalarNode):
            length = 1
        length = max(1, min(length, len(text) - node.column + 1))
        shown = text if len(text) <= MAX_SHOWN else ""
        return SourceLocation(self.path, node.line, node.column, length, shown)

    def discard(self, path: Path_) -> None:
        """Forget the value at ``path``, so that the rest can still be checked."""
        owner, _, exists = self.find(path[:-1])
        last = path[-1]
        if exists and isinstance(owner, MapNode) and isinstance(last, str):
            owner.entries.pop(last, None)
        elif exists and isinstance(owner, ListNode) and isinstance(last, int) and last < len(owner.items):
            del owner.items[last]


def _plain(node: Node) -> object:
    if isinstance(node, MapNode):
        return {key: _plain(value) for key, (_, value) in node.entries.items()}
    if isinstance(node, ListNode):
        return [_plain(item) for item in node.items]
    return node.value if isinstance(node, ScalarNode) else None


def load_document(path: Path) -> Document:
    """Read a file.

    Raises:
        ConfigError: it cannot be read, is too large, is not UTF-8 or is not acceptable YAML.
    """
    shown = path.as_posix()
    try:
        with path.open("rb") as file:
            data = file.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as reason:
        problem = reason.strerror or str(reason)
        raise refusal(Code.FILE, f"cannot read {shown}: {problem}", SourceLocation(shown, 1, 1)) from reason
    if len(data) > MAX_DOCUMENT_BYTES:
        raise refusal(
            Code.LIMIT, f"the file is larger than {MAX_DOCUMENT_BYTES:,} B", SourceLocation(shown, 1, 1)
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        line = data.count(b"\n", 0, reason.start) + 1
        column = reason.start - data.rfind(b"\n", 0, reason.start)
        raise refusal(
            Code.SYNTAX,
            "the file is not UTF-8 text",
            SourceLocation(shown, line, column),
            hint="save it as UTF-8",
        ) from reason
    return parse_document(text, shown)


def parse_document(text: str, path: str) -> Document:
    """Read YAML ``text``; ``path`` is only shown.

    Raises:
        ConfigError: the text is too large or is not acceptable YAML.
    """
    if len(text) > MAX_DOCUMENT_BYTES:
        raise refusal(
            Code.LIMIT,
            f"the text is longer than {MAX_DOCUMENT_BYTES:,} characters",
            SourceLocation(path, 1, 1),
        )
    text = text.replace("\r\n", LINE_BREAK).replace("\r", LINE_BREAK)
    root = read_yaml(text, path)
    if not isinstance(root, MapNode):
        raise refusal(
            Code.FILE,
            "the file holds no keys" if root is None else "the file must be a map of keys",
            SourceLocation(path, 1, 1, 1, text.split(LINE_BREAK, 1)[0]),
            hint="start with schema: 1 and one of " + ", ".join(f"{kind}:" for kind in KINDS),
        )
    return Document(path, text, root)


def refusal(code: Code, message: str, at: SourceLocation, *, hint: str = "", label: str = "") -> ConfigError:
    return ConfigError([Diagnostic(code, message, at, label=label, hint=hint)])
