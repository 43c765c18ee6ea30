"""What the Controller knows of devices: registry, admission, keys, and whether they answer."""
