"""The sample input that a pipeline is activated with."""

from __future__ import annotations

import io
import time
from operator import attrgetter
from pathlib import Path

from byteor_cloud.engine.replay import BadJournal, JournalReader, Record

_MAX_BYTES = 64 * 1024 * 1024


class BadSample(Exception):
    """A sample file that can't be read."""


def read_sample(path: Path) -> tuple[Record, ...]:
    """Read a journal file, in the order of its sequences, or a text file with one payload a line.

    Empty lines are skipped.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise BadSample(f"the sample {path} has more than {_MAX_BYTES} bytes")
        if data.startswith(b"BYTJ"):
            return tuple(sorted(JournalReader(io.BytesIO(data)), key=attrgetter("sequence")))
    except (OSError, BadJournal) as error:
        raise BadSample(f"the sample {path} can't be read: {error}") from error
    now = time.time_ns()
    lines = (line.rstrip(b"\r") for line in data.split(b"\n"))
    return tuple(Record(sequence, now, line) for sequence, line in enumerate(filter(None, lines), start=1))
