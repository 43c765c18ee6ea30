"""Sizes, counts and lifetimes of the MPAI Store, each with its unit.

What is larger than a limit is refused before it is read whole. Lifetimes are those of the TUF roles:
the more often a role signs on its own, the shorter its signature lives.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

# --- lifetimes of signed metadata, counted from the moment of signing -------------------------------
ROOT_LIFETIME: Final = timedelta(days=365)
TARGETS_LIFETIME: Final = timedelta(days=90)
SNAPSHOT_LIFETIME: Final = timedelta(days=7)
TIMESTAMP_LIFETIME: Final = timedelta(days=1)

# --- roles ------------------------------------------------------------------------------------------
ROOT_KEYS: Final = 3
ROOT_THRESHOLD: Final = 2

BIN_STEPS: Final = ((300, 4), (5_000, 8), (50_000, 10))
"""(targets of one publisher, bits): from that many targets on they are spread over 2**bits hashed bins,
so that a refresh reads one small file instead of all of them (TAP 15)."""

# --- metadata ---------------------------------------------------------------------------------------
MAX_ROOT_ROTATIONS: Final = 64
"""new root versions followed in one refresh"""
MAX_DELEGATIONS: Final = 8
"""roles visited to find one target; targets, publisher and bin make three"""
MAX_ROOT_BYTES: Final = 64 * 1024
MAX_TIMESTAMP_BYTES: Final = 4 * 1024
MAX_SNAPSHOT_BYTES: Final = 1024 * 1024
MAX_TARGETS_BYTES: Final = 2 * 1024 * 1024
MAX_CUSTOM_BYTES: Final = 8 * 1024
"""release metadata of one target, as JSON"""
MAX_CUSTOM_DEPTH: Final = 6
MAX_COUNTER: Final = 2**32 - 1
"""the release counter is a uint32 in install tickets"""

# --- content ----------------------------------------------------------------------------------------
MAX_BLOB_BYTES: Final = 65 * 1024 * 1024
"""a model of 64 MiB and the tags of its chunks"""
MAX_PACKAGE_FILES: Final = 256
MAX_PACKAGE_DEPTH: Final = 8
"""folders above a file in a package"""
MAX_PACKAGE_PATH_CHARS: Final = 100
MAX_PACKAGE_FILE_BYTES: Final = 16 * 1024 * 1024
MAX_PACKAGE_BYTES: Final = 32 * 1024 * 1024

# --- transfer ---------------------------------------------------------------------------------------
CHUNK_BYTES: Final = 64 * 1024
MAX_RESUMES: Final = 8
"""times one call continues a download that was cut, as long as each try brought new bytes"""
CONNECT_TIMEOUT_S: Final = 5.0
READ_TIMEOUT_S: Final = 10.0
"""longest silence inside a transfer"""
MIN_RATE_BPS: Final = 8_000
"""bits per second below which a transfer is given up (slow retrieval, TUF §1.5.2)"""
RATE_GRACE_S: Final = 10.0
"""a transfer may be this slow for this long: slow links start slowly"""
MAX_CONNECTIONS: Final = 64
"""connections the server serves at a time; more are answered 503 and closed"""
MAX_REQUEST_TARGET_CHARS: Final = 512
