"""Devices that renew the certificate of their way to the broker while they work."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509

from aif.cli import _wiring as wiring
from aif.cli._equipment import equip_device
from aif.runtime.host.host import Host
from aif.trusted.authority import CertificateAuthority
from aif.trusted.certificates import LEAF_VALIDITY, Subject
from aif.trusted.client_folder import ClientFolder
from tests.runtime import site as bench


def test_a_device_in_a_session_renews_its_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, left = wiring.now(), Subject.device("left")

    async def journey() -> None:
        async with bench.bench_site(tmp_path, devices=()) as site:
            site.add_device("left")
            await site.start_device("left")
            await site.until_trusted("left")
            await site.end("left")
            equip_device(site.home, "left", now=now)
            folder = ClientFolder(site.home.device_tls("left"), left)
            authority = CertificateAuthority(site.home.site / "authority")
            ends_soon = now - LEAF_VALIDITY + timedelta(days=30)
            folder.install(authority.site_pem, own=authority.issue(left, now=ends_soon).pem)
            monkeypatch.setattr(bench, "Host", partial(Host, tls=folder))
            assert folder.due(now)
            await site.start_device("left")
            await site.until_logged("certificate renewed", origin="left")
            assert not folder.due(now)
            renewed = x509.load_pem_x509_certificate(folder.own.certificate.read_bytes())
            assert renewed.subject == left.name

    asyncio.run(journey())


def test_enrolment_brings_the_certificate_and_none_else_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def journey() -> None:
        async with bench.bench_site(tmp_path, devices=()) as site:
            site.add_device("left")
            equip_device(site.home, "left", now=wiring.now())
            folder = ClientFolder(site.home.device_tls("left"), Subject.device("left"))
            monkeypatch.setattr(bench, "Host", partial(Host, tls=folder))
            await site.start_device("left")
            await site.until_trusted("left")
            folder.context()
            assert not folder.due(wiring.now())

    asyncio.run(journey())
