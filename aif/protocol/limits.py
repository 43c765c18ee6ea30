"""Limits and defaults of the trust documents, each with its unit and its source.

Decides numbers only. Sources: the RFC or measurement named beside each constant; "chosen" marks a number
of this project that a deployment may want to know. Limits of AIF1 frames are in ``numbers.py``.
"""

from __future__ import annotations

from typing import Final

UINT16_MAX: Final = (1 << 16) - 1
UINT32_MAX: Final = (1 << 32) - 1
UINT63_MAX: Final = (1 << 63) - 1
"""Largest counter and time: fits a signed 64-bit column, such as SQLite's INTEGER."""

# --- CBOR -----------------------------------------------------------------------------------------
MAX_CBOR_DEPTH: Final = 16
"""Containers inside containers; no document of this project passes 8 (chosen)."""

# --- keys and hashes ------------------------------------------------------------------------------
ID_BYTES: Final = 16
"""Length of device, AIM instance, hardware class and channel ids (BLAKE2b-128)."""
HASH_BYTES: Final = 32
"""Length of SHA-256 and BLAKE2b-256 digests."""
KEY_BYTES: Final = 32
"""Length of Ed25519 and X25519 keys and of ChaCha20-Poly1305 keys (RFC 8032, 7748, 8439)."""
SIGNATURE_BYTES: Final = 64
"""Length of an Ed25519 signature (RFC 8032 §5.1.6)."""
TAG_BYTES: Final = 16
"""Length of a Poly1305 tag (RFC 8439 §2.5)."""
NONCE_BYTES: Final = 32
"""Length of attestation and enrolment nonces (EAT allows 8 to 64, RFC 9711 §4.1)."""
MAX_KID_BYTES: Final = 32
"""Longest COSE key identifier (chosen: a digest)."""

# --- wrap and grants ------------------------------------------------------------------------------
WRAP_OVERHEAD_BYTES: Final = KEY_BYTES + TAG_BYTES
MAX_ROSTER_ROWS: Final = 256
"""Senders per channel on a host; an MCU's device profile allows 16."""
MAX_GRANT_BYTES: Final = 32 * 1024
"""A grant with 256 signing rows is about 24 KiB."""
MAX_FRAME_COUNTER: Final = (1 << 48) - 1
"""Last value of the AIF1 frame counter."""
MAX_FRAME_BYTES: Final = 64 * 1024
"""Largest AIF1 frame a grant may allow."""

# --- attestation ----------------------------------------------------------------------------------
MAX_EVIDENCE_BYTES: Final = 4 * 1024
MAX_REQUEST_BYTES: Final = 128
MAX_RESULT_BYTES: Final = 512
MAX_COMPONENTS: Final = 32
"""Measured components per token; 32 of them reach the size cap of the evidence (chosen)."""
MAX_COMPONENT_TEXT: Final = 64
"""Characters of a component type, a component version or a policy id (chosen)."""
ATTESTATION_REQUEST_VALIDITY_S: Final = 10
ATTESTATION_RESULT_VALIDITY_S: Final = 5 * 60

# --- enrolment ------------------------------------------------------------------------------------
ENROLMENT_SECRET_BYTES: Final = 16
"""128 random bits: enough that the MAC leaks nothing worth guessing, so no PAKE is needed."""
ENROLMENT_WINDOW_S: Final = 15 * 60
ENROLMENT_MAX_WRONG_MACS: Final = 5
MAX_ENROLMENT_REQUEST_BYTES: Final = 4 * 1024
MAX_ENROLMENT_RESPONSE_BYTES: Final = 48 * 1024
MAX_CERTIFICATE_BYTES: Final = 3 * 1024
"""Largest DER certificate or signing request (chosen; P-256 leaves are below 1 KiB)."""
MAX_ROOT_METADATA_BYTES: Final = 16 * 1024
"""Largest TUF root accepted as an anchor (chosen; three Ed25519 keys and signatures take about 3 KiB)."""

# --- install ticket -------------------------------------------------------------------------------
MAX_TICKET_BYTES: Final = 512
"""A ticket is 238 B plus its slot name."""
MAX_MODEL_BYTES: Final = 64 * 1024 * 1024
"""Largest model a ticket may announce (chosen)."""
MIN_CHUNK_BYTES: Final = 1024
MAX_CHUNK_BYTES: Final = 16 * 1024
DEFAULT_CHUNK_BYTES: Final = 4 * 1024
MAX_HAND_OVER_BYTES: Final = 1024 * 1024
"""Largest document with content keys from a publisher to a site (chosen; a key takes about 80 B)."""

# --- names and topics -----------------------------------------------------------------------------
MAX_DEVICE_NAME: Final = 32
"""Characters of a device name; it is also the MQTT user and client id (23 characters are the least a
broker must allow, MQTT 3.1.1 §3.1.3.1; all brokers in use allow more)."""
MAX_TOPIC_LEVEL: Final = 64
"""Characters of one topic level (chosen; six levels stay far below MQTT's 65 535 bytes)."""
MAX_ID_TEXT: Final = 256
"""Characters of a text that is hashed to a 16-byte id (chosen)."""
