"""Decoders of files and texts: configuration, plans, recordings, packages, Store metadata, names."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from securesystemslib.formats import encode_canonical

from aif.authoring.recording import read_recording
from aif.config import load_catalogue
from aif.config.aim import read_aim
from aif.config.document import load_document
from aif.config.findings import Findings
from aif.config.inventory import read_inventory
from aif.config.workflow import read_workflow
from aif.errors import (
    ConfigError,
    InvalidRecord,
    NotFound,
    PlacementError,
    RemoteProtocolError,
    StoreError,
    TransportError,
    TrustError,
)
from aif.model.placement import Assignment, PathLatency, Placement, Usage
from aif.protocol import topics
from aif.transport.address import BrokerAddress, mqtt_url
from partitioner.report.written import from_json, to_json
from store.client import StoreClient
from store.floors import Floors
from store.keys import RoleKeys
from store.release import release_from_target
from store.repository import Repository
from store.targets import unpack
from tests.fuzz.campaign import Decoder, without_folder
from tests.fuzz.inputs import JSON_LEAVES, damaged, damaged_text, damaged_tree

Tree = Any
EXAMPLES: Final = Path(__file__).parents[1] / "config" / "examples"
NOW: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
YAML_WORDS: Final = (
    "", "-1", "0", "1e9", ".inf", ".nan", "null", "true", "[]", "{}", "[1, [2]]", "{a: {b: 1}}", "64KiB",
    "a.b", "aiw.x", "'", '"', "- ", ": ", "{", "}", "[", "]", "#", "&a ", "*a", "<<: *a", "!t ",
    "!!python/object:os.system ", "|\n", ">\n", "\n", "\t", "---\n", "...\n", "\x00", "\u2028", "\x85",
    "\r", "\ufeff", "ä", "aims:", "inputs:", "aim:", "id:", "int8[", "%YAML 1.1\n---\n", "[" * 40,
    "{a: " * 40, "9" * 30, "0x", "0o7", "1:30", "2001-01-01",
)  # fmt: skip


# --- configuration --------------------------------------------------------------------------------


def _yaml(kind: str, folder: Path) -> Decoder:
    paths = {"aim": "aims/*/aim.yaml", "aiw": "*/*.aiw.yaml", "inventory": "gesture/inventory.yaml"}[kind]
    texts = tuple(sorted((file.read_text() for file in EXAMPLES.glob(paths)), key=len)[:3])
    catalogue = load_catalogue([EXAMPLES / "aims"])
    file = folder / "input.yaml"

    def feed(data: bytes) -> None:
        file.write_bytes(data)
        findings = Findings(load_document(file))
        if kind == "aim":
            read_aim(findings)
        elif kind == "aiw":
            read_workflow(findings, catalogue)
        else:
            read_inventory(findings)
        findings.raise_errors()

    def craft(rng: Random) -> bytes:
        """Damaged text, or a whole value replaced so that the shape of the file stays right."""
        if rng.random() < 0.5:
            return damaged_text(rng, texts, YAML_WORDS).encode()
        text = rng.choice(texts)
        at = rng.choice([n for n in range(len(text)) if text.startswith(": ", n)]) + 2
        end = min((e for stop in ",}\n" if (e := text.find(stop, at)) > 0), default=len(text))
        return (text[:at] + rng.choice(YAML_WORDS) + text[end:]).encode()

    seeds = tuple(text.encode() for text in texts)
    return Decoder(f"yaml:{kind}", seeds, lambda: feed, (ConfigError,), craft)


# --- plans ----------------------------------------------------------------------------------------


def _report() -> Decoder:
    placement = Placement(
        "w", "1", "i", 1,
        assignments=(Assignment("a", "d", "i", "r", 1.0, 0.5, "", {"why": "x"}),),
        usage=(Usage("d", 1, 2, 3, 4, 0.5, 0.5, 0.5),), paths=(PathLatency("p", 1.0, None),),
        terms={"cost": 1.0}, objective=1.0, bound=1.0, method="cp-sat", seconds=0.1,
    )  # fmt: skip
    text = to_json(placement)
    tree = json.loads(text)

    def feed(data: bytes) -> None:
        found = from_json(data.decode())
        assert from_json(to_json(found)) == found

    def craft(rng: Random) -> bytes:
        if rng.random() < 0.3:
            words = (
                "NaN",
                "Infinity",
                "1e999",
                "9" * 400,
                "[" * 500,
                '{"a":' * 200,
                '"\\ud800"',
                "null",
                ",",
            )
            return damaged_text(rng, (text,), words).encode()
        return json.dumps(damaged_tree(rng, tree, JSON_LEAVES)).encode()

    return Decoder("plan report", (text.encode(),), lambda: feed, (PlacementError, UnicodeDecodeError), craft)


# --- recordings -----------------------------------------------------------------------------------


def _recording(folder: Path) -> Decoder:
    arrays = {
        "samples": np.zeros((2, 3, 6), np.int16), "t_us": np.array([1, 2], np.uint64),
        "label": np.array([0, -1], np.int8), "subject": np.array([1, 1], np.int16),
        "labels": np.array(["wave", "idle"]),
    }  # fmt: skip
    members = {name: _npy(array) for name, array in arrays.items()}
    whole = _archived(members, zipfile.ZIP_DEFLATED)
    file = folder / "input.npz"
    words = (
        "0",
        "99999999999",
        "'|O'",
        "'<U9999999'",
        "True",
        "-1",
        "(",
        ")",
        "'fortran_order'",
        "1,",
        "(9**9**9,)",
    )

    def feed(data: bytes) -> None:
        file.write_bytes(data)
        read_recording(file)

    def craft(rng: Random) -> bytes:
        """A correct archive of damaged arrays, mostly with damaged headers."""
        name = rng.choice(list(members))
        head, body = members[name][:10], members[name][10:]
        text = damaged_text(rng, (body[:118].decode("latin-1"),), words)
        changed = head + text.encode("latin-1", "replace")[:118].ljust(118) + body[118:]
        changed = changed if rng.random() < 0.8 else damaged(rng, (members[name],))
        return _archived(members | {name: changed}, rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))

    return Decoder("recording", (whole,), lambda: feed, (InvalidRecord,), craft)


def _archived(members: Mapping[str, bytes], compression: int) -> bytes:
    """A zip archive that does not depend on when it was made."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(f"{name}.npy")
            info.compress_type = compression
            archive.writestr(info, content)
    return out.getvalue()


def _npy(array: Any) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, array, allow_pickle=False)
    return out.getvalue()


# --- packages -------------------------------------------------------------------------------------


def _package(folder: Path) -> Decoder:
    def archive(rng: Random | None) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:", format=tarfile.USTAR_FORMAT) as tar:
            for name in ("aim.yaml", "module.py", "src/kws.c"):
                entry = tarfile.TarInfo(name)
                entry.size = 5
                if rng is not None and rng.random() < 0.5:
                    _spoil(rng, entry)
                try:
                    tar.addfile(entry, io.BytesIO(b"12345"))
                except (ValueError, OSError):
                    continue
        return out.getvalue()

    def feed(data: bytes) -> None:
        target = folder / "unpacked"
        before = set(folder.iterdir())
        try:
            names = unpack(data, target)
            assert {p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()} == set(names)
        finally:
            shutil.rmtree(target, ignore_errors=True)
            assert set(folder.iterdir()) == before, "something else was written"

    def craft(rng: Random) -> bytes:
        return archive(rng)

    return Decoder("package", (archive(None),), lambda: feed, (StoreError,), craft)


def _spoil(rng: Random, entry: tarfile.TarInfo) -> None:
    match rng.randrange(5):
        case 0:
            entry.name = rng.choice(
                ("/etc/x.py", "../x.py", "a/../../x.py", "x.pkl", "aim.yaml", "aim.yaml/x.py",
                 "a" * 90 + ".py", ".x.py", "a//b.py", "x.py\0y", "é.py", "a/" * 20 + "x.py")
            )  # fmt: skip
        case 1:
            entry.type = rng.choice(
                (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE,
                 tarfile.GNUTYPE_SPARSE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.CONTTYPE)
            )  # fmt: skip
            entry.linkname = rng.choice(("aim.yaml", "/etc/passwd", "../../x"))
        case 2:
            entry.size = rng.choice((0, 4, 6, 600, 1 << 20, 1 << 32))
        case 3:
            entry.mode = rng.choice((0, 0o4777, 0o777))
        case _:
            entry.mtime, entry.uid = rng.choice((0, 1 << 31)), rng.choice((0, 0o7777777))


# --- Store ----------------------------------------------------------------------------------------


class _LyingStore:
    """Serves a repository in which one role's signed content was damaged, and everything signed again."""

    def __init__(self, repository: Repository, keys: RoleKeys) -> None:
        self._keys = keys
        metadata = repository.directory / "metadata"
        newest = sorted(metadata.iterdir(), key=lambda file: file.stat().st_mtime_ns)
        self._roles = {
            file.name.removesuffix(".json").split(".", 1)[-1]: file.read_bytes() for file in newest
        }
        self.trees = {role: json.loads(data)["signed"] for role, data in self._roles.items()}
        self.publisher = next(role for role in self._roles if role.startswith("publisher"))
        self.replies: dict[str, bytes] = {}

    @property
    def documents(self) -> tuple[bytes, ...]:
        return tuple(self._roles.values())

    def damage(self, rng: Random) -> Mapping[str, bytes]:
        """A consistent chain from one damaged role up to the timestamp."""
        role = rng.choice((self.publisher, "targets", "snapshot", "timestamp"))
        changed = {role: self._sign(role, damaged_tree(rng, self.trees[role], JSON_LEAVES))}
        if role not in {"snapshot", "timestamp"}:
            changed["snapshot"] = self._parent("snapshot", role, changed[role])
        if role != "timestamp":
            changed["timestamp"] = self._parent("timestamp", "snapshot", changed["snapshot"])
        return changed

    def _parent(self, role: str, child: str, content: bytes) -> bytes:
        tree = json.loads(json.dumps(self.trees[role]))
        entry = tree["meta"][f"{child}.json"]
        version = json.loads(content)["signed"]
        version = version.get("version") if isinstance(version, dict) else None
        entry["version"] = version if type(version) is int and version > 0 else entry["version"]
        entry["length"], entry["hashes"] = len(content), {"sha256": sha256(content).hexdigest()}
        return self._sign(role, tree)

    def _sign(self, role: str, tree: Tree) -> bytes:
        try:
            canonical = (encode_canonical(tree) or "").encode()
        except Exception:  # noqa: BLE001  # floats cannot be signed; what arrives is then not signed either
            canonical = b""
        signatures = [signer.sign(canonical).to_dict() for signer in self._keys.signers(role)]
        return json.dumps({"signatures": signatures, "signed": tree}).encode()

    def fetch(self, path: str, offset_bytes: int = 0) -> Iterator[bytes]:
        role = path.removeprefix("metadata/").removesuffix(".json").split(".", 1)[-1]
        if role == "root" or role not in self._roles:
            raise NotFound(f"no {path}")
        yield self.replies.get(role, self._roles[role])[offset_bytes:]


def _store(folder: Path) -> Decoder:
    """Metadata as a client meets it. An input is the role's name, a line feed and its bytes, and so on."""
    keys = _fixed_keys(folder / "keys")
    repository = Repository.create(folder / "repository", keys, now=NOW)
    custom = {"name": "kws", "arena_bytes": 10}
    repository.publish("acme", "kws", 1, b"model", kind="model", custom=custom, now=NOW)
    store, root, cache = _LyingStore(repository, keys), repository.root_bytes(), folder / "cache"

    def feed(data: bytes) -> None:
        store.replies = {}
        for part in data.split(b"\x1e"):
            role, _, content = part.partition(b"\n")
            store.replies[role.decode("latin-1")] = content
        shutil.rmtree(cache, ignore_errors=True)
        client = StoreClient("http://127.0.0.1:1", cache, root, fetcher=store, now=lambda: NOW)
        client.releases()

    def craft(rng: Random) -> bytes:
        return _written(store.damage(rng))

    seeds = tuple(_written({role: data}) for role, data in zip(store.trees, store.documents, strict=True))
    return Decoder("store metadata", seeds, lambda: feed, (StoreError, TrustError), craft)


def _fixed_keys(folder: Path) -> RoleKeys:
    """The same keys every time, so that an input means the same to every run."""
    keys = RoleKeys.create(folder, ["acme"])
    for number, file in enumerate(sorted(folder.iterdir())):
        key = Ed25519PrivateKey.from_private_bytes(bytes([number + 1]) * 32)
        file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return keys


def _written(replies: Mapping[str, bytes]) -> bytes:
    return b"\x1e".join(role.encode() + b"\n" + data for role, data in replies.items())


def _release() -> Decoder:
    custom = {
        "kind": "model",
        "measurement": "0" * 64,
        "release": {"name": "kws", "arena_bytes": 3, "a": [1, {}]},
    }
    tree = ["aim/acme/kws/1", 10, {"sha256": "0" * 64}, custom]

    def feed(data: bytes) -> None:
        path, length, hashes, found = json.loads(data)
        if not (isinstance(path, str) and type(length) is int and isinstance(hashes, dict)):
            raise TrustError("python-tuf has checked these")
        if not all(isinstance(value, str) for value in hashes.values()):
            raise TrustError("python-tuf has checked these")
        release = release_from_target(path, length, hashes, found)
        assert release_from_target(path, length, hashes, release.target_custom()) == release

    def craft(rng: Random) -> bytes:
        return json.dumps(damaged_tree(rng, tree, JSON_LEAVES)).encode()

    errors = (TrustError, ValueError, TypeError)  # the last two: not JSON, or not four values
    return Decoder("release", (json.dumps(tree).encode(),), lambda: feed, errors, craft)


def _floors() -> Decoder:
    tree = Floors(1, 2, 3, {"targets": 4, "publisher-acme": 5}).to_document()

    def feed(data: bytes) -> None:
        floors = Floors.from_document(json.loads(data))
        assert Floors.from_document(floors.to_document()) == floors

    def craft(rng: Random) -> bytes:
        return json.dumps(damaged_tree(rng, tree, JSON_LEAVES)).encode()

    return Decoder("floors", (json.dumps(tree).encode(),), lambda: feed, (TrustError, ValueError), craft)


# --- names ----------------------------------------------------------------------------------------


def _topic() -> Decoder:
    texts = (
        "aif/ch/Gesture-1/classify/label", "aif/ch/Gesture-1/classify/label/sink", "aif/dev/mcu-1/up/hello",
        "aif/dev/mcu-1/down/grant", "aif/dev/mcu-1/status", "aif/att/mcu-1/evd", "aif/enrol/enrol.mcu-1/req",
        "aif/mdl/0123456789abcdef",
    )  # fmt: skip
    words = ("/", "+", "#", "$SYS/", "aif", "enrol.", "..", "\0", "é", "\u017f", "-", "_", "up/", "x" * 300)

    def feed(data: bytes) -> None:
        text = data.decode()
        assert str(topics.parse(text)) == text

    def craft(rng: Random) -> bytes:
        return damaged_text(rng, texts, words).encode()

    errors = (RemoteProtocolError, UnicodeDecodeError)
    return Decoder("topic", tuple(text.encode() for text in texts), lambda: feed, errors, craft)


def _address() -> Decoder:
    texts = (
        "mqtt://127.0.0.1:1883", "mqtts://user:p%40ss@broker.example", "mqtt://[::1]:1", "mqtt://localhost/",
    )  # fmt: skip
    words = (
        ":",
        "@",
        "/",
        "?",
        "#",
        "[",
        "]",
        "%",
        "%zz",
        "\n",
        "\0",
        "::",
        "99999",
        "-1",
        "٣",
        "①",
        "xn--",
        "..",
    )

    def feed(data: bytes) -> BrokerAddress:
        found = mqtt_url(data.decode())
        assert 1 <= found.port <= 65_535
        assert found.host
        return found

    def craft(rng: Random) -> bytes:
        return damaged_text(rng, texts, words).encode()

    errors = (TransportError, UnicodeDecodeError)
    return Decoder("MQTT URL", tuple(text.encode() for text in texts), lambda: feed, errors, craft)


FACTORIES: Mapping[str, Callable[[Path], Decoder]] = {
    "yaml:aim": lambda folder: _yaml("aim", folder),
    "yaml:aiw": lambda folder: _yaml("aiw", folder),
    "yaml:inventory": lambda folder: _yaml("inventory", folder),
    "plan report": without_folder(_report),
    "recording": _recording,
    "package": _package,
    "store metadata": _store,
    "release": without_folder(_release),
    "floors": without_folder(_floors),
    "topic": without_folder(_topic),
    "MQTT URL": without_folder(_address),
}
"""Decoders by name; each may write into the folder it gets."""
