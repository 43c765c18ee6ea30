"""AIMs that a workflow can do without where there is no room for all: which go first, and who needs them.

Decides what is left out together; whether there is room is decided by the partitioner.

Source: this project's extension of the AIW metadata (``availability.optional``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from aif.model.aiw import AIWMetadata, Workflow


def steps(workflow: Workflow) -> tuple[frozenset[str], ...]:
    """Basic AIMs that are left out, step by step: nobody at first, then the first of ``optional``, and so on.

    An id of a composite AIM stands for all its parts.
    """
    found = [frozenset[str]()]
    for name in workflow.metadata.availability.optional:
        parts = {leaf.id for leaf in workflow.aims if leaf.id == name or leaf.id.startswith(f"{name}.")}
        found.append(found[-1] | parts)
    return tuple(dict.fromkeys(found))


def starving(aiw: AIWMetadata) -> Iterator[tuple[str, str]]:
    """Optional AIMs with a reader that would be left without them: (optional AIM, reader).

    A reader may go before the AIM that it reads from, but not after it.
    """
    optional: Sequence[str] = aiw.availability.optional
    for position, name in enumerate(optional):
        gone = {*optional[: position + 1]}
        readers = (c.destination for c in aiw.composition.channels if c.source.aim == name)
        for reader in dict.fromkeys(r.aim for r in readers if not r.at_boundary):
            if reader not in gone:
                yield name, reader
