"""The sample: the input of an activated pipeline, read from a file."""

from __future__ import annotations

import io
import time
from operator import attrgetter
from pathlib import Path

from byteor.engine.replay import BadJournal, JournalReader, Record

_MAX_BYTES = 64 * 1024 * 1024


class InvalidSample(Exception):
    """A sample file that cannot be read or is too large."""


def read_sample(path: Path) -> tuple[Record, ...]:
    """Read a journal, sorted by sequence number, or a text file, in which each non-empty line is a payload.

    Raises InvalidSample.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise InvalidSample(f"the sample {path} has more than {_MAX_BYTES} bytes")
        if data.startswith(b"BYTJ"):
            return tuple(sorted(JournalReader(io.BytesIO(data)), key=attrgetter("sequence")))
    except (OSError, BadJournal) as error:
        raise InvalidSample(f"the sample {path} cannot be read: {error}") from error
    now = time.time_ns()
    lines = (line.rstrip(b"\r") for line in data.split(b"\n"))
    return tuple(Record(sequence, now, line) for sequence, line in enumerate(filter(None, lines), start=1))
