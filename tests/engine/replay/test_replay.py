"""Tests of replays: results, limits, side effects and determinism."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from byteor.engine.compiler import Endpoint, GraphLane, LaneGraph, PipelineSpec, encode, spec_hash
from byteor.engine.replay import (
    Decision,
    Frame,
    OutcomeStatus,
    Record,
    ReplayLimits,
    ReplayMode,
    encode_journal,
    frames_digest,
    trace,
)
from tests.engine.replay.replays import HOOK, RECORDS, MakeBundle, MakeRing, frames, run, sha

CONFIG = {"s1": {"schema": {"required": ["bid"]}, "rules": ["user:hash"]}}
ANN = "cec78459472eed8b9f4625f155fd705ad906eae5352a769f5c9a4a075ab7e75e"  # the SHA-256 of "ann" with quotes
OUTPUTS = [Frame(1, f'{{"bid":1,"user":"{ANN}"}}'.encode()), Frame(3, b'{"bid":3}')]


@pytest.fixture
def spec(ring: MakeRing) -> PipelineSpec:
    return ring("identity", "dataguard_fused", HOOK)


def test_replay_outcome_contains_result_audit_and_frames(bundle: MakeBundle, spec: PipelineSpec) -> None:
    incident = bundle(spec, RECORDS, expected={"out": frames(*OUTPUTS)}, stage_config=CONFIG)

    outcome = run(incident, stage_config=incident.stage_config)

    assert (outcome.status, outcome.error, outcome.warnings) == (OutcomeStatus.SUCCEEDED, None, ())
    assert outcome.result == {
        "egress": {"out": {"records": 2, "sha256": frames_digest(OUTPUTS)}},
        "stages": {
            "s0": {"in": 3, "out": 3, "dropped": 0, "errors": 0, "drops": {}},
            "s1": {
                "in": 3,
                "out": 2,
                "dropped": 1,
                "errors": 0,
                "drops": {"schema": {"count": 1, "first_sequence": 2}},
            },
            "s2": {"in": 2, "out": 2, "dropped": 0, "errors": 0, "drops": {}},
        },
        "divergence": None,
        "reproduced": None,
        "notes": [],
    }
    assert outcome.egress_frames == {"out": frames(*OUTPUTS)}
    action = {
        "action": "http_post",
        "role": "s2",
        "input_lane": "in",
        "output_lane": "out",
        "stage": "s2",
        "target": "http://127.0.0.1:9000/hook",
        "decision": "DryRunOnly",
    }
    assert outcome.audit == {
        "audit_v": 1,
        "created_unix_ms": 1_700_000_000_000,
        "bundle_dir": "/b",
        "spec_sha256": spec_hash(encode(spec)),
        "input": {
            "journal_lane": "in",
            "journal_path": "journal/in.bin",
            "last_n": None,
            "scanned_records": 3,
            "selected_bytes": 47,
            "sample_sha256": [f"sha256:{sha256(record.payload).hexdigest()}" for record in RECORDS],
        },
        "policy": {"env": "dev", "approval_provided": False, "mode": "dry_run"},
        "actions": [action, action],
    }
    json.dumps([outcome.audit, outcome.result])  # does not raise, because both are JSON data


def test_records_of_ingress_run_in_sequence_order_and_last_n_selects_last(bundle: MakeBundle, ring: MakeRing) -> None:
    numbers = [5, 1, 4, 2, 3, 3]
    records = [Record(number, at, b"%d.%d" % (number, at)) for at, number in enumerate(numbers)]
    ordered = [Frame(n, b"%d.%d" % (n, at)) for n, at in ((1, 1), (2, 3), (3, 4), (3, 5), (4, 2), (5, 0))]
    incident = bundle(ring("identity"), records, expected={"out": frames(*ordered)})

    assert run(incident).egress_frames == {"out": frames(*ordered)}

    last = run(incident, last_n=2)
    assert last.status == "succeeded"  # the expected frames of earlier records are ignored
    assert last.egress_frames == {"out": frames(*ordered[-2:])}
    assert last.audit["input"]["last_n"] == 2
    assert (last.audit["input"]["scanned_records"], last.audit["input"]["selected_bytes"]) == (6, 6)
    assert run(incident, last_n=100).result == run(incident).result


def test_audit_contains_hashes_of_first_16_selected_records(bundle: MakeBundle, ring: MakeRing) -> None:
    records = [Record(number, 0, b"%d" % number) for number in range(20)]

    outcome = run(bundle(ring("identity"), records), last_n=18)

    assert outcome.audit["input"]["sample_sha256"] == [sha(b"%d" % number) for number in range(2, 18)]


def test_replay_of_empty_journal_has_no_output(bundle: MakeBundle, ring: MakeRing) -> None:
    outcome = run(bundle(ring("identity")), last_n=3)

    assert outcome.status == "succeeded"
    assert outcome.result["egress"] == {"out": {"records": 0, "sha256": frames_digest([])}}


def test_stage_error_fails_replay_and_names_stage_and_record(bundle: MakeBundle, ring: MakeRing) -> None:
    config = {"s0": {"schema": {"required": ["bid"]}, "on_reject": "stop"}}
    incident = bundle(ring("dataguard_check"), RECORDS, expected={"out": frames(Frame(1, RECORDS[0].payload))})

    outcome = run(incident, stage_config=config)

    assert outcome.status == "failed"
    assert outcome.error == ("stage 's0' failed on record 2: payload rejected: does not conform to the schema")
    assert outcome.result == {
        "egress": {"out": {"records": 1, "sha256": frames_digest([Frame(1, RECORDS[0].payload)])}},
        "stages": {"s0": {"in": 2, "out": 1, "dropped": 0, "errors": 1, "drops": {}}},
        "divergence": None,
        "reproduced": None,
        "notes": [],
    }


def test_torn_journal_tail_causes_warning(bundle: MakeBundle, ring: MakeRing) -> None:
    outcome = run(bundle(ring("identity"), encode_journal(RECORDS[:2])[:-1]))

    assert outcome.status == "succeeded"
    assert outcome.warnings == ("journal/in.bin: torn tail: the record at offset 57 is cut off",)
    assert outcome.result["egress"]["out"]["records"] == 1


def bad_crc() -> bytes:
    journal = bytearray(encode_journal(RECORDS))
    journal[40] ^= 1
    return bytes(journal)


@pytest.mark.parametrize(
    ("options", "journal", "expected", "error"),
    [
        ({}, bad_crc(), None, "journal/in.bin: bad CRC of record 1 at offset 8"),
        ({}, b"BYT", None, "journal/in.bin: no BYTJ journal header at offset 0"),
        (
            {},
            RECORDS,
            {"out": b"\x01\0"},
            "expected/out.bin: frame is cut off or too long at offset 0",
        ),
        ({"journal_lane": "x"}, RECORDS, None, "the bundle has no journal of lane 'x'; its journals are: in"),
        ({"journal_lane": "../in"}, RECORDS, None, "the bundle has no journal of lane '../in'; its journals are: in"),
        ({"last_n": 0}, RECORDS, None, "last_n must be at least 1"),
        ({"stage_config": {"s0": 5}}, RECORDS, None, "parameters of stage 's0': not an object"),
        ({"limits": ReplayLimits(max_records=2)}, RECORDS, None, "the journals have more than 2 records"),
        ({"limits": ReplayLimits(max_selected_bytes=46)}, RECORDS, None, "the input has 47 bytes, more than 46"),
        ({"limits": ReplayLimits(max_actions=2)}, RECORDS, None, "the records cause more than 2 side effects"),
    ],
)
def test_bad_input_or_exceeded_limit_fails_replay(
    bundle: MakeBundle, ring: MakeRing, *, options: Any, journal: Any, expected: Any, error: str
) -> None:
    outcome = run(bundle(ring("identity", HOOK), journal, expected=expected), **options)

    assert (outcome.status, outcome.error) == ("failed", error)
    assert len(outcome.audit["actions"]) <= 2


def test_replay_exactly_at_its_limits_succeeds(bundle: MakeBundle, ring: MakeRing) -> None:
    incident = bundle(ring(HOOK), RECORDS)

    assert run(incident, limits=ReplayLimits(max_actions=3, max_selected_bytes=47, max_records=3)).error is None


def test_default_limits_are_10000_actions_and_128_mib() -> None:
    assert (ReplayLimits().max_actions, ReplayLimits().max_selected_bytes) == (10_000, 128 * 1024 * 1024)


def test_frames_of_large_egress_are_not_kept(bundle: MakeBundle, ring: MakeRing) -> None:
    incident = bundle(ring("identity"), RECORDS)
    size = len(frames(*(Frame(record.sequence, record.payload) for record in RECORDS)))

    assert run(incident, limits=ReplayLimits(max_egress_bytes=size)).egress_frames["out"] is not None
    for less in (size - 1, 0):
        small = run(incident, limits=ReplayLimits(max_egress_bytes=less))
        assert small.egress_frames == {"out": None}
        assert small.result == run(incident).result


class OneStageEffects:
    """Effects that allow only the stage s0, and record the performed side effects."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str, bytes]] = []

    def decide(self, stage: str, op: str) -> Decision:
        return Decision.ALLOW if stage == "s0" else Decision.DENY

    def perform(self, stage: str, op: str, payload: bytes) -> None:
        self.done.append((stage, op, payload))


def test_execute_performs_allowed_side_effects_and_has_same_result_as_dry_run(
    bundle: MakeBundle, ring: MakeRing
) -> None:
    incident, effects = bundle(ring(HOOK, "exec:cat|-"), RECORDS[:1]), OneStageEffects()

    outcome = run(incident, mode=ReplayMode.EXECUTE, effects=effects, approval_provided=True)

    assert effects.done == [("s0", HOOK, RECORDS[0].payload)]
    assert outcome.audit["policy"] == {"env": "dev", "approval_provided": True, "mode": "execute"}
    actions = [(a["action"], a["target"], a["decision"]) for a in outcome.audit["actions"]]
    assert actions == [("http_post", "http://127.0.0.1:9000/hook", "Allow"), ("exec", "cat|-", "Deny")]
    assert outcome.result == run(incident).result


def test_dry_run_opens_no_connection_and_starts_no_program(
    bundle: MakeBundle, ring: MakeRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_arguments: object, **_options: object) -> None:
        raise AssertionError("a dry run has no side effects")

    incident = bundle(ring(HOOK, "exec:/bin/true|x"), RECORDS)
    for module, name in ((socket, "socket"), (subprocess, "Popen"), (os, "fork"), (os, "posix_spawn"), (os, "system")):
        monkeypatch.setattr(module, name, forbidden)

    assert run(incident).status == "succeeded"
    assert len(run(incident).audit["actions"]) == 6
    assert len(trace(incident, 1)["records"][0]["steps"]) == 4


def test_lane_can_be_chosen_when_graph_has_several_ingresses(bundle: MakeBundle, ring: MakeRing) -> None:
    ends = (Endpoint("in", "ingress", 0), Endpoint("too", "ingress", 1), Endpoint("out", "egress", 0))
    lanes = (GraphLane("in.out", "events"), GraphLane("too.x", "events"))
    incident = bundle(PipelineSpec("fan", LaneGraph("block", lanes, ends, ())), RECORDS)

    assert run(incident).result["egress"]["out"]["records"] == 3
    assert run(incident, journal_lane="in").result["egress"]["out"]["records"] == 3
    one = replace(incident, spec=PipelineSpec("fan", LaneGraph("block", lanes, (ends[0], ends[2]), ())))
    assert run(one).result["egress"]["out"]["records"] == 3


PROGRAM = """
import json, sys
from pathlib import Path
from byteor.engine.replay import replay, validate_incident
bundle = validate_incident(Path(sys.argv[1]))
outcome = replay(bundle, stage_config=bundle.stage_config, created_unix_ms=0, bundle_dir="", policy_env="")
sys.stdout.write(json.dumps(outcome.result) + repr(outcome.egress_frames))
"""


def test_replays_do_not_depend_on_hash_seed_time_zone_or_locale(
    bundle: MakeBundle, spec: PipelineSpec, tmp_path: Path
) -> None:
    records = [
        Record(number, 0, json.dumps({"bid": number, "b": {}, "a": [1.5], "user": "x" * number}).encode())
        for number in range(20)
    ]
    bundle(spec, records, expected={"out": b"", "other": frames(Frame(9, b"9"))}, stage_config=CONFIG)

    outputs = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "bundle")],
            env={"PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": locale, "PYTHONPATH": str(Path.cwd())},
            check=True,
            capture_output=True,
        ).stdout
        for seed, zone, locale in (("0", "UTC", "C"), ("1", "Asia/Tokyo", "C.UTF-8"), ("4242", "America/Lima", "tr_TR"))
    }

    assert len(outputs) == 1
    assert b'"divergence": {"egress": "out", "sequence": 0, "kind": "extra"' in outputs.pop()


@pytest.mark.parametrize(
    ("limits", "code", "error"),
    [
        (ReplayLimits(max_work=5), "limit.work", "the replay needs more than 5 units of work"),
        (ReplayLimits(max_actions=2), "limit.actions", "the records cause more than 2 side effects"),
        (ReplayLimits(max_records=2), "limit.records", "the journals have more than 2 records"),
        (ReplayLimits(max_selected_bytes=46), "limit.input", "the input has 47 bytes, more than 46"),
        (
            ReplayLimits(max_record_work=1),
            "stage_error",
            "stage 's1' failed on record 1: limit: the record costs more than 1 units of work",
        ),
    ],
)
def test_failed_replay_names_exceeded_limit(
    bundle: MakeBundle, ring: MakeRing, limits: ReplayLimits, code: str, error: str
) -> None:
    incident = bundle(ring("identity", HOOK), RECORDS)  # two units of work for each of three records

    first, second = run(incident, limits=limits), run(incident, limits=limits)

    assert (first.status, first.error_code, first.error) == ("failed", code, error)
    assert first.result == second.result


def test_replay_exactly_at_its_work_limits_succeeds(bundle: MakeBundle, ring: MakeRing) -> None:
    outcome = run(bundle(ring("identity", HOOK), RECORDS), limits=ReplayLimits(max_work=6, max_record_work=2))

    assert (outcome.error, outcome.error_code) == (None, None)
    assert (ReplayLimits().max_record_work, ReplayLimits().max_work) == (10**7, 10**10)
