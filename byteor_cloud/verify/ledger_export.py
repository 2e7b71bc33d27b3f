"""Verifies exported ledgers: that every event is unaltered and in its place, up to a signed checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain as iter_chain
from itertools import islice

from byteor_cloud.engine.delivery.encoding import Json, format_time
from byteor_cloud.engine.hash_chain import Chain, Checkpoint, CheckpointRefused, LedgerCode, Link, read_line

from .trust import EvidenceCode, Trust, Unproven


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerProof:
    """The verified facts about a ledger: its chain is valid from the sequence number ``first`` to the checkpoint."""

    first: int
    events: int
    checkpoint: Checkpoint

    def document(self) -> Json:
        """Return the proof as JSON data."""
        return {"first_seq": self.first, "events": self.events, "checkpoint": self.checkpoint.document()}

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield the lines of the printed proof, each as a label and a text."""
        checkpoint = self.checkpoint
        yield "organization", checkpoint.org_id or "none: this is the installation's own chain"
        yield "events", f"{self.events}, from seq {self.first} to {checkpoint.seq}" if self.events else "none"
        yield "checkpoint", f"seq {checkpoint.seq} {checkpoint.hash}, signed at {format_time(checkpoint.created_at)}"
        yield "signed by", f"key {checkpoint.kid}"


def prove(exports: Iterable[Iterable[str]], trust: Trust) -> LedgerProof:
    """Verify consecutive exports, each of which ends with a checkpoint. Raises Unproven at the first fault.

    The first export begins with the first event of the chain, or it consists only of an earlier checkpoint.
    """
    chain: Chain | None = None
    first = 0
    for lines in exports:
        export = _Export(lines)
        links = list(islice(export, 1))
        if chain is None:
            chain = _start_chain(links, export, trust)
            first = chain.seq + 1
        for fault in chain.verify_links(iter_chain(links, export)):
            raise Unproven(fault.code, f"seq {fault.seq}, event {fault.event_id or '(none)'}: {fault.detail}")
        checkpoint = _read_checkpoint(export, trust)
        _check_position(chain, checkpoint)
    if chain is None:
        raise Unproven(EvidenceCode.CHECKPOINT_MISSING, "there is no export")
    return LedgerProof(first=first, events=chain.count, checkpoint=checkpoint)


def _start_chain(links: list[Link], export: _Export, trust: Trust) -> Chain:
    for link in links:
        if link.event is not None:
            return Chain(link.event.organization_id)
    checkpoint = _read_checkpoint(export, trust)
    return Chain(checkpoint.org_id, seq=checkpoint.seq, last=checkpoint.hash)


def _check_position(chain: Chain, checkpoint: Checkpoint) -> None:
    """Check that the checkpoint belongs to the end of the chain. Raises Unproven."""
    if checkpoint.org_id != chain.organization_id:
        owner = f"organization {checkpoint.org_id}" if checkpoint.org_id else "the installation"
        detail = f"the checkpoint belongs to {owner}, but the events do not"
        raise Unproven(EvidenceCode.CHECKPOINT_ORGANIZATION, detail)
    if checkpoint.seq > chain.seq:
        detail = f"the events end at seq {chain.seq}, but the checkpoint was signed at seq {checkpoint.seq}"
        raise Unproven(LedgerCode.CUT_OFF, detail)
    if (checkpoint.seq, checkpoint.hash) != (chain.seq, chain.hash):
        detail = f"seq {checkpoint.seq}: the checkpoint was signed over another hash for this sequence number"
        raise Unproven(LedgerCode.REWRITTEN, detail)


def _read_checkpoint(export: _Export, trust: Trust) -> Checkpoint:
    """Return the checkpoint of an export after checking its signature. Raises Unproven."""
    checkpoint = export.checkpoint()
    try:
        checkpoint.verify(trust.keyset)
    except CheckpointRefused as refused:
        raise Unproven(refused.code, refused.detail) from refused
    trust.check(checkpoint.kid)
    return checkpoint


class _Export:
    """One export: iterate over its links first, then read its checkpoint."""

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
        """Parse the last line of the export. Raises Unproven."""
        if self._last is None:
            raise Unproven(EvidenceCode.CHECKPOINT_MISSING, "the export is incomplete: it has no checkpoint")
        for number, _ in self._lines:
            raise Unproven(EvidenceCode.LEDGER_MALFORMED, f"line {number} comes after the checkpoint")
        try:
            return Checkpoint.read(self._last)
        except CheckpointRefused as refused:
            raise Unproven(refused.code, refused.detail) from refused
