"""Signed statements about a configuration. Their subject is ``spec.kv`` and the config hash.

``verify_once`` also verifies other statements that are signed only once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from byteor.engine.canonical import Json

from . import dsse
from .bundle import SPEC
from .keys import KeySet
from .refusals import Refused, StatementCode

CONFIGURATION = "configuration"


class SignedOnce(Protocol):
    """The content of a statement that is signed only once."""

    @property
    def signed_at(self) -> datetime:
        """The time that counts as that of the signature."""


class Content(SignedOnce, Protocol):
    """The content of a statement about a configuration."""

    @property
    def spec_hash(self) -> str:
        """The hash of the spec."""

    @property
    def config_hash(self) -> str:
        """The hash of the configuration."""

    def document(self) -> Json:
        """Return the predicate."""


@dataclass(frozen=True, slots=True)
class Verified[T]:
    """The content of a statement that a trusted key signed. ``payload_hash`` is the hash of that statement."""

    content: T
    kid: str
    payload_hash: str


def sign(predicate_type: str, content: Content, private_key: bytes) -> Json:
    """Return a signed envelope around a statement about a configuration."""
    subject = {SPEC: content.spec_hash, CONFIGURATION: content.config_hash}
    return dsse.sign_statement(predicate_type, subject, content.document(), private_key)


def verify[T: Content](
    name: str, predicate_type: str, envelope: object, keyset: KeySet, parse: Callable[[object, str, str], T]
) -> Verified[T]:
    """Return the statement if a trusted key signed it. Raises Refused with a code that begins with ``name``.

    ``parse`` returns the content from the predicate, the spec hash and the config hash, or raises ValueError.
    """

    def read(subject: Mapping[str, str], predicate: object) -> T:
        if subject.keys() != {SPEC, CONFIGURATION}:
            raise ValueError(f"the subject must be exactly one {SPEC} and one {CONFIGURATION}")
        return parse(predicate, subject[SPEC], subject[CONFIGURATION])

    return verify_once(name, predicate_type, envelope, keyset, read)


def verify_once[T: SignedOnce](
    name: str, predicate_type: str, envelope: object, keyset: KeySet, read: Callable[[Mapping[str, str], object], T]
) -> Verified[T]:
    """Return the statement if a trusted key signed it. Raises Refused with a code that begins with ``name``.

    A statement is signed only once. Therefore, a key that was retired after it signed is trusted. ``read`` returns the
    content from the subject and the predicate, or raises ValueError.
    """
    if isinstance(envelope, dict) and not envelope.get("signatures"):
        raise Refused(StatementCode(f"{name}.unsigned"), "the statement has no signature")
    try:
        statement = dsse.verify_statement(
            predicate_type, envelope, keyset, signed_at=lambda *content: read(*content).signed_at
        )
        content = read(statement.subject, statement.predicate)
    except ValueError as error:
        raise Refused(StatementCode(f"{name}.malformed"), f"statement: {error}") from error
    except Refused as refused:
        reason = refused.code.removeprefix("envelope.")
        raise Refused(StatementCode(f"{name}.{reason}"), refused.detail) from refused
    return Verified(content, statement.kid, statement.payload_hash)
