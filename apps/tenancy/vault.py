"""Encryption at rest under the master key (AES-256-GCM)."""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings


class VaultError(Exception):
    """The master key is not the one that this was sealed under."""


def seal(plaintext: bytes, *, context: str) -> bytes:
    """Encrypt; ``context`` (what it is, whose) must be said again to open it."""
    nonce = os.urandom(12)
    return nonce + AESGCM(settings.CONFIG.master_key).encrypt(nonce, plaintext, context.encode())


def unseal(sealed: bytes, *, context: str) -> bytes:
    """Decrypt what ``seal`` made under the same context. Raises VaultError."""
    try:
        return AESGCM(settings.CONFIG.master_key).decrypt(sealed[:12], sealed[12:], context.encode())
    except InvalidTag:
        raise VaultError(f"{context} was not sealed under this BYTEOR_CLOUD_MASTER_KEY") from None
