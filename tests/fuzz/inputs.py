"""Inputs for decoders: noise, damaged bytes, damaged text and damaged trees; all drawn from a given source.

Decides what an input looks like, not what a decoder does with it. Every function is deterministic in ``rng``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final

MAX_NOISE_BYTES: Final = 96
MAX_INPUT_BYTES: Final = 64 * 1024
"""Damage may repeat parts of an input; it is cut here, so that a run's time follows from its count."""

EDGES: Final = tuple(
    value.to_bytes(width, order)
    for width, values in {
        1: (0, 1, 0x17, 0x18, 0x1F, 0x7F, 0x80, 0xFF),
        2: (0, 1, 0xFF, 0x7FFF, 0x8000, 0xFFFF),
        4: (0, 1, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF),
        6: (0, (1 << 47) - 1, (1 << 48) - 1),
        8: (1, (1 << 63) - 1, (1 << 63), (1 << 64) - 1),
    }.items()
    for value in values
    for order in ("big", "little")
)
"""Where lengths, counts, counters and CBOR heads change their meaning."""

LEAVES: Final[tuple[object, ...]] = (
    None, True, False, 0, 1, -1, 23, 24, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53,
    2**63 - 1, 2**63, 2**64 - 1, -(2**63), 0.0, -0.0, 0.5, 1e308, 5e-324, b"", b"\0", bytes(16), bytes(32),
    b"\xff" * 32, bytes(64), bytes(300), "", "a", "A", "0", "\0", "é", "a/b", "..", "x" * 65, "x" * 300,
    [], [0], [[]], {}, {0: 0}, {"a": "b"},
)  # fmt: skip
"""Values at the edges of what documents hold."""

JSON_LEAVES: Final = tuple(leaf for leaf in LEAVES if not isinstance(leaf, bytes) and leaf != {0: 0})


def noise(rng: Random, longest: int = MAX_NOISE_BYTES) -> bytes:
    """Random bytes of any length up to ``longest``, most of them short."""
    return rng.randbytes(int(rng.random() ** 2 * (longest + 1)))


def damaged(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """A valid input with one to four changes."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        _damage(rng, data, seeds)
    return bytes(data[:MAX_INPUT_BYTES])


def _damage(rng: Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    match rng.randrange(8):
        case 0 | 1 if at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        case 2:
            data[at : at + rng.choice((0, 1, 2, 8))] = rng.choice(EDGES)
        case 3:
            del data[at:]
        case 4:
            del data[at : at + rng.randrange(1, 17)]
        case 5:
            data[at:at] = data[at : at + rng.randrange(1, 65)]
        case 6:
            other = rng.choice(seeds)
            data[at:] = other[rng.randrange(len(other) + 1) :]
        case _:
            data[at:at] = noise(rng, 16)


def damaged_text(rng: Random, seeds: Sequence[str], words: Sequence[str]) -> str:
    """A valid text with one to four changes, made of characters and of the words of its language."""
    text = rng.choice(seeds)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(text) + 1)
        match rng.randrange(6):
            case 0:
                text = text[:at] + text[at + rng.randrange(1, 13) :]
            case 1:
                text = text[:at] + rng.choice(words) + text[at:]
            case 2:
                text = text[:at] + rng.choice(words) + text[at + rng.randrange(13) :]
            case 3:
                text = text[:at] + chr(_code_point(rng)) + text[at:]
            case 4:
                text = text[:at] + text[at : at + rng.randrange(1, 65)] * 2 + text[at:]
            case _:
                lines = text.split("\n")
                here, there = rng.randrange(len(lines)), rng.randrange(len(lines))
                lines[here], lines[there] = lines[there], lines[here]
                text = "\n".join(lines)
    return text[:MAX_INPUT_BYTES]


def _code_point(rng: Random) -> int:
    """Any character but half a surrogate pair, which no decoded text holds."""
    point = rng.choice(
        (rng.randrange(0x20), rng.randrange(0x80), rng.randrange(0x800), rng.randrange(0x11_0000))
    )
    return point if not 0xD800 <= point < 0xE000 else 0xFFFD


def damaged_tree(rng: Random, tree: object, leaves: Sequence[object] = LEAVES) -> object:
    """A copy of nested lists and mappings with one to three changes of values, keys or shape."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        tree = _change(rng, tree, leaves)
    return tree


def _change(rng: Random, tree: object, leaves: Sequence[object]) -> object:
    if isinstance(tree, dict) and tree and rng.random() < 0.85:
        copy = dict(tree)
        key = rng.choice(list(copy))
        match rng.randrange(8):
            case 0:
                del copy[key]
            case 1:
                copy[_new_key(rng, key)] = rng.choice(leaves)
            case _:
                copy[key] = _change(rng, copy[key], leaves)
        return copy
    if isinstance(tree, list) and tree and rng.random() < 0.85:
        items = list(tree)
        at = rng.randrange(len(items))
        match rng.randrange(8):
            case 0:
                del items[at]
            case 1:
                items.insert(at, items[at])
            case 2:
                items.insert(at, rng.choice(leaves))
            case _:
                items[at] = _change(rng, items[at], leaves)
        return items
    return _neighbour(rng, tree) if rng.random() < 0.5 else rng.choice(leaves)


def _new_key(rng: Random, like: object) -> object:
    return rng.choice((-1, 3, 99, 2**32)) if isinstance(like, int) else rng.choice(("", "x", "_type", "é"))


def _neighbour(rng: Random, leaf: object) -> object:
    """A value of the same type, close to the old one."""
    match leaf:
        case bool():
            return not leaf
        case int():
            return leaf + rng.choice((-1, 1, 256, 1 << 32))
        case float():
            return leaf * rng.choice((-1, 0.5, 2))
        case bytes():
            return damaged(rng, (leaf,))
        case str():
            return damaged_text(rng, (leaf,), ("/", ".", ":", "+", "#", " ", "0"))
    return leaf


def as_bytes(craft: Callable[[Random], str]) -> Callable[[Random], bytes]:
    """Inputs of text decoders travel as UTF-8."""
    return lambda rng: craft(rng).encode()
