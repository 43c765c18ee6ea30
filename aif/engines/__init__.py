"""Inference engines behind one Protocol. Everything outside opens them through ``aif.engines.registry``."""
