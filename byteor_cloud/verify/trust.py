"""Whose signatures count, and the one way in which this verifier says no."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from byteor_cloud.engine.delivery.encoding import Json
from byteor_cloud.engine.delivery.keys import KeySet


class EvidenceCode(StrEnum):
    """Refusals of this verifier's own; those of a delivery, an approval or a ledger keep theirs."""

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
    """The files do not prove it; ``code`` is stable, ``detail`` is for people."""

    def __init__(self, code: StrEnum, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class Outcome(StrEnum):
    """What the files amount to. Only signatures of keys that the caller named prove anything."""

    PROVEN = "proven"
    CONSISTENT = "consistent"
    NOT_PROVEN = "not_proven"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """The keys whose signatures count: a key set, where it came from, and what of it the caller named.

    ``is_named`` says that the caller named the file of the set. ``kids`` are the key ids that the caller named; with
    any of them no other key of the set counts.
    """

    keyset: KeySet
    source: str
    is_named: bool
    kids: Collection[str] = ()

    @property
    def outcome(self) -> Outcome:
        """What files amount to in which nothing is wrong."""
        return Outcome.PROVEN if self.is_named or self.kids else Outcome.CONSISTENT

    def check(self, kid: str) -> None:
        """Raise Unproven for a signature of a key that is not among the named ones."""
        if self.kids and kid not in self.kids:
            raise Unproven(EvidenceCode.UNTRUSTED_KEY, f"signed by the key {kid}, which --trust does not name")

    def document(self) -> Json:
        """Return it as JSON."""
        return {"source": self.source, "named": self.is_named, "trusted_kids": sorted(self.kids)}

    def __str__(self) -> str:
        if self.kids:
            return f"only {', '.join(sorted(self.kids))}, as named by --trust"
        if self.is_named:
            return f"those of {self.source}, as named by --keys"
        return f"any of {self.source}, which came with the files: whoever made the files chose them"
