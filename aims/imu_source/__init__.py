"""The ``IMUSource`` AIM: windows of six-axis motion from the device's inertial sensor."""
