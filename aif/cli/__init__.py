"""The ``aif`` command: one file per verb, which parses, calls and renders. No logic lives here."""
