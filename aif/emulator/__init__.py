"""Emulated devices: budgets, engines, sensors, storage units, and a model of time and energy.

What is real here: the answers and the arena of TFLite-Micro, and every refusal for lack of memory. What is
a model: time, energy and wear, computed from declared figures and never measured.
"""
