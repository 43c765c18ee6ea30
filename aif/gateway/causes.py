"""What each counter of a channel means, in words for whoever watches a site.

Decides the words only; which counters there are is decided in ``aif.protocol.numbers``. A name that is not
known here (another version's) is shown as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from aif.protocol.numbers import Cause

LOST: Final = "lost"
"""The counter of messages that never came; the others count frames."""

MEANS: Final[Mapping[str, str]] = {
    Cause.FRAME_SHORT: "too short to be a frame",
    Cause.FRAME_SIZE: "longer than the channel allows",
    Cause.FRAME_VERSION: "of another version of AIF1",
    Cause.FRAME_TYPE: "of a type that is reserved or malformed",
    Cause.FRAME_MODE: "of a type that the channel does not allow, such as unsigned ones",
    Cause.FRAME_EPOCH: "under keys that are over or have not begun, as usual while AIMs move",
    Cause.FRAME_SENDER: "from a sender without a grant for the channel, or from one that has moved away",
    Cause.FRAME_TAG: "not sealed with the channel's key: forged, damaged or put on another channel",
    Cause.FRAME_SIGNATURE: "not signed by their sender",
    Cause.FRAME_RETAINED: "kept by the broker for later, which no frame asks for",
    Cause.DUP_REDELIVERY: "delivered again by the broker, and dropped",
    Cause.REPLAY_WINDOW: "replayed: their numbers were used by others",
    Cause.REPLAY_STALE: "older than what is remembered: late or replayed",
    Cause.BUNDLE_MALFORMED: "bundles whose lengths contradict themselves",
    Cause.FRAGMENT_ORDER: "parts out of order",
    Cause.FRAGMENT_SIZE: "parts of a message that is too long, or of wrong length",
    Cause.FRAGMENT_TIMEOUT: "parts of a message whose other parts did not come",
    Cause.LOSS_GAP: "gaps: later messages came, these did not",
    Cause.LOSS_TAIL: "ends that did not come: the sender said that it had sent more",
    Cause.CHANNEL_SILENT: "times without a word for longer than the channel allows",
    Cause.AUTH_UNVERIFIED: "stretches that no signed watermark vouched for",
    Cause.AUTH_MISMATCH: "stretches that a signed watermark contradicts",
    Cause.GRANT_SIGNATURE: "grants that the Controller did not sign",
    Cause.GRANT_RECIPIENT: "grants for another device or session",
    Cause.GRANT_SERIAL: "grants that came twice",
    Cause.GRANT_TIME: "grants outside their time; compare the clocks",
    Cause.GRANT_MAPPING: "grants of an earlier mapping",
    Cause.GATE_STAMP: "said outside a session without the stamp of device and site: of strangers",
    Cause.GATE_RATE: "said outside a session faster than such words are looked at",
    Cause.GRANT_EXHAUSTED: "messages not sent: the grant is used up and no new one has come",
}


def in_words(counts: Mapping[str, int]) -> str:
    """Counters above 0 with what they count: ``17 under keys that are over … (frame.epoch)``."""
    return "; ".join(_told(cause, count) for cause, count in counts.items() if count)


def _told(cause: str, count: int) -> str:
    if cause == LOST:
        return f"{count:,} lost"
    means = MEANS.get(cause)
    return f"{count:,} {means} ({cause})" if means else f"{count:,} {cause}"
