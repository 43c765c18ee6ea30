"""Storage and Encryption Service of one owner, reached inside the Security Engine.

Decides nothing: each function has the name, arguments and errors of the service's own (``storage``,
``encryption``) and is answered by the engine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aif.trusted.engine_messages import attributes_of, info_of, row_of_attributes
from aif.trusted.psa import KeyAttributes, StorageInfo
from aif.trusted.storage import SecureData

Call = Callable[..., Any]


class EngineArea:
    """Assets of one owner and location, by symbolic name; see ``storage.SecureArea``."""

    def __init__(self, call: Call, owner: bytes, kind: SecureData) -> None:
        self._call, self._where = call, (owner, str(kind.location), int(kind.flags))

    def create(self, name: str, capacity_bytes: int) -> None:
        self._call("create", *self._where, name, capacity_bytes)

    def write(self, name: str, data: bytes) -> None:
        self._call("write", *self._where, name, data)

    def read(self, name: str) -> bytes:
        return bytes(self._call("read", *self._where, name))

    def info(self, name: str) -> StorageInfo:
        return info_of(self._call("info", *self._where, name))

    def delete(self, name: str) -> None:
        self._call("delete", *self._where, name)


class _Owned:
    """Calls in the name of one owner."""

    def __init__(self, call: Call, owner: bytes) -> None:
        self._engine, self._owner = call, owner

    def _call(self, operation: str, *arguments: object) -> Any:
        return self._engine(operation, self._owner, *arguments)


class EngineStorage(_Owned):
    """The storage functions of one owner; see ``storage.OwnerStorage``."""

    def area(self, kind: SecureData) -> EngineArea:
        return EngineArea(self._engine, self._owner, kind)

    def psa_its_set(self, uid: int, data: bytes, create_flags: int = 0) -> None:
        self._call("psa_its_set", uid, data, int(create_flags))

    def psa_its_get(self, uid: int, data_offset: int, data_length: int) -> bytes:
        return bytes(self._call("psa_its_get", uid, data_offset, data_length))

    def psa_its_get_info(self, uid: int) -> StorageInfo:
        return info_of(self._call("psa_its_get_info", uid))

    def psa_its_remove(self, uid: int) -> None:
        self._call("psa_its_remove", uid)

    def psa_ps_set(self, uid: int, data: bytes, create_flags: int = 0) -> None:
        self._call("psa_ps_set", uid, data, int(create_flags))

    def psa_ps_get(self, uid: int, data_offset: int, data_length: int) -> bytes:
        return bytes(self._call("psa_ps_get", uid, data_offset, data_length))

    def psa_ps_get_info(self, uid: int) -> StorageInfo:
        return info_of(self._call("psa_ps_get_info", uid))

    def psa_ps_remove(self, uid: int) -> None:
        self._call("psa_ps_remove", uid)

    def psa_ps_create(self, uid: int, capacity: int, create_flags: int = 0) -> None:
        self._call("psa_ps_create", uid, capacity, int(create_flags))

    def psa_ps_set_extended(self, uid: int, data_offset: int, data: bytes) -> None:
        self._call("psa_ps_set_extended", uid, data_offset, data)

    def psa_ps_get_support(self) -> int:
        return int(self._call("psa_ps_get_support"))


class EngineCrypto(_Owned):
    """The keys and algorithms of one owner; see ``encryption.OwnerCrypto``."""

    def psa_generate_key(self, attributes: KeyAttributes) -> int:
        return int(self._call("psa_generate_key", row_of_attributes(attributes)))

    def psa_import_key(self, attributes: KeyAttributes, data: bytes) -> int:
        return int(self._call("psa_import_key", row_of_attributes(attributes), data))

    def psa_export_public_key(self, key: int) -> bytes:
        return bytes(self._call("psa_export_public_key", key))

    def psa_destroy_key(self, key: int) -> None:
        self._call("psa_destroy_key", key)

    def psa_get_key_attributes(self, key: int) -> KeyAttributes:
        return attributes_of(self._call("psa_get_key_attributes", key))

    # --- cryptography

    def psa_hash_compute(self, alg: int, data: bytes) -> bytes:
        return bytes(self._call("psa_hash_compute", int(alg), data))

    def psa_mac_compute(self, key: int, alg: int, data: bytes) -> bytes:
        return bytes(self._call("psa_mac_compute", key, int(alg), data))

    def psa_mac_verify(self, key: int, alg: int, data: bytes, mac: bytes) -> None:
        self._call("psa_mac_verify", key, int(alg), data, mac)

    def psa_aead_encrypt(
        self, key: int, alg: int, nonce: bytes, additional_data: bytes, plaintext: bytes
    ) -> bytes:
        return bytes(self._call("psa_aead_encrypt", key, int(alg), nonce, additional_data, plaintext))

    def psa_aead_decrypt(
        self, key: int, alg: int, nonce: bytes, additional_data: bytes, ciphertext: bytes
    ) -> bytes:
        return bytes(self._call("psa_aead_decrypt", key, int(alg), nonce, additional_data, ciphertext))

    def psa_sign_message(self, key: int, alg: int, message: bytes) -> bytes:
        return bytes(self._call("psa_sign_message", key, int(alg), message))

    def psa_verify_message(self, key: int, alg: int, message: bytes, signature: bytes) -> None:
        self._call("psa_verify_message", key, int(alg), message, signature)

    def psa_raw_key_agreement(self, alg: int, private_key: int, peer_key: bytes) -> bytes:
        return bytes(self._call("psa_raw_key_agreement", int(alg), private_key, peer_key))

    def psa_generate_random(self, output_size: int) -> bytes:
        return bytes(self._call("psa_generate_random", output_size))

    # --- key derivation

    def psa_key_derivation_setup(self, alg: int) -> int:
        return int(self._call("psa_key_derivation_setup", int(alg)))

    def psa_key_derivation_input_bytes(self, operation: int, step: int, data: bytes) -> None:
        self._call("psa_key_derivation_input_bytes", operation, int(step), data)

    def psa_key_derivation_input_key(self, operation: int, step: int, key: int) -> None:
        self._call("psa_key_derivation_input_key", operation, int(step), key)

    def psa_key_derivation_key_agreement(
        self, operation: int, step: int, private_key: int, peer_key: bytes
    ) -> None:
        self._call("psa_key_derivation_key_agreement", operation, int(step), private_key, peer_key)

    def psa_key_derivation_output_bytes(self, operation: int, output_length: int) -> bytes:
        return bytes(self._call("psa_key_derivation_output_bytes", operation, output_length))

    def psa_key_derivation_output_key(self, attributes: KeyAttributes, operation: int) -> int:
        return int(self._call("psa_key_derivation_output_key", row_of_attributes(attributes), operation))

    def psa_key_derivation_abort(self, operation: int) -> None:
        self._call("psa_key_derivation_abort", operation)


class EngineOwner(EngineStorage, EngineCrypto):
    """Both services of one owner, and each of them alone."""

    @property
    def storage(self) -> EngineStorage:
        return EngineStorage(self._engine, self._owner)

    @property
    def crypto(self) -> EngineCrypto:
        return EngineCrypto(self._engine, self._owner)
