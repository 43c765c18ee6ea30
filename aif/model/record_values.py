"""Values of structs and variants, as an AIM reads and writes them.

Decides: the class of struct values, and what may be passed in its place. Does not decide: the bytes
(``codec.py``).

Invariants: a `Record` is immutable and has exactly the members of its struct, in their order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, ClassVar, NamedTuple, Self

from aif.errors import InvalidRecord
from aif.model.tensors import MemberError, kind_of
from aif.model.type_tree import Struct


class Record(tuple[Any, ...]):
    """One struct value: immutable, with a field per member. Subclasses come from `record_class`.

    Members whose name starts with an underscore have no attribute; `_asdict` has them all.
    """

    __slots__ = ()
    _fields: ClassVar[tuple[str, ...]] = ()
    _take: ClassVar[Callable[[Any], tuple[Any, ...]]]

    def __new__(cls, /, **members: Any) -> Self:
        if len(members) == len(cls._fields):
            try:
                return tuple.__new__(cls, cls._take(members))
            except KeyError:
                pass
        raise InvalidRecord(_members_wrong(cls._fields, members))

    def _asdict(self) -> dict[str, Any]:
        return dict(zip(self._fields, self, strict=True))

    def _replace(self, /, **members: Any) -> Self:
        return type(self)(**{**self._asdict(), **members})

    def __getnewargs_ex__(self) -> tuple[tuple[()], dict[str, Any]]:
        return (), self._asdict()  # what copy and deepcopy construct from

    def __repr__(self) -> str:
        return f"Record({', '.join(f'{name}={value!r}' for name, value in self._asdict().items())})"


class Alternative(NamedTuple):
    """One variant value. Several empty alternatives are told apart by their tag, as in ``("2", None)``."""

    name: str
    value: Any


@functools.lru_cache(maxsize=4096)
def record_class(node: Struct) -> type[Record]:
    """The class whose instances are the values of ``node``."""
    names = tuple(member.name for member in node.members)
    fields = {name: property(itemgetter(i)) for i, name in enumerate(names) if not name.startswith("_")}
    own = {"__slots__": (), "_fields": names, "_take": staticmethod(_taker(names))}
    return type("Record", (Record,), own | fields)


@functools.lru_cache(maxsize=4096)
def _taker(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """Takes these members out of a mapping, in order: in one call, which for a single one gives no tuple."""
    return itemgetter(*names) if len(names) > 1 else lambda value: tuple([value[name] for name in names])


def member_reader(node: Struct) -> Callable[[Any], tuple[Any, ...]]:
    """A function that takes the members, in order, out of what an author may pass as a struct value."""
    own = record_class(node)
    names = own._fields
    take = _taker(names)

    def read(value: Any) -> tuple[Any, ...]:
        if type(value) is own:
            record: tuple[Any, ...] = value
            return record
        if type(value) is dict or isinstance(value, Mapping):  # the first is quick, the second thorough
            try:
                members: tuple[Any, ...] = take(value)
            except KeyError:
                members = ()
            if len(members) != len(names) or len(value) != len(names):
                raise MemberError(_members_wrong(names, value))
            return members
        if isinstance(value, Record) and value._fields == names:
            return value
        try:
            if names:
                return tuple([getattr(value, name) for name in names])
        except AttributeError:
            pass
        raise MemberError(
            f"a struct takes a mapping or an object with the members {', '.join(names)}, not {kind_of(value)}"
        )

    return read


def _members_wrong(names: Sequence[str], members: Mapping[Any, Any]) -> str:
    missing = [name for name in names if name not in members]
    unknown = [f"{name!r:.40}" for name in members if name not in names]
    said = [f"missing {', '.join(missing[:8])}"] if missing else []
    said += [f"unknown {', '.join(unknown[:8])}"] if unknown else []
    return f"the members are {', '.join(names)}; {'; '.join(said)}"
