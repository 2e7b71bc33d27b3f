"""The file with the private key that signs releases: the key's entry in the key set, plus the member ``d``."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from byteor.engine.canonical import Fields, base64url, from_base64url, parse_object
from byteor.engine.signing import keys
from byteor.engine.signing.keys import KeySet, KeyStatus
from byteor.engine.signing.refusals import Refused
from tests.wheels.building import ROOT, Failed


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key, and the key set to publish."""

    private: bytes
    keyset: KeySet


def create(path: Path) -> str:
    """Create a key in a new file that only its owner may read, and return the key's id. Raises Failed."""
    _check_place(path)
    private = keys.generate()
    now = datetime.now(UTC).replace(microsecond=0)
    public = keys.jwk(keys.public_key(private), status=KeyStatus.ACTIVE, not_before=now)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump({**public, "d": base64url(private)}, file, indent=2)
    except OSError as error:
        raise Failed(f"the key cannot be written: {error}") from error
    return keys.kid(keys.public_key(private))


def read(path: Path) -> SigningKey:
    """Return the key in a file that ``create`` wrote. Raises Failed, whose message contains nothing of the file."""
    _check_place(path)
    try:
        if path.stat().st_mode & 0o077:
            raise Failed(f"other users may access {path}: run chmod 600 on it")
        document = parse_object(path.read_bytes())
        private = from_base64url(Fields(document).text("d"))
        keyset = KeySet.from_document({"active_kid": document.get("kid"), "keys": [document]})
        is_pair = keys.public_key(private) == keyset.active.public
    except OSError as error:
        raise Failed(f"the key cannot be read: {error}") from error
    except (ValueError, Refused):
        raise Failed(f"{path} contains no key that --new-key has created") from None
    if not is_pair:
        raise Failed(f"the private key in {path} does not belong to the public key there")
    return SigningKey(private, keyset)


def _check_place(path: Path) -> None:
    if path.resolve().is_relative_to(ROOT):
        raise Failed(f"{path} is in the checkout: keep the key elsewhere, so that it is never committed")
