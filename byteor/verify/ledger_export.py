"""Verifies that every event of an exported ledger is unaltered and in its place, up to a signed checkpoint.

The signature of a checkpoint covers the hash of the last link, and each hash covers the link before it. So the
signature covers every event of the export, whether or not the export begins with the first event of the chain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain as iter_chain
from itertools import islice
from typing import NamedTuple

from byteor.engine.canonical import Json, format_time
from byteor.engine.hash_chain import (
    GENESIS,
    Chain,
    Checkpoint,
    CheckpointRefused,
    LedgerCode,
    Link,
    read_line,
)

from .trust import Doubt, EvidenceCode, Signature, Trust, Unproven

_HINT = ". If the export is meant to begin later, use --after with the sequence number after which it begins"


class Start(NamedTuple):
    """The link after which an export begins. ``hash`` is None as long as only the sequence number is known."""

    seq: int = 0
    hash: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerProof:
    """The verified facts about a ledger: its chain is valid from the link after ``start`` to the last checkpoint.

    ``is_start_named`` is True if the caller named the hash of ``start``. Only then is the export proven to continue
    from the events that the caller verified earlier.
    """

    start: Start
    is_start_named: bool
    events: int
    checkpoints: tuple[Checkpoint, ...]
    doubts: tuple[Doubt, ...] = ()

    @property
    def signatures(self) -> list[Signature]:
        """The verified signatures."""
        return [
            Signature(f"checkpoint of seq {checkpoint.seq}", checkpoint.kid, _covered(self.start, checkpoint))
            for checkpoint in self.checkpoints
        ]

    def document(self) -> Json:
        """Return the proof as JSON data."""
        return {
            "first_seq": self.start.seq + 1,
            "after": {"seq": self.start.seq, "hash": self.start.hash, "named": self.is_start_named},
            "events": self.events,
            "checkpoint": self.checkpoints[-1].document(),
        }

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield the lines of the printed proof, each as a label and a value."""
        start, checkpoint = self.start, self.checkpoints[-1]
        yield "organization", checkpoint.org_id or "none: this is the installation's own chain"
        yield "events", f"{self.events}, from seq {start.seq + 1} to {checkpoint.seq}" if self.events else "none"
        if start.seq and self.is_start_named:
            yield "after", f"seq {start.seq} {start.hash}, which you named"
        elif start.seq:
            yield (
                "after",
                f"seq {start.seq} {start.hash}, according to the export: compare the hash with your earlier checkpoint",
            )
        yield "checkpoint", f"seq {checkpoint.seq} {checkpoint.hash}, signed at {format_time(checkpoint.created_at)}"


def _covered(start: Start, checkpoint: Checkpoint) -> str:
    end = f"the ledger ended at seq {checkpoint.seq} at {format_time(checkpoint.created_at)}"
    if checkpoint.seq == start.seq:
        return end
    return f"events {start.seq + 1} to {checkpoint.seq}; {end}"


def prove(exports: Iterable[Iterable[str]], trust: Trust, *, after: Start | None = None) -> LedgerProof:
    """Verify consecutive exports, each of which ends with a checkpoint. Raises Unproven at the first fault.

    The first export begins with the first event of the chain, or with the first event after the link ``after``.
    """
    chain: Chain | None = None
    start, checkpoints = after or Start(), []
    for lines in exports:
        export = _Export(lines)
        links = list(islice(export, 1))
        if chain is None:
            start, chain = _start_chain(start, links, export, trust)
        for fault in chain.verify_links(iter_chain(links, export)):
            is_start = after is None and fault.code is LedgerCode.MISSING and chain.count == 0
            detail = f"seq {fault.seq}, event {fault.event_id or '(none)'}: {fault.detail}"
            raise Unproven(fault.code, detail + (_HINT if is_start else ""))
        checkpoint = _read_checkpoint(export, trust)
        _check_position(chain, checkpoint)
        checkpoints.append(checkpoint)
    if chain is None:
        raise Unproven(EvidenceCode.CHECKPOINT_MISSING, "there is no export")
    return LedgerProof(
        start=start,
        is_start_named=after is not None and after.hash is not None,
        events=chain.count,
        checkpoints=tuple(checkpoints),
    )


def _start_chain(start: Start, links: list[Link], export: _Export, trust: Trust) -> tuple[Start, Chain]:
    """Return the link after which the first export begins, with its hash, and a chain that continues from it."""
    event = links[0].event if links else None
    if event is not None:
        organization_id, before = event.organization_id, links[0].prev_hash
    else:
        checkpoint = _read_checkpoint(export, trust)
        organization_id, before = checkpoint.org_id, checkpoint.hash
    last = start.hash or (before if start.seq else GENESIS)
    return Start(start.seq, last), Chain(organization_id, seq=start.seq, last=last)


def _check_position(chain: Chain, checkpoint: Checkpoint) -> None:
    """Check that the checkpoint belongs to the end of the chain. Raises Unproven."""
    if checkpoint.org_id != chain.organization_id:
        owner = f"organization {checkpoint.org_id}" if checkpoint.org_id else "the installation"
        detail = f"the checkpoint belongs to {owner}, but the events do not"
        raise Unproven(EvidenceCode.CHECKPOINT_ORGANIZATION, detail)
    signed = f"the checkpoint was signed at seq {checkpoint.seq}"
    if checkpoint.seq > chain.seq:
        hint = "" if chain.count or chain.seq else _HINT
        raise Unproven(LedgerCode.CUT_OFF, f"the events end at seq {chain.seq}, but {signed}{hint}")
    if checkpoint.seq < chain.seq:
        raise Unproven(LedgerCode.UNSEALED, f"the events continue to seq {chain.seq}, but {signed}")
    if checkpoint.hash != chain.hash:
        detail = f"seq {checkpoint.seq}: the hash in the checkpoint differs from the hash of the chain"
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
