"""The text form of credentials, ``bor_<family>_<secret><checksum>``."""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib
from dataclasses import dataclass
from enum import StrEnum

# The text is the same for unknown, expired and revoked credentials, so that an attacker cannot find out which exist.
UNUSABLE = "The credential is not valid. For example, it may have expired or been revoked."
_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_SECRET_LENGTH = 43  # the number of base62 characters that represent 32 bytes
_CHECKSUM_LENGTH = 6
_FORM = re.compile(rf"bor_(usr|org|enr|agt)_[0-9A-Za-z]{{{_SECRET_LENGTH + _CHECKSUM_LENGTH}}}")


class Family(StrEnum):
    """The four families of credentials. Each operation of the API accepts certain families only."""

    USER = "usr"
    ORGANIZATION = "org"
    ENROLLMENT = "enr"
    AGENT = "agt"


@dataclass(frozen=True, slots=True)
class Secret:
    """A new credential, device code or secret part of a sign-in link. Its row stores the digest instead of the text."""

    text: str

    @property
    def digest(self) -> str:
        """The digest of the text, which is stored and looked up."""
        return credential_digest(self.text)

    @property
    def prefix(self) -> str:
        """The first characters, by which people recognize a credential."""
        return self.text[:14]

    def __repr__(self) -> str:
        return f"Secret({self.prefix}…)"


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, rest = divmod(number, 62)
        digits.append(_ALPHABET[rest])
    return "".join(reversed(digits))


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECKSUM_LENGTH)


def generate(family: Family) -> Secret:
    """Return a new random credential of ``family``."""
    return _generate(family)


def generate_link() -> Secret:
    """Return the secret part of a new sign-in link. It belongs to no credential family, so the API rejects it."""
    return _generate("lnk")


def generate_device_code() -> Secret:
    """Return the code with which a machine collects its token. The API does not accept the code as a credential."""
    return _generate("dev")


def _generate(kind: str) -> Secret:
    body = f"bor_{kind}_{_base62(int.from_bytes(secrets.token_bytes(32)), _SECRET_LENGTH)}"
    return Secret(body + _checksum(body))


def family_of(text: str) -> Family | None:
    """Return the family of a credential, or None if its form or checksum is wrong. Finds typos without a query."""
    match = _FORM.fullmatch(text)
    if match is None or _checksum(text[:-_CHECKSUM_LENGTH]) != text[-_CHECKSUM_LENGTH:]:
        return None
    return Family(match[1])


def credential_digest(text: str) -> str:
    """Return the SHA-256 of a credential, a code, the secret part of a link, or a session key, in hex.

    These texts are random, so the digest needs no salt and can be looked up through an index.
    """
    return hashlib.sha256(text.encode()).hexdigest()
