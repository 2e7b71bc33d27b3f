"""Reduces an incident bundle to some of its records, for a fixture."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import islice

from byteor.engine.compiler import encode
from byteor.engine.replay.incident import IncidentBundle, build_incident
from byteor.engine.replay.inputs import BadInput, Progress, expected_frames, open_journals
from byteor.engine.replay.journal import Record, encode_frame, encode_journal
from byteor.engine.replay.selection import Selection

# The size limit of all payloads, and of the expected frames of each egress. A reduced bundle is built in memory.
MAX_BYTES = 16 * 1024 * 1024
MAX_RECORDS = 10_000


def reduce_incident(
    bundle: IncidentBundle, lanes: list[str], first: int, last: int, *, max_records: int, progress: Progress
) -> bytes:
    """Return a bundle with only the records ``first`` to ``last`` of the journals of ``lanes``, both included.

    Positions count the merged records from 0 (``selection.py``). Records keep their sequences and times, and therefore
    their order. Other journals are left out. ``outcome.json`` is left out if it names a stop at a sequence that no
    kept record of the stop's ingress has. The expected frames of the kept records' sequences are kept, except in two
    cases: if there are several ``lanes``, or if a left-out record of the same journal has one of these sequences.

    Raises BadInput if the positions are not those of records, if there are too many records or bytes, or if a file of
    the bundle is damaged. Raises LimitExceeded as ``open_journals`` does.
    """
    if not 0 <= first <= last or last - first >= MAX_RECORDS:
        detail = f"the positions of the first and the last record, with at most {MAX_RECORDS} records in this range"
        raise BadInput(f"`records` must be {detail}")
    with ExitStack() as files:
        journals = list(open_journals(bundle, lanes, files, max_records, progress))
        selection = Selection(journals, None)
        if last >= selection.records:
            found = "is only 1 record" if selection.records == 1 else f"are only {selection.records} records"
            raise BadInput(f"there {found}, and positions start at 0")
        before, taken = [0] * len(journals), [0] * len(journals)
        for rank, (number, _, _) in enumerate(islice(selection.rows(), last + 1)):
            (before if rank < first else taken)[number] += 1
        kept, size = dict[str, list[Record]](), 0
        sequences, others = set[int](), set[int]()
        for number, journal in enumerate(journals):
            kept[journal.lane] = []
            start = max(0, before[number] - 1)
            rows = islice(journal.rows(start), before[number] - start + taken[number] + 1)  # with both neighbors
            for position, (_, sequence, unix_ns, payload) in enumerate(rows, start):
                if not 0 <= position - before[number] < taken[number]:
                    others.add(sequence)
                    continue
                size += len(payload)
                if size > MAX_BYTES:
                    raise BadInput(f"the records have more than {MAX_BYTES} bytes")
                kept[journal.lane].append(Record(sequence, unix_ns, payload))
                sequences.add(sequence)
    documents = dict(bundle.documents)
    stopped = documents.get("outcome.json", {}).get("stopped")
    if stopped is not None:
        ingress = stopped.get("ingress")
        at = (record.sequence for lane in kept if ingress in (None, lane) for record in kept[lane])
        if stopped.get("sequence") not in at:
            del documents["outcome.json"]
    has_expected = len(lanes) == 1 and sequences.isdisjoint(others)
    return build_incident(
        encode(bundle.spec),
        documents,
        journals={lane: encode_journal(records) for lane, records in kept.items()},
        expected={name: _frames(bundle, name, sequences) for name in bundle.expected if has_expected},
    )


def _frames(bundle: IncidentBundle, egress: str, sequences: set[int]) -> bytes:
    """Return the expected frames with these sequences."""
    frames, size = [], 0
    with bundle.expected[egress].open("rb") as source:
        for frame in expected_frames(egress, source):
            if frame.sequence in sequences:
                frames.append(encode_frame(frame))
                size += len(frames[-1])
                if size > MAX_BYTES:
                    raise BadInput(f"the expected frames have more than {MAX_BYTES} bytes")
    return b"".join(frames)
