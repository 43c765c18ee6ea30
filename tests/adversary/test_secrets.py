"""A site at work, and a search for a device's secrets wherever they must not be."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from pathlib import Path

import pytest

from aif.runtime.devices.registry import Site
from aif.trusted.records import derive_key
from aif.trusted.security_core import ROOT_FILE
from tests.integration.terminals import Desk, Started, descendants, desk
from tests.integration.test_aim_storage import prepared_site
from tests.integration.test_processes import Events
from tests.trusted.process_memory import found_in, holds, may_trace_anything

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def secrets_of(root: bytes) -> Mapping[str, bytes]:
    """Everything long-lived that is derived from a device's root key, by name."""
    labels = ("identity", "exchange", "storage")
    return {"root key": root} | {f"{x} key": derive_key(root, f"AIF-ROOT-1 {x}".encode()) for x in labels}


def forms(secret: bytes) -> Iterator[bytes]:
    """How a secret looks in memory, files and texts."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    yield base64.b64encode(secret).rstrip(b"=")
    yield repr(secret)[2:-1].encode()


def test_a_devices_secrets_are_nowhere_but_in_its_engine(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    async def journey() -> None:
        async with desk(tmp_path_factory.mktemp("h")) as terminals:
            site = await prepared_site(terminals, tmp_path)
            async with aclosing(site.events()) as stream:
                events = Events(stream)
                await events.until("status")
                host = await site.start_host()
                await site.deploy()
                await events.until("output", port="count")
                await asyncio.to_thread(search, terminals, host)

    asyncio.run(journey())


def search(terminals: Desk, host: Started) -> None:
    """Look into every process of the site but the engine, and every file but the engine's folder."""
    folder = terminals.home / "devices" / "left" / "engine"
    root = (folder / ROOT_FILE).read_bytes()
    assert len(root) == 32
    secrets = secrets_of(root)
    processes = {pid for started in terminals.started for pid in descendants(started.pid)}
    (engine,) = (p for p in processes if b"engine_process" in Path(f"/proc/{p}/cmdline").read_bytes())
    assert engine in descendants(host.pid)

    texts = {f"output of {started.pid}": started.output.encode() for started in terminals.started}
    for pid in processes:
        for what in ("cmdline", "environ"):
            path = Path(f"/proc/{pid}/{what}")
            if os.access(path, os.R_OK):
                texts[str(path)] = path.read_bytes()
    files = [path for path in terminals.home.rglob("*") if path.is_file()]
    texts |= {str(path): path.read_bytes() for path in files if folder not in path.parents}
    sealed = [path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ROOT_FILE]
    assert len(texts) > 20
    assert len(sealed) > 3

    public = identity_pk(terminals)
    assert any(public in text for text in texts.values()), "the search of files finds what is there"
    assert holds(host.pid, public), "the search of memory finds what is there"
    for name, secret in secrets.items():
        for form in forms(secret):
            found = [where for where, text in texts.items() if form in text]
            assert not found, f"{name} is in {found}"
            assert not any(form in text for text in sealed), f"{name} is in the engine's storage"
    names = {form: name for name, secret in secrets.items() for form in forms(secret)}
    for pid in processes - {engine}:
        assert not [names[form] for form in found_in(pid, names)], f"secrets in the memory of {pid}"
    if may_trace_anything():
        assert holds(engine, secrets["identity key"]), "the search would find it where it is"
    else:
        with pytest.raises(PermissionError):
            holds(engine, secrets["identity key"])


def identity_pk(terminals: Desk) -> bytes:
    """Of the device, from the registry of its site."""
    return Site(terminals.home / "site", os.urandom).device("left").identity_pk
