"""Where the AIMs of a workflow run: planned, deployed, brought up, re-keyed and changed while they run."""
