"""tinyaif: TinyML workflows of many AI Modules across many small devices, safely (MPAI-AIF)."""

__version__ = "0.1.0"
