"""Fuzzing of the readers of journals, frames, archives, specs and indexes: no crash, and bounded memory for journals.

``BYTEOR_FUZZ_CASES`` is the number of cases that each call of ``each_case`` tries, by default 200.
"""

import io
import os
import random
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from byteor.engine.compiler import KvError, decode, encode
from byteor.engine.replay import (
    ArchiveLimits,
    BadJournal,
    IncidentBundle,
    JournalIndex,
    JournalReader,
    Record,
    RejectedBundle,
    StaleIndex,
    build_incident,
    encode_journal,
    extract_incident,
    index_file,
    read_frames,
    validate_incident,
)
from tests.engine.replay.replays import MakeRing, run

CASES = int(os.environ.get("BYTEOR_FUZZ_CASES", "200"))
RECORDS = [Record(number, 10 * number, b'{"n":%d}' % number) for number in range(20)]
_MEMORY = 4 * 1024 * 1024


def mutated(data: bytes, source: random.Random) -> bytes:
    """Return the data after up to four changes: bits flipped, or bytes removed, repeated, replaced or inserted."""
    changed = bytearray(data)
    for _ in range(source.randint(1, 4)):
        at = source.randrange(len(changed) + 1)
        length = source.choice([1, 1, 2, 4, 8, 24, 100])
        kind = source.randrange(6)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << source.randrange(8)
        elif kind == 1:
            del changed[at : at + length]
        elif kind == 2:
            changed[at:at] = changed[at : at + length]
        elif kind == 3:
            changed[at : at + length] = source.choice([b"\0", b"\xff"]) * length
        elif kind == 4:
            changed[at:at] = source.randbytes(length)
        else:
            del changed[at:]
    return bytes(changed)


def each_case(seed: int, data: bytes, use: Callable[[bytes], object], *refusals: type[Exception]) -> int:
    """Call ``use`` with mutated data, and return the number of accepted cases. Only ``refusals`` may be raised."""
    source = random.Random(seed)
    accepted = 0
    for _ in range(CASES):
        case = mutated(data, source)
        with suppress(*refusals):
            use(case)
            accepted += 1
    return accepted


@pytest.mark.parametrize("version", [1, 2])
def test_damaged_journals_are_refused_or_read(version: int) -> None:
    whole = encode_journal(RECORDS, version)

    def read(case: bytes) -> None:
        reader = JournalReader(io.BytesIO(case))
        found = list(reader)
        assert reader.payload_bytes(len(found)) == sum(len(record.payload) for record in found)
        if version == 2:  # the CRC also covers the record's header, so only written records are read
            assert all(record in RECORDS for record in found)

    tracemalloc.start()
    accepted = each_case(version, whole, read, BadJournal)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert accepted
    assert peak < _MEMORY


def test_damaged_frames_are_refused_or_read() -> None:
    each_case(3, encode_journal(RECORDS)[8:], lambda case: list(read_frames(io.BytesIO(case))), BadJournal)


def test_damaged_journals_are_replayed_or_refused_as_bad_input(tmp_path: Path, ring: MakeRing) -> None:
    spec = ring("identity")
    journal, frames = tmp_path / "in.bin", tmp_path / "out.bin"
    incident = IncidentBundle(spec, "", {}, {"in": journal}, {"out": frames})
    frames.write_bytes(b"")

    def replay(case: bytes) -> None:
        journal.write_bytes(case)
        outcome = run(incident, last_n=5)
        assert outcome.error_code in (None, "bad_input")

    assert each_case(4, encode_journal(RECORDS[::-1]), replay) == CASES
    assert sorted(tmp_path.iterdir()) == [journal, frames]


def test_damaged_indexes_are_refused_or_read(tmp_path: Path) -> None:
    journal, index = tmp_path / "in.bin", tmp_path / "in.idx"
    journal.write_bytes(encode_journal(RECORDS))
    index_file(journal, index)

    def use(case: bytes) -> None:
        index.write_bytes(case)
        with JournalIndex.open(journal, index) as opened:
            for number in range(25):
                opened.find_sequence(number)
                opened.find_time(number)
            list(opened.rows())

    each_case(5, index.read_bytes(), use, StaleIndex)


def test_damaged_archives_are_refused_or_unpacked(
    tmp_path: Path, ring: MakeRing, documents: dict[str, dict[str, object]]
) -> None:
    packed = build_incident(encode(ring("identity")), documents, journals={"in": encode_journal(RECORDS)})
    limits = ArchiveLimits(max_bytes=1024 * 1024, max_entries=100)
    number = 0

    def unpack(case: bytes) -> None:
        nonlocal number
        number += 1
        root = tmp_path / str(number)
        root.mkdir()
        extract_incident(io.BytesIO(case), root, limits)
        validate_incident(root)

    each_case(6, packed, unpack, RejectedBundle)
    plain = io.BytesIO()
    import gzip

    with gzip.GzipFile(fileobj=io.BytesIO(packed)) as unzipped:
        plain.write(unzipped.read())
    each_case(7, plain.getvalue(), lambda case: unpack(gzip.compress(case, 1)), RejectedBundle)
    assert {path.name for path in tmp_path.iterdir()} <= {str(at) for at in range(number + 1)} | {"root", "outside"}


def test_damaged_specs_are_refused_or_decoded(ring: MakeRing) -> None:
    text = encode(ring("identity", "dataguard_check", shards=2, shard_key="a")).encode()

    def read(case: bytes) -> None:
        again = encode(decode(case))
        assert encode(decode(again.encode())) == again

    assert each_case(8, text, read, KvError)
