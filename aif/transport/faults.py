"""What can go wrong between a broker and a receiver, as rules for the memory broker.

Decides nothing by itself: each rule is a function from one delivery to any number of deliveries and draws
from the random source it was given, so a run repeats exactly. Write a function of the same shape to forge
or edit messages.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from aif.errors import LocalProtocolError
from aif.transport.base import Received


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message on its way to one receiver, ``delay_s`` seconds of loop time from now."""

    sender: str
    receiver: str
    message: Received
    delay_s: float = 0.0


Fault = Callable[[Delivery], Iterable[Delivery]]


def drop(share: float, rng: random.Random) -> Fault:
    """Lose a share (0 to 1) of the deliveries, at QoS 1 too: brokers with full queues do that silently."""
    _check_share(share)
    return lambda delivery: () if rng.random() < share else (delivery,)


def duplicate(share: float, rng: random.Random) -> Fault:
    """Deliver a share (0 to 1) twice; at QoS 1 the copy carries the duplicate flag [MQTT-3.3.1-1]."""
    _check_share(share)

    def rule(delivery: Delivery) -> Iterable[Delivery]:
        yield delivery
        if rng.random() < share:
            again = delivery.message._replace(duplicate=delivery.message.qos > 0)
            yield replace(delivery, message=again)

    return rule


def delay(share: float, longest_s: float, rng: random.Random) -> Fault:
    """Hold a share (0 to 1) back for up to ``longest_s`` seconds, so that later messages overtake."""
    _check_share(share)
    if longest_s < 0:
        raise LocalProtocolError(f"a delay of {longest_s} s is not possible")

    def rule(delivery: Delivery) -> Iterable[Delivery]:
        held = rng.random() < share
        yield replace(delivery, delay_s=delivery.delay_s + rng.random() * longest_s) if held else delivery

    return rule


def _check_share(share: float) -> None:
    if not 0.0 <= share <= 1.0:
        raise LocalProtocolError(f"a share of {share} is not between 0 and 1")
