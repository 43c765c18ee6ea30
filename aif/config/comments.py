"""A document's tree with its comments and blank lines attached to what they belong to.

Decides to which key or item a comment belongs: one at the end of a line to the last thing complete there,
one on lines of its own to what follows, or to the end of the block it is indented with. No comment is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from aif.config.document import Document
from aif.config.yaml_reader import ListNode, MapNode, Node, ScalarNode, descendants

HASH = "#"


@dataclass(slots=True)
class Branch:
    """A list or map; ``tail`` are comment lines after its last member."""

    is_list: bool
    flow: bool
    members: list[Member] = field(default_factory=list)
    tail: list[str] = field(default_factory=list)

    def get(self, key: str) -> Member | None:
        return next((member for member in self.members if member.key == key), None)

    @property
    def commented(self) -> bool:
        """Whether any comment is inside."""
        return bool(self.tail) or any(
            member.trailing
            or any(line for line in member.lead)
            or (isinstance(member.value, Branch) and member.value.commented)
            for member in self.members
        )


@dataclass(slots=True)
class Member:
    """One entry of a map, or (``key`` None) one item of a list.

    ``lead`` are the lines before it: comments, and empty text for a blank line. ``trailing`` is the comment
    at the end of its line.
    """

    key: str | None
    value: Branch | ScalarNode
    line: int = 0
    column: int = 0
    start: int = 0
    end: int = 0
    parent: Member | None = None
    holder: Branch | None = None
    lead: list[str] = field(default_factory=list)
    trailing: str = ""

    @property
    def is_block(self) -> bool:
        return isinstance(self.value, Branch) and not self.value.flow


@dataclass(slots=True)
class Commented:
    """The tree, and the comments before and after everything."""

    root: Branch
    head: list[str]
    tail: list[str]


@dataclass(frozen=True, slots=True)
class _Comment:
    line: int
    column: int
    start: int
    text: str
    alone: bool


def attach(document: Document) -> Commented:
    """The tree of a document with all its comments."""
    root = Branch(is_list=False, flow=document.root.flow)
    members: list[Member] = []
    _grow(document.root, root, None, members)
    members.sort(key=lambda member: (member.start, -member.end))
    made = Commented(root, [], [])
    leading: dict[int, list[_Comment]] = {}
    for comment in _comments(document):
        if not comment.alone:
            _trail(comment, members, made)
            continue
        following = next((m for m in members if m.start > comment.start), None)
        if following is members[0]:
            made.head.append(comment.text)
            continue
        owner = _enclosing(comment, members)
        if following is not None and (
            owner is None or owner.holder is following.holder or comment.column <= following.column
        ):
            leading.setdefault(id(following), []).append(comment)
        elif owner is not None and owner.holder is not None and owner.holder is not root:
            owner.holder.tail.append(comment.text)
        else:
            made.tail.append(comment.text)
    for member in members:
        _lead(document, member, leading.get(id(member), []))
    return made


def _grow(node: MapNode | ListNode, branch: Branch, parent: Member | None, members: list[Member]) -> None:
    entries: list[tuple[ScalarNode | None, Node]] = (
        list(node.entries.values()) if isinstance(node, MapNode) else [(None, item) for item in node.items]
    )
    for key, value in entries:
        first = key or value
        inside = isinstance(value, MapNode | ListNode)
        made = (
            Branch(is_list=isinstance(value, ListNode), flow=value.flow)
            if isinstance(value, MapNode | ListNode)
            else value
        )
        if not isinstance(made, Branch | ScalarNode):
            raise TypeError
        member = Member(
            key.text if key else None,
            made,
            first.line,
            node.column if key is None and not node.flow else first.column,
            first.start,
            max(value.end, first.end),
            parent,
            branch,
        )
        branch.members.append(member)
        members.append(member)
        if inside and isinstance(made, Branch) and isinstance(value, MapNode | ListNode):
            _grow(value, made, member, members)
            if not value.flow and made.members:
                member.end = made.members[-1].end


def _comments(document: Document) -> Iterator[_Comment]:
    """Every comment: a # outside all scalars, at the start of a line or after white space."""
    text = document.text
    spans = sorted(_covered(document))
    offset, at_span = 0, 0
    for number, line in enumerate(text.split("\n"), start=1):
        position = -1
        while (position := line.find(HASH, position + 1)) >= 0:
            start = offset + position
            while at_span < len(spans) and spans[at_span][1] <= start:
                at_span += 1
            inside = at_span < len(spans) and spans[at_span][0] <= start
            if not inside and (position == 0 or line[position - 1] in " \t"):
                before = line[:position].strip()
                yield _Comment(number, position + 1, start, line[position:].rstrip(), not before)
                break
        offset += len(line) + 1


def _covered(document: Document) -> Iterator[tuple[int, int]]:
    for node in descendants(document.root):
        if isinstance(node, ScalarNode):
            start = node.start
            if node.style in ("|", ">"):  # the indicator's own line may hold a comment
                start = document.text.find("\n", start) + 1 or node.end
            if start < node.end:
                yield start, node.end


def _trail(comment: _Comment, members: list[Member], made: Commented) -> None:
    here = [m for m in members if m.line == comment.line and m.start < comment.start]
    complete = [m for m in here if m.end <= comment.start and not m.is_block]
    opened = [m for m in here if m.end > comment.start]
    closed = [m for m in members if m.end <= comment.start and not m.is_block]
    if complete:
        owner = max(complete, key=lambda m: m.end)
    elif opened:
        owner = max(opened, key=lambda m: m.start)
    elif closed:
        owner = max(closed, key=lambda m: (m.end, -m.start))
    else:
        made.head.append(comment.text)
        return
    if owner.trailing:
        owner.lead.append(comment.text)
    else:
        owner.trailing = comment.text


def _enclosing(comment: _Comment, members: list[Member]) -> Member | None:
    """The deepest thing before the comment that is not indented further than it."""
    before = [member for member in members if member.start < comment.start]
    owner = before[-1] if before else None
    while owner is not None and (
        owner.column > comment.column or (owner.holder and owner.holder.flow and owner.parent)
    ):
        owner = owner.parent
    return owner


def _lead(document: Document, member: Member, comments: list[_Comment]) -> None:
    """The lines before a member, with single blank lines where there were blank lines."""
    lines: list[str] = []
    for line, text in [*((c.line, c.text) for c in comments), (member.line, "")]:
        above = document.lines[line - 2] if line >= 2 else "-"
        if not above.strip():
            lines.append("")
        if text:
            lines.append(text)
    member.lead = (
        [*lines, *member.lead]
        if lines != [""] or member.holder is None or not member.holder.flow
        else member.lead
    )
