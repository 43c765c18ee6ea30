"""P1: signed and encrypted typed throughput, port to port through Mosquitto, against what people use today.

Decides the cells and the goals. Sizes are rounds of their own, each with its references; K is the
number of messages of a bundle, and K=0 the framework's default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks.cell import ADAPTIVE, Cell
from benchmarks.contenders.aif_port import policy_of
from benchmarks.harness import Round, Settings, Spread, available, run_all
from benchmarks.report import Goal, Metric, judged, print_table, rows

FIGURE = "messages_per_s"
COLUMNS = ("messages_per_s", "cpu_us", "sender_cpu_us", "receiver_cpu_us", "broker_cpu_us")
MODES = ("aead", "signed", "checkpoint")
CLIENTS = ("aif_paho", "aif_fast")
"""The framework over its default client, and over the one that needs no thread."""
UNBUNDLED_OVERHEAD_BYTES = 26
"""Goal for what protection adds to an unbundled message: header 10, tag 16."""

PEERS = (
    "paho_plain", "paho_typed", "paho_tls", "obvious", "gmqtt", "zenoh", "zenoh_typed", "zenoh_tls", "dora",
)  # fmt: skip


def peer(contender: str, size_bytes: int, bundle: int = 1) -> Cell:
    broker = "tls" if contender == "paho_tls" else "tuned"
    return Cell(contender, size_bytes, bundle, broker="tls" if broker == "tls" else "tuned")


def ours(mode: str, size_bytes: int, bundle: int, client: str = "aif_paho") -> Cell:
    return Cell(client, size_bytes, bundle, mode)


BUNDLES = {100: (1, 16, 64, 256, ADAPTIVE), 1_024: (1, 16, 31, 62, ADAPTIVE), 16_384: (1, 3, ADAPTIVE)}
"""K by size. A frame of 64 KiB holds 62 messages of 1 KiB and 3 of 16 KiB; 32 KiB, the default, holds 31."""


def cells_of(size_bytes: int, *, full: bool) -> list[Cell]:
    """All rows of one message size; without ``full`` larger sizes leave out rows that decide nothing."""
    bundles = BUNDLES[size_bytes]
    if not full:
        bundles = tuple(bundle for bundle in bundles if bundle != 16)
    peers = PEERS if full or size_bytes == 100 else ("paho_plain", "paho_tls", "zenoh", "dora")
    return [
        *(peer(name, size_bytes) for name in peers),
        *(peer("paho_bundled", size_bytes, bundle) for bundle in bundles if bundle > 1),
        *(
            ours(mode, size_bytes, bundle, client)
            for client in CLIENTS
            for mode in MODES
            for bundle in bundles
        ),
    ]


def goals(client: str = "aif_paho") -> list[Goal]:
    """The ratios that decide P1."""

    def goal(name: str, cell: Cell, references: Sequence[Cell], value: float | None) -> Goal:
        return Goal(
            f"p1.{client}.{name}", FIGURE, replace(cell, contender=client), tuple(references), value, "higher"
        )

    paho = [peer("paho_plain", 100), peer("paho_typed", 100)]
    zenoh = [peer("zenoh", 100), peer("zenoh_typed", 100)]
    signed_256, signed_64 = ours("signed", 100, 256), ours("signed", 100, 64)
    adaptive = ours("signed", 100, ADAPTIVE)
    kib_paho = [peer("paho_plain", 1_024)]
    aead_1 = ours("aead", 100, 1)

    def cost(name: str, cell: Cell) -> Goal:
        own = replace(cell, contender=client)
        return Goal(f"p1.{client}.{name}_100B_cpu_vs_paho", "cpu_us", own, tuple(paho), None, "lower")

    return [
        *(
            cost(*row)
            for row in (("signed_k256", signed_256), ("signed_adaptive", adaptive), ("aead_k1", aead_1))
        ),
        goal("signed_k256_100B_vs_paho", signed_256, paho, 25),
        goal("signed_k256_100B_vs_zenoh", signed_256, zenoh, 2.5),
        goal("signed_adaptive_100B_vs_paho", adaptive, paho, 12),
        goal("signed_adaptive_100B_vs_zenoh", adaptive, zenoh, 1.2),
        goal("signed_k64_100B_vs_paho", signed_64, paho, 12),
        goal("signed_k256_100B_vs_bundled_paho", signed_256, [peer("paho_bundled", 100, 256)], 0.7),
        goal("signed_k64_100B_vs_bundled_paho", signed_64, [peer("paho_bundled", 100, 64)], 0.5),
        goal("signed_k256_100B_vs_obvious", signed_256, [peer("obvious", 100)], 100),
        goal("aead_k1_100B_vs_paho", aead_1, paho, 2),
        goal("checkpoint_k1_100B_vs_paho", ours("checkpoint", 100, 1), paho, 2),
        goal("checkpoint_k256_100B_vs_paho", ours("checkpoint", 100, 256), paho, None),
        goal("checkpoint_adaptive_100B_vs_paho", ours("checkpoint", 100, ADAPTIVE), paho, None),
        goal("signed_k256_100B_vs_paho_tls", signed_256, [peer("paho_tls", 100)], None),
        goal("signed_k256_100B_vs_zenoh_tls", signed_256, [peer("zenoh_tls", 100)], None),
        goal("signed_k256_100B_vs_dora", signed_256, [peer("dora", 100)], None),
        goal("signed_adaptive_1KiB_vs_paho", ours("signed", 1_024, ADAPTIVE), kib_paho, 7),
        goal(
            "signed_k31_1KiB_vs_bundled_paho",
            ours("signed", 1_024, 31),
            [peer("paho_bundled", 1_024, 31)],
            0.5,
        ),
        goal(
            "signed_k62_1KiB_vs_bundled_paho",
            ours("signed", 1_024, 62),
            [peer("paho_bundled", 1_024, 62)],
            0.7,
        ),
        goal(
            "signed_adaptive_16KiB_vs_paho",
            ours("signed", 16_384, ADAPTIVE),
            [peer("paho_plain", 16_384)],
            None,
        ),
    ]


def overhead_bytes() -> Metric:
    """What sealing adds to one unbundled message, taken from a real frame."""
    from aif.protocol.aif1 import AuthMode, ChannelSender

    payload = bytes(100)
    frame = ChannelSender(bytes(16), 1, 1, bytes(32), AuthMode.AEAD).seal(payload)
    added = float(len(frame) - len(payload))
    return judged(
        "p1.overhead_unbundled", Spread(added, added, added), "B", UNBUNDLED_OVERHEAD_BYTES, "lower"
    )


def measure(
    settings: Settings, *, full: bool = False, sizes: Sequence[int] = tuple(BUNDLES)
) -> tuple[list[Metric], dict[str, Any]]:
    """Run P1; its metrics, and its tables by size. Void cells are in ``tables["void"]``."""
    groups, left_out = [], list[str]()
    for size_bytes in sizes:
        cells, lines = available(cells_of(size_bytes, full=full))
        groups.append(cells)
        left_out += [line for line in lines if line not in left_out]
    by_size, void = run_all(settings, "stream", groups)
    metrics = [
        metric
        for client in CLIENTS
        for goal in goals(client)
        for rounds in by_size
        if (metric := goal.metric(rounds)) is not None
    ]
    tables: dict[str, Any] = {"left_out": left_out, "void": void, "bundle_policies": _policies()}
    for size_bytes, rounds in zip(sizes, by_size, strict=True):
        table = rows(rounds, FIGURE, [peer("paho_plain", size_bytes)], COLUMNS)
        print_table(f"P1, {size_bytes} B, ratio to paho_plain", table, COLUMNS)
        tables[f"p1_{size_bytes}B"] = table
        tables[f"p1_{size_bytes}B_rounds"] = raw(rounds)
    return [*metrics, overhead_bytes()], tables


def raw(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """Every round's figures, for those who want other statistics."""
    return [{cell.name: figures for cell, figures in entry.items()} for entry in rounds]


def _policies() -> dict[str, str]:
    return {
        str(bundle) if bundle else "adaptive": str(policy_of(bundle)) for bundle in (ADAPTIVE, 1, 64, 256)
    }
