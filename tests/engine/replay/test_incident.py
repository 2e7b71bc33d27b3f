"""Tests of building and checking incident bundles."""

import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from byteor.engine.compiler import PipelineSpec, encode, spec_hash
from byteor.engine.replay import Record, encode_journal, incident
from byteor.engine.replay.incident import (
    RejectedBundle,
    RejectionReason,
    build_incident,
    extract_incident,
    validate_incident,
)

type MakeRing = Callable[..., PipelineSpec]
type Documents = dict[str, dict[str, Any]]


# --- building and checking


def write(root: Path, spec_kv: str, documents: Documents, **content: Any) -> None:
    extract_incident(io.BytesIO(build_incident(spec_kv, documents, **content)), root)


def test_built_bundle_is_valid(root: Path, ring: MakeRing, documents: Documents) -> None:
    spec = ring("identity")
    documents["runtime_config.json"] = {"stage_config": {"s0": {"x": 1}}, "env": {}}
    documents["unknown.json"] = {"passes": True}
    journal = encode_journal([Record(1, 2, b"3")])

    write(root, encode(spec), documents, journals={"in": journal, "a:fanout": b""}, expected={"out": b""})
    found = validate_incident(root)

    assert (found.spec, found.spec_hash) == (spec, spec_hash(encode(spec)))
    assert found.stage_config == {"s0": {"x": 1}}
    assert found.documents == {name: body for name, body in documents.items() if name != "unknown.json"}
    assert found.journals == {"a:fanout": root / "journal/a:fanout.bin", "in": root / "journal/in.bin"}
    assert found.journals["in"].read_bytes() == journal
    assert found.expected == {"out": root / "expected/out.bin"}


def test_bundle_with_highly_compressible_journal_can_be_unpacked(
    root: Path, ring: MakeRing, documents: Documents
) -> None:
    journal = encode_journal(Record(number, number, b"the same" * 10_000) for number in range(50))
    regular = encode_journal([Record(1, 1, b"irregular")])

    large, small = (
        build_incident(encode(ring("identity")), documents, journals={"in": each}) for each in (journal, regular)
    )
    extract_incident(io.BytesIO(large), root)

    assert (root / "journal/in.bin").read_bytes() == journal
    assert len(large) > len(journal) > 1_048_576 > len(small)


@pytest.mark.parametrize("change", ["unknown", "reordered", "no newline"])
def test_non_canonical_spec_is_rejected(root: Path, ring: MakeRing, documents: Documents, change: str) -> None:
    kv = encode(ring("identity"))
    lines = kv.splitlines(keepends=True)
    changed = {"unknown": kv + "unknown.key=1\n", "reordered": "".join(reversed(lines)), "no newline": kv[:-1]}

    write(root, changed[change], documents)

    assert [reason.code for reason in reasons(root)] == ["bad_spec"]
    (root / "spec.kv").write_text(kv)
    assert validate_incident(root).spec_hash == spec_hash(kv)


@pytest.mark.parametrize(
    ("name", "values", "detail"),
    [
        ("spec_validation.json", {"ok": "yes"}, "ok must be true, false or null"),
        ("policy_audit.json", {"ok": 1}, "ok must be true, false or null"),
        ("environment.json", {"env": {}}, "env must be a list of pairs or null"),
        ("environment.json", {"env": [["a"]]}, "env must be a list of pairs or null"),
        ("outcome.json", {"stopped": {}}, "stopped must be null, or have stage, sequence and error"),
        ("outcome.json", {"stopped": "s0"}, "stopped must be null, or have stage, sequence and error"),
        (
            "outcome.json",
            {"stopped": {"stage": "s0", "sequence": "1", "error": None}},
            "stopped has a value of the wrong type",
        ),
    ],
)
def test_document_with_invalid_value_is_rejected(
    root: Path, ring: MakeRing, documents: Documents, name: str, values: dict[str, Any], detail: str
) -> None:
    write(root, encode(ring("identity")), documents | {name: documents.get(name, {}) | values})

    assert reasons(root) == [RejectionReason("bad_value", f"{name}: {detail}")]


def test_outcome_without_stopped_member_is_rejected(root: Path, ring: MakeRing, documents: Documents) -> None:
    write(root, encode(ring("identity")), documents | {"outcome.json": {}})
    assert reasons(root) == [RejectionReason("missing_key", "outcome.json: stopped")]

    for stopped in (None, {"stage": "s0", "sequence": 1, "error": None, "ingress": "in"}):
        (root / "outcome.json").write_text(json.dumps({"stopped": stopped}))
        assert validate_incident(root).documents["outcome.json"] == {"stopped": stopped}


def test_bundle_with_only_required_files_and_null_values_is_valid(
    root: Path, ring: MakeRing, documents: Documents
) -> None:
    nulls: Documents = {
        name: dict.fromkeys(body) | {"more": 1} for name, body in documents.items() if name != "spec_validation.json"
    }
    nulls["spec_validation.json"] = {"ok": False, "error": "why"}

    write(root, encode(ring("identity")), nulls)
    found = validate_incident(root)

    assert (found.stage_config, found.journals, found.expected) == (None, {}, {})


@pytest.mark.parametrize("runtime_config", [{}, {"stage_config": None}, {"stage_config": {}}])
def test_runtime_config_without_parameters_has_empty_stage_config(
    root: Path, ring: MakeRing, documents: Documents, runtime_config: dict[str, Any]
) -> None:
    write(root, encode(ring("identity")), documents | {"runtime_config.json": runtime_config})

    assert validate_incident(root).stage_config == {}


def test_build_returns_same_bytes_for_equal_content(ring: MakeRing, documents: Documents) -> None:
    shuffled = {name: dict(reversed(body.items())) for name, body in reversed(documents.items())}
    once = build_incident(encode(ring("identity")), documents, journals={"a": b"1", "b": b"2"})

    assert build_incident(encode(ring("identity")), shuffled, journals={"b": b"2", "a": b"1"}) == once


def reasons(root: Path) -> list[RejectionReason]:
    with pytest.raises(RejectedBundle) as caught:
        validate_incident(root)
    return caught.value.reasons


def test_several_bundle_faults_are_reported_together(root: Path) -> None:
    (root / "spec.kv").write_text("spec.v=2\n")
    (root / "spec_validation.json").write_text("{}")
    (root / "runtime.json").write_text('{"crate": {"name": "x"}}')
    (root / "policy_audit.json").write_text(
        '{"ok": "yes", "policy_version": 2, "mode": 1, "stage_failure_policy": "retry", "spec_path": 1}'
    )
    (root / "lane_graph_state.json").write_text("[")
    (root / "single_ring_snapshot.json").write_text("[]")
    (root / "runtime_config.json").write_text('{"stage_config": []}')

    found = reasons(root)

    assert found[0].code == "bad_spec"
    assert found[0].detail.startswith("spec.kv: line ")
    assert found[1:] == [
        RejectionReason("missing_file", "environment.json"),
        RejectionReason("bad_json", "single_ring_snapshot.json: line 1, column 1: The value must be a JSON object."),
        RejectionReason("bad_json", 'lane_graph_state.json: line 1, column 2: Expected a value or "]".'),
        RejectionReason("missing_key", "spec_validation.json: ok"),
        RejectionReason("missing_key", "spec_validation.json: description|error"),
        RejectionReason("missing_key", "runtime.json: crate.version"),
        RejectionReason("missing_key", "policy_audit.json: enforced"),
        RejectionReason("bad_value", "policy_audit.json: policy_version must be 1"),
        RejectionReason("bad_value", "policy_audit.json: stage_failure_policy must be 'stop_pipeline'"),
        RejectionReason("bad_value", "policy_audit.json: ok must be true, false or null"),
        RejectionReason("bad_value", "runtime_config.json: stage_config must be an object or null"),
    ]


def test_empty_folder_lacks_all_required_files(root: Path) -> None:
    assert reasons(root) == [
        RejectionReason("missing_file", name)
        for name in (
            "spec.kv",
            "spec_validation.json",
            "runtime.json",
            "policy_audit.json",
            "environment.json",
        )
    ]


@pytest.mark.parametrize("text", [b"", b"\xff", b"[" * 10**6, b"1" * 5000, b"{} {}"])
def test_malformed_document_is_rejected(root: Path, ring: MakeRing, documents: Documents, text: bytes) -> None:
    write(root, encode(ring("identity")), documents)
    (root / "environment.json").write_bytes(text)

    (reason,) = reasons(root)

    assert (reason.code, reason.detail.split(":")[0]) == ("bad_json", "environment.json")


def test_missing_keys_are_reported_if_crate_in_runtime_json_is_not_object(
    root: Path, ring: MakeRing, documents: Documents
) -> None:
    write(root, encode(ring("identity")), documents | {"runtime.json": {"crate": "x"}})

    assert reasons(root) == [
        RejectionReason("missing_key", "runtime.json: crate.name"),
        RejectionReason("missing_key", "runtime.json: crate.version"),
    ]


def test_document_over_size_limit_is_rejected(
    root: Path, ring: MakeRing, documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root, encode(ring("identity")), documents)
    size = max((root / name).stat().st_size for name in [*documents, "spec.kv"])
    monkeypatch.setattr(incident, "_MAX_DOCUMENT", size)
    validate_incident(root)

    monkeypatch.setattr(incident, "_MAX_DOCUMENT", 10)
    assert reasons(root) == [
        RejectionReason("too_large", f"{name}: larger than 10 bytes") for name in ("spec.kv", *documents)
    ]


def test_folder_with_name_of_file_does_not_count_as_file(root: Path, ring: MakeRing, documents: Documents) -> None:
    write(root, encode(ring("identity")), documents)
    (root / "journal/in.bin").mkdir(parents=True)
    (root / "environment.json").unlink()
    (root / "environment.json").mkdir()

    assert reasons(root) == [RejectionReason("missing_file", "environment.json")]
    (root / "environment.json").rmdir()
    (root / "environment.json").write_text(json.dumps(documents["environment.json"]))
    assert validate_incident(root).journals == {}


GOLDEN = Path(__file__).parent / "golden"


def test_bundle_from_earlier_release_is_valid(root: Path) -> None:
    with (GOLDEN / "incident.tar.gz").open("rb") as source:
        extract_incident(source, root)

    found = validate_incident(root)

    assert found.spec_hash == (GOLDEN / "incident.spec_hash").read_text().strip()
    assert list(found.journals) == ["in"]
    assert list(found.expected) == ["out"]


def test_document_with_too_many_values_is_rejected_within_limited_memory(
    root: Path, ring: MakeRing, documents: Documents
) -> None:
    write(root, encode(ring("identity")), documents)
    poison = b'{"a":[' + b"[]," * 1_000_000 + b"[]]}"
    (root / "environment.json").write_bytes(poison)

    tracemalloc.start()
    (reason,) = reasons(root)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert (reason.code, reason.detail.split(":")[0]) == ("too_large", "environment.json")
    assert peak < 3 * len(poison)
