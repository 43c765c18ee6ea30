from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from aif.errors import StoreError
from store.keys import RoleKeys


def test_only_the_owner_can_read_the_keys(keys: RoleKeys) -> None:
    assert stat.S_IMODE(keys.directory.stat().st_mode) == 0o700
    files = sorted(keys.directory.iterdir())
    assert [file.name for file in files] == [
        "publisher.acme.pem",
        "publisher.globex.pem",
        "root-1.pem",
        "root-2.pem",
        "root-3.pem",
        "snapshot.pem",
        "targets.pem",
        "timestamp.pem",
    ]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_every_role_has_a_key_of_its_own_and_root_has_three(keys: RoleKeys) -> None:
    roles = ["root", "targets", "snapshot", "timestamp", "publisher.acme", "publisher.globex"]
    signers = [keys.signers(role) for role in roles]
    assert [len(of_role) for of_role in signers] == [3, 1, 1, 1, 1, 1]
    assert len({signer.public_key.keyid for of_role in signers for signer in of_role}) == 8


def test_loaded_keys_are_the_created_ones(keys: RoleKeys) -> None:
    loaded = RoleKeys.load(keys.directory)
    assert loaded.vendors() == ("acme", "globex")
    assert loaded.signers("root")[0].public_key == keys.signers("root")[0].public_key


def test_an_existing_key_is_never_replaced(keys: RoleKeys) -> None:
    before = (keys.directory / "root-1.pem").read_bytes()
    with pytest.raises(StoreError, match="not replaced"):
        RoleKeys.create(keys.directory, ["acme"])
    with pytest.raises(StoreError, match="not replaced"):
        keys.add_publisher("acme")
    assert (keys.directory / "root-1.pem").read_bytes() == before


def test_a_key_that_others_can_read_is_refused(keys: RoleKeys) -> None:
    path = keys.directory / "snapshot.pem"
    path.chmod(0o640)
    with pytest.raises(StoreError, match="mode 0640: others may read") as caught:
        keys.signers("snapshot")
    assert caught.value.hint == f"chmod 600 {path}"


def test_a_key_directory_that_others_can_read_is_refused(keys: RoleKeys) -> None:
    keys.directory.chmod(0o755)
    with pytest.raises(StoreError, match="mode 0755") as caught:
        RoleKeys.load(keys.directory)
    assert caught.value.hint == f"chmod 700 {keys.directory}"


def test_a_missing_directory_and_a_missing_key_say_what_to_do(keys: RoleKeys, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no key directory") as caught:
        RoleKeys.load(tmp_path / "nowhere")
    assert "aif store init" in caught.value.hint
    (keys.directory / "targets.pem").unlink()
    with pytest.raises(StoreError, match=r"the key targets\.pem is not in"):
        keys.signers("targets")


def test_a_file_that_is_no_ed25519_key_is_refused(keys: RoleKeys) -> None:
    path = keys.directory / "targets.pem"
    path.write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    with pytest.raises(StoreError, match="not an unencrypted PEM"):
        keys.signers("targets")
    other = generate_private_key(SECP256R1())
    path.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(StoreError, match="another kind of key"):
        keys.signers("targets")


def test_a_vendor_name_cannot_leave_the_directory(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a valid name"):
        RoleKeys.create(tmp_path / "keys", ["../acme"])
    assert not (tmp_path / "keys").exists()
