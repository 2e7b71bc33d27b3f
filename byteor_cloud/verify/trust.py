"""Whose signatures count, and the one way in which this verifier says no."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from byteor_cloud.engine.delivery.keys import KeySet


class EvidenceCode(StrEnum):
    """Refusals of this verifier's own; those of a delivery, an approval or a ledger keep theirs."""

    FILE_MISSING = "evidence.file_missing"
    MALFORMED = "evidence.malformed"
    CREDENTIAL = "evidence.credential"
    DEPLOYMENT = "evidence.deployment"
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


@dataclass(frozen=True, slots=True)
class Trust:
    """A key set, where it came from, and which of its keys count (all of them when none is named)."""

    keyset: KeySet
    source: str
    beside: bool  # whether it came with the evidence, and proves nothing of who made both
    kids: Collection[str] = ()

    def check(self, kid: str) -> None:
        """Raise Unproven when a signature counts that was made by a key that was not named."""
        if self.kids and kid not in self.kids:
            raise Unproven(EvidenceCode.UNTRUSTED_KEY, f"signed by the key {kid}, which --trust does not name")

    def __str__(self) -> str:
        if self.kids:
            return f"only {', '.join(sorted(self.kids))}, as named by --trust"
        if self.beside:
            return f"ANY of {self.source}: whoever made these files chose them; compare the key ids, or use --trust"
        return f"those of {self.source}, as named by --keys"
