"""Moving bytes between processes: the only package with sockets, and it does not know what a message means.

Import :mod:`aif.transport.base` for the contract, ``.mqtt`` for a real broker, ``.memory`` for one process
with faults on demand and ``.embedded_broker`` for a broker of one's own on loopback.
"""
