"""The check of a new fixture, as the child process performs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from byteor.engine.compiler import Ops, encode
from byteor.engine.replay import BadInput, Record, ReplayLimits, build_incident, encode_journal
from byteor_cloud.captures import fixtures
from tests.engine.replay.replays import DOCUMENTS
from tests.engine.replay.test_ingresses import graph


def test_reduction_of_capture_with_too_many_records_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fixtures, "ReplayLimits", lambda **_: ReplayLimits(max_records=1))
    journal = encode_journal([Record(1, 1, b"1"), Record(2, 2, b"2")])
    archive = tmp_path / "archive"
    archive.write_bytes(build_incident(encode(graph("in>out")), DOCUMENTS, journals={"in": journal}))
    request = {
        "archive": str(archive), "spec_kv": None, "journal_lane": None, "last_n": None, "records": [0, 0],
        "reduced": str(tmp_path / "reduced"), "max_work": 100,
    }  # fmt: skip

    with pytest.raises(BadInput, match="the journals have more than 1 records"):
        fixtures.check_fixture(request, Ops(), lambda *_: None)
