"""The canonical form of a file: key order, plain numbers, one spelling of channels; comments kept.

Decides layout only: loading the result gives the same model. What the author wrote on one line in braces
stays there while it fits and holds no comment. Formatting twice changes nothing.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final

from aif.config.codes import Code
from aif.config.comments import Branch, Commented, Member, attach
from aif.config.document import KINDS, Document, load_document, parse_document
from aif.config.fields import Table, inner, keys_of, quantity_of, table_of
from aif.config.findings import Findings, read_shape
from aif.config.quantities import convert
from aif.config.schema import FILES
from aif.config.yaml_reader import ScalarNode, resolve_plain
from aif.model.ports import BOUNDARY

WIDTH: Final = 110
INDENT: Final = "  "


def format_text(text: str, path: str) -> str:
    """The canonical form of a file's text.

    Raises:
        ConfigError: it is not a valid AIM, AIW or inventory file.
    """
    return format_document(parse_document(text, path))


def format_file(path: Path) -> tuple[str, str]:
    """The text of a file as it is, and in canonical form.

    Raises:
        ConfigError: it is not a valid AIM, AIW or inventory file.
    """
    document = load_document(path)
    return document.text, format_document(document)


def format_document(document: Document) -> str:
    """The canonical form of a document.

    Raises:
        ConfigError: it is not a valid AIM, AIW or inventory file.
    """
    findings = Findings(document)
    tree = attach(document)
    if document.kind not in KINDS:
        first = next(iter(document.root.entries), "")
        findings.add(
            Code.FILE,
            "this is no AIM, workflow or inventory file",
            (first,) if first else (),
            key=True,
            hint="one of the top keys must be " + ", ".join(f"{kind}:" for kind in KINDS),
        )
        findings.raise_errors()
    table = FILES[document.kind]
    read_shape(findings, table)
    findings.raise_errors()
    _without_topology(tree.root)
    _canonical(tree.root, table)
    return _written(tree)


def write_atomically(path: Path, text: str) -> None:
    """Replace a file's text in one step; its permissions stay."""
    target = path.resolve()
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(target.stat().st_mode & 0o7777 if target.exists() else 0o644)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


# --- content ---------------------------------------------------------------------------------------


def _canonical(branch: Branch, annotation: object) -> None:
    """Sort keys and turn quantities into plain numbers, all the way down."""
    table = table_of(annotation) if annotation is not None else None
    if table is not None and not branch.is_list:
        order = {key: position for position, key in enumerate(keys_of(table))}
        branch.members.sort(key=lambda member: order.get(member.key or "", len(order)))
    for position, member in enumerate(branch.members):
        below = (
            None if annotation is None else inner(annotation, position if member.key is None else member.key)
        )
        if isinstance(member.value, Branch):
            _canonical(member.value, below)
        elif isinstance(member.value.value, str) and (quantity := quantity_of(below)):
            number = convert(member.value.value, quantity.unit)
            member.value = _scalar(number)


def _scalar(value: str | float) -> ScalarNode:
    text = value if isinstance(value, str) else repr(value)
    return ScalarNode(0, 0, 0, 0, 0, value=value, text=text)


def _without_topology(root: Branch) -> None:
    """Move the rows of ``topology`` to the inputs (and outputs) they describe."""
    topology, aims = root.get("topology"), root.get("aims")
    if (
        topology is None
        or aims is None
        or not isinstance(topology.value, Branch)
        or not isinstance(aims.value, Branch)
    ):
        return
    kept = [row for row in topology.value.members if not _moved(root, aims.value, row)]
    topology.value.members = kept
    if not kept:
        root.members.remove(topology)
        comments = [topology.trailing] if topology.trailing else []
        aims.lead += [line for line in [*topology.lead, *comments, *topology.value.tail] if line]


def _moved(root: Branch, aims: Branch, row: Member) -> bool:
    if not isinstance(row.value, Branch):
        return False
    source, destination = _text(row.value, "output"), _text(row.value, "input")
    aim, _, port = destination.rpartition(".")
    if aim == BOUNDARY:
        outputs = _branch(root, "outputs", after="aims")
        target = outputs.get(port)
        composite = root.get("aim") is not None
        if target is not None and isinstance(target.value, Branch) and not target.value.is_list:
            _append(target.value, "from", source, row)
        elif not composite:
            _append(outputs, port, source, row)
        else:
            return False
        return True
    owner = next(
        (m.value for m in aims.members if isinstance(m.value, Branch) and _text(m.value, "id") == aim), None
    )
    if owner is None:
        return False
    _append(_branch(owner, "inputs", after="use"), port, source, row)
    return True


def _append(branch: Branch, key: str, source: str, row: Member) -> None:
    comments = [line for line in row.lead if line] + (row.value.tail if isinstance(row.value, Branch) else [])
    for inside in row.value.members if isinstance(row.value, Branch) else []:
        comments += [*inside.lead, inside.trailing]
    member = branch.get(key)
    if member is None:
        member = Member(key, _scalar(source), holder=branch)
        branch.members.append(member)
    elif isinstance(member.value, Branch):
        member.value.members.append(Member(None, _scalar(source)))
    else:
        items = [Member(None, member.value), Member(None, _scalar(source))]
        member.value = Branch(is_list=True, flow=True, members=items)
    member.lead += [comment for comment in comments if comment]
    if row.trailing and member.trailing:
        member.lead.append(row.trailing)
    else:
        member.trailing = member.trailing or row.trailing


def _branch(owner: Branch, key: str, *, after: str) -> Branch:
    """The map under ``key``, made when there is none."""
    member = owner.get(key)
    if member is None:
        made = Branch(is_list=False, flow=True)
        position = next((i for i, m in enumerate(owner.members) if m.key == after), len(owner.members) - 1)
        owner.members.insert(position + 1, Member(key, made, holder=owner))
        return made
    if not isinstance(member.value, Branch):
        raise TypeError(f"{key} is not a map")  # the shape was checked before
    return member.value


def _text(branch: Branch, key: str) -> str:
    member = branch.get(key)
    return member.value.text if member is not None and isinstance(member.value, ScalarNode) else ""


# --- layout ----------------------------------------------------------------------------------------


def _written(tree: Commented) -> str:
    lines = list(tree.head)
    lines += _block(tree.root, "")
    lines += tree.tail
    return "\n".join(lines) + "\n"


def _block(branch: Branch, indent: str) -> list[str]:
    lines: list[str] = []
    for position, member in enumerate(branch.members):
        made = _member(member, indent)
        lines += made if position else _trimmed(made)
    return lines + [f"{indent}{comment}" for comment in branch.tail]


def _trimmed(lines: list[str]) -> list[str]:
    first = next((position for position, line in enumerate(lines) if line), 0)
    return lines[first:]


def _member(member: Member, indent: str) -> list[str]:
    lines = [f"{indent}{line}" if line else "" for line in member.lead]
    head = f"{indent}- " if member.key is None else f"{indent}{_quoted(member.key, in_flow=True)}:"
    space = "" if member.key is None else " "
    comment = f"  {member.trailing}" if member.trailing else ""
    inline = _inline(member.value, len(head) + len(space))
    if inline is not None:
        return [*lines, f"{head}{space}{inline}{comment}"]
    if isinstance(member.value, ScalarNode):
        lines += [f"{indent}{member.trailing}"] if member.trailing else []
        mark, *text = _paragraph(str(member.value.value), indent + INDENT)
        return [*lines, f"{head}{space}{mark}", *text]
    if member.key is not None:
        return [*lines, f"{head}{comment}", *_block(member.value, indent + INDENT)]
    lines += [f"{indent}{member.trailing}"] if member.trailing else []
    inside = _block(member.value, indent + INDENT)
    while inside and inside[0].lstrip().startswith("#"):
        lines.append(indent + inside.pop(0).lstrip())
    return [*lines, head + inside[0][len(indent) + len(INDENT) :], *inside[1:]]


def _inline(value: Branch | ScalarNode, column: int) -> str | None:
    """The value on the rest of a line, or None when it needs lines of its own."""
    if isinstance(value, ScalarNode):
        text = _leaf(value, in_flow=False)
        content = value.value
        if isinstance(content, str) and _is_paragraph(content, column + len(text)):
            return None
        return text
    if not value.members and not value.tail:
        return "[]" if value.is_list else "{}"
    if not value.flow or value.commented:
        return None
    text = _flow(value)
    return text if column + len(text) <= WIDTH else None


def _flow(value: Branch | ScalarNode) -> str:
    if isinstance(value, ScalarNode):
        return _leaf(value, in_flow=True)
    if value.is_list:
        return "[" + ", ".join(_flow(member.value) for member in value.members) + "]"
    pairs = (f"{_quoted(member.key or '', in_flow=True)}: {_flow(member.value)}" for member in value.members)
    return "{" + ", ".join(pairs) + "}"


def _leaf(node: ScalarNode, *, in_flow: bool) -> str:
    if isinstance(node.value, str):
        return _quoted(node.value, in_flow=in_flow)
    return "null" if node.value is None else node.text


def _quoted(text: str, *, in_flow: bool) -> str:
    """Plain where YAML reads it back as this text, else in double quotes."""
    plain = (
        text != ""
        and text.isprintable()
        and text.strip() == text
        and isinstance(_resolved(text), str)
        and text[0] not in "-?:,[]{}#&*!|>'\"%@`"
        and not text.startswith(("---", "..."))
        and ": " not in text
        and " #" not in text
        and not text.endswith(":")
        and not (in_flow and any(mark in text for mark in ",[]{}:"))
    )
    return text if plain else '"' + "".join(map(_escaped, text)) + '"'


def _resolved(text: str) -> object:
    try:
        return resolve_plain(text)
    except ValueError:
        return None


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    short = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(character)
    code = ord(character)
    return short or (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    )


def _is_paragraph(text: str, end: int) -> bool:
    """Whether the text is better written as a block: several lines, or one that is too long."""
    body = text.removesuffix("\n")
    lines = body.split("\n")
    if not all(line.isprintable() and line.strip() == line and line for line in lines):
        return False
    return len(lines) > 1 or (end > WIDTH and " " in body and "  " not in body)


def _paragraph(text: str, indent: str) -> list[str]:
    """The block's mark, then its lines."""
    body = text.removesuffix("\n")
    chomp = "" if text.endswith("\n") else "-"
    lines = body.split("\n")
    if len(lines) > 1:
        return [f"|{chomp}", *(indent + line for line in lines)]
    folded = [""]
    for word in body.split(" "):
        if folded[-1] and len(indent) + len(folded[-1]) + 1 + len(word) > WIDTH:
            folded.append(word)
        else:
            folded[-1] = f"{folded[-1]} {word}".strip()
    return [f">{chomp}", *(indent + line for line in folded)]


__all__ = ["Table", "format_document", "format_file", "format_text", "write_atomically"]
