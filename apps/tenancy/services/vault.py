"""Encryption at rest under the master key (AES-256-GCM), in columns of the type ``SealedField``.

The database contains the id of the installation's master key (``MasterKey``), and new values are encrypted under that
key. A host only encrypts if this key is its current or previous master key. Therefore, every host that can write can
also decrypt the values of the other hosts, even while hosts get a new key one after another. Only
``services.master_key.reseal`` changes the installation's key.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterable
from pathlib import Path

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings
from django.db import connection, models, transaction

from apps.tenancy.actors import system_actor
from apps.tenancy.models import MasterKey, SigningKey
from apps.tenancy.models.sealed_field import SealedField, sealed_fields
from apps.tenancy.services import audit
from byteor_cloud.config import PREFIX, Key, read_key
from byteor_cloud.errors import Unavailable

RESOURCE = ("master_key", "vault")
SETTINGS = f"{PREFIX}MASTER_KEY nor {PREFIX}MASTER_KEY_PREVIOUS"
_READ = "SELECT key_id FROM tenancy_masterkey"
_READ_AND_LOCK = f"{_READ} FOR SHARE"
logger = structlog.get_logger(__name__)


class VaultError(Exception):
    """A value is damaged, or was encrypted under a key that this host does not have. The message names the row.

    A rotation of the master key raises one error for all such values.
    """


class MasterKeyUnavailable(Unavailable):
    """This host does not have the installation's master key. The detail is for callers, ``advice`` for operators."""

    def __init__(self, advice: str) -> None:
        super().__init__(
            "This server does not have the installation's master key, which protects stored secrets. Try again later.",
            retry_after=5,
        )
        self.advice = advice


def key_id(key: bytes) -> str:
    """Return the id of a master key, from which the key cannot be computed."""
    return hmac.digest(key, b"byteor-cloud master key", "sha256")[:8].hex()


def own_key_ids() -> list[str]:
    """Return the ids of this host's current master key and, if it is set, of the previous one.

    Raises MasterKeyUnavailable if the current key's file is missing, or a key's file cannot be read or is damaged.
    """
    return [key_id(key) for key in _keys()]


def ensure_key() -> str:
    """Return the id of the installation's master key. Raises MasterKeyUnavailable if this host does not have the key.

    If no id is stored yet, stores the id of this host's key first (see ``_store_first_id``).
    """
    stored = _stored_id()
    if stored is None:
        _store_first_id()
        stored = _stored_id()
    _find_key(stored)
    return str(stored)


def export_key(exported_id: str) -> bytes:
    """Return this host's key with the id, to encrypt it into a backup. Raises MasterKeyUnavailable if there is none."""
    return _find_key(exported_id)


def seal(row: models.Model, name: str, plaintext: bytes) -> None:
    """Encrypt ``plaintext`` into the row's column. The columns in the field's context must already be set.

    Save the row in the same transaction. Raises MasterKeyUnavailable if this host does not have the installation's key.
    """
    seal_all([(row, name, plaintext)])


def seal_all(values: Iterable[tuple[models.Model, str, bytes]]) -> None:
    """Encrypt several values as ``seal`` does, but look up the key only once."""
    key = _lock_key()
    for row, name, plaintext in values:
        _encrypt(row, _field(row, name), plaintext, key)


def unseal(row: models.Model, name: str) -> bytes:
    """Return the decrypted value of the row's column.

    If no key of this host decrypts the value, raises MasterKeyUnavailable if the host does not have the installation's
    key, and VaultError otherwise.
    """
    plaintext, _ = _decrypt(row, _field(row, name))
    return plaintext


def reseal(row: models.Model, field: SealedField) -> bool:
    """Encrypt the row's column again under this host's current master key. The caller must hold the key's row lock.

    Returns False if the value is already encrypted under that key. Raises the same errors as ``unseal``.
    """
    plaintext, is_current = _decrypt(row, field)
    if not is_current:
        _encrypt(row, field, plaintext, _keys()[0])
    return not is_current


def _encrypt(row: models.Model, field: SealedField, plaintext: bytes, key: bytes) -> None:
    nonce = os.urandom(12)
    setattr(row, field.attname, nonce + AESGCM(key).encrypt(nonce, plaintext, field.context_of(row)))


def _decrypt(row: models.Model, field: SealedField) -> tuple[bytes, bool]:
    """Return the plaintext, and whether it is encrypted under this host's current key."""
    keys = _keys()
    found = _try_keys(row, field, keys)
    if found is None:
        ensure_key()  # raises a clearer error if this host does not have the installation's key
        raise VaultError(f"{row._meta.label} {row.pk}: neither {SETTINGS} decrypts it")
    plaintext, key = found
    return plaintext, key == keys[0]


def _try_keys(row: models.Model, field: SealedField, keys: list[bytes]) -> tuple[bytes, bytes] | None:
    """Return the plaintext and the key that decrypts it, or None if none of the keys does."""
    sealed = bytes(getattr(row, field.attname))
    for key in keys:
        try:
            return AESGCM(key).decrypt(sealed[:12], sealed[12:], field.context_of(row)), key
        except InvalidTag:
            continue
    return None


def _field(row: models.Model, name: str) -> SealedField:
    field = row._meta.get_field(name)
    if not isinstance(field, SealedField):
        raise TypeError(f"{row._meta.label}.{name} is not a SealedField, so rotating the master key would miss it")
    return field


def _keys() -> list[bytes]:
    """Return the current and, if set, the previous master key. Key files are read each time, as they may change."""
    current = _read(settings.CONFIG.master_key)
    if current is None:
        raise MasterKeyUnavailable("the master key's file is missing from the data folder")
    previous = _read(settings.CONFIG.master_key_previous)
    return [current] if previous is None else [current, previous]


def _read(source: Key | None) -> bytes | None:
    if not isinstance(source, Path):  # None, or the key itself, which was checked at startup
        return source
    try:
        return read_key(source)
    except OSError as error:
        raise MasterKeyUnavailable(f"the key file {source} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise MasterKeyUnavailable(f"the key file {source} is damaged: it {error}") from None


def _find_key(stored: str | None) -> bytes:
    """Return this host's key with the stored id. A rotation changes key files before the id, so read the id first."""
    keys = _keys()
    for key in keys:
        if key_id(key) == stored:
            return key
    ids = " and ".join(key_id(key) for key in keys)
    error = MasterKeyUnavailable(
        f"the installation's master key has the id {stored}, but here neither {SETTINGS} is that key (ids here: {ids})"
    )
    logger.warning("master_key_unavailable", advice=error.advice)
    raise error


def _lock_key() -> bytes:
    """Return the installation's key. No rotation replaces it until the transaction ends."""
    if not connection.in_atomic_block:
        raise transaction.TransactionManagementError("encrypt a value in the transaction that stores it")
    if (stored := _stored_id(lock=True)) is None:
        _store_first_id()
        stored = _stored_id(lock=True)
    return _find_key(stored)


def _stored_id(*, lock: bool = False) -> str | None:
    with connection.cursor() as cursor:
        cursor.execute(_READ_AND_LOCK if lock else _READ)
        row = cursor.fetchone()
    return None if row is None else row[0]


@transaction.atomic
def _store_first_id() -> None:
    """Store the id of this host's key as the installation's. If several hosts do this concurrently, the first one wins.

    An older release may have encrypted values already. In that case, stores the id of the key, current or previous,
    that decrypts the value of ``_oldest_value``. Raises MasterKeyUnavailable if neither key decrypts it.
    """
    keys = _keys()
    key = keys[0]
    if (oldest := _oldest_value()) is not None:
        row, field = oldest
        if (found := _try_keys(row, field, keys)) is None:
            raise MasterKeyUnavailable(f"{row._meta.label} {row.pk}: neither {SETTINGS} decrypts it")
        _, key = found
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO tenancy_masterkey (id, key_id, since) VALUES (%s, %s, now()) ON CONFLICT DO NOTHING",
            [MasterKey.ONLY, key_id(key)],
        )
        is_stored = cursor.rowcount == 1
    if is_stored:
        changes = {"key_id": [None, key_id(key)]}
        audit.record("master_key.store", actor=system_actor("vault"), scope=None, resource=RESOURCE, changes=changes)


def _oldest_value() -> tuple[models.Model, SealedField] | None:
    """Return an old row with an encrypted value, and the value's field; None if there is no such row.

    This is the oldest signing key with a private key, or if there is none, the oldest row of another table.
    """
    for field in sorted(sealed_fields(), key=lambda field: field.model is not SigningKey):
        row = field.model._base_manager.exclude(**{field.attname: None}).order_by("pk").first()
        if row is not None:
            return row, field
    return None
