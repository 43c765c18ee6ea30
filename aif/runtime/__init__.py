"""A running AIF: Controller, hosts, AIM instances, ports and channels. asyncio starts at this level."""
