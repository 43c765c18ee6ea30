"""Sans-I/O rules: bytes in, verified values or an exception out; no clock, randomness, socket or file."""
