"""An announcement with everything in it."""

from __future__ import annotations

from aif.model.inventory import DeviceClass, Sensor
from aif.protocol.announcement import AnnouncedUnit, Announcement

ANNOUNCEMENT = Announcement(
    DeviceClass.MCU, "B-L475E-IOT01A", "armv7e-m", "Zephyr", "0.1.0", 1, 65_536, 50_000, 655_360, 600_000,
    {"tflm": "0.dev20261023182759", "firmware": "1"}, 80e6, 60e6, 100.0, None,
    (AnnouncedUnit("internal_flash", 131_072, 100_000), AnnouncedUnit("spiffs", 4_194_304, 4_194_304)),
    (Sensor("imu", 1660.0), Sensor("temperature")), (Sensor("led", None, 3),), ("wifi", "ble"),
)  # fmt: skip
