"""An exported ledger: every event as it was sealed, each after the one before, up to a signed checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain as iter_chain
from itertools import islice

from byteor_cloud.engine.delivery.encoding import Json, format_time
from byteor_cloud.engine.ledger import Chain, Checkpoint, CheckpointRefused, LedgerCode, Link, read_line

from .trust import EvidenceCode, Trust, Unproven


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerProof:
    """The chain holds from ``first`` to the checkpoint."""

    first: int
    events: int
    checkpoint: Checkpoint

    def document(self) -> Json:
        """Return it as JSON."""
        return {"first_seq": self.first, "events": self.events, "checkpoint": self.checkpoint.document()}

    def lines(self) -> Iterator[tuple[str, str]]:
        """Say it to people."""
        seen = self.checkpoint
        yield "organization", seen.org_id or "none: this is the installation's own chain"
        yield "events", f"{self.events}, from seq {self.first} to {seen.seq}" if self.events else "none"
        yield "checkpoint", f"seq {seen.seq} {seen.hash}, signed {format_time(seen.created_at)}"
        yield "signed by", f"key {seen.kid}"


def prove(exports: Iterable[Iterable[str]], trust: Trust) -> LedgerProof:
    """Verify exports that follow one another, each ended by its checkpoint; Unproven with the first reason if not.

    The first one begins at the first event, or is no more than an earlier checkpoint.
    """
    chain: Chain | None = None
    first = 0
    for lines in exports:
        export = _Export(lines)
        links = list(islice(export, 1))
        if chain is None:
            chain = _begin(links, export, trust)
            first = chain.seq + 1
        for fault in chain.walk(iter_chain(links, export)):
            raise Unproven(fault.code, f"seq {fault.seq}, event {fault.event_id or '(none)'}: {fault.detail}")
        checkpoint = _trusted(export, trust)
        _must_be_at(chain, checkpoint)
    if chain is None:
        raise Unproven(EvidenceCode.CHECKPOINT_MISSING, "there is no export")
    return LedgerProof(first=first, events=chain.count, checkpoint=checkpoint)


def _begin(links: list[Link], export: _Export, trust: Trust) -> Chain:
    for link in links:
        if link.event is not None:
            return Chain(link.event.organization_id)
    checkpoint = _trusted(export, trust)
    return Chain(checkpoint.org_id, seq=checkpoint.seq, last=checkpoint.hash)


def _must_be_at(chain: Chain, checkpoint: Checkpoint) -> None:
    if checkpoint.org_id != chain.organization_id:
        whose = checkpoint.org_id or "the installation"
        raise Unproven(EvidenceCode.CHECKPOINT_ORGANIZATION, f"the checkpoint is of {whose}")
    if checkpoint.seq > chain.seq:
        detail = f"the events end at seq {chain.seq}, and the checkpoint says {checkpoint.seq}"
        raise Unproven(LedgerCode.CUT_OFF, detail)
    if (checkpoint.seq, checkpoint.hash) != (chain.seq, chain.hash):
        raise Unproven(LedgerCode.REWRITTEN, f"seq {checkpoint.seq}: the checkpoint saw another link here")


def _trusted(export: _Export, trust: Trust) -> Checkpoint:
    checkpoint = export.checkpoint()
    try:
        checkpoint.verify(trust.keyset)
    except CheckpointRefused as refused:
        raise Unproven(refused.code, refused.detail) from refused
    trust.check(checkpoint.kid)
    return checkpoint


class _Export:
    """The links of one export; then its checkpoint."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = enumerate(lines, start=1)
        self._last: str | None = None

    def __iter__(self) -> Iterator[Link]:
        return self

    def __next__(self) -> Link:
        for number, text in self._lines:
            if text.startswith('{"checkpoint"'):
                self._last = text
                break
            try:
                return read_line(text.removesuffix("\n"))
            except (ValueError, RecursionError) as error:
                raise Unproven(EvidenceCode.LEDGER_MALFORMED, f"line {number}: {error}") from error
        raise StopIteration

    def checkpoint(self) -> Checkpoint:
        """The last line. Raises Unproven."""
        if self._last is None:
            raise Unproven(EvidenceCode.CHECKPOINT_MISSING, "the export broke off: it has no checkpoint")
        for number, _ in self._lines:
            raise Unproven(EvidenceCode.LEDGER_MALFORMED, f"line {number} comes after the checkpoint")
        try:
            return Checkpoint.read(self._last)
        except CheckpointRefused as refused:
            raise Unproven(refused.code, refused.detail) from refused
