# ruff: noqa: INP001  # Sphinx reads this file, nobody imports it
"""How the documentation is built. Pages are MyST Markdown; some are written by `docs/generate.py`."""

from __future__ import annotations

from importlib.metadata import version as version_of

project = "tinyaif"
author = "the tinyaif authors"
version = release = version_of("tinyaif")

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "index"
exclude_patterns = ["build"]

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
nitpicky = True

html_theme = "furo"
html_title = "tinyaif"
html_show_copyright = False
