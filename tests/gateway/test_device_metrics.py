"""Which figures of a device are believed."""

from __future__ import annotations

from aif.gateway.device_metrics import read_metrics


def test_what_a_sender_counted_stands_with_its_channel() -> None:
    read = read_metrics(
        {
            "channels": {"a.out -> b.in": {"records": 5, "lost": 2, "causes": {"frame.tag": 1}}},
            "sending": {"a.out -> b.in": {"frame.tag": 1}, "b.out -> c.in": {"grant.exhausted": 3}},
            "control": {"grant.time": 4, "nonsense": "many"},
        }
    )
    assert {name: (seen.records, dict(seen.troubles)) for name, seen in read.channels.items()} == {
        "a.out -> b.in": (5, {"lost": 2, "frame.tag": 2}), "b.out -> c.in": (0, {"grant.exhausted": 3}),
    }  # fmt: skip
    assert read.control == {"grant.time": 4}
