"""What a runtime measures of itself: a manifest of its own source files.

The manifest is what a publisher puts into the Store as the reference value of a release of this software;
its SHA-256 is the measurement that devices report. It is taken from the files, at start: a process that
was changed in memory afterwards is not noticed.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def runtime_manifest(package: Path) -> bytes:
    """Names and digests of the Python files of an installed package, as canonical JSON."""
    files = sorted(p for p in package.rglob("*.py") if p.is_file())
    digests = {p.relative_to(package).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    return json.dumps(
        {"package": package.name, "files": digests}, sort_keys=True, separators=(",", ":")
    ).encode()


def runtime_digest(package: Path) -> bytes:
    """SHA-256 of the manifest: the measurement of the component ``runtime:aif``."""
    return hashlib.sha256(runtime_manifest(package)).digest()
