"""Puts into the home folder what its clients need to reach the site's broker with TLS."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from aif.cli._wiring import Home
from aif.runtime.devices.site_broker import SiteBroker
from aif.trusted.authority import renewed
from aif.trusted.certificates import Subject
from aif.trusted.client_folder import ClientFolder


def equip_controller(home: Home, *, now: datetime) -> None:
    """The Controller's certificate, whom it trusts, and where the broker is."""
    site = SiteBroker(home.site)
    authority = site.authority(os.urandom, now=now)
    folder = ClientFolder(home.controller_tls, Subject.controller())
    pem, _ = renewed(authority, Subject.controller(), folder.own.certificate, now)
    folder.install(authority.site_pem, broker=site.url, own=pem)


def equip_device(home: Home, device: str, *, now: datetime) -> Path:
    """A device's factory certificate, whom it trusts, and where the broker is; its own follows by enrolment.

    The factory's key is made here, where the device's folder is: that is its place of manufacture.
    """
    site = SiteBroker(home.site)
    authority = site.authority(os.urandom, now=now)
    folder = ClientFolder(home.device_tls(device), Subject.device(device))
    pem, _ = renewed(authority, Subject.enrolment(device), folder.factory.certificate, now)
    folder.install(authority.site_pem, broker=site.url, factory=pem)
    return folder.folder
