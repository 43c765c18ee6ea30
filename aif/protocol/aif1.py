"""AIF1, the protected frame between AIMs on different devices: the one import for its users.

The parts, each one idea: ``numbers`` (names and limits), ``frame`` (layout, keys, AEAD, signature),
``window`` (replay), ``bundle``, ``watermark``, ``fragment`` (plaintexts), ``ledger`` (losses, checkpoints),
``events``, ``peer``, ``channel_sender`` and ``channel_receiver`` (the two ends). All are rules without I/O;
time is an argument.
"""

from aif.protocol.bundle import BundlePolicy, Bundler
from aif.protocol.channel_receiver import ChannelReceiver, ReceiverStatistics
from aif.protocol.channel_sender import ChannelSender
from aif.protocol.events import (
    AuthFailure,
    ChannelEvent,
    ChannelSilent,
    CloneSuspected,
    ControlReceived,
    LossReport,
)
from aif.protocol.frame import channel_id, ratchet, sender_key
from aif.protocol.numbers import HOST_LIMITS, MCU_LIMITS, AuthMode, Cause, ChannelLimits, ControlCode
from aif.protocol.peer import RosterSender
from aif.protocol.watermark import WatermarkSchedule

__all__ = [
    "HOST_LIMITS",
    "MCU_LIMITS",
    "AuthFailure",
    "AuthMode",
    "BundlePolicy",
    "Bundler",
    "Cause",
    "ChannelEvent",
    "ChannelLimits",
    "ChannelReceiver",
    "ChannelSender",
    "ChannelSilent",
    "CloneSuspected",
    "ControlCode",
    "ControlReceived",
    "LossReport",
    "ReceiverStatistics",
    "RosterSender",
    "WatermarkSchedule",
    "channel_id",
    "ratchet",
    "sender_key",
]
