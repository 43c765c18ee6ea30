"""The Controller: what User Agents ask of workflows and devices, and the life of each workflow."""
