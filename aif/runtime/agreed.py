"""What a device and its Controller both count on in their talk; nothing here is sent.

The layouts of their messages are in ``aif.protocol``.
"""

from __future__ import annotations

CONTROLLER_SILENCE_S = 6.0
"""Without a sealed word from the Controller for this long, the device says Hello again."""

CONTROL_QOS = 0
"""Control messages carry whole states that are repeated, and counters show what is lost: QoS 1 buys nothing
here, and costs a delayed acknowledgement (40 ms) at brokers without TCP_NODELAY."""

CLOCK_SKEW_WARNING_S = 2.0
"""A difference to the Controller's clock that is worth a word; it is repeated when it has grown this much."""
