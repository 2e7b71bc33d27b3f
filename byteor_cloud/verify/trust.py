"""The keys that the verifier trusts, its outcomes, and the exception for files that prove nothing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from byteor_cloud.engine.delivery.encoding import Json
from byteor_cloud.engine.delivery.keys import KeySet


class EvidenceCode(StrEnum):
    """The verifier's own codes. Faults of a delivery, an approval or a ledger keep the codes of those modules."""

    FILE_MISSING = "evidence.file_missing"
    MALFORMED = "evidence.malformed"
    CREDENTIAL = "evidence.credential"
    DEPLOYMENT = "evidence.deployment"
    NOT_APPROVED = "evidence.not_approved"
    UNTRUSTED_KEY = "keys.untrusted"
    LEDGER_MALFORMED = "ledger.malformed"
    CHECKPOINT_MISSING = "checkpoint.missing"
    CHECKPOINT_ORGANIZATION = "checkpoint.organization"


class Unproven(Exception):
    """The files prove nothing. ``code`` is stable; ``detail`` is for people."""

    def __init__(self, code: StrEnum, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class VerificationOutcome(StrEnum):
    """The outcome of a verification. Only signatures by keys that the caller named prove anything."""

    PROVEN = "proven"
    CONSISTENT = "consistent"
    NOT_PROVEN = "not_proven"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """The trusted keys: all keys of a key set, or only the keys ``kids`` of it if the caller named key ids.

    ``source`` says where the key set came from; ``is_named`` says that the caller named its file.
    """

    keyset: KeySet
    source: str
    is_named: bool
    kids: Collection[str] = ()

    @property
    def outcome(self) -> VerificationOutcome:
        """The outcome for files without faults."""
        return VerificationOutcome.PROVEN if self.is_named or self.kids else VerificationOutcome.CONSISTENT

    def check(self, kid: str) -> None:
        """Raise Unproven if the caller named key ids, but not the id of this key."""
        if self.kids and kid not in self.kids:
            raise Unproven(EvidenceCode.UNTRUSTED_KEY, f"signed by the key {kid}, which --trust does not name")

    def document(self) -> Json:
        """Return the trusted keys as JSON data."""
        return {"source": self.source, "named": self.is_named, "trusted_kids": sorted(self.kids)}

    def __str__(self) -> str:
        if self.kids:
            return f"only {', '.join(sorted(self.kids))}, named with --trust"
        if self.is_named:
            return f"any of {self.source}, named with --keys"
        return f"any of {self.source}, which came with the files: whoever made the files chose these keys"
