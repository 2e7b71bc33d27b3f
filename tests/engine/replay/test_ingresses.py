"""Tests of replays with several ingresses, and of notes, reproduced stops, progress and work limits."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from byteor.engine.compiler import compile_plan
from byteor.engine.compiler.spec import LaneGraph, PipelineSpec
from byteor.engine.replay import (
    Cancelled,
    Frame,
    IncidentBundle,
    Record,
    ReplayLimits,
    ReplayOutcome,
    encode_journal,
    read_frames,
)
from byteor.engine.replay.inputs import unfed_egresses
from tests.engine.replay.replays import MakeBundle, MakeRing, frames, run


def graph(connections: str, ops: Mapping[str, str] | None = None, **more: Any) -> PipelineSpec:
    """Compile a lane graph with connections such as ``ina>s inb>s s>out``.

    Names that start with ``in`` are ingresses, and names that start with ``out`` are egresses.
    """
    pairs = [part.split(">") for part in connections.split()]
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    stages = [name for name in names if not name.startswith(("in", "out"))]
    body = {
        "ingress": [name for name in names if name.startswith("in")],
        "egress": [name for name in names if name.startswith("out")],
        "stages": [{"id": name, "op": (ops or {}).get(name, "identity")} for name in stages],
        "connections": [{"from": source, "to": target, **more.get("lane", {})} for source, target in pairs],
    }
    body |= {key: value for key, value in more.items() if key != "lane"}
    compilation = compile_plan({"plan_v": 1, "name": "g", "target": "lane_graph", "lane_graph": body})
    assert compilation.spec is not None, compilation.diagnostics
    return compilation.spec


def bundle_of(
    folder: Path,
    spec: PipelineSpec,
    journals: Mapping[str, list[Record]],
    expected: Mapping[str, list[Frame]] | None = None,
    outcome: dict[str, Any] | None = None,
) -> IncidentBundle:
    """Write the journals and expected frames to the folder, and return a bundle that refers to these files."""
    paths: dict[str, dict[str, Path]] = {"journal": {}, "expected": {}}
    contents = {"journal": {name: encode_journal(records) for name, records in journals.items()}}
    contents["expected"] = {name: frames(*items) for name, items in (expected or {}).items()}
    for kind, files in contents.items():
        (folder / kind).mkdir(exist_ok=True)
        for name, content in files.items():
            paths[kind][name] = folder / kind / f"{name}.bin"
            paths[kind][name].write_bytes(content)
    documents = {} if outcome is None else {"outcome.json": outcome}
    return IncidentBundle(spec, "", documents, paths["journal"], paths["expected"])


def outputs(outcome: ReplayOutcome, egress: str = "out") -> list[tuple[int, bytes]]:
    from io import BytesIO

    content = outcome.egress_frames[egress]
    assert content is not None
    return [(frame.sequence, frame.payload) for frame in read_frames(BytesIO(content))]


TWO = "ina>s inb>s s>out"


def test_merge_by_time_keeps_sequence_order_within_each_ingress(tmp_path: Path) -> None:
    a = [Record(3, 30, b"a3"), Record(1, 20, b"a1"), Record(2, 10, b"a2"), Record(3, 30, b"a3'")]
    b = [Record(9, 20, b"b9"), Record(10, 5, b"b10"), Record(11, 30, b"b11"), Record(12, 31, b"b12")]

    outcome = run(bundle_of(tmp_path, graph(TWO), {"ina": a, "inb": b}))

    assert [payload for _, payload in outputs(outcome)] == [
        b"a1", b"a2", b"b9", b"b10", b"a3", b"a3'", b"b11", b"b12",
    ]  # fmt: skip
    assert outcome.audit["input"]["journal_lane"] is None
    assert outcome.audit["input"]["scanned_records"] == 8
    last = run(bundle_of(tmp_path, graph(TWO), {"ina": a, "inb": b}), last_n=3)
    assert [payload for _, payload in outputs(last)] == [b"a3'", b"b11", b"b12"]
    assert last.audit["input"]["selected_bytes"] == 9


def test_journal_of_lane_that_is_not_ingress_is_ignored_with_warning(tmp_path: Path) -> None:
    incident = bundle_of(tmp_path, graph(TWO), {"ina": [Record(1, 1, b"a")], "out": [Record(2, 2, b"x")]})

    outcome = run(incident)

    assert outputs(outcome) == [(1, b"a")]
    assert outcome.warnings == ("journal/out.bin is not replayed, because its lane is not an ingress of the spec",)
    assert run(incident, journal_lane="ina").warnings == ()
    egress = run(incident, journal_lane="out")
    assert (egress.status, egress.error_code) == ("failed", "bad_input")
    assert egress.error == "'out' is not an ingress or a lane of the spec; its ingresses are: ina, inb"
    none = run(bundle_of(tmp_path, graph(TWO), {"out": []}))
    assert none.error == "the bundle has no journal of any ingress (ina, inb); its journals are: out"


def test_egress_reached_by_unreplayed_ingress_is_not_compared(tmp_path: Path) -> None:
    spec = graph("ina>s s>outx ina>t inb>t t>outy")
    expected = {"outx": [Frame(1, b"other")], "outy": [Frame(1, b"other"), Frame(2, b"more")]}
    incident = bundle_of(tmp_path, spec, {"ina": [Record(1, 1, b"a")]}, expected)

    result = run(incident).result

    assert result["notes"] == [{"code": "not_compared", "name": "outy", "count": 2}]
    assert (result["divergence"]["egress"], result["divergence"]["ingress"]) == ("outx", "ina")
    both = bundle_of(tmp_path, spec, {"ina": [Record(1, 1, b"a")], "inb": []}, expected)
    assert run(both).result["notes"] == []
    assert run(both, journal_lane="ina").result["notes"] == [{"code": "not_compared", "name": "outy", "count": 2}]


def test_first_divergence_is_first_in_merge_order(tmp_path: Path) -> None:
    spec = graph("ina>s s>outx inb>t t>outy")
    journals = {"ina": [Record(1, 20, b"a")], "inb": [Record(7, 10, b"b")]}
    incident = bundle_of(tmp_path, spec, journals, {"outx": [Frame(1, b"x")], "outy": [Frame(7, b"y")]})

    divergence = run(incident).result["divergence"]

    assert (divergence["egress"], divergence["sequence"], divergence["ingress"]) == ("outy", 7, "inb")


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        ([(7, b"b"), (1, b"a"), (8, b"b")], None),
        ([(7, b"b"), (7, b"b"), (1, b"a"), (8, b"b")], ("missing", 7, "inb")),
        ([(1, b"a"), (8, b"b")], ("extra", 7, "inb")),
        ([(7, b"b"), (8, b"b")], ("extra", 1, "ina")),
        ([(7, b"b"), (1, b"a")], ("extra", 8, "inb")),
        ([(7, b"b"), (1, b"x"), (8, b"b")], ("bytes", 1, "ina")),
    ],
)
def test_divergence_names_its_ingress(
    tmp_path: Path, expected: list[tuple[int, bytes]], found: tuple[str, int, str] | None
) -> None:
    journals = {"ina": [Record(1, 20, b"a")], "inb": [Record(7, 10, b"b"), Record(8, 30, b"b")]}
    incident = bundle_of(tmp_path, graph(TWO), journals, {"out": [Frame(*item) for item in expected]})

    divergence = run(incident).result["divergence"]

    kept = divergence and (divergence["kind"], divergence["sequence"], divergence["ingress"])
    assert kept == found


def test_drops_and_stops_name_their_ingress(tmp_path: Path) -> None:
    spec = graph("ina>s inb>s s>t t>out", {"s": "dataguard_check", "t": "dataguard_check"})
    journals = {"ina": [Record(1, 1, b"[]"), Record(2, 3, b'{"a":1}')], "inb": [Record(1, 2, b"[]")]}
    config = {"s": {"schema": True}, "t": {"schema": False, "on_reject": "stop"}}
    stopped = {"stage": "t", "sequence": 2, "error": "anything", "ingress": "ina"}
    incident = bundle_of(tmp_path, spec, journals, outcome={"stopped": stopped})

    outcome = run(incident, stage_config=config)

    assert outcome.result["stages"]["s"]["drops"] == {"not_object": {"count": 2, "first_sequence": 1, "ingress": "ina"}}
    detail = "payload rejected: does not conform to the schema"
    assert outcome.error == f"stage 't' failed on record 2 of 'ina': {detail}"
    assert outcome.stopped == stopped | {"error": detail}
    assert (outcome.error_code, outcome.result["reproduced"]) == ("stage_error", True)
    other = replace(incident, documents={"outcome.json": {"stopped": stopped | {"ingress": "inb"}}})
    assert run(other, stage_config=config).result["reproduced"] is False


def test_reproduced_is_true_only_if_replay_stops_or_completes_as_recorded(bundle: MakeBundle, ring: MakeRing) -> None:
    incident = bundle(ring("dataguard_check"), [Record(1, 1, b"[]")])
    stop = {"s0": {"schema": True, "on_reject": "stop"}}

    def reproduced(stopped: object, **options: Any) -> object:
        return run(replace(incident, documents={"outcome.json": {"stopped": stopped}}), **options).result["reproduced"]

    assert run(incident).result["reproduced"] is None
    assert reproduced(None) is True
    assert reproduced(None, stage_config=stop) is False
    at = {"stage": "s0", "sequence": 1, "error": None}
    assert reproduced(at) is False
    assert reproduced(at, stage_config=stop) is True
    assert reproduced(at | {"sequence": 2}, stage_config=stop) is False
    assert reproduced(at | {"stage": "s1"}, stage_config=stop) is False
    assert reproduced(None, journal_lane="x") is None


def test_frames_of_unselected_records_are_not_compared(bundle: MakeBundle, ring: MakeRing) -> None:
    records = [Record(5, 1, b"a"), Record(5, 2, b"b"), Record(6, 3, b"c")]
    incident = bundle(
        ring("identity"), records, expected={"out": frames(Frame(5, b"a"), Frame(5, b"b"), Frame(6, b"x"))}
    )

    one, two = run(incident, last_n=1).result, run(incident, last_n=2).result

    assert (one["divergence"]["sequence"], one["notes"]) == (6, [])
    assert (two["divergence"]["sequence"], two["notes"]) == (
        6,
        [{"code": "shared_sequence", "name": "out", "count": 2}],
    )
    assert run(incident).result["notes"] == []


def test_last_n_that_splits_records_with_same_sequence_causes_no_divergence(bundle: MakeBundle, ring: MakeRing) -> None:
    incident = bundle(
        ring("identity"),
        [Record(5, 1, b"a"), Record(5, 2, b"b")],
        expected={"out": frames(Frame(5, b"a"), Frame(5, b"b"))},
    )

    outcome = run(incident, last_n=1)

    assert (outcome.status, outcome.result["divergence"]) == ("succeeded", None)
    assert outcome.result["notes"] == [{"code": "shared_sequence", "name": "out", "count": 2}]


def test_replay_notes_lanes_that_could_drop_records_in_production(tmp_path: Path) -> None:
    lane = {"lane": {"kind": "sequenced_slots", "capacity": 1}}
    spec = graph("in>a in>b a>c b>c c>out", on_full="drop", features=["sequenced_slots"], lane={"lane": lane["lane"]})
    assert isinstance(spec.model, LaneGraph)

    result = run(bundle_of(tmp_path, spec, {"in": [Record(1, 1, b"x"), Record(2, 2, b"y")]})).result
    blocking = PipelineSpec("g", replace(spec.model, on_full="block"))
    noted = [note for note in result["notes"] if note["code"] == "lossless_lane"]

    assert noted
    assert all(note["count"] == 2 for note in noted)
    assert run(bundle_of(tmp_path, blocking, {"in": [Record(1, 1, b"x")]})).result["notes"] == []


def test_progress_callback_receives_counts_and_can_cancel(bundle: MakeBundle, ring: MakeRing) -> None:
    incident = bundle(ring("identity"), [Record(number, 0, b"x") for number in range(5000)])
    seen: list[tuple[int, int]] = []

    assert run(incident, progress=lambda done, total: seen.append((done, total))).error is None

    assert seen == [(0, 5000), (0, 5000), (2000, 5000), (4000, 5000), (5000, 5000)]

    def cancel(done: int, _total: int) -> None:
        if done:
            raise Cancelled

    with pytest.raises(Cancelled):
        run(incident, progress=cancel)
    assert list(incident.journals["in"].parent.iterdir()) == [incident.journals["in"]]


def test_expected_files_of_unknown_egresses_are_not_kept_open(tmp_path: Path, ring: MakeRing) -> None:
    expected = {f"more{number}": [Frame(1, b"x"), Frame(2, b"y")] for number in range(2000)}
    incident = bundle_of(tmp_path, ring("identity"), {"in": [Record(1, 1, b"x")]}, expected)

    divergence = run(incident).result["divergence"]

    assert (divergence["egress"], divergence["kind"], divergence["sequence"]) == ("more0", "missing", 1)


@pytest.mark.parametrize(
    ("limits", "code", "counted"),
    [
        (ReplayLimits(max_record_work=2), "stage_error", [(1, 1, 0), (1, 1, 0), (1, 0, 1)]),
        (ReplayLimits(max_work=4), "limit.work", [(2, 2, 0), (2, 1, 0), (1, 1, 0)]),
        (ReplayLimits(max_work=6), None, [(2, 2, 0), (2, 2, 0), (2, 2, 0)]),
    ],
)
def test_identity_stages_stop_exactly_at_work_limit(
    tmp_path: Path, ring: MakeRing, limits: ReplayLimits, code: str | None, counted: list[tuple[int, int, int]]
) -> None:
    journals = {"in": [Record(1, 1, b"x"), Record(2, 2, b"y")]}
    branched = graph("in>a in>b a>c b>out c>out")  # this graph has no straight path, so each stage is called

    for spec in (ring("identity", "identity", "identity"), graph("in>s0 s0>s1 s1>s2 s2>out")):
        outcome = run(bundle_of(tmp_path, spec, journals), limits=limits)
        stages = [(each["in"], each["out"], each["errors"]) for each in outcome.result["stages"].values()]
        assert (outcome.error_code, stages) == (code, counted)
    assert run(bundle_of(tmp_path, branched, journals), limits=limits).error_code == code


def test_unfed_egresses_are_same_for_name_of_ingress_and_name_of_its_lane() -> None:
    spec = graph("ina>s inb>t s>outa t>outb")
    assert isinstance(spec.model, LaneGraph)
    lane = spec.model.lanes[next(end.lane for end in spec.model.endpoints if end.name == "ina")].name

    assert lane != "ina"
    assert unfed_egresses(spec, ["ina"]) == unfed_egresses(spec, [lane]) == {"outb"}
