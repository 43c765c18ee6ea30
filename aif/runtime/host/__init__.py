"""A device's side of a site: its session, its part of each workflow, AIM instances, ports and channels."""
