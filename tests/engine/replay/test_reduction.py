"""Tests of incident bundles that are reduced to some of their records."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from byteor.engine.compiler import PipelineSpec, compile_plan, encode
from byteor.engine.replay import (
    BadInput,
    Frame,
    IncidentBundle,
    PipelineRunner,
    Record,
    build_incident,
    encode_journal,
    extract_incident,
    reduce_incident,
    reduction,
    validate_incident,
)
from byteor.engine.replay.inputs import choose_lanes
from byteor.engine.replay.journal import JournalReader, read_frames
from tests.engine.replay import model
from tests.engine.replay.plans import replays
from tests.engine.replay.replays import DOCUMENTS, frames, run
from tests.engine.replay.test_ingresses import graph

TWO = graph("in1>out in2>out")


def ignore(_done: int, _total: int) -> None:
    """Ignore the progress."""


def unpacked(folder: Path, packed: bytes) -> IncidentBundle:
    folder.mkdir()
    extract_incident(BytesIO(packed), folder)
    return validate_incident(folder)


def made(
    folder: Path,
    spec: PipelineSpec,
    journals: Mapping[str, list[Record]],
    *,
    expected: Mapping[str, list[Frame]] | None = None,
    stopped: Any = None,
) -> IncidentBundle:
    packed = build_incident(
        encode(spec),
        {**DOCUMENTS, "outcome.json": {"stopped": stopped}},
        journals={lane: encode_journal(records) for lane, records in journals.items()},
        expected={name: frames(*each) for name, each in (expected or {}).items()},
    )
    return unpacked(folder, packed)


def reduced(folder: Path, bundle: IncidentBundle, lanes: list[str], first: int, last: int) -> IncidentBundle:
    packed = reduce_incident(bundle, lanes, first, last, max_records=1_000, progress=ignore)
    assert packed == reduce_incident(bundle, lanes, first, last, max_records=1_000, progress=ignore)
    return unpacked(folder, packed)


def kept(bundle: IncidentBundle) -> dict[str, list[Record]]:
    found = {}
    for lane, path in bundle.journals.items():
        with path.open("rb") as source:
            found[lane] = [Record(*row[1:]) for row in JournalReader(source).rows()]
    return found


def numbered(*sequences: int) -> list[Record]:
    return [Record(sequence, 10 * sequence, b"%d" % sequence) for sequence in sequences]


def test_reduction_of_one_journal_selects_records_by_position_in_sequence_order(tmp_path: Path) -> None:
    bundle = made(tmp_path / "whole", graph("in>out"), {"in": numbered(5, 1, 4, 2, 3)})

    few = reduced(tmp_path / "few", bundle, ["in"], 1, 3)

    assert kept(few) == {"in": numbered(2, 3, 4)}
    assert (few.spec, few.documents) == (bundle.spec, bundle.documents)


def test_reduction_of_several_journals_selects_records_by_position_in_merge_order(tmp_path: Path) -> None:
    # Record 8 counts as having the time 30, the highest so far in its journal. With equal times, the first journal
    # comes first.
    one = [Record(1, 10, b"a"), Record(2, 30, b"b"), Record(8, 5, b"c"), Record(9, 40, b"d")]
    two = [Record(1, 20, b"A"), Record(2, 30, b"B"), Record(3, 60, b"C")]
    bundle = made(tmp_path / "whole", TWO, {"in1": one, "in2": two})

    few = reduced(tmp_path / "few", bundle, ["in1", "in2"], 3, 4)
    none_of_one = reduced(tmp_path / "none", bundle, ["in1", "in2"], 6, 6)
    only_one = reduced(tmp_path / "only", bundle, ["in2"], 0, 1)

    assert kept(few) == {"in1": one[2:3], "in2": two[1:2]}
    assert kept(none_of_one) == {"in1": [], "in2": two[2:]}
    assert kept(only_one) == {"in2": two[:2]}


@pytest.mark.parametrize(
    ("stopped", "lanes", "is_kept"),
    [
        (None, ["in1", "in2"], True),
        ({"sequence": 2}, ["in1", "in2"], True),
        ({"sequence": 9}, ["in1", "in2"], False),
        ({"sequence": 2, "ingress": "in1"}, ["in1", "in2"], True),
        ({"sequence": 2, "ingress": "in2"}, ["in1", "in2"], False),
        ({"sequence": 2, "ingress": "in2"}, ["in1"], False),
    ],
)
def test_reduction_keeps_outcome_without_stop_or_with_stop_at_kept_record(
    tmp_path: Path, stopped: Any, lanes: list[str], is_kept: bool
) -> None:
    named = stopped and {"stage": "s", "error": "e", **stopped}
    journals = {"in1": numbered(1, 2), "in2": [Record(2, 90, b"")]}
    bundle = made(tmp_path / "whole", TWO, journals, stopped=named)

    few = reduced(tmp_path / "few", bundle, lanes, 0, 1)

    assert few.documents.get("outcome.json") == ({"stopped": named} if is_kept else None)


@pytest.mark.parametrize(
    ("sequences", "lanes", "expected"),
    [
        ((1, 2, 3, 4), ["in1"], [Frame(2, b"x"), Frame(3, b"y")]),
        ((1, 2, 2, 4), ["in1"], [Frame(2, b"x")]),
        ((2, 2, 3, 4), ["in1"], None),
        ((1, 2, 3, 3), ["in1"], None),
        ((1, 2, 3, 4), ["in1", "in2"], None),
    ],
)
def test_reduction_of_one_journal_keeps_frames_unless_kept_and_removed_record_share_sequence(
    tmp_path: Path, sequences: tuple[int, ...], lanes: list[str], expected: list[Frame] | None
) -> None:
    recorded = {"out": [Frame(1, b"w"), Frame(2, b"x"), Frame(3, b"y"), Frame(4, b"z")]}
    bundle = made(tmp_path / "whole", TWO, {"in1": numbered(*sequences), "in2": []}, expected=recorded)

    few = reduced(tmp_path / "few", bundle, lanes, 1, 2)

    if expected is None:
        assert few.expected == {}
    else:
        with few.expected["out"].open("rb") as source:
            assert list(read_frames(source)) == expected


@pytest.mark.parametrize(
    ("first", "last", "detail"),
    [
        (-1, 0, "the last record, with at most 10000 records in this range"),
        (2, 1, "the last record, with at most 10000 records in this range"),
        (0, 10_000, "the last record, with at most 10000 records in this range"),
        (0, 5, "only 5 records"),
        (5, 5, "only 5 records"),
    ],
)
def test_reduction_to_invalid_positions_is_refused(tmp_path: Path, first: int, last: int, detail: str) -> None:
    bundle = made(tmp_path / "whole", graph("in>out"), {"in": numbered(1, 2, 3, 4, 5)})

    with pytest.raises(BadInput, match=detail):
        reduced(tmp_path / "few", bundle, ["in"], first, last)


def test_reduction_to_too_many_bytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reduction, "MAX_BYTES", 3)
    recorded = {"out": [Frame(1, b"ab"), Frame(2, b"cd")]}
    bundle = made(tmp_path / "whole", graph("in>out"), {"in": numbered(1, 2, 3, 4, 5)}, expected=recorded)

    with pytest.raises(BadInput, match="the records have more than 3 bytes"):
        reduced(tmp_path / "few", bundle, ["in"], 0, 3)
    with pytest.raises(BadInput, match="the expected frames have more than 3 bytes"):
        reduced(tmp_path / "few", bundle, ["in"], 0, 1)


@settings(max_examples=60, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(drawn=replays(), data=st.data())
def test_replay_of_reduced_bundle_gives_outputs_of_kept_records(
    tmp_path_factory: pytest.TempPathFactory, drawn: Any, data: st.DataObject
) -> None:
    plan, config, journals = drawn
    spec = compile_plan(plan).spec
    records = model.merged(plan, journals)
    if spec is None or not records:
        return
    first = data.draw(st.integers(0, len(records) - 1))
    last = data.draw(st.integers(first, len(records) - 1))
    folder = tmp_path_factory.mktemp("reduced")
    bundle = made(folder / "whole", spec, journals)
    lanes, _ = choose_lanes(bundle, PipelineRunner(spec, stage_config=config), None)

    few = reduced(folder / "few", bundle, lanes, first, last)

    expected = model.run(plan, config, records[first : last + 1])
    done = run(few, stage_config=config)
    assert {
        name: frames(*(Frame(*each) for each in expected.frames[name])) for name in expected.frames
    } == done.egress_frames
    assert (
        done.stopped and (done.stopped["stage"], done.stopped["sequence"], done.stopped["ingress"])
    ) == expected.stop
