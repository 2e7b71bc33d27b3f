"""Tests of ``byteor-agent replay``, which prints the result of a dry run, or a trace, without a server."""

import json
from pathlib import Path
from typing import Any

import pytest

from byteor.agent.cli import main
from byteor.engine.compiler import PipelineSpec, RingStage, SingleRing, encode
from byteor.engine.replay import Frame, Record, build_incident, encode_frame, encode_journal, frames_digest

DOCUMENTS: dict[str, dict[str, Any]] = {
    "spec_validation.json": {"ok": True, "description": None},
    "runtime.json": {"crate": None},
    "policy_audit.json": dict.fromkeys(
        ("ok", "policy_version", "mode", "enforced", "stage_failure_policy", "spec_path")
    ),
    "environment.json": dict.fromkeys(("pid", "cwd", "args", "env", "proc_status")),
    "runtime_config.json": {"stage_config": {"s0": {"schema": {"required": ["a"]}}}},
    "outcome.json": {"stopped": None},
}
RECORDS = [Record(1, 1, b'{"a":1}'), Record(2, 2, b"{}")]


def spec_kv(op: str) -> str:
    return encode(
        PipelineSpec("q", SingleRing("in", "out", 1, "strict", "single", "dedicated", None, (RingStage("s0", op),)))
    )


@pytest.fixture
def incident(tmp_path: Path) -> Path:
    path = tmp_path / "incident.tar.gz"
    path.write_bytes(
        build_incident(
            spec_kv("dataguard_check"),
            DOCUMENTS,
            journals={"in": encode_journal(RECORDS)},
            expected={"out": encode_frame(Frame(1, b'{"a":1}'))},
        )
    )
    return path


def test_replay_prints_result(incident: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(incident)]) == 0

    assert json.loads(capsys.readouterr().out) == {
        "egress": {"out": {"records": 1, "sha256": frames_digest([Frame(1, b'{"a":1}')])}},
        "stages": {
            "s0": {"in": 2, "out": 1, "dropped": 1, "errors": 0, "drops": {"schema": {"count": 1, "first_sequence": 2}}}
        },
        "divergence": None,
        "reproduced": True,
        "notes": [],
    }


def test_replay_through_diverging_version_exits_1(
    incident: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.kv").write_text(spec_kv("identity"))

    assert main(["replay", str(incident), "--version", str(tmp_path / "other.kv")]) == 1

    printed = capsys.readouterr()
    assert json.loads(printed.out)["divergence"]["sequence"] == 2
    assert printed.err == "byteor-agent: the output diverges at egress 'out', sequence 2: extra\n"


def test_parameters_of_another_op_are_not_used_for_stage(
    incident: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.kv").write_text(spec_kv("dataguard_redact"))

    assert main(["replay", str(incident), "--version", str(tmp_path / "other.kv")]) == 1

    notes = json.loads(capsys.readouterr().out)["notes"]
    assert notes == [{"code": "no_parameters", "name": "s0", "count": 2}]


def test_trace_prints_steps_of_record(incident: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(incident), "--trace", "2"]) == 0
    (record,) = json.loads(capsys.readouterr().out)["records"]
    assert record["steps"][-1]["dropped"] == "schema"

    assert main(["replay", str(incident), "--trace", "7"]) == 1
    assert "found no record with sequence number 7" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--last-n", "0"], 1, "last_n must be at least 1"),
        (["--journal-lane", "x"], 1, "the bundle has no journal of lane 'x'"),
        (["--trace", "1", "--journal-lane", "x"], 2, "the bundle has no journal of lane 'x'"),
        (["--version", "/nowhere"], 1, "No such file"),
    ],
)
def test_invalid_replay_arguments_print_reason(
    incident: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, text: str
) -> None:
    assert main(["replay", str(incident), *arguments]) == code
    assert text in capsys.readouterr().err


def test_number_of_records_cannot_be_limited_in_trace(incident: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["replay", str(incident), "--trace", "1", "--last-n", "1"])

    assert "--last-n: not allowed with argument --trace" in capsys.readouterr().err


def test_malformed_bundle_or_spec_exits_2(incident: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text").write_text("text")

    assert main(["replay", str(tmp_path / "text")]) == 2
    assert "not_an_archive" in capsys.readouterr().err
    assert main(["replay", str(incident), "--version", str(tmp_path / "text")]) == 2
    assert "line 1" in capsys.readouterr().err
