"""A document's tree with its comments and blank lines attached to what they belong to.

Decides to which key or item a comment belongs: one at the end of a line to the last thing complete there,
one on lines of its own to what follows, or to the end of the block it is indented with. No comment is lost.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping
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
    starts = [member.start for member in members]
    by_line: defaultdict[int, list[Member]] = defaultdict(list)
    for member in members:
        by_line[member.line].append(member)
    head: list[_Comment] = []
    leading: dict[int, list[_Comment]] = {}
    for comment in _comments(document):
        next_one = bisect_right(starts, comment.start)
        before = members[next_one - 1] if next_one else None
        following = members[next_one] if next_one < len(members) else None
        if not comment.alone:
            _trail(comment, before, by_line, made)
            continue
        if before is None:
            head.append(comment)
            continue
        owner = _enclosing(comment, before)
        if following is not None and (
            owner is None or owner.holder is following.holder or comment.column <= following.column
        ):
            leading.setdefault(id(following), []).append(comment)
        elif owner is not None and owner.holder is not None and owner.holder is not root:
            owner.holder.tail.append(comment.text)
        else:
            made.tail.append(comment.text)
    for position, member in enumerate(members):
        lines = _spaced(document, leading.get(id(member), []), member.line)
        if position == 0:
            made.head += [line for line in _spaced(document, head, member.line) if line or head]
        elif lines != [""] or not (member.holder and member.holder.flow):
            member.lead = [*lines, *member.lead]
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


def _trail(
    comment: _Comment, before: Member | None, by_line: Mapping[int, list[Member]], made: Commented
) -> None:
    """Give a comment at the end of a line to the last thing that is complete there, or else opened there."""
    here = [member for member in by_line.get(comment.line, ()) if member.start < comment.start]
    complete = [member for member in here if member.end <= comment.start and not member.is_block]
    opened = [member for member in here if member.end > comment.start]
    if complete:
        owner = max(complete, key=lambda member: member.end)
    elif opened:
        owner = max(opened, key=lambda member: member.start)
    elif before is not None:  # behind a closing bracket, or a text of several lines
        owner = before
        while owner.parent is not None and not owner.parent.is_block and owner.parent.end <= comment.start:
            owner = owner.parent
    else:
        made.head.append(comment.text)
        return
    if owner.trailing:
        owner.lead.append(comment.text)
    else:
        owner.trailing = comment.text


def _enclosing(comment: _Comment, before: Member) -> Member | None:
    """The deepest thing before the comment that is not indented further than it."""
    owner: Member | None = before
    while owner is not None and (
        owner.column > comment.column or (owner.holder is not None and owner.holder.flow and owner.parent)
    ):
        owner = owner.parent
    return owner


def _spaced(document: Document, comments: list[_Comment], until: int) -> list[str]:
    """Comments as lines, one blank line where there were any, up to the line ``until``."""
    lines: list[str] = []
    for line, text in [*((comment.line, comment.text) for comment in comments), (until, "")]:
        above = document.lines[line - 2] if line >= 2 else "-"
        lines += [""] * (not above.strip()) + [text] * bool(text)
    return lines
