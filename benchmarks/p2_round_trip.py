"""P2: round trip of one secured typed message through an echo, one in flight.

Decides the cells and the goals. In ``checkpoint`` mode a reply is used on its AEAD tag and its signature
comes with the next checkpoint: the longest wait for it is printed as ``signature_lag_ms``, beside the
``signed`` rows with a signature per message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.cell import ADAPTIVE, Broker, Cell
from benchmarks.harness import Round, Settings, Spread, available, run_all, spread
from benchmarks.p1_throughput import CLIENTS, MODES, raw
from benchmarks.report import Goal, Metric, judged, print_table, rows

FIGURE = "p50_us"
COLUMNS = ("p50_us", "p95_us", "p99_us", "cpu_us", "trips", "signature_lag_ms")
SIZE_BYTES = 100
PEERS = ("paho_plain", "paho_typed", "paho_waiting", "obvious", "gmqtt", "zenoh", "dora")
BUNDLES = (1, ADAPTIVE)
"""Without bundling, and the very default that P1 measures."""


def peer(contender: str, qos: int, broker: Broker = "tuned") -> Cell:
    return Cell(contender, SIZE_BYTES, qos=qos, broker=broker)


def ours(mode: str, bundle: int, qos: int, broker: Broker = "tuned", *, client: str = "aif_paho") -> Cell:
    return Cell(client, SIZE_BYTES, bundle, mode, qos, broker)


def all_ours(qos: int) -> list[Cell]:
    """Both clients, all modes, with and without bundling."""
    return [
        ours(mode, bundle, qos, client=client) for client in CLIENTS for mode in MODES for bundle in BUNDLES
    ]


def groups() -> list[list[Cell]]:
    """QoS 0, QoS 1, and the stock broker, each with its references."""
    stock = peer("paho_stock", 1, "stock")
    return [
        [
            *(peer(name, 0) for name in PEERS),
            peer("paho_tls", 0, "tls"),
            peer("zenoh_tls", 0),
            *all_ours(0),
        ],
        [
            *(peer(name, 1) for name in ("paho_plain", "paho_waiting", "obvious", "gmqtt")),
            stock,
            *all_ours(1),
        ],
        [
            stock,
            peer("paho_stock", 0, "stock"),
            peer("paho_plain", 1, "stock"),
            peer("paho_waiting", 1, "stock"),
            *(ours("checkpoint", 1, qos, "stock", client=client) for client in CLIENTS for qos in (0, 1)),
        ],
    ]


def goals(client: str = "aif_paho") -> list[Goal]:
    """The ratios that decide P2, with the default bundling and without any."""
    found = []
    for bundle, label in ((ADAPTIVE, "adaptive"), (1, "k1")):
        for mode in MODES:
            qos_0, qos_1 = (ours(mode, bundle, qos, client=client) for qos in (0, 1))
            wanted: list[tuple[str, Cell, Cell, float]] = [
                (f"{mode}_{label}_qos1_vs_paho_nodelay", qos_1, peer("paho_plain", 1), 0.8),
                (f"{mode}_{label}_qos1_vs_paho_stock", qos_1, peer("paho_stock", 1, "stock"), 1 / 150),
                (f"{mode}_{label}_qos0_vs_paho", qos_0, peer("paho_plain", 0), 0.6),
                (f"{mode}_{label}_qos0_vs_dora", qos_0, peer("dora", 0), 0.5),
                (f"{mode}_{label}_qos0_vs_zenoh", qos_0, peer("zenoh", 0), 0.0),
            ]
            found += [
                Goal(f"p2.{client}.{name}", FIGURE, cell, (rival,), value or None, "lower")
                for name, cell, rival, value in wanted
            ]
    return found


def tail(rounds: Sequence[Round], cell: Cell) -> Metric | None:
    """p99 over p50 of one cell."""
    found = [entry[cell]["p99_us"] / entry[cell]["p50_us"] for entry in rounds if cell in entry]
    if not found:
        return None
    name = f"p2.{cell.contender}.{cell.mode}_{_bundling(cell)}_qos{cell.qos}_p99_over_p50"
    return judged(name, Spread.of(found), "ratio", 2, "lower")


def _bundling(cell: Cell) -> str:
    return "adaptive" if cell.bundle == ADAPTIVE else "k1"


def measure(settings: Settings) -> tuple[list[Metric], dict[str, Any]]:
    """Run P2; its metrics and tables. Void cells are in ``tables["void"]``."""
    wanted, left_out = [], list[str]()
    for cells in groups():
        present, lines = available(cells)
        wanted.append(present)
        left_out += [line for line in lines if line not in left_out]
    by_group, void = run_all(settings, "ping", wanted)
    metrics = [
        metric
        for client in CLIENTS
        for goal in goals(client)
        for rounds in by_group
        if (metric := goal.metric(rounds)) is not None
    ]
    for qos in (0, 1):
        for cell in all_ours(qos):
            found = tail(by_group[qos], cell)
            metrics += [found] if found is not None else []
            lag = spread(by_group[qos], "signature_lag_ms", cell)
            if lag is not None and cell.mode == "checkpoint" and qos == 0:
                name = f"p2.{cell.contender}.checkpoint_{_bundling(cell)}_signature_lag"
                metrics.append(judged(name, lag, "ms", None, "lower"))
    tables: dict[str, Any] = {"left_out": left_out, "void": void}
    references = [peer("paho_plain", 0)], [peer("paho_plain", 1)], [peer("paho_stock", 1, "stock")]
    titles = (
        "QoS 0, ratio to paho_plain",
        "QoS 1, ratio to paho_plain",
        "stock broker, ratio to paho_stock at QoS 1",
    )
    for title, reference, rounds in zip(titles, references, by_group, strict=True):
        table = rows(rounds, FIGURE, reference, COLUMNS)
        print_table(f"P2, {SIZE_BYTES} B, {title}", table, COLUMNS)
        tables[f"p2 {title}"] = table
        tables[f"p2 {title}, rounds"] = raw(rounds)
    return metrics, tables
