"""The keys that the verifier trusts, the signatures that it found, and its fault codes, outcomes and doubts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from byteor.engine.canonical import Json
from byteor.engine.signing.keys import KeySet


class EvidenceCode(StrEnum):
    """The verifier's own codes of faults and doubts. Other faults have the codes of the engine."""

    FILE_MISSING = "evidence.file_missing"
    MALFORMED = "evidence.malformed"
    ENTRY_EXTRA = "evidence.entry_extra"
    ENTRY_TYPE = "evidence.entry_type"
    TOO_LARGE = "evidence.too_large"
    CREDENTIAL = "evidence.credential"
    DEPLOYMENT = "evidence.deployment"
    CONFIG_HASH = "evidence.config_hash"
    CAPABILITIES = "evidence.capabilities"
    APPROVAL_RECORD = "evidence.approval_record"
    APPROVAL_RECORD_MISSING = "evidence.approval_record_missing"
    NOT_APPROVED = "evidence.not_approved"
    UNTRUSTED_KEY = "keys.untrusted"
    EXPORTED_KEYS = "keys.exported"
    LEDGER_MALFORMED = "ledger.malformed"
    CHECKPOINT_MISSING = "checkpoint.missing"
    CHECKPOINT_ORGANIZATION = "checkpoint.organization"
    RELEASE_ALTERED = "release.altered"


class Unproven(Exception):
    """The files prove nothing. ``code`` is stable, and ``detail`` is human-readable."""

    def __init__(self, code: StrEnum, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class VerificationOutcome(StrEnum):
    """The outcome of a verification. Only signatures by keys that the caller named prove anything."""

    PROVEN = "proven"
    CONSISTENT = "consistent"
    NOT_PROVEN = "not_proven"


class Doubt(NamedTuple):
    """A reason why files without faults are only consistent and not proven."""

    code: EvidenceCode
    detail: str


class Signature(NamedTuple):
    """A valid signature, where it was found, and what it covers."""

    place: str
    kid: str
    covers: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """The trusted keys: a whole key set, or only its keys with the ids ``kids`` if the caller named any.

    ``source`` describes where the key set came from. ``is_named`` is True if the caller named its file.
    """

    keyset: KeySet
    source: str
    is_named: bool
    kids: Collection[str] = ()

    @property
    def is_chosen(self) -> bool:
        """Whether the caller chose the keys, rather than the creator of the files."""
        return self.is_named or bool(self.kids)

    @property
    def doubts(self) -> Sequence[Doubt]:
        """The reasons why files signed with these keys are not proven."""
        if self.is_chosen:
            return ()
        detail = "the keys came with the files. Use --trust or --keys to name the keys that you trust."
        return (Doubt(EvidenceCode.EXPORTED_KEYS, detail),)

    def check(self, kid: str) -> None:
        """Raise Unproven if the caller named key ids, but not this one."""
        if self.kids and kid not in self.kids:
            raise Unproven(EvidenceCode.UNTRUSTED_KEY, f"signed by the key {kid}, which --trust does not name")

    def signature_lines(self, signatures: Sequence[Signature]) -> list[tuple[str, str]]:
        """Return a labeled line per signature: its place and key, whether the key is trusted, and what is covered."""
        trusted = "trusted" if self.is_chosen else "not trusted"
        return [("signature", f"{place}, key {kid} ({trusted}): {covers}") for place, kid, covers in signatures]

    def signature_documents(self, signatures: Sequence[Signature]) -> list[Json]:
        """Return the signatures as JSON data."""
        return [{**signature._asdict(), "trusted": self.is_chosen} for signature in signatures]

    def document(self) -> Json:
        """Return the source of the keys, whether the caller named it, and the named key ids as JSON data."""
        return {"source": self.source, "named": self.is_named, "trusted_kids": sorted(self.kids)}

    def __str__(self) -> str:
        if self.kids:
            return f"only {', '.join(sorted(self.kids))}, named with --trust"
        if self.is_named:
            return f"any of {self.source}, named with --keys"
        return f"any of {self.source}, which came with the files: whoever created the files chose these keys"
